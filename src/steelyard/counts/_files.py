"""Counts a column of a CSV or Parquet file, read in pieces by Polars."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelyard._errors import refuse
from steelyard.counts._frames import check_column, first_line, import_polars, tally_lazy
from steelyard.counts._tally import Progress, Tally

__all__ = ["csv_fault", "tally_file"]

_SUFFIXES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".pq": None}


def tally_file(path: Path, target: Any, progress: Progress | None) -> Tally:
    """Distinct labels of a column of a CSV or Parquet file, read in pieces."""
    if path.suffix.lower() not in _SUFFIXES:
        refuse("count_classes", "source", "a file that ends in " + ", ".join(_SUFFIXES), f"'{path}'")
    if path.is_dir():
        refuse("count_classes", "source", "a file", f"the folder '{path}'", error=IsADirectoryError)
    if not path.exists():
        refuse("count_classes", "source", "a file that exists", f"'{path}'", error=FileNotFoundError)
    if path.stat().st_size == 0:
        refuse("count_classes", "source", "a file with labels in it", f"'{path}', which is empty")
    polars = import_polars()
    separator = _SUFFIXES[path.suffix.lower()]
    with _reading(path, separator):
        if separator is None:
            frame = polars.scan_parquet(path, glob=False)
        else:
            # As text, whatever the first rows look like: the labels decide what they are once all of them are known.
            frame = polars.scan_csv(path, glob=False, infer_schema=False, separator=separator)
        columns = frame.collect_schema().names()
    check_column(target, columns, f"'{path}'")
    with _reading(path, separator):
        tally = tally_lazy(frame, target, f"'{path}', ", progress, whole_rows=separator is not None)
    if not tally.labels:
        refuse("count_classes", "source", "a file with labels in it", f"'{path}', which has columns and no rows")
    return tally if separator is None else _from_text(tally)


@contextmanager
def _reading(path: Path, separator: str | None) -> Iterator[None]:
    """Turn what goes wrong inside Polars into one sentence that names the file, and the row where that can be found."""
    try:
        yield
    except import_polars().exceptions.PolarsError as error:
        reason = csv_fault(path, separator) if separator else None
        what = f"'{path}', {reason or first_line(error)}"
        kind = "Parquet" if separator is None else "CSV"
        refuse("count_classes", "source", f"a readable {kind} file", what)
    except OSError as error:
        refuse("count_classes", "source", "a readable file", f"'{path}': {error.strerror or error}", error=type(error))


def csv_fault(path: Path, separator: str) -> str | None:
    """The first row that breaks a CSV file. Slow, and only run once reading has failed."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"line {number}: byte {line[error.start]:#04x} is not UTF-8"
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            width = len(next(reader))
            for row, fields in enumerate(reader):
                if len(fields) > width:
                    return f"row {row} (the first is 0): {len(fields)} fields where the header has {width}"
        except csv.Error as error:
            return f"line {reader.line_num}: {error}"
    return None


_NUMBER = re.compile(r"\s*[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_NOTHING = {"na", "n/a", "nan", "null", "none", "<na>", "?", "-"}


def _from_text(tally: Tally) -> Tally:
    """Text labels as what they all are: integers, else floats, else bools, else strings as they stand.

    Leading zeros (``007``) make strings. A blank is a missing label, and so is a word such as ``NA`` among numbers.
    """
    texts = [text if text is not None and text.strip() else None for text in tally.labels]
    words = [text for text in texts if text is not None]
    numbers = {word for word in words if _NUMBER.fullmatch(word)}
    labels: list[Any] = texts
    if numbers and all(word in numbers or word.strip().lower() in _NOTHING for word in words):
        number = int if all(_INTEGER.fullmatch(word) for word in numbers) else float
        labels = [None if text is None or text not in numbers else number(text) for text in texts]
    elif words and all(word.strip().lower() in {"true", "false"} for word in words):
        labels = [None if text is None else text.strip().lower() == "true" for text in texts]
    return Tally(labels, tally.counts, tally.first, tally.place)
