"""Picks the reader for a source."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Any

from steelyard._errors import describe, refuse
from steelyard.counts._files import tally_file
from steelyard.counts._frames import is_pandas, is_polars, tally_pandas, tally_polars
from steelyard.counts._labels import as_array, multilabel_counts, tally_array
from steelyard.counts._tally import Progress, Tally, finish
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

            - labels: a 1-d tensor, array, sequence, or a pandas or Polars Series. They are all int, all str, all bool,
              or all floats that are whole numbers, and ``classes`` keeps them as such.
            - multi-label rows: a 2-d tensor, array or sequence ``(N, C)`` of zeros and ones (int, bool or float); the
              classes are ``0 .. C−1``.
            - a table with ``target``: a Polars DataFrame or LazyFrame, a pandas DataFrame, or the path of a ``.csv``,
              ``.tsv`` (UTF-8, with a header) or ``.parquet`` file, which is read in pieces. A CSV column is integers if
              all of it is, else floats, else bools (true/false), else strings.
        target: The column with the labels, for tables only.
        num_classes: For integers (also bools and whole floats): count the classes ``0 .. num_classes−1``, absent ones
            included. Without it, the classes are the labels that occur, sorted;
            of a column of declared categories all, in the order of their codes. For multi-label rows, ``C``.
        ignore_index: An integer label that is not counted; in multi-label rows, an entry that is neither yes nor no.
        progress: Called as ``progress(done, total)`` with numbers of rows while counting goes on, and at its end;
            ``total`` is ``None`` while it is not known.

    Returns: :class:`ClassCounts`.

    Raises: IndexError: a label outside ``[0, num_classes)`` that is not ``ignore_index``. ValueError: a missing or
        fractional label, no labels at all, a column that is not there, a file that cannot be read to its end.
        TypeError: labels of mixed or other kinds. FileNotFoundError: no such file. ImportError: a file, and Polars is
        not installed.

    Example:
        >>> count_classes(["cat", "dog", "cat"])
        ClassCounts(['cat', 'dog'], [2, 1])
        >>> import torch
        >>> count_classes(torch.tensor([0, 2, 2, -100]), num_classes=4, ignore_index=-100).counts
        tensor([1, 0, 2, 0])
        >>> count_classes([[1, 0], [1, 1], [1, 0]])
        ClassCounts([0, 1], [3, 1], negatives=[0, 2], total=3)
    """
    _check_options(num_classes, ignore_index, progress)
    # The first reader that knows the source takes it.
    tally: Tally
    if isinstance(source, str | os.PathLike):
        tally = tally_file(Path(source), target, progress)
    elif is_polars(source, "DataFrame", "LazyFrame"):
        tally = tally_polars(source, target, progress)
    elif is_pandas(source, "DataFrame"):
        tally = tally_pandas(source, target, progress)
    else:
        if target is not None:
            rule = "None where 'source' is not a table or file"
            refuse(
                "count_classes",
                "target",
                rule,
                describe(target),
                "Labels in memory are counted as they are.",
                error=TypeError,
            )
        if is_polars(source, "Series"):
            tally = tally_polars(source, None, progress)
        elif is_pandas(source, "Series"):
            tally = tally_pandas(source, None, progress)
        else:
            array = as_array(source)
            if array.ndim == 2:
                return multilabel_counts(array, num_classes, ignore_index, progress)
            if array.ndim != 1:
                hint = "For a map of class indices, pass its .flatten()." if array.ndim else ""
                rule = "labels (N,) or multi-label rows (N, C)"
                refuse("count_classes", "source", rule, f"shape {array.shape}", hint)
            tally = tally_array(array, progress)
    return finish(tally, num_classes, ignore_index)


def _check_options(num_classes: Any, ignore_index: Any, progress: Any) -> None:
    for name, value in (("num_classes", num_classes), ("ignore_index", ignore_index)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            refuse("count_classes", name, "an integer or None", describe(value), error=TypeError)
    if num_classes is not None and num_classes < 1:
        refuse("count_classes", "num_classes", "at least 1", num_classes)
    if progress is not None and not callable(progress):
        refuse("count_classes", "progress", "a function of (done, total) or None", describe(progress), error=TypeError)
