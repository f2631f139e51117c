"""Picks the reader for a source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from steelyard._errors import describe, refuse
from steelyard.counts._datasets import Labels, dataset_labels, has_labels, is_dataset, tally_lists
from steelyard.counts._frames import as_frame, check_column, tally_frame
from steelyard.counts._labels import as_array, tally_array, tally_rows
from steelyard.counts._loaders import batches, is_hugging_face, rows_expected, samples, tables, warn_of_loader
from steelyard.counts._masks import is_mask_list, tally_masks
from steelyard.counts._paths import tally_path
from steelyard.counts._tally import Progress, Sum, Tally, behind, finish
from steelyard.counts._value import ClassCounts

__all__ = ["count_classes"]


def count_classes(
    source: Any,
    target: Any = None,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    progress: Progress | None = None,
) -> ClassCounts:
    r"""Count how often each class occurs, wherever the labels are.

    Everything that corrects for imbalance starts from these numbers. Count the training rows, before any resampling.
    Nothing is dropped, clipped or guessed on the way: a label that is missing is an error that says where.

    Equals ``collections.Counter(labels)``, sorted by label; integer labels equal ``torch.bincount``.

    Args:
        source: One of

            - labels: a 1-d tensor, array, sequence, or a Series. They are all int, all str, all bool, or all floats
              that are whole numbers, and ``classes`` keeps them as such.
            - multi-label rows: a 2-d tensor, array or sequence ``(N, C)`` of zeros and ones (int, bool or float); the
              classes are ``0 .. C−1``.
            - label masks: an integer or bool tensor or array ``(N, H, W)``, or a list of them ``(H, W)``; a folder that
              holds such images directly, or a pattern of them (PNG, TIFF, BMP, GIF, PGM through Pillow; ``.npy``).
              ``counts`` are pixels; ``images`` and ``image_pixels`` say which images contain them.
            - a frame with ``target``, eager (pandas, Polars, PyArrow, Modin, ...) or lazy (Polars, DuckDB, Dask,
              PySpark, ... through Narwhals), which is counted by its own engine.
            - a table with ``target``: the path of a ``.csv``, ``.tsv`` (UTF-8, with a header), ``.jsonl``, ``.ndjson``
              (each of them also packed, ``.gz``) or ``.parquet`` file; a pattern such as ``"data/*.csv"``; a folder of
              such files, ``column=value`` folders included. All are read in pieces. A CSV column is integers if all of
              it is, else floats, else bools (true/false), else strings.
            - an image folder: the path of a folder with a folder of images for each class, as torchvision's
              ``ImageFolder`` reads it; their names are the classes. No image is opened.
            - COCO annotations: the path of a ``.json`` file. The names of all categories are the classes, in the order
              of their ids; ``images`` says how many contain each.
            - a torch ``Dataset`` with its labels in ``targets``, ``labels``, ``samples`` or ``get_cat_ids(i)``; a
              ``TensorDataset``; a ``Subset`` or ``ConcatDataset`` of these; a Hugging Face data set with ``target``. No
              sample is made. Where the data set names its classes (``classes``, ``class_to_idx``), those names stand in
              the order of their indices, absent ones included: weights come in the order that the loss wants.
            - a ``DataLoader`` or ``IterableDataset``, read to its end; the label is the last element of a batch.
        target: The column with the labels, of tables and frames. Of a ``TensorDataset`` the number of the tensor, of
            batches and samples the number or key of the label in them.
        num_classes: For integers (also bools and whole floats): count the classes ``0 .. num_classes−1``, absent ones
            included. Without it, the classes are the labels that occur, sorted;
            of a column of declared categories all, in the order of their codes. For multi-label rows, ``C``.
        ignore_index: An integer label that is not counted; in multi-label rows, an entry that is neither yes nor no.
        progress: Called as ``progress(done, total)`` with numbers of rows (of masks: images, of COCO: annotations)
            while counting goes on, and at its end; ``total`` is ``None`` while it is not known.

    Returns: :class:`ClassCounts`.

    Raises: IndexError: a label outside ``[0, num_classes)`` that is not ``ignore_index``. ValueError: a missing or
        fractional label, no labels at all, a column that is not there, a file that cannot be read to its end.
        TypeError: labels of mixed or other kinds. FileNotFoundError: no such file. ImportError: a file, frame or mask,
        and what reads it is not installed.

    Warns: UserWarning: a ``DataLoader`` whose sampler does not give each row once, or that need not be read.

    Example:
        >>> count_classes(["cat", "dog", "cat"])
        ClassCounts(['cat', 'dog'], [2, 1])
        >>> import torch
        >>> count_classes(torch.tensor([0, 2, 2, -100]), num_classes=4, ignore_index=-100).counts
        tensor([1, 0, 2, 0])
        >>> count_classes([[1, 0], [1, 1], [1, 0]])
        ClassCounts([0, 1], [3, 1], negatives=[0, 2], total=3)
        >>> count_classes(torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]]))
        ClassCounts([0, 1], [7, 1], images=[2, 1], image_pixels=[8, 4], num_images=2)
    """
    _check_options(num_classes, ignore_index, progress)
    memory = _Memory(num_classes, ignore_index)
    frame = None if _is_plain(source) else as_frame(source)
    # The first reader that knows the source takes it.
    if isinstance(source, str | os.PathLike):
        tally = tally_path(source, target, ignore_index, progress)
    elif is_hugging_face(source):
        check_column(target, source.column_names, "the data set")
        parts = _add_up(tables(source, target), memory, progress, getattr(source, "num_rows", None))
        tally = replace(parts, names=getattr(source.features[target], "names", None))
    elif isinstance(source, DataLoader):
        warn_of_loader(source, has_labels(source.dataset))
        tally = _add_up(batches(source, target), memory, progress, rows_expected(source))
    elif isinstance(source, IterableDataset):
        tally = _add_up(samples(source, target), memory, progress, None)
    elif frame is not None and hasattr(frame, "columns"):  # not a Series, which is labels in memory
        tally = tally_frame(frame, target, progress)
    elif frame is None and not _is_plain(source) and is_dataset(source):
        tally = _tally_labels(dataset_labels(source, target), memory, progress)
    else:
        if target is not None:
            hint = "Labels in memory are counted as they are."
            rule = "None where 'source' is not a table, file or data set"
            refuse("count_classes", "target", rule, describe(target), hint, error=TypeError)
        tally = memory.tally(source, progress)
    return finish(tally, num_classes, ignore_index)


@dataclass(frozen=True)
class _Memory:
    """Counts what is in memory, under the options of a call."""

    num_classes: int | None
    ignore_index: int | None

    def tally(self, source: Any, progress: Progress | None = None, where: str = "") -> Tally:
        """Labels, multi-label rows or masks; ``where`` they are goes into errors."""
        series = None if _is_plain(source) else as_frame(source)
        if series is not None:
            return tally_frame(series, None, progress)
        if is_mask_list(source):
            return tally_masks(source, self.ignore_index, progress)
        array = as_array(source)
        masks = array.ndim == 3 and array.dtype.kind in "biu"
        if array.ndim not in (1, 2) and not masks:
            rule = "labels (N,), multi-label rows (N, C) or masks (N, H, W) of integers"
            hint = "Leave out the channel of masks, or pass .flatten()." if array.ndim > 2 else ""
            refuse("count_classes", "source", rule, f"{array.dtype} of shape {array.shape}{where}", hint)
        if masks:
            return tally_masks(array, self.ignore_index, progress)
        if array.ndim == 2:
            return tally_rows(array, self.num_classes, self.ignore_index, progress, where)
        return tally_array(array, progress)


def _add_up(parts: Iterable[tuple[str, Any]], memory: _Memory, progress: Progress | None, total: int | None) -> Tally:
    """Parts that are read one after the other, and let go once counted."""
    found, rows = Sum(), 0
    for name, labels in parts:
        part = memory.tally(labels, where=f" in {name}")
        found.add(_named(part, name), name, keep=False)
        rows += part.total if part.total is not None else sum(part.counts)
        if progress is not None:
            progress(rows, total)
    if progress is not None and total != rows:
        progress(rows, rows)
    return found.tally()


def _tally_labels(labels: Labels, memory: _Memory, progress: Progress | None) -> Tally:
    """The labels of a data set, part by part."""
    if labels.lists is not None:
        return tally_lists(labels, progress)
    if not labels.parts:
        return replace(memory.tally(labels.values, progress), names=labels.names)
    found, rows = Sum(), 0
    for number, part in enumerate(labels.parts):
        name = f"data set {number}"
        found.add(_named(_tally_labels(part, memory, behind(progress, rows)), name), name)
        rows += part.size
    if progress is not None:
        progress(rows, rows)
    return found.tally()


def _named(part: Tally, name: str) -> Tally:
    return replace(part, place=lambda where: f"{part.place(where)} in {name}")


def _is_plain(source: Any) -> bool:
    """Whether there is no need to ask what it is."""
    return isinstance(source, torch.Tensor | np.ndarray | Sequence | os.PathLike)


def _check_options(num_classes: Any, ignore_index: Any, progress: Any) -> None:
    for name, value in (("num_classes", num_classes), ("ignore_index", ignore_index)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            refuse("count_classes", name, "an integer or None", describe(value), error=TypeError)
    if num_classes is not None and num_classes < 1:
        refuse("count_classes", "num_classes", "at least 1", num_classes)
    if progress is not None and not callable(progress):
        refuse("count_classes", "progress", "a function of (done, total) or None", describe(progress), error=TypeError)
