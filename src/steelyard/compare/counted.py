"""What the classes of data say that is no single table: folders, patterns, lakes, masks, annotations."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.compare.inspection import imbalance_sentences
from steelyard.compare.read import READERS
from steelyard.compare.table import plain
from steelyard.counts import ClassCounts, count_classes

__all__ = ["CountInspection", "inspect_counts", "is_counted"]

FEW = {"rows": 50, "images": 50}
"""Below so many, scores of a class are uncertain whatever is done."""


def is_counted(source: str | os.PathLike[str]) -> bool:
    """Whether :func:`inspect_counts` looks at it rather than :func:`inspect`, which reads a single table whole."""
    path = Path(source)
    if path.is_dir() or (not path.exists() and glob.has_magic(str(path))):
        return True
    return path.exists() and not path.name.lower().endswith(tuple(READERS))


@dataclass(frozen=True)
class CountInspection:
    """Class counts and observations of data that was counted where it is."""

    data: str
    target: str | None
    unit: str
    """What is counted: ``rows``, ``pixels``, ``annotations``, or ``images``."""
    counts: ClassCounts

    @property
    def observations(self) -> list[str]:
        """What stands out, in plain sentences."""
        counts, words = self.counts.counts.numpy(), [str(plain(label)) for label in self.counts.classes]
        said = imbalance_sentences(words, counts, self.unit)
        absent = [f"'{word}'" for word, count in zip(words, counts, strict=True) if count == 0]
        if absent:
            said.append(f"Without {self.unit}: {_listed(absent)}. Weights for them need missing='zero' or 'max'.")
        of = "images" if self.counts.images is not None else self.unit
        seen = counts if self.counts.images is None else self.counts.images.numpy()
        few = [f"'{words[c]}' ({seen[c]:,})" for c in np.argsort(seen) if 0 < seen[c] < FEW.get(of, 0)]
        if few:
            said.append(f"Few {of}: {_listed(few)}. Scores of these classes will be uncertain whatever is done.")
        if self.counts.image_pixels is not None:
            said.append(
                "The scheme median_frequency weighs by the pixels of the images with the class, as its authors do."
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the classes most frequent first, a ratio to nothing as None."""
        counts, ratio = self.counts, self.counts.imbalance_ratio
        images = None if counts.images is None else counts.images.tolist()
        classes = []
        for c in np.argsort(-counts.counts.numpy(), kind="stable").tolist():
            count = int(counts.counts[c])
            entry = {"label": plain(counts.classes[c]), "count": count, "share": count / counts.total}
            classes.append(entry if images is None else {**entry, "images": images[c]})
        return {
            "data": self.data,
            "target": self.target,
            "unit": self.unit,
            "total": counts.total,
            "images": counts.num_images,
            "classes": classes,
            "imbalance_ratio": ratio if math.isfinite(ratio) else None,
            "majority_accuracy": counts.majority_accuracy,
            "observations": self.observations,
        }


def inspect_counts(
    source: str | os.PathLike[str],
    target: str | None = None,
    *,
    ignore_index: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> CountInspection:
    r"""Look at the classes of a path that is no single table: what :func:`steelyard.count_classes` finds there.

    Args:
        source: A pattern or folder of tables, JSON lines, a folder of class folders, label masks, COCO annotations.
        target: The column with the labels; None where there are no columns.
        ignore_index: A label that is not counted.
        progress: Called as ``progress(done, total)`` while counting goes on.
    Returns: :class:`CountInspection`; ``to_dict()`` for JSON, ``observations`` for people.
    Raises: as :func:`steelyard.count_classes`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.jsonl").write_text('{"y": "a"}\n' * 90 + '{"y": "b"}\n' * 10)
        ...     found = inspect_counts(f"{folder}/*.jsonl", "y")
        >>> found.counts.imbalance_ratio, found.unit
        (9.0, 'rows')
    """
    counts = count_classes(source, target, ignore_index=ignore_index, progress=progress)
    unit = "rows" if target is not None else "images"
    if counts.images is not None:
        unit = "pixels" if counts.image_pixels is not None else "annotations"
    return CountInspection(os.fspath(source), target, unit, counts)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "")
