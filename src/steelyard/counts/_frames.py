"""Counts a column of a Polars or pandas frame. Neither is imported before it is needed."""

from __future__ import annotations

import difflib
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from steelyard._errors import refuse
from steelyard.counts._labels import tally_array
from steelyard.counts._tally import Progress, Tally

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "check_column",
    "first_line",
    "import_polars",
    "is_pandas",
    "is_polars",
    "tally_lazy",
    "tally_pandas",
    "tally_polars",
]


def is_polars(source: Any, *kinds: str) -> bool:
    """Whether ``source`` is one of these Polars classes, asked without importing Polars."""
    module = sys.modules.get("polars")
    return module is not None and isinstance(source, tuple(getattr(module, kind) for kind in kinds))


def is_pandas(source: Any, *kinds: str) -> bool:
    """Whether ``source`` is one of these pandas classes, asked without importing pandas."""
    module = sys.modules.get("pandas")
    return module is not None and isinstance(source, tuple(getattr(module, kind) for kind in kinds))


def tally_polars(source: Any, target: Any, progress: Progress | None) -> Tally:
    """Distinct labels of a Polars Series, or of a column of a DataFrame or LazyFrame."""
    if is_polars(source, "Series"):
        if source.dtype == import_polars().Object:
            return tally_array(np.asarray(source.to_list(), dtype=object), progress)
        tally = tally_lazy(source.alias("labels").to_frame().lazy(), "labels", "", progress)
        return replace(tally, place=lambda row: f"position {row}")
    frame = source.lazy()
    try:
        columns = frame.collect_schema().names()
        check_column(target, columns, "the frame")
        return tally_lazy(frame, target, "", progress)
    except import_polars().exceptions.PolarsError as error:
        refuse("count_classes", "source", "a frame that Polars can compute", f"one that fails: {first_line(error)}")


def tally_lazy(
    frame: pl.LazyFrame, target: str, prefix: str, progress: Progress | None, whole_rows: bool = False
) -> Tally:
    """Group and count in Polars' streaming engine, so that memory follows the number of classes, not of rows.

    ``whole_rows`` parses all columns of a CSV. It takes twice as long as the one column, and sees what Polars otherwise
    lets pass: a row with a comma too many, whose label has moved to the next column.
    """
    polars = import_polars()
    dtype = frame.collect_schema()[target]
    column = polars.col(target).alias("label")
    if dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    elif not (dtype.is_integer() or dtype.is_float() or dtype in (polars.String, polars.Boolean, polars.Null)):
        rule = "a column of integers, strings, bools or whole floats"
        refuse("count_classes", "target", rule, f"{dtype} in '{target}'", "Cast it to strings first.", error=TypeError)
    labels = frame.select(column)
    lock, done = threading.Lock(), 0
    if whole_rows or progress is not None:

        def passing(batch: pl.DataFrame) -> pl.DataFrame:
            nonlocal done
            with lock:  # batches come from several threads
                done += batch.height
                if progress is not None:
                    progress(done, None)
            return batch.select(column) if whole_rows else batch

        everything = frame if whole_rows else labels
        schema = labels.collect_schema()
        counted = everything.map_batches(passing, projection_pushdown=not whole_rows, schema=schema, streamable=True)
    else:
        counted = labels
    groups = counted.group_by("label").agg(polars.len().alias("rows")).collect(engine="streaming")
    raw, sizes = groups["label"].to_list(), groups["rows"].to_list()
    if progress is not None:
        progress(sum(sizes), sum(sizes))

    def first(entries: list[int]) -> tuple[int, int]:
        wanted = [raw[entry] for entry in entries]
        held = polars.col("label").is_null() if None in wanted else polars.lit(False)
        if named := [label for label in wanted if label is not None]:
            held |= polars.col("label").is_in(named)
        found = labels.with_row_index("row").filter(held).head(1).collect(engine="streaming")
        row, label = found["row"].item(), found["label"].item()
        return row, next(e for e in entries if raw[e] == label or (label != label and raw[e] != raw[e]))

    order = dtype.categories.to_list() if isinstance(dtype, polars.Enum) else None
    return Tally(raw, sizes, first, lambda row: f"{prefix}row {row} (the first is 0), column '{target}'", order)


def tally_pandas(source: Any, target: Any, progress: Progress | None) -> Tally:
    """Distinct labels of a pandas Series, or of a column of a DataFrame."""
    place = "position {}"
    if is_pandas(source, "DataFrame"):
        check_column(target, list(source.columns), "the frame")
        source = source[target]
        if is_pandas(source, "DataFrame"):
            refuse("count_classes", "target", "the name of one column", f"{target!r}, the name of {source.shape[1]}")
        place = f"row {{}} (the first is 0), column '{target}'"
    if isinstance(source.dtype, np.dtype):
        tally = tally_array(source.to_numpy(), progress)
    else:  # categories, nullable and Arrow types: pandas counts these without a Python object per row
        found = source.value_counts(sort=False, dropna=False)
        found = found[found > 0]
        raw = [
            None if missing else label for label, missing in zip(found.index.tolist(), found.index.isna(), strict=True)
        ]

        def first(entries: list[int]) -> tuple[int, int]:
            masks = {
                e: (source.isna() if raw[e] is None else source == raw[e]).to_numpy(bool, na_value=False)
                for e in entries
            }
            return min((int(mask.argmax()), entry) for entry, mask in masks.items())

        order = source.cat.categories.tolist() if hasattr(source.dtype, "categories") else None
        tally = Tally(raw, found.tolist(), first, str, order)
        if progress is not None:
            progress(len(source), len(source))
    return replace(tally, place=place.format)


def check_column(target: Any, columns: list[Any], where: str) -> None:
    """Refuse a ``target`` that is not among the ``columns``, with the nearest name."""
    names = ", ".join(repr(name) for name in columns[:20]) + (f" and {len(columns) - 20} more" if columns[20:] else "")
    if target is None:
        refuse("count_classes", "target", f"the column of {where} that holds the labels", None, f"It has {names}.")
    if type(target).__hash__ is None:
        refuse("count_classes", "target", "the name of one column", target, f"It has {names}.", error=TypeError)
    if target in columns:
        return
    close = difflib.get_close_matches(str(target), [str(name) for name in columns], n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    refuse("count_classes", "target", f"a column of {where}", repr(target), f"{hint}It has {names}.")


def import_polars() -> Any:
    """Polars, or what to install."""
    try:
        import polars
    except ImportError as error:
        message = "count_classes: reading files needs Polars. Install it with: pip install 'steelyard[data]'"
        raise ImportError(message) from error
    return polars


def first_line(error: Exception) -> str:
    """What a library's error says, on one line and without the advice for its own users."""
    return " ".join(str(error).split("\n\n")[0].split())
