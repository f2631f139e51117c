"""How often each class occurs, as a frozen value."""

from __future__ import annotations

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
from steelyard.counts import _ranks, _saving, _table
from steelyard.counts._check import LARGEST_TOTAL, Label, check_labels, whole_numbers
from steelyard.counts._images import Images, check_images

__all__ = ["ClassCounts", "Label"]


class ClassCounts:
    r"""How often each class occurs: a frozen value that adds, prints, compares and saves.

    Every remedy for imbalance starts from these numbers. Keep them with the model: they are the training prior that the
    probabilities have to be judged against later.

    Single-label data has one class per row, and ``counts`` adds up to ``total``. Multi-label data asks one yes/no
    question per class and row: ``counts`` are then the positives, ``negatives`` stand beside them, and ``total`` is the
    number of rows.

    Labels that belong to images (the pixels of masks, the objects of annotations) are single-label counts that also
    know how many images contain each class, and for masks how large those are.

    ``ClassCounts([], [])`` is the count of nothing: added to another, it changes nothing. No weights follow from it.

    Args:
        classes: The labels as the data has them, unique, of one kind (int, str, bool, or whole float), ``C`` of them.
        counts: Samples (for multi-label data: positives) per class, whole, zero or more, ``(C,)``. Copied.
        negatives: For multi-label data, negatives per class, whole, zero or more, ``(C,)``. Copied.
        total: For multi-label data, the number of rows, at least positives + negatives of any class. It may be left out
            where positives + negatives is the same for all classes.
        images: Images that contain the class, whole, at most its count, ``(C,)``. Copied.
        image_pixels: Pixels of those images that were counted, whichever class they have, whole, ``(C,)``. Copied.
        num_images: All images, those without any label too. It goes with ``images``.

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

    __slots__ = ("_classes", "_counts", "_images", "_negatives", "_total")
    _classes: tuple[Label, ...]
    _counts: np.ndarray
    _negatives: np.ndarray | None
    _total: int
    _images: Images | None

    def __init__(
        self,
        classes: Iterable[Label],
        counts: Any,
        *,
        negatives: Any = None,
        total: int | None = None,
        images: Any = None,
        image_pixels: Any = None,
        num_images: int | None = None,
    ) -> None:
        labels = tuple(classes)
        if (
            not labels
            and _is_empty(counts)
            and all(value is None for value in (negatives, total, images, image_pixels, num_images))
        ):
            self._set((), np.zeros(0, dtype=np.int64), None, 0, None)
            return
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
            if images is not None:
                refuse("ClassCounts", "images", "None for multi-label counts, whose rows are the images", images)
        self._set(labels, array, others, rows, check_images(array, images, image_pixels, num_images))

    def _set(
        self,
        classes: tuple[Label, ...],
        counts: np.ndarray,
        negatives: np.ndarray | None,
        total: int,
        images: Images | None,
    ) -> None:
        for name, value in zip(self.__slots__, (classes, counts, images, negatives, total), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"ClassCounts is frozen: cannot set '{name}'. Make a new one, or add two with +.")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"ClassCounts is frozen: cannot delete '{name}'.")

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._classes, self._counts.tolist(), self._rest())

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

    @property
    def images(self) -> torch.Tensor | None:
        """Images that contain the class, int64, ``(C,)``; None for labels without images."""
        return None if self._images is None else torch.from_numpy(self._images.containing.copy())

    @property
    def image_pixels(self) -> torch.Tensor | None:
        """Pixels of the images that contain the class, int64, ``(C,)``; None unless pixels were counted."""
        pixels = None if self._images is None else self._images.pixels
        return None if pixels is None else torch.from_numpy(pixels.copy())

    @property
    def num_images(self) -> int | None:
        """All images, those without any label too; None for labels without images."""
        return None if self._images is None else self._images.total

    @property
    def kind(self) -> str:
        """What was counted, in words, such as ``"single-label counts of int labels"``: only like can be added."""
        if not self._classes:
            return "counts of nothing"
        form = "multi-label" if self.is_multilabel else "single-label"
        images = "" if self._images is None else f" {self._images.kind}"
        return f"{form} counts of {type(self._classes[0]).__name__} labels{images}"

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
        return self.kind, self._classes, self._counts.tobytes(), self._total, json.dumps(self._rest())

    def _rest(self) -> dict[str, Any]:
        """The arguments besides classes and counts that make this value again."""
        rest: dict[str, Any] = {}
        if self._negatives is not None:
            rest = {"negatives": self._negatives.tolist(), "total": self._total}
        return rest | ({} if self._images is None else self._images.fields())

    def __add__(self, other: object) -> ClassCounts:
        """The counts of both together, class by class; classes that only one of them has are kept, and sorted in."""
        if not isinstance(other, ClassCounts):
            return NotImplemented
        if not self._classes or not other._classes:
            return self if self._classes else other
        if self.kind != other.kind:
            labels = type(self._classes[0]) is not type(other._classes[0])
            error = TypeError if labels else ValueError
            refuse("ClassCounts.__add__", "other", self.kind, other.kind, error=error)
        if self._total + other._total >= LARGEST_TOTAL:
            rule = "so small that the total stays below 2**62"
            refuse("ClassCounts.__add__", "other", rule, f"{self._total} + {other._total}")
        classes = self._classes
        if classes != other._classes:
            classes = tuple(sorted({*classes, *other._classes}))

        def both(mine: np.ndarray | None, theirs: np.ndarray | None) -> np.ndarray | None:
            if mine is None or theirs is None:
                return None
            total: np.ndarray = self._spread(mine, classes) + other._spread(theirs, classes)
            return total

        rest: dict[str, Any] = {}
        if self._negatives is not None:
            rest = {"negatives": both(self._negatives, other._negatives), "total": self._total + other._total}
        if self._images is not None and other._images is not None:
            rest["images"] = both(self._images.containing, other._images.containing)
            rest["image_pixels"] = both(self._images.pixels, other._images.pixels)
            rest["num_images"] = self._images.total + other._images.total
        return ClassCounts(classes, both(self._counts, other._counts), **rest)

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

    def all_reduce(self, group: Any = None) -> ClassCounts:
        """The sum over all ranks, the same on every one; classes that only some ranks have seen are in it.

        For data that is spread over ranks: each counts its own share. All ranks of the group must call it. A rank
        without any rows calls it on ``ClassCounts([], [])``, the count of nothing.

        Equals ``sum(counts_of_rank_0, ..., counts_of_rank_n)``.

        Args:
            group: A process group of ``torch.distributed``; ``None`` for all ranks.

        Returns: :class:`ClassCounts`.

        Raises: RuntimeError: no process group. ValueError, on every rank: some count other kinds of labels than others.
        """
        return sum(_ranks.gather(self, group), ClassCounts([], []))

    # Text.

    def __repr__(self) -> str:
        if self.num_classes > _table.ROWS_SHOWN:
            return f"<ClassCounts of {self.num_classes} classes, {self._total} rows>"
        rest = "".join(f", {name}={value!r}" for name, value in self._rest().items())
        return f"ClassCounts({list(self._classes)!r}, {self._counts.tolist()}{rest})"

    def __str__(self) -> str:
        return _table.as_text(self)

    def _repr_html_(self) -> str:
        return _table.as_html(self)

    # JSON.

    def to_json(self) -> str:
        """The counts as a JSON object; :meth:`from_json` reads it back to an equal value."""
        data = {**_saving.KIND, "total": self._total, "classes": list(self._classes), "counts": self._counts.tolist()}
        return json.dumps(data | self._rest())

    @classmethod
    def from_json(cls, text: str) -> ClassCounts:
        """The value that :meth:`to_json` wrote.

        Raises: TypeError: not a string. ValueError: not JSON, or not the counts of a version that this library knows.
        """
        classes, counts, total, rest = _saving.parse(text)
        if "negatives" in rest:
            return cls(classes, counts, total=total, **rest)
        found = cls(classes, counts, **rest)
        if found.total != total:
            rule = "ClassCounts whose 'total' is the sum of 'counts'"
            refuse("ClassCounts.from_json", "text", rule, f"{total}, and counts of {found.total}")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to ``path``, whole or not at all: an older file stays as it was if the write fails."""
        _saving.write_whole(path, self.to_json() + "\n")

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


def _make(classes: tuple[Label, ...], counts: list[int], rest: dict[str, Any]) -> ClassCounts:
    return ClassCounts(classes, counts, **rest)


def _is_empty(counts: Any) -> bool:
    return hasattr(counts, "__len__") and not isinstance(counts, str) and len(counts) == 0


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
