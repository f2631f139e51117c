"""What every reader hands over, and the one place where it is checked and becomes :class:`ClassCounts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from steelyard._errors import refuse
from steelyard.counts._value import ClassCounts

__all__ = ["Progress", "Tally", "finish"]

Progress = Callable[[int, int | None], None]
"""Called with the rows counted so far and the rows in all, ``None`` while that is unknown."""


@dataclass(frozen=True)
class Tally:
    """The distinct labels of a source, unchecked.

    ``labels`` are Python values, ``None`` for a null; two entries may be equal (``1`` and `` 1`` of a text file).
    ``order`` holds the labels in the order that the source declares, those that do not occur among them, if it does.
    ``first`` gives the first row that holds one of the entries, and which one; ``place`` says where a row is, in words.
    """

    labels: Sequence[Any]
    counts: Sequence[int]
    first: Callable[[list[int]], tuple[int, int]]
    place: Callable[[int], str]
    order: Sequence[Any] | None = None

    def refuse(self, rule: str, entries: list[int], hint: str = "", error: type[Exception] = ValueError) -> NoReturn:
        """Refuse the first row that holds one of ``entries``."""
        row, entry = self.first(entries)
        label = self.labels[entry]
        what = "a missing label" if label is None or label != label else repr(label)
        refuse("count_classes", "source", rule, f"{what} at {self.place(row)}", hint, error=error)


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

    counts: dict[Any, int] = {}
    for label, count in zip(labels, tally.counts, strict=True):
        counts[label] = counts.get(label, 0) + count
    if ignore_index is not None:
        if kind is str:
            refuse("count_classes", "ignore_index", "None for labels that are strings", ignore_index, error=TypeError)
        counts.pop(ignore_index, None)
    if not counts:
        refuse("count_classes", "source", "at least one label", f"none besides ignore_index={ignore_index}")
    if num_classes is not None:
        if kind is str:
            hint = "Strings are counted as they are."
            refuse(
                "count_classes", "num_classes", "None for labels that are strings", num_classes, hint, error=TypeError
            )
        outside = [e for e, label in enumerate(labels) if label in counts and not 0 <= label < num_classes]
        if outside:
            rule = f"labels in [0, {num_classes})" + ("" if ignore_index is None else f" or {ignore_index}")
            hint = (
                "A label that stands for 'nothing' can be left out with ignore_index." if ignore_index is None else ""
            )
            tally.refuse(rule, outside, hint, IndexError)
        return ClassCounts(range(num_classes), [counts.get(index, 0) for index in range(num_classes)])
    # The order of declared categories is that of their codes, which is what a model trains on.
    classes = sorted(counts) if tally.order is None else list(tally.order)
    return ClassCounts(classes, [counts.get(label, 0) for label in classes])
