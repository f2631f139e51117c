"""``report.html``, ``report.json`` and ``recommended.py``: written together or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.compare.comparison import Comparison
from steelyard.compare.evaluate import METRICS, Interval
from steelyard.compare.paste import for_folder
from steelyard.compare.read import bad
from steelyard.compare.run import SAMPLES, tuned_for
from steelyard.posterior.thresholds import FEWEST

__all__ = ["check_folder", "render", "save", "write_together"]


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Find out before hours of training, not after, that the report could not be written.

    Raises: ImportError: Jinja2 or Matplotlib is missing. InputError: ``folder`` is a file or may not be written.
    """
    for module, package in {"jinja2": "Jinja2", "matplotlib": "Matplotlib"}.items():
        if find_spec(module) is None:
            raise ImportError(f"A report needs {package}, which is not installed: pip install 'steelyard[report]'")
    path = Path(folder)
    try:
        standing = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not standing.is_dir():
            bad("compare", "output", "a folder", f"{standing}, which is a file")
        _try_writing(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        bad("compare", "output", "a folder that may be written", f"{path}: {reason}")


def _try_writing(folder: Path) -> None:
    """Make the folder and a file in it, and take both away again: permissions alone do not say whether that works."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def save(comparison: Comparison, folder: str | os.PathLike[str]) -> list[str]:
    """Write the three files of a comparison into ``folder``; see :meth:`Comparison.save`."""
    check_folder(folder)
    data = comparison.to_dict()
    return write_together(
        Path(folder),
        {
            "report.html": render(comparison),
            "report.json": json.dumps(data, indent=2, ensure_ascii=False) + "\n",
            "recommended.py": for_folder(comparison.python, comparison.table, Path(folder)),
        },
    )


def write_together(folder: Path, texts: dict[str, str]) -> list[str]:
    """Write every text under a temporary name, then rename them all; after a failure nothing of it is left."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    waiting: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            waiting[folder / name] = Path(temporary)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        for temporary_path in waiting.values():
            temporary_path.chmod(0o666 & ~mask)  # a temporary file is private; a report is not
        for final, temporary_path in waiting.items():
            temporary_path.replace(final)
    except BaseException:
        for temporary_path in waiting.values():
            temporary_path.unlink(missing_ok=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return [str(path) for path in waiting]


def render(comparison: Comparison) -> str:
    """The report as one HTML text that needs nothing beside itself."""
    from jinja2 import Environment, StrictUndefined

    from steelyard.compare.plots import plots

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("steelyard.compare").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=comparison.to_dict(),
        metrics=METRICS,
        metric=METRICS[comparison.settings.metric],
        rows=_result_rows(comparison),
        columns=_columns(comparison),
        honesty=[name for name in METRICS if name + "_posterior" in METRICS],
        cutoffs=_cutoff_rows(comparison),
        few=FEWEST,
        samples=SAMPLES,
        tuned_for=METRICS[tuned_for(comparison.settings.metric)].label,
        recall=_recall_rows(comparison),
        plots=plots(comparison),
        observations=comparison.observations,
    )


def _columns(comparison: Comparison) -> list[str]:
    """Metrics of the results table: the chosen one first."""
    names = ["balanced_accuracy", "macro_f1", "mcc", "average_precision", "rarest_average_precision", "auroc",
             "accuracy", "log_loss"]  # fmt: skip
    chosen = comparison.settings.metric
    return [chosen, *(name for name in names if name != chosen)]


def _result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    scores, ratio = comparison.scores, comparison.test_ratio
    rows = []
    for outcome in comparison.outcomes:
        name = outcome.strategy.name
        cells = {}
        for metric in METRICS:
            value = scores[name].interval(metric, ratio)
            change = scores[name].difference(scores["none"], metric, ratio) if name != "none" else None
            cells[metric] = {"value": value, "change": change_text(metric, change), "verdict": verdict(metric, change)}
        rows.append({"name": name, "label": outcome.strategy.label, "idea": outcome.strategy.idea, "cells": cells})
    return rows


def _cutoff_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per class, most frequent first: its cut-off on the first split with the interval, and on the others."""
    tuned = next((o.thresholds for o in comparison.outcomes if o.thresholds), [])
    rows = []
    for c in (-comparison.table.counts).argsort(kind="stable") if tuned else []:
        first, every = tuned[0], [float(np.asarray(t.threshold)[c]) for t in tuned]
        rows.append(
            {
                "label": comparison.table.words[c],
                "rows": int(first.rows[c]),
                "few": bool(first.rows[c] < FEWEST),
                **{end: float(np.asarray(getattr(first, end))[c]) for end in ("threshold", "low", "high")},
                "least": min(every),
                "most": max(every),
            }
        )
    return rows


def change_text(metric: str, change: Interval | None) -> str:
    """The difference with its verdict, for people."""
    if change is None:
        return ""
    number = f"{change.mean:+.3f}".replace("-", "−") if abs(change.mean) >= 0.0005 else "0.000"
    return f"{number} {verdict(metric, change)}".strip()


def verdict(metric: str, change: Interval | None) -> str:
    """``better``, ``worse``, or empty where the interval includes zero (or there is nothing to compare)."""
    if change is None or not (change.above_zero or change.below_zero):
        return ""
    return "better" if change.above_zero == (METRICS[metric].sign > 0) else "worse"


def _recall_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per class, most frequent first; one cell per remedy with its shade."""
    table, scores = comparison.table, comparison.scores
    rows = []
    for c in (-table.counts).argsort(kind="stable"):
        recalls = [float(scores[o.strategy.name].recall[:, c].mean()) for o in comparison.outcomes]
        cells = [{"text": f"{r:.0%}", "shade": shade(r), "dark": r > 0.66} for r in recalls]
        rows.append({"label": table.words[c], "count": int(table.counts[c]), "cells": cells})
    return rows


def shade(value: float) -> str:
    """From near white at 0 to deep blue at 1."""
    low, high = (245, 248, 252), (8, 81, 140)
    return "#" + "".join(f"{round(a + (b - a) * value):02x}" for a, b in zip(low, high, strict=True))
