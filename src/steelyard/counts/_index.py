"""Labels as positions in a list of the distinct ones, for whoever needs something per row."""

from __future__ import annotations

from typing import Any

import numpy as np

from steelyard._errors import refuse
from steelyard.counts._frames import is_pandas, is_polars
from steelyard.counts._labels import as_array

__all__ = ["index_labels"]


def index_labels(labels: Any, *, function: str) -> tuple[list[Any], np.ndarray]:
    """``distinct, index`` with ``labels[i] == distinct[index[i]]``; ``distinct`` may hold labels that do not occur.

    Refuses what is not one label per row, and labels that are missing.
    """
    if is_pandas(labels, "Series"):
        index, found = labels.factorize()
        distinct = found.tolist()
    elif is_polars(labels, "Series"):
        values = labels.unique(maintain_order=True)
        distinct = values.to_list()
        index = labels.replace_strict(values, np.arange(len(values)), return_dtype=None).to_numpy()
    else:
        array = as_array(labels, function)
        if array.ndim != 1:
            hint = "A row with several labels has no single class: make its weight from (labels * weight) yourself."
            refuse(
                function, "labels", "one label per row, (N,)", f"shape {array.shape}", hint if array.ndim > 1 else ""
            )
        distinct, index = _index_array(array, function)
    missing = [entry for entry, label in enumerate(distinct) if label is None or label != label]
    gaps = np.isin(index, [-1, *missing])
    if gaps.any():
        refuse(function, "labels", "labels without gaps", f"a missing label at position {int(gaps.argmax())}")
    return distinct, index


def _index_array(array: np.ndarray, function: str) -> tuple[list[Any], np.ndarray]:
    if array.dtype.kind == "O":
        positions: dict[Any, int] = {}
        try:
            index = np.fromiter((positions.setdefault(label, len(positions)) for label in array), np.intp, len(array))
        except TypeError:
            odd = next(label for label in array if type(label).__hash__ is None)
            refuse(function, "labels", "labels that are int, str, bool or whole float", odd, error=TypeError)
        return list(positions), index
    if array.dtype.kind in "iu" and array.size:
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= max(4 * array.size, 2**16):  # small whole numbers are their own positions
            return list(range(high + 1)), array.astype(np.intp, copy=False)
    values, index = np.unique(array, return_inverse=True)
    return values.tolist(), index
