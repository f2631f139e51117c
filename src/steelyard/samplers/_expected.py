"""What an epoch of a sampler will hold, told before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.counts._table import ROWS_SHOWN

__all__ = ["F64", "Expected", "by_class", "held_by", "time_of"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Coverage and repeats of an epoch, class by class; means over the sampler's chance, not one epoch's own.

    At 99 : 1 and sampling weights of 1/share, an epoch as long as the data sees 39 % of the majority and each row of
    the minority fifty times: this is where that shows.
    """

    classes: tuple[Any, ...]
    """Labels; one entry, None, where the sampler knows none."""
    rows: tuple[int, ...]
    """Rows of each class."""
    draws: tuple[float, ...]
    """Draws of each class in an epoch, over all ranks."""
    coverage: tuple[float, ...]
    """The share of each class's rows that an epoch sees at least once."""

    @property
    def repeats(self) -> tuple[float, ...]:
        """How often an epoch sees a row of each class, on average."""
        return tuple(draws / rows if rows else 0.0 for draws, rows in zip(self.draws, self.rows, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        names = ("classes", "rows", "draws", "coverage", "repeats")
        return {name: list(getattr(self, name)) for name in names}

    def __str__(self) -> str:
        total = sum(self.draws)
        lines = [("class", "rows", "share of rows", "share of draws", "rows seen", "times a row")]
        shown = list(range(len(self.classes)))
        if len(shown) > ROWS_SHOWN:
            shown = shown[: ROWS_SHOWN // 2] + shown[-ROWS_SHOWN // 2 :]
        for c in shown:
            name = "all" if self.classes[c] is None else str(self.classes[c])
            share = self.rows[c] / sum(self.rows)
            line = (f"{self.rows[c]:,}", f"{share:.2%}", f"{self.draws[c] / total:.2%}", f"{self.coverage[c]:.2%}",
                    f"{self.repeats[c]:.4g}")  # fmt: skip
            lines.append((name[:40], *line))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))])
            for first, *rest in lines
        ]
        if len(shown) < len(self.classes):
            text.insert(1 + ROWS_SHOWN // 2, f"... {len(self.classes) - len(shown)} more ...")
        return "\n".join([*text, f"{total:,.0f} draws an epoch"])


def by_class(
    labels: tuple[list[Any], NDArray] | None,
    n: int,
    draws_of: Callable[[slice], F64],
    coverage_of: Callable[[F64], F64],
) -> Expected:
    """Sums over the rows of each class, in pieces: ``draws_of`` rows, and the chance of each to be seen at all."""
    distinct: list[Any] = [None] if labels is None else labels[0]
    counts, draws, seen = (np.zeros(len(distinct)) for _ in range(3))
    for start in range(0, n, 2**20):
        part = slice(start, min(start + 2**20, n))
        index = np.zeros(part.stop - start, np.intp) if labels is None else labels[1][part]
        mean = draws_of(part)
        counts += np.bincount(index, minlength=len(distinct))
        draws += np.bincount(index, weights=mean, minlength=len(distinct))
        seen += np.bincount(index, weights=coverage_of(mean), minlength=len(distinct))
    held = np.flatnonzero(counts)
    return Expected(
        classes=tuple(distinct[c] for c in held),
        rows=tuple(int(counts[c]) for c in held),
        draws=tuple(draws[held].tolist()),
        coverage=tuple((seen[held] / counts[held]).tolist()),
    )


def held_by(w: F64, time: float) -> F64:
    """The chance of each row to have arrived by a time."""
    if time == math.inf:
        return (w > 0).astype(np.float64)
    found: F64 = -np.expm1(-time * w)
    return found


def time_of(relative: Callable[[slice], F64], parts: Sequence[slice], wanted: int) -> float:
    """The t with Σ 1 − e^(−w·t) = wanted, by Newton's steps from below: the sum is concave, so none goes too far."""
    time = wanted / sum(float(relative(part).sum()) for part in parts)
    for _ in range(200):
        held = slope = 0.0
        for part in parts:
            w = relative(part)
            held += float(held_by(w, time).sum())
            slope += float((w * np.exp(-time * w)).sum())
        step = (wanted - held) / slope if slope > 0 else 0.0
        time += step
        if step <= 1e-9 * time:
            break
    return time
