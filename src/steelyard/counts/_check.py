"""What may name a class, and what may count it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from steelyard._errors import describe, refuse

__all__ = ["LARGEST_TOTAL", "Label", "check_labels", "whole_numbers"]

Label = bool | int | float | str
"""A class as the data names it."""

LARGEST_TOTAL = 2**62  # so that adding two totals cannot wrap an int64


_SORTED = "Labels and counts become a ClassCounts by ClassCounts(*zip(*sorted(counts.items())))."


def _without_values(tensor: torch.Tensor) -> str:
    return "without values" if tensor.is_meta else f"of layout {tensor.layout}"


def check_labels(function: str, argument: str, labels: Sequence[Any]) -> None:
    """Refuse labels that are none, repeated, of several kinds, or of a kind that cannot name a class."""
    if not labels:
        refuse(function, argument, "at least one class", "none")
    kinds = {type(label) for label in labels}
    if not kinds <= {bool, int, float, str}:
        odd = next(label for label in labels if type(label) not in {bool, int, float, str})
        refuse(function, argument, "labels that are int, str, bool or whole float", odd, error=TypeError)
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        refuse(
            function,
            argument,
            "labels of one kind",
            f"{names} together",
            "Convert them to one kind first.",
            error=TypeError,
        )
    if kinds == {float}:
        for label in labels:
            if not float(label).is_integer():
                refuse(function, argument, "whole numbers where labels are floats", repr(label))
    if len(set(labels)) < len(labels):
        seen: set[Any] = set()
        twice = next(label for label in labels if label in seen or seen.add(label))  # type: ignore[func-returns-value]  # set.add gives None, which is false
        refuse(function, argument, "different labels", f"{twice!r} twice")


def whole_numbers(function: str, argument: str, values: Any) -> np.ndarray:
    """A fresh read-only int64 array of the 1-d, whole, non-negative ``values``."""
    rule = "whole numbers of zero or more, one per class"
    given = values
    names = getattr(values, "index", None)
    if names is not None and not callable(names) and list(names) != list(range(len(values))):  # a Series of pandas
        some = ", ".join(repr(name) for name in list(names)[:3])
        hint = f"Use count_classes(labels). {_SORTED}"
        refuse(
            function, argument, "in the order of the classes 0, 1, ...", f"a Series whose index is {some}, ...", hint
        )
    if isinstance(values, torch.Tensor):
        if values.layout != torch.strided or values.is_meta:
            refuse(function, argument, rule, f"{describe(values)}, {_without_values(values)}", error=TypeError)
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        if any(isinstance(value, bool) for value in values):
            refuse(function, argument, rule, given, error=TypeError)
        if values and all(type(value) is int for value in values) and max(values) >= LARGEST_TOTAL:
            refuse(function, argument, "counts that add up to less than 2**62", given)
        try:
            values = np.asarray(values)
        except ValueError:
            refuse(function, argument, rule, given)
    elif not hasattr(values, "__array__"):
        rule = "ClassCounts, or a 1-d sequence, array or tensor of counts"
        hint = _SORTED if isinstance(values, Mapping) else ""
        refuse(function, argument, rule, describe(given), hint, error=TypeError)
    array = np.asarray(values)
    if array.ndim != 1:
        hint = "For labels, use count_classes first." if array.ndim else ""
        refuse(function, argument, "one count per class, of shape (C,)", given, hint)
    if array.size == 0:
        refuse(function, argument, "at least one count", "none")
    if array.dtype.kind not in "iuf":
        hint = "Labels are counted by count_classes(labels)." if array.dtype.kind in "UO" else ""
        refuse(function, argument, rule, given, hint, error=TypeError)
    if array.dtype.kind == "f":
        odd = np.flatnonzero(~np.isfinite(array) | (array != np.round(array)))
        if odd.size:
            hint = "Counts are wanted here, not shares." if np.isfinite(array[odd[0]]) else ""
            refuse(function, argument, rule, f"{array[odd[0]]} at position {odd[0]}", hint)
    if (array < 0).any():
        position = int((array < 0).argmax())
        refuse(function, argument, rule, f"{array[position]} at position {position}")
    if array.sum(dtype=np.float64) >= LARGEST_TOTAL:
        refuse(function, argument, "counts that add up to less than 2**62", given)
    array = array.astype(np.int64)  # always a copy
    array.flags.writeable = False
    return array
