"""What the sharded loss sends and keeps at sizes that no test has: formulas, held to counted bytes of small runs.

``python -m benchmarks.scale`` writes the table of docs/scale.md. tests/benchmarks/test_scale.py counts the same on two
and four ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import between

__all__ = ["EXCHANGE", "PAGE", "Job", "main", "page", "table"]

PAGE = Path(__file__).parent.parent / "docs/scale.md"
START, END = "<!-- table: written by benchmarks/scale.py -->", "<!-- /table -->"

EXCHANGE = 216
"""Bytes from each rank by which arguments are compared first."""


@dataclass(frozen=True)
class Job:
    """A step on sharded classes. Bytes are those of one rank."""

    classes: int
    ranks: int
    rows: int = 8192
    features: int = 512
    weighted: bool = True
    soft: bool = False
    smoothed: bool = True
    by_target: bool = False
    logit_bytes: int = 2  # bfloat16
    sum_bytes: int = 4  # float32

    @property
    def here(self) -> int:
        """Classes of the first rank, which has most."""
        return -(-self.classes // self.ranks)

    @property
    def sums(self) -> int:
        """Numbers of each row in the second all-reduce."""
        has_mass = self.soft or (self.weighted and not self.by_target)
        has_own = self.weighted and (not self.soft or self.by_target)
        same = self.weighted and not (self.soft or self.smoothed or self.by_target)
        return 2 + has_mass + (has_own and not same)

    @property
    def sent(self) -> int:
        """What a rank puts into the collectives of the loss: none of it depends on the classes, or on the ranks."""
        return EXCHANGE + self.rows * self.sum_bytes * (1 + self.sums)

    @property
    def sent_for_features(self) -> int:
        """What a rank puts into the all-reduce of the features' gradient."""
        return self.rows * self.features * self.sum_bytes

    @property
    def kept(self) -> int:
        """What the backward pass finds beside the logits, the target and the caller's own weights."""
        has_mass = self.soft or (self.weighted and not self.by_target)
        return self.rows * self.sum_bytes * (2 + has_mass + (self.weighted and self.by_target))

    @property
    def logits(self) -> int:
        """The logits of a rank."""
        return self.rows * self.here * self.logit_bytes

    @property
    def gathered(self) -> int:
        """What a rank would receive if logits were gathered instead."""
        return self.rows * (self.classes - self.here) * self.logit_bytes

    @property
    def layer(self) -> int:
        """The classifier's weight of a rank, float32."""
        return self.here * self.features * 4


def _size(count: int) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = 0
    value = float(count)
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000.0, power + 1
    return f"{value:.3g} {units[power]}"


JOBS = [Job(classes, ranks) for classes in (10**6, 10**8) for ranks in (8, 1024)]


def table() -> str:
    """The table, as Markdown."""
    heads = ("classes", "ranks", "logits, if held", "gathering them", "sent for the loss", "kept for it",
             "sent for the features", "weight")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "| ---: " * len(heads) + "|"]
    for job in JOBS:
        sizes = (job.logits, job.gathered, job.sent, job.kept, job.sent_for_features, job.layer)
        lines.append(f"| {job.classes:,} | {job.ranks} | " + " | ".join(_size(size) for size in sizes) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """docs/scale.md with what is between its markers written anew."""
    return between(text, START, END, table(), "docs/scale.md")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
