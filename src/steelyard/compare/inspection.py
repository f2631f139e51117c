"""What the data says about itself before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steelyard.compare.table import Table, group_rows, load
from steelyard.counts import ClassCounts
from steelyard.explain import Findings, check

__all__ = ["Duplicates", "Inspection", "class_counts", "find_duplicates", "inspect"]


@dataclass(frozen=True)
class Duplicates:
    """Rows that say the same thing twice, and rows that contradict each other."""

    repeated: int
    """Rows equal to an earlier row in every feature and in the class."""
    contradicting: int
    """Rows for which a row with the same features has another class."""
    best_accuracy: float
    """Accuracy on these very rows that no function of the features can pass."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "repeated_rows": self.repeated,
            "contradicting_rows": self.contradicting,
            "best_possible_accuracy": self.best_accuracy,
        }


def find_duplicates(table: Table) -> Duplicates:
    """Count repeats and contradictions among the features of ``table``."""
    alike = group_rows(table.features)
    held = np.zeros((int(alike.max()) + 1, len(table.classes)), dtype=np.int64)
    np.add.at(held, (alike, table.target), 1)
    mixed = (held > 0).sum(axis=1) > 1
    return Duplicates(
        repeated=int(held.sum() - (held > 0).sum()),
        contradicting=int(held[mixed].sum()),
        best_accuracy=float(held.max(axis=1).sum() / held.sum()),
    )


@dataclass(frozen=True)
class Inspection:
    """Counts, duplicates, columns and observations of one table."""

    table: Table
    duplicates: Duplicates

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the most frequent class per row of the rarest."""
        counts = self.table.counts
        return float(counts.max() / counts.min())

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of always answering the most frequent class."""
        return float(self.table.counts.max() / self.table.counts.sum())

    @property
    def observations(self) -> list[str]:
        """What stands out, in plain sentences."""
        table, counts, words = self.table, self.table.counts, self.table.words
        rows = int(counts.sum())
        said = imbalance_sentences(words, counts, "rows")
        few = [f"'{words[c]}' ({counts[c]})" for c in np.argsort(counts) if counts[c] < 50]
        if few:
            said.append(f"Few rows: {', '.join(few)}. Scores of these classes will be uncertain whatever is done.")
        if self.duplicates.repeated:
            kept = "compare sees to that."
            if not self._equal_rows_together():
                kept = "here they may be on both sides, which makes scores too good."
            said.append(
                f"{self.duplicates.repeated:,} rows repeat an earlier row in every feature and in the class. "
                f"Equal rows must stay on one side of a split; {kept}"
            )
        if self.duplicates.contradicting:
            said.append(
                f"{self.duplicates.contradicting:,} rows have the same features as a row of another class: "
                f"on this data no model can be right for more than {self.duplicates.best_accuracy:.1%} of the rows."
            )
        missing = [f"'{c.name}' ({c.nulls / rows:.0%})" for c in table.columns if c.nulls >= 0.005 * rows]
        if missing:
            said.append(f"Missing values: {', '.join(missing)}. They are filled in, and a column says where.")
        return said + list(table.notes)

    @property
    def findings(self) -> Findings:
        """What :func:`steelyard.check` says of the classes."""
        return check(**class_counts(self.table))

    def _equal_rows_together(self) -> bool:
        alike = group_rows(self.table.features)
        pairs = np.unique(np.stack([alike, self.table.groups]), axis=1)
        return bool(pairs.shape[1] == int(alike.max()) + 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        table = self.table
        return {
            "data": table.name,
            "rows": len(table.target),
            "target": table.target_name,
            "classes": class_table(table),
            "imbalance_ratio": self.imbalance_ratio,
            "majority_accuracy": self.majority_accuracy,
            "duplicates": self.duplicates.to_dict(),
            "columns": [column.to_dict() for column in table.columns],
            "observations": self.observations,
            "findings": self.findings.to_dict(),
        }


def imbalance_sentences(words: Sequence[str], counts: np.ndarray, unit: str) -> list[str]:
    """How much the counts of classes that occur differ, and what follows for the score; ``unit`` is what is counted."""
    total, often = int(counts.sum()), words[int(counts.argmax())]
    fewest = int(counts[counts > 0].min())
    ratio = counts.max() / fewest
    if ratio < 1.5:
        return ["The classes are about equally frequent: there is no imbalance to remedy."]
    rare = words[counts.tolist().index(fewest)]
    return [
        f"'{rare}' has {fewest:,} of {total:,} {unit} ({fewest / total:.1%}): {ratio:,.1f} times fewer than '{often}'.",
        f"Always answering '{often}' is right for {counts.max() / total:.1%} of the {unit} and finds no "
        "other class: judge by balanced accuracy, macro-F1 or average precision rather than by accuracy.",
    ]


def class_table(table: Table) -> list[dict[str, Any]]:
    """Label, rows and share of every class, most frequent first."""
    counts = table.counts
    order = np.argsort(-counts, kind="stable")
    return [
        {"label": table.classes[c], "count": int(counts[c]), "share": float(counts[c] / counts.sum())} for c in order
    ]  # fmt: skip


def class_counts(table: Table) -> dict[str, Any]:
    """``counts`` and ``labels`` as :func:`steelyard.check` takes them, the classes as the data names them."""
    kinds = {type(label) for label in table.classes}
    names = table.classes if len(kinds) == 1 and kinds <= {int, str, bool} else table.words
    return {"counts": ClassCounts(names, table.counts), "labels": [names[c] for c in table.target.tolist()]}


def inspect(source: Any, target: str, *, drop: Sequence[str] = ()) -> Inspection:
    """Look at a table before training anything: class counts, duplicates, missing values, columns that are no features.

    Args:
        source: Path of a CSV, TSV or Parquet file, or a data frame (Polars, pandas, PyArrow).
        target: Column of classes, without missing values.
        drop: Columns to leave out.
    Returns: :class:`Inspection`; ``to_dict()`` for JSON, ``observations`` for people.
    Raises: InputError (a ValueError): the file, a column, or the target cannot be used.

    Example:
        >>> import polars as pl
        >>> found = inspect(pl.DataFrame({"x": [1, 2, 2, 2], "y": ["a", "b", "b", "b"]}), "y")
        >>> found.imbalance_ratio, found.duplicates.repeated
        (3.0, 2)
    """
    table = load(source, target, drop=drop, function="inspect")
    return Inspection(table, find_duplicates(table))
