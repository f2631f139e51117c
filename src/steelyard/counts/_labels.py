"""Counts labels that are in memory: tensors, arrays, sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from steelyard._errors import describe, refuse
from steelyard.counts._tally import Progress, Tally

__all__ = ["as_array", "as_zeros_and_ones", "tally_array", "tally_rows"]

_CHUNK = 2**22  # labels counted at a time: bounds the memory of the conversions below


def as_array(source: Any, function: str = "count_classes") -> np.ndarray:
    """The numpy array behind a tensor, array or sequence; a sequence of Python values becomes one of dtype object."""
    argument = "source" if function == "count_classes" else "labels"
    if isinstance(source, torch.Tensor):
        if source.layout != torch.strided or source.is_complex() or source.is_meta:
            rule = "a dense tensor of integers, bools or whole floats"
            got = f"{describe(source)}, without values" if source.is_meta else describe(source)
            refuse(function, argument, rule, got, error=TypeError)
        source = source.detach().cpu()
        array: np.ndarray = (source.double() if source.is_floating_point() else source).numpy()
        return array
    if isinstance(source, range):
        return np.arange(source.start, source.stop, source.step)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        kinds = set(map(type, source))
        try:
            if kinds and all(issubclass(kind, torch.Tensor) for kind in kinds):
                return as_array(torch.stack(list(source)), function)
            if kinds and all(issubclass(kind, list | tuple | np.ndarray) for kind in kinds):
                return np.asarray(source)
        except (RuntimeError, ValueError):
            hint = "For multi-label data give each row all C zeros and ones."
            refuse(function, argument, "rows of the same length", "rows of different lengths", hint)
        array = np.empty(len(source), dtype=object)
        array[:] = source
        return array
    if not hasattr(source, "__array__"):
        hint = "An iterator can be given as list(...)." if hasattr(source, "__next__") else ""
        if isinstance(source, Dataset):
            hint = "Give the label of each of its samples, such as its targets."
        refuse(
            function, argument, "a tensor, array, sequence or Series of labels", describe(source), hint, error=TypeError
        )
    return np.asarray(source)


def tally_array(array: np.ndarray, progress: Progress | None) -> Tally:
    """Distinct labels of a 1-d array."""
    if array.dtype.kind not in "biufUOT":
        rule = "labels that are int, str, bool or whole float"
        refuse("count_classes", "source", rule, array, "Convert them to strings first.", error=TypeError)
    if array.dtype.kind == "O":
        return _tally_objects(array.tolist(), progress)
    span = (int(array.min()), int(array.max())) if array.dtype.kind in "iu" and array.size else None
    if array.dtype.kind == "b":
        array, span = as_zeros_and_ones(array), (0, 1)
        names: list[Any] = [False, True]
    elif span is not None and span[1] - span[0] <= max(4 * array.size, 2**16):
        names = list(range(span[0], span[1] + 1))
    else:
        distinct, counts = np.unique(array, return_counts=True)
        raw, found = distinct.tolist(), counts.tolist()
        if progress is not None:
            progress(array.size, array.size)
        return Tally(raw, found, lambda entries: _first(array, raw, entries), _position)
    low = span[0]
    bins = np.zeros(len(names), dtype=np.int64)
    for start in range(0, array.size, _CHUNK):
        part = array[start : start + _CHUNK]
        shifted = (part - part.dtype.type(low) if array.dtype.kind == "u" else part.astype(np.int64) - low).astype(
            np.intp
        )
        bins += np.bincount(shifted, minlength=len(names))
        if progress is not None:
            progress(min(start + _CHUNK, array.size), array.size)
    present = np.flatnonzero(bins)
    labels = [names[index] for index in present]
    raw = [low + index for index in present.tolist()]
    return Tally(labels, bins[present].tolist(), lambda entries: _first(array, raw, entries), _position)


def _tally_objects(values: list[Any], progress: Progress | None) -> Tally:
    """Distinct labels of Python values, by value and type: ``True`` is not ``1`` here."""
    if any(issubclass(kind, np.generic) for kind in set(map(type, values))):
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        found = Counter(zip(map(type, values), values, strict=True))
    except TypeError:
        odd = next(index for index, value in enumerate(values) if type(value).__hash__ is None)
        rule = "labels that are int, str, bool or whole float"
        refuse("count_classes", "source", rule, f"{values[odd]!r} at position {odd}", error=TypeError)
    keys = list(found)

    def first(entries: list[int]) -> tuple[int, int]:
        wanted = {keys[entry]: entry for entry in entries}
        return next((row, wanted[key]) for row, value in enumerate(values) if (key := (type(value), value)) in wanted)

    if progress is not None:
        progress(len(values), len(values))
    return Tally([label for _, label in keys], list(found.values()), first, _position)


def _first(array: np.ndarray, raw: list[Any], entries: list[int]) -> tuple[int, int]:
    wanted = [raw[entry] for entry in entries]
    mask = np.isin(array, np.asarray(wanted, dtype=array.dtype))
    if array.dtype.kind == "f" and any(value != value for value in wanted):
        mask |= np.isnan(array)
    row = int(mask.argmax())
    label = array[row].item()
    return row, next(entry for entry in entries if raw[entry] == label or (label != label and raw[entry] != raw[entry]))


def as_zeros_and_ones(array: np.ndarray) -> np.ndarray:
    """Bools as uint8; some, such as Pillow's, are not 1 in memory where they are true."""
    whole: np.ndarray = array.view(np.uint8) != 0
    return whole.view(np.uint8)


def _position(row: int) -> str:
    return f"position {row}"


def tally_rows(
    array: np.ndarray, num_classes: int | None, ignore_index: int | None, progress: Progress | None, where: str = ""
) -> Tally:
    """Positives and negatives of each column of zeros and ones; ``where`` they are goes into errors."""
    function, rows, columns = "count_classes", *array.shape
    if array.dtype.kind not in "biuf":
        refuse(function, "source", "zeros and ones where it has two dimensions (multi-label)", array, error=TypeError)
    if array.size == 0:
        refuse(function, "source", "at least one label", f"shape {array.shape}")
    if num_classes not in (None, columns):
        refuse(function, "num_classes", f"{columns}, the columns of multi-label data, or None", num_classes)
    positives, negatives = np.zeros(columns, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        part = array[start : start + step]
        yes, no = part == 1, part == 0
        unknown = ~(yes | no)
        if ignore_index is not None:
            ignored = part == ignore_index
            yes, no, unknown = yes & ~ignored, no & ~ignored, unknown & ~ignored
        if unknown.any():
            row, column = (int(index) for index in np.argwhere(unknown)[0])
            rule = "zeros and ones where it has two dimensions (multi-label)"
            hint = "For a map of class indices, pass its .flatten()."
            what = f"{part[row, column].item()} at position ({start + row}, {column}){where}"
            refuse(function, "source", rule, what, hint)
        positives += yes.sum(0)
        negatives += no.sum(0)
        if progress is not None:
            progress(min(start + step, rows), rows)
    return Tally(range(columns), positives.tolist(), _nowhere, str, negatives=negatives.tolist(), total=rows)


def _nowhere(entries: list[int]) -> tuple[int, int]:
    return 0, entries[0]  # zeros and ones are checked as they are read
