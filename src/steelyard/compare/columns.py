"""What each column is, and how it enters a model: as a number, as a category, or not at all (with the reason)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import polars.selectors as cs

__all__ = ["MISSING", "Column", "describe_columns", "feature_frame"]

MISSING = "(missing)"
"""The category that stands for a missing category."""

NULL_WORDS = ("", "na", "n/a", "nan", "null", "none", "?", "-", ".")


@dataclass(frozen=True)
class Column:
    """One column: its type in the data, its role in a model, and why it has it."""

    name: str
    dtype: str
    role: str
    """``number``, ``category``, ``date``, ``target``, ``group``, or ``unused``."""
    nulls: int
    unique: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def describe_columns(
    frame: pl.DataFrame, target: str, *, drop: tuple[str, ...] = (), group: tuple[str, ...] = ()
) -> list[Column]:
    """The role of every column. Looks at no label, so nothing about the classes leaks into the choice."""
    columns = []
    for series in frame.get_columns():
        nulls = missing_count(series)
        unique = _unique(series)
        if series.name == target:
            role, note = "target", ""
        elif series.name in group:
            role, note = "group", "says which rows belong together; not a feature"
        elif series.name in drop:
            role, note = "unused", "left out on request"
        else:
            role, note = _role(series, nulls, unique)
        if role == "number" and series.dtype not in (pl.Boolean, pl.Null) and not series.dtype.is_numeric():
            read = series.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
            nulls, unique = missing_count(read), _unique(read)  # as they enter: '?' among numbers is a missing number
        columns.append(Column(series.name, str(series.dtype), role, nulls, unique, note))
    return columns


def missing_count(series: pl.Series) -> int:
    """Nulls, and NaNs where the column holds floats."""
    return series.null_count() + (int(series.is_nan().sum() or 0) if series.dtype.is_float() else 0)


def _unique(series: pl.Series) -> int:
    """Distinct values that are not missing."""
    try:
        present = series.drop_nans() if series.dtype.is_float() else series
        return present.drop_nulls().n_unique()
    except pl.exceptions.PolarsError:  # nested and opaque types that Polars cannot compare
        return 0


def _role(series: pl.Series, nulls: int, unique: int) -> tuple[str, str]:
    dtype, rows = series.dtype, len(series)
    present = rows - nulls
    if present == 0:
        return "unused", "every value is missing"
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return "unused", f"{dtype} is neither a number nor a category"
    if unique == 1 and nulls == 0:
        return "unused", "the same value in every row"
    if dtype.is_numeric():
        if dtype.is_integer() and present == unique == rows > 20 and _span(series) == rows - 1:
            return "unused", "numbers the rows"
        infinite = int(series.is_infinite().sum() or 0) if dtype.is_float() else 0
        return "number", f"{infinite:,} infinite values count as missing" if infinite else ""
    if dtype == pl.Boolean:
        return "number", "false is 0, true is 1"
    if dtype.is_temporal():
        return "date", "enters as days"
    words = series.cast(pl.String)
    if numbers_as_text(words):
        return "number", "numbers held as text; what is no number counts as missing"
    if present > 20 and unique > 0.9 * present:
        return "unused", "nearly every value is different, like a name or an id"
    return "category", ""


def _span(series: pl.Series) -> int:
    return int(series.max()) - int(series.min())  # type: ignore[arg-type]  # the column is integer


def numbers_as_text(words: pl.Series) -> bool:
    """Whether all but the usual words for "missing" read as numbers. Codes like ``0123`` stay words."""
    real = words.drop_nulls().str.strip_chars()
    real = real.filter(~real.str.to_lowercase().is_in(NULL_WORDS))
    if len(real) == 0 or real.str.contains(r"^0\d").any():
        return False
    return real.cast(pl.Float64, strict=False).null_count() == 0


def feature_frame(frame: pl.DataFrame, columns: list[Column]) -> pl.DataFrame:
    """The features, each row on its own: numbers and dates as Float64 with nulls, categories as String without.

    Nothing is learnt here; medians, scales and the list of categories are fitted on the training part of each split.
    """
    names = {role: [c.name for c in columns if c.role == role] for role in ("number", "date", "category")}
    order = [c.name for c in columns if c.role in names]
    text = [
        name for name in names["number"] if not (frame.schema[name].is_numeric() or frame.schema[name] == pl.Boolean)
    ]
    cleaned = frame.with_columns(pl.col(text).cast(pl.String).str.strip_chars()).select(
        pl.col(names["number"]).cast(pl.Float64, strict=False),
        *(_days(name, frame.schema[name]) for name in names["date"]),
        pl.col(names["category"]).cast(pl.String).fill_null(MISSING),
    )
    finite = cs.float().is_finite()
    return cleaned.with_columns(pl.when(finite).then(cs.float())).select(order)


def _days(name: str, dtype: pl.DataType) -> pl.Expr:
    microseconds = pl.Duration("us") if dtype == pl.Duration else pl.Datetime("us")
    if dtype == pl.Time:
        return pl.col(name).cast(pl.Int64).cast(pl.Float64) / 86_400e9
    return pl.col(name).cast(microseconds).cast(pl.Int64).cast(pl.Float64) / 86_400e6
