"""From a file or a data frame to a Polars frame, or to one line that says what is wrong with it."""

from __future__ import annotations

import difflib
import glob
import os
from pathlib import Path
from typing import Any, NoReturn

import narwhals as nw
import polars as pl

from steelyard._errors import refuse
from steelyard.counts._files import csv_fault

__all__ = ["InputError", "bad", "check_file", "column", "header", "read"]

READERS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".csv.gz": "csv",
    ".tsv.gz": "tsv",
}


SEPARATORS = {"csv": ",", "tsv": "\t"}


class InputError(ValueError):
    """The data or an option cannot be used as it is; the message is one line that names what to change."""


def bad(function: str, argument: str, rule: str, got: object, hint: str = "") -> NoReturn:
    """Refuse input with the house's one sentence, as an :class:`InputError`."""
    refuse(function, argument, rule, got, hint, error=InputError)


def read(source: Any, function: str) -> tuple[pl.DataFrame, str]:
    """The rows of ``source`` and a name for them.

    Args:
        source: Path of a CSV, TSV or Parquet file, or a data frame (Polars, pandas, PyArrow, or whatever else
            Narwhals reads).
        function: Who asks, for the message.
    Raises: InputError: missing, empty, unreadable, or of an unknown kind.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        frame, name = _read_file(path, function), path.name
    else:
        try:
            native = nw.from_native(source)
            frame = (native.collect() if isinstance(native, nw.LazyFrame) else native).to_polars()
        except TypeError:
            bad(function, "source", "the path of a CSV or Parquet file, or a data frame", source)
        name = "data frame"
    if frame.width == 0 or frame.height == 0:
        bad(function, "source", "a table with at least one row", f"{name} with {frame.height} rows")
    return frame, name


def check_file(path: Path, function: str) -> str:
    """The kind of a file that is there, is no folder, and is not empty: ``parquet``, ``csv`` or ``tsv``."""
    many = "Several files are read as one by count_classes, `steelyard inspect` and `steelyard weights` only."
    if not path.exists():
        pattern = glob.has_magic(str(path))
        got = f"{path}, which " + ("is a pattern" if pattern else "does not exist")
        bad(function, "source", "the path of a file", got, many if pattern else _near(path))
    if path.is_dir():
        bad(function, "source", "the path of a file", f"{path}, which is a folder", many)
    suffixes = ["".join(path.suffixes[-2:]).lower(), path.suffix.lower()]
    kind = next((READERS[suffix] for suffix in suffixes if suffix in READERS), None)
    if kind is None:
        bad(function, "source", f"a file ending in {', '.join(READERS)}", str(path))
    if path.stat().st_size == 0:
        bad(function, "source", "a table with at least one row", f"{path}, which is empty")
    return kind


def header(path: Path, function: str) -> pl.DataFrame:
    """The columns of a file, without its rows."""
    kind = check_file(path, function)
    return _parse(path, kind, function, rows=0)


def _read_file(path: Path, function: str) -> pl.DataFrame:
    return _parse(path, check_file(path, function), function)


def _parse(path: Path, kind: str, function: str, rows: int | None = None) -> pl.DataFrame:
    separator = SEPARATORS.get(kind, "")
    try:
        if kind == "parquet":
            return pl.read_parquet(path, n_rows=rows)
        return pl.read_csv(path, separator=separator, infer_schema_length=None, try_parse_dates=True, n_rows=rows)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        if separator and path.suffix.lower() != ".gz":
            reason = csv_fault(path, separator) or reason  # where, which Polars does not say
        bad(function, "source", f"a readable {kind} file", f"{path}: {reason.rstrip('.')}")


def _near(path: Path) -> str:
    """A hint with the file that was probably meant."""
    folder = path.parent
    names = [other.name for other in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {folder / close[0]}?" if close else ""


def column(frame: pl.DataFrame, name: str, function: str, argument: str) -> pl.Series:
    """The column ``name``, or a refusal that suggests the closest one."""
    if name in frame.columns:
        return frame[name]
    other = next((mark for mark in ";\t|," if frame.width == 1 and mark in frame.columns[0]), "")
    if other:
        hint = f"The only column is {frame.columns[0]!r}: the columns seem to be separated by {other!r}. "
        hint += "Save them with tabs as .tsv." if other == "\t" else "Save the file with commas as .csv."
        bad(function, argument, "a column of the data", f"'{name}'", hint)
    close = difflib.get_close_matches(str(name), frame.columns, n=1, cutoff=0.5)
    shown = ", ".join(frame.columns[:8]) + (", ..." if frame.width > 8 else "")
    hint = f"Did you mean '{close[0]}'?" if close else f"The columns are {shown}."
    bad(function, argument, "a column of the data", f"'{name}'", hint)
