"""What every reader hands over, how the parts of a source add up, and the one place where labels are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from steelyard._errors import refuse
from steelyard.counts._value import ClassCounts

__all__ = ["Progress", "Sum", "Tally", "behind", "finish"]

Progress = Callable[[int, int | None], None]
"""Called with what is done so far and what there is in all, ``None`` while that is unknown."""


@dataclass(frozen=True)
class Tally:
    """The distinct labels of a source, unchecked.

    ``labels`` are Python values, ``None`` for a null; two entries may be equal (``1`` and `` 1`` of a text file).
    ``order`` holds the labels in the order that the source declares, those that do not occur among them, if it does.
    ``names`` are what the source calls its classes where labels are positions among them.
    ``first`` gives where one of the entries occurs first (places of one source compare), and which one; ``place`` says
    that in words. ``images`` that contain a label, and their ``pixels``, come from masks and annotations, ``negatives``
    from multi-label rows; ``total`` is the number of all images or rows.
    """

    labels: Sequence[Any]
    counts: Sequence[int]
    first: Callable[[list[int]], tuple[Any, int]]
    place: Callable[[Any], str]
    order: Sequence[Any] | None = None
    names: Sequence[str] | None = None
    images: Sequence[int] | None = None
    pixels: Sequence[int] | None = None
    negatives: Sequence[int] | None = None
    total: int | None = None

    def refuse(self, rule: str, entries: list[int], hint: str = "", error: type[Exception] = ValueError) -> NoReturn:
        """Refuse the first row that holds one of ``entries``."""
        row, entry = self.first(entries)
        label = self.labels[entry]
        what = "a missing label" if label is None or label != label else repr(label)
        refuse("count_classes", "source", rule, f"{what} at {self.place(row)}", hint, error=error)


_COLUMNS = ("counts", "images", "pixels", "negatives")


class Sum:
    """Adds up the tallies of a source's parts, in their order, and knows which part held a label first."""

    def __init__(self) -> None:
        self._entries: dict[tuple[type, Any], int] = {}
        self._labels: list[Any] = []
        self._numbers: list[list[int]] = []  # of each label, in the columns of _COLUMNS
        self._first: list[tuple[int, int]] = []  # the part, and the entry there
        self._parts: dict[int, Tally] = {}  # those that brought a label
        self._size, self._name = 0, ""
        self._declared: dict[str, Any] = {}
        self._total = 0

    def add(self, part: Tally, name: str = "", *, keep: bool = True) -> None:
        """Add a part, called ``name`` in errors. Unless it may ``keep`` it, it finds now where new labels are."""
        new = []
        for entry, label in enumerate(part.labels):
            missing = label is None or label != label
            key = (type(None), None) if missing else (type(label), label)
            at = self._entries.setdefault(key, len(self._labels))
            if at == len(self._labels):
                self._labels.append(key[1])
                self._numbers.append([0] * len(_COLUMNS))
                self._first.append((self._size, entry))
                new.append(entry)
            for column, field in enumerate(_COLUMNS):
                values = getattr(part, field)
                self._numbers[at][column] += 0 if values is None else values[entry]
        if new:
            self._parts[self._size] = part if keep else _settled(part, new)
        self._total += part.total or 0
        self._declare(part, name)
        self._size, self._name = self._size + 1, name

    def _declare(self, part: Tally, name: str) -> None:
        """Hold on to what all parts must say alike."""
        declared: dict[str, Any] = {field: getattr(part, field) is not None for field in (*_COLUMNS, "total")}
        for field in ("order", "names"):
            values = getattr(part, field)
            declared[field] = None if values is None else list(values)
        declared["questions"] = None if part.negatives is None else len(part.labels)
        if self._size and declared != self._declared:
            rule = "of parts that declare the same classes, in the same order, and count alike"
            hint = "Count each by itself, or convert their labels to strings first."
            refuse("count_classes", "source", rule, f"{self._name} and {name}, which differ", hint)
        self._declared = declared

    def tally(self) -> Tally:
        """All of it together."""

        def first(entries: list[int]) -> tuple[Any, int]:
            number = min(self._first[entry][0] for entry in entries)
            local = {self._first[entry][1]: entry for entry in entries if self._first[entry][0] == number}
            where, found = self._parts[number].first(list(local))
            return (number, where), local[found]

        def place(where: tuple[int, Any]) -> str:
            return self._parts[where[0]].place(where[1])

        columns = list(zip(*self._numbers, strict=True)) or [()] * len(_COLUMNS)
        known = {field: column for field, column in zip(_COLUMNS, columns, strict=True) if self._declared.get(field)}
        total = self._total if self._declared.get("total") else None
        return Tally(
            self._labels, known.pop("counts", ()), first, place,
            self._declared.get("order"), self._declared.get("names"), **known, total=total,
        )  # fmt: skip


def _settled(part: Tally, entries: list[int]) -> Tally:
    """A tally that no longer needs its source, for the labels ``entries``."""
    found = {entry: part.first([entry])[0] for entry in entries}
    words = {where: part.place(where) for where in found.values()}
    return Tally([], [], lambda wanted: min((found[entry], entry) for entry in wanted), words.__getitem__)


def behind(progress: Progress | None, done: int) -> Progress | None:
    """The ``progress`` of a part that has ``done`` rows before it; only the whole knows when all is done."""
    return None if progress is None else lambda now, total: progress(done + now, None)


def finish(tally: Tally, num_classes: int | None, ignore_index: int | None) -> ClassCounts:
    """Check every distinct label, merge equal ones, drop ``ignore_index``, add absent classes."""
    labels = list(tally.labels)
    if not labels:
        refuse("count_classes", "source", "at least one label", "none")

    missing = [entry for entry, label in enumerate(labels) if label is None or label != label]
    if missing:
        tally.refuse("labels without gaps", missing, "Drop or fill such rows first: nothing is left out silently.")
    allowed = {int, str, bool, float}
    strange = [entry for entry, label in enumerate(labels) if type(label) not in allowed]
    if strange:
        tally.refuse("labels that are int, str, bool or whole float", strange, error=TypeError)
    kind = type(labels[0])
    odd = [entry for entry, label in enumerate(labels) if type(label) is not kind]
    if odd:
        tally.refuse(f"labels of one kind, here {kind.__name__}", odd, "Convert them to one kind first.", TypeError)
    if kind is float:
        fractional = [entry for entry, label in enumerate(labels) if not label.is_integer()]
        if fractional:
            hint = "A number that varies continuously has to be cut into bins before it has classes."
            tally.refuse("whole numbers where labels are floats", fractional, hint)

    if tally.negatives is not None:
        names = tally.names if tally.names is not None and len(tally.names) == len(labels) else labels
        return ClassCounts(names, tally.counts, negatives=tally.negatives, total=tally.total)

    entries: dict[Any, list[int]] = {}
    for entry, label in enumerate(labels):
        entries.setdefault(label, []).append(entry)
    if ignore_index is not None:
        if kind is str:
            refuse("count_classes", "ignore_index", "None for labels that are strings", ignore_index, error=TypeError)
        entries.pop(ignore_index, None)
        if not entries:
            refuse("count_classes", "source", "at least one label", f"none besides ignore_index={ignore_index}")
    # The order of declared categories is that of their codes, which is what a model trains on.
    keys: Sequence[Any] = sorted(entries) if tally.order is None else list(tally.order)
    named: Sequence[Any] | None = tally.names
    if named is not None and kind is str:  # labels that are names already
        keys, named = (list(named) if set(named) >= set(entries) else keys), None
    if named is not None:
        if num_classes not in (None, len(named)):
            rule = f"{len(named)}, the classes that the source names, or None"
            refuse("count_classes", "num_classes", rule, num_classes)
        num_classes = len(named)
    if num_classes is not None:
        _check_range(tally, kind, num_classes, ignore_index)
        keys = range(num_classes)

    def column(values: Sequence[int]) -> list[int]:
        return [sum(values[entry] for entry in entries.get(key, ())) for key in keys]

    images: dict[str, Any] = {}
    if tally.images is not None:
        images = {"images": column(tally.images), "num_images": tally.total}
        images |= {} if tally.pixels is None else {"image_pixels": column(tally.pixels)}
    return ClassCounts(keys if named is None else named, column(tally.counts), **images)


def _check_range(tally: Tally, kind: type, num_classes: int, ignore_index: int | None) -> None:
    """Refuse a label outside ``[0, num_classes)``."""
    if kind is str:
        hint = "Strings are counted as they are."
        rule = "None for labels that are strings"
        refuse("count_classes", "num_classes", rule, num_classes, hint, error=TypeError)
    labels = enumerate(tally.labels)
    outside = [entry for entry, label in labels if label != ignore_index and not 0 <= label < num_classes]
    if outside:
        rule = f"labels in [0, {num_classes})" + ("" if ignore_index is None else f" or {ignore_index}")
        hint = "A label that stands for 'nothing' can be left out with ignore_index." if ignore_index is None else ""
        tally.refuse(rule, outside, hint, IndexError)
