"""Counts a column of a frame in the engine that holds it: Narwhals speaks to all of them, Polars streams."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from steelyard._errors import refuse
from steelyard.counts._labels import tally_array
from steelyard.counts._tally import Progress, Tally

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw
    import polars as pl

__all__ = ["as_frame", "check_column", "first_line", "import_polars", "tally_counts", "tally_frame", "tally_streaming"]

_LIBRARIES = {"pandas", "polars", "pyarrow", "modin", "cudf", "dask", "duckdb", "pyspark", "ibis", "sqlframe"}


def as_frame(
    source: Any, function: str = "count_classes"
) -> nw.DataFrame[Any] | nw.LazyFrame[Any] | nw.Series[Any] | None:
    """A frame or Series as Narwhals sees it, or None where ``source`` is neither."""
    try:
        import narwhals.stable.v2 as narwhals
        from narwhals.exceptions import DuplicateError
    except ImportError as error:
        if type(source).__module__.split(".")[0] not in _LIBRARIES:
            return None
        message = f"{function}: reading frames needs Narwhals. Install it with: pip install 'steelyard[data]'"
        raise ImportError(message) from error
    try:
        found = narwhals.from_native(source, pass_through=True, allow_series=True)
    except DuplicateError as error:
        rule = "a frame whose columns have different names"
        refuse(function, "source", rule, f"one that has not: {first_line(error)}")
    return found if isinstance(found, narwhals.DataFrame | narwhals.LazyFrame | narwhals.Series) else None


def tally_frame(frame: Any, target: Any, progress: Progress | None) -> Tally:
    """Distinct labels of a Series, or of a column of a frame, that :func:`as_frame` gave."""
    import narwhals.stable.v2 as nw

    if isinstance(frame, nw.Series):
        return _tally_series(frame, None, "position {}".format, progress)
    if isinstance(frame, nw.DataFrame):
        check_column(target, frame.columns, "the frame")
        return _tally_series(
            frame.get_column(target), target, f"row {{}} (the first is 0), column '{target}'".format, progress
        )
    if not frame.implementation.is_polars():
        return _tally_lazy(frame, target, progress)
    native = frame.to_native()
    try:
        check_column(target, native.collect_schema().names(), "the frame")
        return tally_streaming(native, target, "", progress)
    except import_polars().exceptions.PolarsError as error:
        _cannot_compute("Polars", error)


def _tally_series(series: nw.Series[Any], target: Any, place: Callable[[int], str], progress: Progress | None) -> Tally:
    """Distinct labels of a column in memory, or where ``target`` is None of a Series."""
    import narwhals.stable.v2 as nw

    kind = series.dtype
    if kind == nw.Object:
        array = np.empty(len(series), dtype=object)
        array[:] = series.to_list()
        return replace(tally_array(array, progress), place=place)
    _check_dtype(kind, target)
    gaps = series.is_null()
    if gaps.any():
        row = int(np.asarray(gaps.to_numpy(), dtype=bool).argmax())
        return Tally([None], [1], lambda entries: (row, 0), place)
    if kind.is_numeric() or kind == nw.Boolean:
        return replace(tally_array(series.to_numpy(), progress), place=place)
    found = series.value_counts(name="rows")
    labels, counts = found[found.columns[0]].to_list(), found["rows"].to_list()

    def first(entries: list[int]) -> tuple[int, int]:
        return min((int((series == labels[entry]).to_numpy().argmax()), entry) for entry in entries)

    if progress is not None:
        progress(len(series), len(series))
    # Polars and Arrow number the values of a Categorical as they come; pandas declares them.
    declared = kind == nw.Enum or (kind == nw.Categorical and series.implementation.is_pandas_like())
    order = series.cat.get_categories().to_list() if declared else None
    present = [entry for entry, count in enumerate(counts) if count]
    labels, counts = [labels[entry] for entry in present], [counts[entry] for entry in present]
    return Tally(labels, counts, first, place, order)


def _tally_lazy(frame: nw.LazyFrame[Any], target: str, progress: Progress | None) -> Tally:
    """Group and count in the engine of the frame: only the distinct labels and their counts come here."""
    import narwhals.stable.v2 as nw

    def computed(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # every engine has its own, which have no class in common
            _cannot_compute(frame.implementation.value, error)

    schema = computed(frame.collect_schema)
    check_column(target, schema.names(), "the frame")
    kind = schema[target]
    _check_dtype(kind, target)
    labels = frame.select(nw.col(target).alias("label"))
    groups = computed(labels.group_by("label").agg(nw.len().alias("rows")).collect)
    raw, gaps = groups["label"].to_list(), groups["label"].is_null().to_list()
    found = [None if gap else label for label, gap in zip(raw, gaps, strict=True)]
    counts = [int(count) for count in groups["rows"].to_list()]
    if progress is not None:
        progress(sum(counts), sum(counts))

    def place(entry: int) -> str:  # such engines keep no order of rows that could be named
        return f"column '{target}', in {counts[entry]:,} row" + ("s" if counts[entry] != 1 else "")

    order = list(kind.categories) if isinstance(kind, nw.Enum) else None
    return Tally(found, counts, lambda entries: (min(entries), min(entries)), place, order)


def _cannot_compute(engine: str, error: Exception) -> NoReturn:
    refuse("count_classes", "source", f"a frame that {engine} can compute", f"one that fails: {first_line(error)}")


def _check_dtype(kind: Any, target: Any) -> None:
    """Refuse a column, or where ``target`` is None a Series, of a type that cannot name classes."""
    import narwhals.stable.v2 as nw

    words = isinstance(kind, nw.String | nw.Boolean | nw.Categorical | nw.Enum | nw.Object | nw.Unknown)
    if not (kind.is_integer() or kind.is_float() or words):
        argument = "source" if target is None else "target"
        rule = "integers, strings, bools or whole floats"
        where = "" if target is None else f" in '{target}'"
        refuse("count_classes", argument, rule, f"{kind}{where}", "Cast them to strings first.", error=TypeError)


def tally_streaming(
    frame: pl.LazyFrame, target: str, prefix: str, progress: Progress | None, whole_rows: bool = False
) -> Tally:
    """Group and count in Polars' streaming engine, so that memory follows the number of classes, not of rows.

    ``whole_rows`` parses all columns of a CSV. It takes twice as long as the one column, and sees what Polars otherwise
    lets pass: a row with a comma too many, whose label has moved to the next column.
    """
    polars = import_polars()
    labels, column = _label_column(frame, target)
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
    counts = dict(zip(groups["label"].to_list(), groups["rows"].to_list(), strict=True))
    return tally_counts(frame, target, prefix, counts, progress)


def tally_counts(
    frame: pl.LazyFrame, target: str, prefix: str, counts: Mapping[Any, int], progress: Progress | None
) -> Tally:
    """A tally of ``counts`` of a column; where a label is, it finds by reading the column again."""
    polars = import_polars()
    labels, _ = _label_column(frame, target)
    raw, sizes = list(counts), list(counts.values())
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

    dtype = frame.collect_schema()[target]
    order = dtype.categories.to_list() if isinstance(dtype, polars.Enum) else None
    return Tally(raw, sizes, first, lambda row: f"{prefix}row {row} (the first is 0), column '{target}'", order)


def _label_column(frame: pl.LazyFrame, target: str) -> tuple[pl.LazyFrame, pl.Expr]:
    """The column as a frame of ``label`` alone, and the expression that makes it; refuses types that name no class."""
    polars = import_polars()
    dtype = frame.collect_schema()[target]
    column = polars.col(target).alias("label")
    if dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    elif not (dtype.is_integer() or dtype.is_float() or dtype in (polars.String, polars.Boolean, polars.Null)):
        rule, hint = "integers, strings, bools or whole floats", "Cast them to strings first."
        refuse("count_classes", "target", rule, f"{dtype} in '{target}'", hint, error=TypeError)
    return frame.select(column), column


def check_column(target: Any, columns: list[Any], where: str) -> None:
    """Refuse a ``target`` that is not among the ``columns``, with the nearest name."""
    names = ", ".join(repr(name) for name in columns[:20]) + (f" and {len(columns) - 20} more" if columns[20:] else "")
    if target is None:
        refuse("count_classes", "target", f"the column of {where} that holds the labels", None, f"It has {names}.")
    if type(target).__hash__ is None:
        refuse("count_classes", "target", "the name of one column", target, f"It has {names}.", error=TypeError)
    if (found := columns.count(target)) > 1:
        refuse("count_classes", "target", "the name of one column", f"{target!r}, the name of {found}")
    if found:
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
