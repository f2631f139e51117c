"""The data as a comparison needs it: features, class numbers, and which rows must stay together."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steelyard.compare.columns import Column, describe_columns, feature_frame
from steelyard.compare.read import bad, column, read

__all__ = ["Table", "class_labels", "group_rows", "join_groups", "load", "plain"]

MOST_CLASSES = 200


@dataclass(frozen=True)
class Table:
    """Rows ready for splitting: ``target[i]`` is a position in ``classes``, rows of one ``group`` stay on one side."""

    name: str
    source: str | None
    """Path of the file as it was given, where there is one."""
    features: pl.DataFrame
    columns: tuple[Column, ...]
    target_name: str
    target: np.ndarray
    classes: tuple[Any, ...]
    groups: np.ndarray
    grouping: str
    """In words, which rows stay together."""
    notes: tuple[str, ...]
    path: Path | None = None
    """The same from the root, for a program that may run in another folder."""

    @property
    def counts(self) -> np.ndarray:
        """Rows per class, int64, in the order of ``classes``."""
        return np.bincount(self.target, minlength=len(self.classes))

    @property
    def words(self) -> tuple[str, ...]:
        """The classes as text."""
        return tuple(str(c) for c in self.classes)


def load(
    source: Any,
    target: str,
    *,
    drop: Sequence[str] = (),
    group: Sequence[str] = (),
    varies: Sequence[str] = (),
    split_duplicates: bool = False,
    function: str = "compare",
) -> Table:
    """Read ``source`` and find out what each column is for.

    Raises: InputError: a file or column that is not there, a target with missing values or without classes, no
    features.
    """
    frame, name = read(source, function)
    labels = column(frame, target, function, "target")
    for argument, names in (("drop", drop), ("group", group), ("varies", varies)):
        for word in names:
            column(frame, word, function, argument)
            if word == target:
                bad(function, argument, "columns other than the target", f"'{word}'")
    codes, classes = class_labels(labels, function)
    columns = describe_columns(frame, target, drop=tuple(drop), group=tuple(group))
    features = feature_frame(frame, columns)
    if features.width == 0:
        left_out = "; ".join(f"'{c.name}': {c.note}" for c in columns if c.role == "unused")
        hint = f"{left_out}. " * bool(left_out) + "Classes alone are counted by count_classes and `steelyard weights`."
        bad(function, "source", "a table with a usable feature beside the target", f"{name} with none", hint)
    notes = [f"'{c.name}' is left out: {c.note}." for c in columns if c.role == "unused" and c.name not in drop]
    notes += [f"'{c.name}': {c.note}." for c in columns if c.role == "number" and "missing" in c.note]
    if varies and split_duplicates:
        hint = "Rows of one case cannot both stay together and fall on both sides."
        bad(function, "varies", "left out where split_duplicates is given", ", ".join(varies), hint)
    alike = features.drop([v for v in varies if v in features.columns])
    if alike.width == 0:
        bad(function, "varies", "some of the features, not all of them", ", ".join(varies))
    if not (group or varies or split_duplicates):
        notes += repeated_cases(features)
    kinds, reasons = [], []
    if group:
        kinds.append(group_rows(frame.select(group)))
        reasons.append("rows with the same " + " and ".join(f"'{g}'" for g in group))
    if not split_duplicates:
        kinds.append(group_rows(alike))
        uncounted = " (not counting " + ", ".join(f"'{v}'" for v in varies) + ")" if varies else ""
        reasons.append("rows with identical features" + uncounted)
    groups = join_groups(kinds) if kinds else np.arange(frame.height)
    grouping = ", and ".join(reasons) or "nothing: each row stands alone"
    given, path = (str(source), Path(source).resolve()) if isinstance(source, str | os.PathLike) else (None, None)
    return Table(
        name, given, features, tuple(columns), target, codes, classes, groups, grouping, tuple(notes), path
    )  # fmt: skip


def class_labels(labels: pl.Series, function: str) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Class numbers (int64) and the classes in sorted order.

    Raises: InputError: a missing label (named by row), fewer than two classes, a target that is a measurement or a
    name.
    """
    missing = labels.is_null() | labels.is_nan() if labels.dtype.is_float() else labels.is_null()
    if missing.any():
        count = int(missing.sum())
        where = (
            f"'{labels.name}' with {count:,} missing, the first in row {int(missing.arg_max() or 0)} (the first is 0)"
        )
        bad(function, "target", "a column without missing values", where, "Leave those rows out or give them a class.")
    if labels.dtype.is_nested() or labels.dtype in (pl.Binary, pl.Object):
        bad(function, "target", "a column of classes", f"'{labels.name}' of type {labels.dtype}")
    if isinstance(labels.dtype, pl.Categorical | pl.Enum):
        labels = labels.cast(pl.String)
    distinct = labels.unique().sort()
    if len(distinct) < 2:
        bad(function, "target", "a column with at least two classes", f"'{labels.name}', always {distinct[0]!r}")
    if len(distinct) > MOST_CLASSES:
        looks = "a number" if labels.dtype.is_numeric() or labels.dtype.is_temporal() else "a name or free text"
        got = f"'{labels.name}' with {len(distinct):,} different values, which looks like {looks}"
        bad(function, "target", f"a column of classes, {MOST_CLASSES} at the most", got, "Cut it into classes first.")
    codes = distinct.search_sorted(labels).cast(pl.Int64).to_numpy()
    return np.array(codes), tuple(plain(value) for value in distinct.to_list())


def plain(value: Any) -> Any:
    """A class as JSON can hold it; whole floats as they are written by people (1 rather than 1.0)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def group_rows(frame: pl.DataFrame) -> np.ndarray:
    """One number per row, int64; equal numbers for rows equal in every column (missing equals missing)."""
    distinct = frame.unique(maintain_order=True).with_row_index("__group__")
    joined = frame.join(distinct, on=frame.columns, how="left", nulls_equal=True, maintain_order="left")
    return np.array(joined["__group__"].cast(pl.Int64).to_numpy())


def join_groups(kinds: Sequence[np.ndarray]) -> np.ndarray:
    """One number per row, int64; equal for rows that a chain of equal numbers connects, in whichever of ``kinds``.

    If row 1 shares its person with row 2, and row 2 its features with row 3, all three stay on one side.
    """
    if len(kinds) == 1:
        return kinds[0]
    rows = len(kinds[0])
    starts = np.cumsum([rows, *(int(kind.max()) + 1 for kind in kinds)])
    numbers = np.concatenate([kind + start for kind, start in zip(kinds, starts, strict=False)])
    ends = np.tile(np.arange(rows), len(kinds)), numbers  # an edge from each row to each of its groups
    graph = coo_array((np.ones(len(numbers), dtype=np.int8), ends), shape=(int(starts[-1]), int(starts[-1])))
    _, labels = connected_components(graph, directed=False)
    return np.unique(labels[:rows], return_inverse=True)[1].astype(np.int64)


def repeated_cases(features: pl.DataFrame) -> list[str]:
    """A warning for each column without which most rows are repeats: the sign of one case measured many times."""
    if not 2 <= features.width <= 60:
        return []
    whole = features.n_unique()
    found = []
    for name in features.columns:
        rest = features.drop(name).n_unique()
        if whole > 100 and rest < 0.4 * whole:
            found.append(
                f"Apart from '{name}' only {rest:,} of {whole:,} different rows remain: the same cases may have been "
                f"measured several times. If so, keep each case on one side of the splits (--varies {name}, or --group "
                "with a column that names the case); otherwise the scores are too good."
            )
    return found
