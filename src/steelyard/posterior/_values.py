"""Probabilities, scores and labels as callers have them: checked once, float64 and int64 arrays from there on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import number, numbers

__all__ = [
    "as_given",
    "binary_labels",
    "class_labels",
    "count",
    "level_of",
    "logits_and_labels",
    "probabilities",
    "real",
]

ROUNDING = 5e-3
"""How far the probabilities of a row may be from adding up to one: half precision is that coarse."""


def real(name: str, argument: str, values: Any, rule: str) -> np.ndarray:
    """Finite numbers, float64."""
    array = numbers(name, argument, values, rule).detach().cpu().double().numpy()
    bad = ~np.isfinite(array)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        refuse(name, argument, "finite", f"{array[position]} at position {position}")
    return np.asarray(array)


def probabilities(name: str, argument: str, values: Any, *, elements: bool = True) -> np.ndarray:
    """Of a yes ``(N,)``, where ``elements`` are welcome, or of classes ``(N, C)``, whose rows add up to one."""
    shapes = "of shape (N,) or (N, C)" if elements else "of shape (N, C)"
    array = real(name, argument, values, "probabilities " + shapes)
    if array.ndim not in ((1, 2) if elements else (2,)) or array.shape[-1] == 0 or len(array) == 0:
        refuse(name, argument, f"probabilities {shapes}, at least one row", f"shape {array.shape}")
    outside = ~((array >= 0) & (array <= 1))
    if outside.any():
        position = tuple(int(i) for i in np.argwhere(outside)[0])
        hint = "These look like logits: take their posterior, softmax or sigmoid first."
        refuse(name, argument, "probabilities in [0, 1]", f"{array[position]:g} at position {position}", hint)
    if array.ndim == 2:
        off = np.abs(array.sum(axis=1) - 1.0) > ROUNDING
        if off.any():
            row = int(off.argmax())
            hint = "Rows are samples and columns classes. For several labels at once, pass one column at a time."
            refuse(name, argument, "rows that add up to 1", f"{array[row].sum():g} in row {row}", hint)
    return array


def class_labels(name: str, labels: Any, rows: int, classes: int) -> np.ndarray:
    """Class numbers in ``[0, classes)``, int64, one for each row."""
    array = _whole(name, labels)
    if array.shape != (rows,):
        refuse(name, "labels", f"class numbers of shape ({rows},)", f"shape {array.shape}")
    _refuse_outside(name, array, classes)
    return array


def binary_labels(name: str, labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """0 and 1 (or bools) in the shape of the scores, int64."""
    array = _whole(name, labels)
    if array.shape != shape:
        refuse(name, "labels", f"0 and 1, of shape {shape}", f"shape {array.shape}")
    _refuse_outside(name, array, 2)
    return array


def _whole(name: str, labels: Any) -> np.ndarray:
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    try:
        array = np.asarray(labels)
    except ValueError:
        refuse(name, "labels", "whole numbers", labels, error=TypeError)
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool((array == np.round(array)).all()))
    if not whole:
        refuse(name, "labels", "whole numbers: classes are counted from 0", labels, error=TypeError)
    return array.astype(np.int64)


def _refuse_outside(name: str, array: np.ndarray, classes: int) -> None:
    outside = (array < 0) | (array >= classes)
    if outside.any():
        position = tuple(int(i) for i in np.argwhere(outside)[0])
        rule = "0 or 1" if classes == 2 else f"in [0, {classes})"
        refuse(name, "labels", rule, f"{array[position]} at position {position}", error=IndexError)


def logits_and_labels(name: str, logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Rows of logits ``(N, C)``, float64 on the CPU, and labels: ``(N,)`` for classes, ``(N, C)`` for elements.

    Labels in the shape of the logits ask a yes/no question of each element; ``(N,)`` logits are one column of those.
    """
    z = class_last(torch.from_numpy(real(name, "logits", logits, "logits of shape (N,), (N, C) or (N, C, d1, ...)")))
    given = torch.from_numpy(_whole(name, labels))
    if given.shape == z.shape:
        answers = torch.from_numpy(binary_labels(name, labels, tuple(z.shape)))
        return (z[:, None], answers[:, None]) if z.dim() == 1 else (z, answers)
    if z.dim() == 1:
        refuse(name, "labels", f"0 and 1, of shape {tuple(z.shape)}", f"shape {tuple(given.shape)}")
    if z.dim() != 2 or z.shape[1] < 2:
        hint = "Use logits.squeeze(1)." if z.dim() == 2 and z.shape[1] == 1 else ""
        refuse(name, "logits", "of two classes at least, or (N,) for yes/no", f"shape {tuple(z.shape)}", hint)
    flat = given.reshape(-1)
    return z, torch.from_numpy(class_labels(name, flat, len(z), z.shape[1]))


def class_last(z: Tensor) -> Tensor:
    """``(N, C, d1, ...)`` as rows ``(N·d1·..., C)``; ``(N,)`` and ``(N, C)`` as they are."""
    return z if z.dim() < 3 else z.movedim(1, -1).reshape(-1, z.shape[1])


def count(name: str, argument: str, value: Any, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        refuse(name, argument, f"a whole number of at least {least}", value, error=ValueError)
    return int(value)


def level_of(name: str, level: Any) -> float:
    """A coverage strictly between 0 and 1."""
    value = number(name, "level", level, 0.0, 1.0, open_end=True)
    if value == 0.0:
        refuse(name, "level", "above 0", repr(level))
    return value


def as_given(given: Any, array: np.ndarray) -> Any:
    """The result as a tensor, on the same device, where a tensor was given; else the array."""
    if not isinstance(given, Tensor):
        return array
    result = torch.from_numpy(np.ascontiguousarray(array))
    keep = given.is_floating_point() and result.is_floating_point()
    return result.to(given.device, torch.promote_types(given.dtype, torch.float32) if keep else None)
