"""Labels as positions in a list of the distinct ones, for whoever needs something per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from steelyard._errors import refuse
from steelyard.counts._frames import as_frame
from steelyard.counts._labels import as_array

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

__all__ = ["index_labels"]


def index_labels(labels: Any, *, function: str) -> tuple[list[Any], np.ndarray]:
    """``distinct, index`` with ``labels[i] == distinct[index[i]]``; ``distinct`` may hold labels that do not occur.

    Refuses what is not one label per row, and labels that are missing.
    """
    plain = isinstance(labels, torch.Tensor | np.ndarray | Sequence)
    series = None if plain else as_frame(labels, function)
    if series is not None and not hasattr(series, "columns"):
        distinct, index = _index_series(series, function)
    else:
        array = as_array(labels, function)
        if array.ndim != 1:
            hint = "A row with several labels has no single class: make its weight from (labels * weight) yourself."
            refuse(
                function, "labels", "one label per row, (N,)", f"shape {array.shape}", hint if array.ndim > 1 else ""
            )
        distinct, index = _index_array(array, function)
    # What is left to find are the gaps of arrays and of floats.
    missing = [entry for entry, label in enumerate(distinct) if label is None or label != label]
    gaps = np.isin(index, [-1, *missing])
    if gaps.any():
        refuse(function, "labels", "labels without gaps", f"a missing label at position {int(gaps.argmax())}")
    return distinct, index


def _index_series(series: nw.Series[Any], function: str) -> tuple[list[Any], np.ndarray]:
    import narwhals.stable.v2 as nw

    gaps = series.is_null()
    if gaps.any():
        row = int(np.asarray(gaps.to_numpy(), dtype=bool).argmax())
        refuse(function, "labels", "labels without gaps", f"a missing label at position {row}")
    if series.dtype.is_numeric() or series.dtype in (nw.Boolean, nw.Object):
        return _index_array(np.asarray(series.to_numpy()), function)
    distinct = series.unique(maintain_order=True).to_list()
    positions = range(len(distinct))
    return distinct, series.replace_strict(distinct, positions, return_dtype=nw.Int64).to_numpy()


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
