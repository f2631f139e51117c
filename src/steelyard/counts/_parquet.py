"""Counts a column of a Parquet file faster than a group-by: no hash for small integers, no string for repeated ones.

Integers that span few values are their own bins. Parquet stores repeated strings as numbers into a dictionary, which
Arrow can hand over as they are. Row groups are shared out over PyTorch's threads; each holds one batch at a time.
Anything else is left to Polars.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from steelyard._errors import refuse
from steelyard.counts._frames import first_line
from steelyard.counts._tally import Progress

__all__ = ["fast_counts"]

_ROWS = 1 << 18  # labels in a batch: two megabytes of integers, which stay in the cache of a core
_BUFFER = 1 << 20  # bytes that a thread reads at a time: a row group may be as large as its file
_WIDEST = 1 << 16  # bins, and strings of a dictionary: beyond it, hashing is no slower

Counts = dict[Any, int]
Adder = Callable[[Counts, Any], None]


class _LeftToPolars(Exception):  # not an error: a file of another make
    """The file holds what this room does not count."""


def fast_counts(path: Path, column: str, progress: Progress | None) -> Counts | None:
    """Rows of each label, ``None`` for nulls among them; or None where Polars has to count.

    Raises: ValueError: a row group that cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        return None
    if "." in column:  # Arrow would look for a nested field
        return None
    counts: Counts = {}
    lock, stopped, done = threading.Lock(), threading.Event(), 0
    try:
        metadata = parquet.read_metadata(path)
        kind = metadata.schema.to_arrow_schema().field(column).type
        total, groups = metadata.num_rows, range(metadata.num_row_groups)
        add = _adder(pa, kind, metadata, column)
    except (pa.ArrowException, OSError, KeyError, _LeftToPolars):
        return None
    text = [] if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else [column]

    def count(own: range) -> Counts:
        nonlocal done
        found: Counts = {}
        with parquet.ParquetFile(path, metadata=metadata, read_dictionary=text, buffer_size=_BUFFER) as file:
            for group in own:
                for batch in _batches(file, group, column, path, metadata):
                    if stopped.is_set():
                        return found
                    add(found, batch)
                    if progress is not None:
                        with lock:
                            done += len(batch)
                            progress(done, total)
        return found

    threads = max(1, min(torch.get_num_threads(), len(groups)))
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part in pool.map(count, [groups[start::threads] for start in range(threads)]):
                for label, rows in part.items():
                    counts[label] = counts.get(label, 0) + rows
        except _LeftToPolars:
            return None
        finally:
            stopped.set()  # an error in one thread, or an interrupt, must not wait for the others to read on
    return counts


def _batches(file: Any, group: int, column: str, path: Path, metadata: Any) -> Iterator[Any]:
    import pyarrow as pa

    batches = file.iter_batches(_ROWS, row_groups=[group], columns=[column], use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            first = sum(metadata.row_group(before).num_rows for before in range(group))
            rows = f"rows {first} to {first + metadata.row_group(group).num_rows - 1} (the first is 0)"
            refuse("count_classes", "source", "a readable Parquet file", f"'{path}', {rows}: {first_line(error)}")
        if batch is None:
            return
        yield batch.column(0)


def _adder(pa: Any, kind: Any, metadata: Any, column: str) -> Adder:
    """What adds a batch to counts, by its type."""
    if pa.types.is_boolean(kind):
        return _add_bools
    words = kind.value_type if pa.types.is_dictionary(kind) else kind
    if words in (pa.string(), pa.large_string(), pa.string_view()):
        return _add_words
    if not pa.types.is_integer(kind):
        raise _LeftToPolars
    low, high = _span(metadata, column)
    if high - low >= _WIDEST or high >= 2**63:
        raise _LeftToPolars
    return lambda counts, batch: _add_integers(counts, batch.cast(pa.int64()), low, high)


def _span(metadata: Any, column: str) -> tuple[int, int]:
    """Smallest and largest value by the statistics of all row groups, which writers may leave out."""
    if not metadata.num_row_groups:
        raise _LeftToPolars
    at = metadata.schema.to_arrow_schema().get_field_index(column)
    if metadata.row_group(0).num_columns <= at or metadata.row_group(0).column(at).path_in_schema != column:
        raise _LeftToPolars  # nested columns before it shift the numbers
    found = [metadata.row_group(group).column(at).statistics for group in range(metadata.num_row_groups)]
    if not all(statistics is not None and statistics.has_min_max for statistics in found):
        raise _LeftToPolars
    return min(statistics.min for statistics in found), max(statistics.max for statistics in found)


def _add_bools(counts: Counts, batch: Any) -> None:
    true = batch.true_count
    rows = {True: true, False: len(batch) - batch.null_count - true, None: batch.null_count}
    _add(counts, {label: number for label, number in rows.items() if number})


def _add_integers(counts: Counts, batch: Any, low: int, high: int) -> None:
    batch = _without_nulls(counts, batch)
    if len(batch) == 0:
        return
    _add(counts, {low + label: rows for label, rows in enumerate(_bins(batch, low, high)) if rows})


def _add_words(counts: Counts, batch: Any) -> None:
    if not hasattr(batch, "dictionary") or len(batch.dictionary) > _WIDEST:
        raise _LeftToPolars
    batch = _without_nulls(counts, batch)
    if len(batch) == 0:
        return
    words = batch.dictionary.to_pylist()
    bins = _bins(batch.indices, 0, len(words) - 1)
    _add(counts, {word: rows for word, rows in zip(words, bins, strict=True) if rows})


def _bins(batch: Any, low: int, high: int) -> list[int]:
    """How often each number from ``low`` to ``high`` occurs.

    PyTorch looks for the smallest and the largest number itself, slowly in a wide type: where a byte will do, finding
    them here and counting bytes takes less time.
    """
    values = from_dlpack(batch)  # as it is: through numpy, PyTorch would warn that it may not write
    if int(values.min()) < low or int(values.max()) > high:  # the file's statistics are wrong, or its pages
        raise _LeftToPolars
    values = values - low if low else values
    found: list[int] = torch.bincount(values.byte() if high - low < 256 else values, minlength=high - low + 1).tolist()
    return found


def _without_nulls(counts: Counts, batch: Any) -> Any:
    if batch.null_count == 0:
        return batch
    _add(counts, {None: batch.null_count})
    return batch.drop_null()


def _add(counts: Counts, found: Counts) -> None:
    for label, rows in found.items():
        counts[label] = counts.get(label, 0) + rows
