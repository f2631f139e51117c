"""Counts a column of one file: CSV and Parquet, read in pieces by Polars, and JSON lines."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from steelyard._errors import refuse
from steelyard.counts._frames import check_column, first_line, import_polars, tally_counts, tally_streaming
from steelyard.counts._jsonl import tally_jsonl
from steelyard.counts._parquet import fast_counts
from steelyard.counts._tally import Progress, Tally
from steelyard.counts._text import from_text

__all__ = ["TABLES", "csv_fault", "table_kind", "tally_file"]

TABLES = (
    ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet", ".pq"
)  # fmt: skip
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def table_kind(path: PurePath) -> str | None:
    """``csv``, ``tsv``, ``jsonl``, ``ndjson``, ``parquet`` or ``pq`` by the end of the name; None for other files."""
    name = path.name.lower()
    end = next((end for end in TABLES if name.endswith(end)), None)
    return None if end is None else end.removesuffix(".gz").removeprefix(".")


def tally_file(
    path: Path, target: Any, progress: Progress | None, keys: Mapping[str, str | None] | None = None
) -> Tally:
    """Distinct labels of a column of a file that exists; ``keys`` are columns that the names of its folders hold."""
    keys = keys or {}
    kind = table_kind(path)
    if path.stat().st_size == 0:
        refuse("count_classes", "source", "a file with labels in it", f"'{path}', which is empty")
    if kind in ("jsonl", "ndjson"):
        return tally_jsonl(path, target, progress)
    polars = import_polars()
    separator = _SEPARATORS.get(kind or "")
    with _reading(path, separator):
        if separator is None:
            frame = polars.scan_parquet(path, glob=False, hive_partitioning=False)
        else:
            # As text, whatever the first rows look like: the labels decide what they are once all of them are known.
            frame = polars.scan_csv(path, glob=False, infer_schema=False, separator=separator)
        columns = frame.collect_schema().names()
    if separator is None:
        columns += [key for key in keys if key not in columns]
    check_column(target, columns, f"'{path}'")
    with _reading(path, separator):
        if target in keys and target not in frame.collect_schema():
            rows = frame.select(polars.len()).collect().item()
            held = rows > 0
            place = f"the folders of '{path}'"
            return from_text(Tally([keys[target]] * held, [rows] * held, lambda entries: (0, 0), lambda _: place))
        if separator is None and (counts := fast_counts(path, target, progress)) is not None:
            return tally_counts(frame, target, f"'{path}', ", counts, progress)
        tally = tally_streaming(frame, target, f"'{path}', ", progress, whole_rows=separator is not None)
    return tally if separator is None else from_text(tally)


@contextmanager
def _reading(path: Path, separator: str | None) -> Iterator[None]:
    """Turn what goes wrong inside Polars into one sentence that names the file, and the row where that can be found."""
    try:
        yield
    except (import_polars().exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not that of a packed file
            what = f"'{path}': {error.strerror or error}"
            refuse("count_classes", "source", "a readable file", what, error=type(error))
        reason = csv_fault(path, separator) if separator else None
        what = f"'{path}', {reason or first_line(error)}"
        kind = "Parquet" if separator is None else "CSV"
        refuse("count_classes", "source", f"a readable {kind} file", what)


def csv_fault(path: Path, separator: str) -> str | None:
    """The first row that breaks a CSV file, packed or not. Slow, and only run once reading has failed."""
    packed = path.suffix.lower() == ".gz"
    number = 0
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            for number, line in enumerate(raw, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    return f"line {number}: byte {line[error.start]:#04x} is not UTF-8"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"after line {number}: {first_line(error)}"
    with (
        gzip.open(path, "rt", encoding="utf-8", newline="")
        if packed
        else path.open(encoding="utf-8", newline="") as file
    ):
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            width = len(next(reader))
            for row, fields in enumerate(reader):
                if len(fields) > width:
                    return f"row {row} (the first is 0): {len(fields)} fields where the header has {width}"
        except csv.Error as error:
            return f"line {reader.line_num}: {error}"
    return None
