"""How often each class occurs, as a frozen value."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from steelyard._errors import describe, refuse
from steelyard.counts import _table
from steelyard.counts._check import LARGEST_TOTAL, Label, check_labels, whole_numbers

__all__ = ["ClassCounts", "Label", "as_class_counts", "imbalance_ratio"]


class ClassCounts:
    r"""How often each class occurs: a frozen value that adds, prints, compares and saves.

    Every remedy for imbalance starts from these numbers. Keep them with the model: they are the training prior that the
    probabilities have to be judged against later.

    Single-label data has one class per row, and ``counts`` adds up to ``total``. Multi-label data asks one yes/no
    question per class and row: ``counts`` are then the positives, ``negatives`` stand beside them, and ``total`` is the
    number of rows.

    Args:
        classes: The labels as the data has them, unique, of one kind (int, str, bool, or whole float), ``C`` of them.
        counts: Samples (for multi-label data: positives) per class, whole, zero or more, ``(C,)``. Copied.
        negatives: For multi-label data, negatives per class, whole, zero or more, ``(C,)``. Copied.
        total: For multi-label data, the number of rows, at least positives + negatives of any class. It may be left out
            where positives + negatives is the same for all classes.

    Raises: TypeError: labels of mixed kinds. ValueError: negative, fractional or no counts, or lengths that differ.

    Example:
        >>> counts = ClassCounts(["cat", "dog"], [30, 10])
        >>> counts.total, counts.imbalance_ratio, counts.majority_accuracy
        (40, 3.0, 0.75)
        >>> counts.prior
        tensor([0.7500, 0.2500], dtype=torch.float64)
        >>> print(counts + ClassCounts(["dog", "eel"], [5, 1]))
        class  count    share  largest/count
        cat       30  65.22 %           1.00
        dog       15  32.61 %           2.00
        eel        1   2.17 %          30.00
        3 classes, 46 rows, 30 : 1; always answering 'cat' is right 65.22 % of the time
    """

    __slots__ = ("_classes", "_counts", "_negatives", "_total")
    _classes: tuple[Label, ...]
    _counts: np.ndarray
    _negatives: np.ndarray | None
    _total: int

    def __init__(
        self, classes: Iterable[Label], counts: Any, *, negatives: Any = None, total: int | None = None
    ) -> None:
        labels = tuple(classes)
        check_labels("ClassCounts", "classes", labels)
        array = whole_numbers("ClassCounts", "counts", counts)
        _check_length("counts", array, labels)
        others: np.ndarray | None = None
        if negatives is None:
            if total is not None:
                refuse("ClassCounts", "total", "None for single-label counts, whose total is their sum", total)
            rows = int(array.sum())
        else:
            others = whole_numbers("ClassCounts", "negatives", negatives)
            _check_length("negatives", others, labels)
            rows = _multilabel_rows(array, others, total)
        self._set(labels, array, others, rows)

    def _set(self, classes: tuple[Label, ...], counts: np.ndarray, negatives: np.ndarray | None, total: int) -> None:
        for name, value in zip(self.__slots__, (classes, counts, negatives, total), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"ClassCounts is frozen: cannot set '{name}'. Make a new one, or add two with +.")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"ClassCounts is frozen: cannot delete '{name}'.")

    def __reduce__(self) -> tuple[Any, ...]:
        if self._negatives is None:
            return ClassCounts, (self._classes, self._counts.tolist())
        return _multilabel, (self._classes, self._counts.tolist(), self._negatives.tolist(), self._total)

    # What was counted. Tensors are fresh copies: writing into one changes nothing here.

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels as the data has them, in the order of ``counts``."""
        return self._classes

    @property
    def counts(self) -> torch.Tensor:
        """Samples per class (multi-label: positives), int64, ``(C,)``."""
        return torch.from_numpy(self._counts.copy())

    @property
    def total(self) -> int:
        """Number of rows that were counted."""
        return self._total

    @property
    def positives(self) -> torch.Tensor:
        """Rows that have the class, int64, ``(C,)``: the same numbers as ``counts``."""
        return self.counts

    @property
    def negatives(self) -> torch.Tensor:
        """Rows known not to have the class, int64, ``(C,)``; for single-label data, the rows of all other classes."""
        return torch.from_numpy(self._total - self._counts if self._negatives is None else self._negatives.copy())

    @property
    def num_classes(self) -> int:
        """Number of classes, those without samples included."""
        return len(self._classes)

    @property
    def is_multilabel(self) -> bool:
        """Whether each class is a yes/no question of its own."""
        return self._negatives is not None

    # What follows from it.

    @property
    def prior(self) -> torch.Tensor:
        """Share of each class, positives / (positives + negatives), float64, ``(C,)``; NaN if nothing was counted."""
        return self.positives.double() / (self.positives + self.negatives)

    @property
    def imbalance_ratio(self) -> float:
        """The largest count over the smallest: see :func:`steelyard.imbalance_ratio`."""
        if self._total == 0:
            return math.nan
        larger, smaller = self._counts.max(keepdims=True), self._counts.min(keepdims=True)
        if self._negatives is not None:
            larger, smaller = np.maximum(self._counts, self._negatives), np.minimum(self._counts, self._negatives)
        ratios = [
            big / small if small else math.inf for big, small in zip(larger.tolist(), smaller.tolist(), strict=True)
        ]
        return max(ratios)

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of always giving the commonest answer, in [0, 1]; for multi-label data, the mean over classes."""
        if self._total == 0:
            return math.nan
        if self._negatives is None:
            return int(self._counts.max()) / self._total
        known = self._counts + self._negatives
        return float((np.maximum(self._counts, self._negatives)[known > 0] / known[known > 0]).mean())

    def is_imbalanced(self, threshold: float = 10) -> bool:
        """Whether the imbalance ratio reaches ``threshold`` (at least 1); below 10 : 1 most losses cope unaided."""
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            refuse("is_imbalanced", "threshold", "a number of at least 1", describe(threshold), error=TypeError)
        if not threshold >= 1:
            refuse("is_imbalanced", "threshold", "a number of at least 1", threshold)
        return self.imbalance_ratio >= threshold

    # A value: equal, hashable, addable.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassCounts):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        negatives = None if self._negatives is None else self._negatives.tobytes()
        kind = type(self._classes[0])  # True == 1 == 1.0 in Python, but they are not the same label
        return kind, self._classes, self._counts.tobytes(), negatives, self._total

    def __add__(self, other: object) -> ClassCounts:
        """The counts of both together, class by class; classes that only one of them has are kept, and sorted in."""
        if not isinstance(other, ClassCounts):
            return NotImplemented
        if self.is_multilabel != other.is_multilabel:
            kinds = {True: "multi-label", False: "single-label"}
            refuse("ClassCounts.__add__", "other", kinds[self.is_multilabel], f"{kinds[other.is_multilabel]} counts")
        mine, theirs = type(self._classes[0]), type(other._classes[0])
        if mine is not theirs:
            refuse(
                "ClassCounts.__add__",
                "other",
                f"counts of {mine.__name__} labels",
                f"{theirs.__name__} labels",
                error=TypeError,
            )
        if self._total + other._total >= LARGEST_TOTAL:
            refuse(
                "ClassCounts.__add__",
                "other",
                "so small that the total stays below 2**62",
                f"{self._total} + {other._total}",
            )
        classes = self._classes
        if classes != other._classes:
            classes = tuple(sorted({*classes, *other._classes}))
        counts = self._spread(self._counts, classes) + other._spread(other._counts, classes)
        if self._negatives is None or other._negatives is None:
            return ClassCounts(classes, counts)
        negatives = self._spread(self._negatives, classes) + other._spread(other._negatives, classes)
        return ClassCounts(classes, counts, negatives=negatives, total=self._total + other._total)

    def __radd__(self, other: object) -> ClassCounts:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # so that sum([...]) works

    def _spread(self, values: np.ndarray, classes: tuple[Label, ...]) -> np.ndarray:
        """``values`` of this object's classes, placed where ``classes`` has them."""
        if classes == self._classes:
            return values
        position = {label: index for index, label in enumerate(classes)}
        spread = np.zeros(len(classes), dtype=np.int64)
        spread[[position[label] for label in self._classes]] = values
        return spread

    # Text.

    def __repr__(self) -> str:
        if self.num_classes > _table.ROWS_SHOWN:
            return f"<ClassCounts of {self.num_classes} classes, {self._total} rows>"
        rest = "" if self._negatives is None else f", negatives={self._negatives.tolist()}, total={self._total}"
        return f"ClassCounts({list(self._classes)!r}, {self._counts.tolist()}{rest})"

    def __str__(self) -> str:
        return _table.as_text(self)

    def _repr_html_(self) -> str:
        return _table.as_html(self)

    # JSON.

    def to_json(self) -> str:
        """The counts as a JSON object; :meth:`from_json` reads it back to an equal value."""
        data: dict[str, Any] = {"kind": "steelyard.ClassCounts", "version": 1, "total": self._total}
        data |= {"classes": list(self._classes), "counts": self._counts.tolist()}
        if self._negatives is not None:
            data["negatives"] = self._negatives.tolist()
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> ClassCounts:
        """The value that :meth:`to_json` wrote.

        Raises: TypeError: not a string. ValueError: not JSON, or not the counts of a version that this library knows.
        """
        if not isinstance(text, str | bytes):
            refuse(
                "ClassCounts.from_json",
                "text",
                "a string of JSON",
                text,
                "For a file, use ClassCounts.load.",
                error=TypeError,
            )
        try:
            data = json.loads(text)
        except ValueError as error:
            refuse("ClassCounts.from_json", "text", "JSON", f"text that is not ({error})")
        if not isinstance(data, dict) or data.get("kind") != "steelyard.ClassCounts" or data.get("version") != 1:
            refuse("ClassCounts.from_json", "text", "ClassCounts of version 1, as to_json writes", data)
        missing = {"classes", "counts", "total"} - data.keys()
        if missing or not isinstance(data["classes"], list):
            refuse(
                "ClassCounts.from_json", "text", "ClassCounts with lists 'classes', 'counts' and a number 'total'", data
            )
        if "negatives" in data:
            return cls(data["classes"], data["counts"], negatives=data["negatives"], total=data["total"])
        counts = cls(data["classes"], data["counts"])
        if counts.total != data["total"]:
            refuse("ClassCounts.from_json", "text", "ClassCounts whose 'total' is the sum of 'counts'", data)
        return counts

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to ``path``, whole or not at all: an older file stays as it was if the write fails."""
        goal = Path(path)
        draft = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(self.to_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(goal)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ClassCounts:
        """The value that :meth:`save` wrote to ``path``.

        Raises: FileNotFoundError: no such file. ValueError: a file of something else.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            refuse("ClassCounts.load", "path", "a file that exists", str(path), error=FileNotFoundError)
        except ValueError as error:
            refuse("ClassCounts.load", "path", "a file that ClassCounts.save wrote", f"'{path}', which is not: {error}")


def _multilabel(classes: tuple[Label, ...], counts: list[int], negatives: list[int], total: int) -> ClassCounts:
    return ClassCounts(classes, counts, negatives=negatives, total=total)


def as_class_counts(counts: Any, *, function: str) -> ClassCounts:
    """What a caller gave as ``counts``, as :class:`ClassCounts`; its errors speak as ``function``.

    A 1-d sequence, array or tensor of counts stands for the classes ``0 .. C−1``. Zero counts pass: the caller decides.
    """
    if isinstance(counts, ClassCounts):
        return counts
    array = whole_numbers(function, "counts", counts)
    value = ClassCounts.__new__(ClassCounts)
    value._set(tuple(range(len(array))), array, None, int(array.sum()))
    return value


def imbalance_ratio(counts: Any) -> float:
    r"""How many samples the largest class has for each sample of the smallest.

    The one number to look at first: below about 10 : 1 most losses cope unaided.

    Equals ``max(n) / min(n)``; infinite if a class has no samples, NaN if none has. For multi-label counts, where every
    class is a yes/no question of its own, it is that of the worst question, between its positives and its negatives.

    Args:
        counts: :class:`ClassCounts`, or samples per class, whole, zero or more, ``(C,)``.

    Returns: A float of at least 1.

    Raises: TypeError, ValueError: ``counts`` is neither.

    Example:
        >>> imbalance_ratio([100000, 100, 10])
        10000.0
    """
    return as_class_counts(counts, function="imbalance_ratio").imbalance_ratio


def _check_length(argument: str, array: np.ndarray, labels: tuple[Label, ...]) -> None:
    if len(array) != len(labels):
        refuse("ClassCounts", argument, f"one number per class, {len(labels)} of them", f"{len(array)}")


def _multilabel_rows(positives: np.ndarray, negatives: np.ndarray, total: int | None) -> int:
    known = positives + negatives
    if total is None:
        if (known != known[0]).any():
            refuse("ClassCounts", "total", "given where positives + negatives differ between classes", None)
        return int(known[0])
    if isinstance(total, bool) or not isinstance(total, int | np.integer):
        refuse("ClassCounts", "total", "a whole number of rows", describe(total), error=TypeError)
    if not int(known.max()) <= total < LARGEST_TOTAL:
        refuse("ClassCounts", "total", f"at least {int(known.max())}, the positives + negatives of a class", total)
    return int(total)
