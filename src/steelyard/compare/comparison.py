"""The whole comparison: read, split, train each remedy, judge, and keep what a report needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from steelyard._version import __version__
from steelyard.compare.evaluate import METRICS
from steelyard.compare.inspection import Duplicates, Inspection, class_counts, class_table, find_duplicates
from steelyard.compare.paste import script
from steelyard.compare.read import bad
from steelyard.compare.recommend import Recommendation, Scores, recommend
from steelyard.compare.run import Outcome, Progress, run_splits
from steelyard.compare.splits import make_splits
from steelyard.compare.strategies import ALWAYS, STRATEGIES
from steelyard.compare.table import Table, load
from steelyard.compare.train import Recipe, quiet_threads
from steelyard.explain import Findings, check
from steelyard.posterior import Reliability, reliability

__all__ = ["Comparison", "Settings", "compare"]

FORMAT = 2
"""Version of the layout of ``report.json``."""

GOALS = tuple(name for name in METRICS if "posterior" not in name and name != "calibration_error")
"""Metrics that a recommendation can be made for; class shares alone are calibrated, and of no use."""


@dataclass(frozen=True)
class Settings:
    """How a comparison was made; with the data, all that is needed to make it again."""

    metric: str
    folds: int
    repeats: int
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`."""

    table: Table
    duplicates: Duplicates
    settings: Settings
    outcomes: tuple[Outcome, ...]
    test_ratio: float
    """Rows tested per row learnt from."""
    recommendation: Recommendation
    python: str
    """A program that trains the recommended remedy."""

    @property
    def scores(self) -> dict[str, Scores]:
        """Scores per split of each remedy, by its name."""
        return {o.strategy.name: as_scores(o) for o in self.outcomes}

    def reliability(self, outcome: Outcome) -> list[tuple[Reliability, Reliability]]:
        """For each class what a remedy says, raw and through its posterior, beside what happened, in ten tenths.

        Over the rows of the first repeat, each predicted once by a network that did not see it.
        """
        assert outcome.probabilities is not None
        assert outcome.posterior is not None
        pairs = []
        for c in range(len(self.table.classes)):
            truth = self.table.target == c
            raw, posterior = (
                reliability(said[:, c], truth, kind="equal_width", bins=10)
                for said in (outcome.probabilities, outcome.posterior)
            )
            pairs.append((raw, posterior))
        return pairs

    @property
    def baselines(self) -> dict[str, float]:
        """What each metric gives to a model that knows nothing but the class shares."""
        share = self.table.counts / self.table.counts.sum()
        return {
            "balanced_accuracy": 1 / len(share),
            "average_precision": 1 / len(share),
            "rarest_average_precision": float(share.min()),
            "auroc": 0.5,
            "mcc": 0.0,
            "accuracy": float(share.max()),
            "log_loss": float(-(share * np.log(share)).sum()),
            "log_loss_posterior": float(-(share * np.log(share)).sum()),
            "brier": float(1 - (share**2).sum()),
            "brier_posterior": float(1 - (share**2).sum()),
            "calibration_error": 0.0,
            "calibration_error_posterior": 0.0,
            "macro_f1": float(2 * share.max() / (1 + share.max()) / len(share)),
        }

    @property
    def observations(self) -> list[str]:
        """What stands out in the data, the same sentences that :func:`inspect` gives."""
        return Inspection(self.table, self.duplicates).observations

    @property
    def findings(self) -> Findings:
        """What :func:`steelyard.check` says of the recommended remedy: its loss, and what its network says."""
        chosen = next(o for o in self.outcomes if o.strategy.name == self.recommendation.strategy)
        loss = chosen.strategy.training(torch.from_numpy(self.table.counts)).loss
        judged = None if chosen.strategy.tuned else chosen.probabilities  # tuned cut-offs are no argmax
        return check(loss=loss, probabilities=judged, **class_counts(self.table))

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values, ready for JSON. The same data, options and versions give the same values."""
        table, scores = self.table, self.scores
        nothing = scores["none"]
        strategies = []
        for outcome in self.outcomes:
            own = scores[outcome.strategy.name]
            entry: dict[str, Any] = {
                "name": own.name,
                "label": outcome.strategy.label,
                "idea": outcome.strategy.idea,
                "bends_probabilities": outcome.strategy.bends,
                "metrics": {
                    m: {**own.interval(m, self.test_ratio).to_dict(), "per_split": list(own.values[m])} for m in METRICS
                },
                "difference_to_none": None
                if own is nothing
                else {m: own.difference(nothing, m, self.test_ratio).to_dict() for m in METRICS},
                "recall": {w: float(r) for w, r in zip(table.words, own.recall.mean(axis=0), strict=True)},
                "thresholds": [t.to_dict() for t in outcome.thresholds] if outcome.strategy.tuned else None,
                "reliability": {
                    name: {k: r.to_dict() for k, r in zip(("raw", "posterior"), pair, strict=True)}
                    for name, pair in zip(table.words, self.reliability(outcome), strict=True)
                },
                "best_epochs": outcome.best_epochs,
            }
            strategies.append(entry)
        return {
            "format": FORMAT,
            "data": {
                "name": table.name,
                "target": table.target_name,
                "rows": len(table.target),
                "classes": class_table(table),
                "imbalance_ratio": float(table.counts.max() / table.counts.min()),
                "duplicates": self.duplicates.to_dict(),
                "kept_together": table.grouping,
                "columns": [c.to_dict() for c in table.columns],
                "notes": list(table.notes),
            },
            "settings": {
                **asdict(self.settings),
                "splits": len(self.outcomes[0].scores),
                "test_ratio": self.test_ratio,
            },
            "baselines": self.baselines,
            "strategies": strategies,
            "recommendation": self.recommendation.to_dict(),
            "findings": self.findings.to_dict(),
            "python": self.python,
            "versions": versions(),
        }

    def save(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write ``report.html``, ``report.json`` and ``recommended.py``; all of them or none.

        Returns: The paths written.
        Raises: ImportError: Jinja2 or Matplotlib is missing. OSError: the folder cannot be written.
        """
        from steelyard.compare.report import save

        return save(self, folder)


def as_scores(outcome: Outcome) -> Scores:
    """The scores of an outcome, turned from one dictionary per split to one list per metric."""
    values = {m: [s[m] for s in outcome.scores] for m in METRICS}
    return Scores(outcome.strategy.name, values, np.array([s["recall"] for s in outcome.scores]))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "numpy", "polars", "scikit-learn", "scipy")
    return {"steelyard": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def compare(
    source: Any,
    target: str,
    *,
    metric: str = "balanced_accuracy",
    strategies: Sequence[str] | None = None,
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
    epochs: int = 60,
    drop: Sequence[str] = (),
    group: Sequence[str] = (),
    varies: Sequence[str] = (),
    split_duplicates: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Train the same small model under each remedy for imbalance and say which one this data wants, if any.

    Remedies are judged on the same repeated stratified splits, beside "do nothing" and "do nothing + tuned cut-offs",
    with intervals; where none is better than chance the recommendation is to do nothing.

    Args:
        source: Path of a CSV, TSV or Parquet file, or a data frame (Polars, pandas, PyArrow). Missing values are fine.
        target: Column of classes, without missing values.
        metric: What a remedy must improve: ``balanced_accuracy``, ``macro_f1``, ``average_precision``,
            ``rarest_average_precision``, ``accuracy``, ``log_loss`` or ``brier``.
        strategies: Names from ``STRATEGIES``; all of them by default. ``none`` and ``threshold`` are always among them.
        folds: Parts of each repeat, at least 3: one tests, one validates, the rest train.
        repeats: How many times the data is divided anew.
        seed: Fixes splits, first weights and order. No global generator is touched.
        epochs: The most epochs; training stops earlier where the validation loss stops falling.
        drop: Columns to leave out.
        group: Columns that name the case: rows with the same values stay on one side of every split, and so do rows
            with identical features.
        varies: Columns in which rows of one case differ: rows alike in all *other* features stay on one side. Not
            together with ``split_duplicates``.
        split_duplicates: Let rows with identical features fall on both sides; they are kept together otherwise.
        threads: PyTorch threads; one is fastest for a model this small.
        progress: Called with (trainings done, trainings in all, what runs now).
    Returns: :class:`Comparison`: ``.recommendation``, ``.to_dict()``, ``.save(folder)``, ``.python``.

    Raises:
        InputError (a ValueError): the data or an option cannot be used.
        RuntimeError: a training diverged.

    Example:
        >>> comparison = compare("survey.parquet", "health")  # doctest: +SKIP
        >>> comparison.recommendation.strategy  # doctest: +SKIP
        'weights'

    Source: intervals after Nadeau and Bengio, Machine Learning 52, 2003.
    """
    names = _check_options(metric, strategies, folds, repeats, seed, epochs, threads)
    options = {
        "drop": list(drop), "group": list(group), "varies": list(varies), "split_duplicates": split_duplicates
    }  # fmt: skip
    table = load(source, target, **options)  # type: ignore[arg-type]  # load checks them
    settings = Settings(metric, folds, repeats, seed, Recipe(epochs=epochs))
    splits = make_splits(table.target, table.groups, table.words, folds=folds, repeats=repeats, seed=seed)
    with quiet_threads(threads):
        outcomes = run_splits(
            table, splits, names, metric=metric, recipe=settings.recipe, seed=seed, progress=progress
        )  # fmt: skip
    test_ratio = float(np.mean([split.test_ratio for split in splits]))
    advice = recommend([as_scores(o) for o in outcomes], metric, test_ratio, table.words)
    rows = len(splits[0].train)
    python = script(
        advice.strategy, table, options, settings.recipe, metric=metric, folds=folds, seed=seed, rows=rows
    )  # fmt: skip
    return Comparison(table, find_duplicates(table), settings, tuple(outcomes), test_ratio, advice, python)


def _check_options(
    metric: str, strategies: Sequence[str] | None, folds: int, repeats: int, seed: int, epochs: int, threads: int
) -> list[str]:
    """The strategies to run, in the order of the table, once every option is known to make sense."""
    if metric not in GOALS:
        bad("compare", "metric", "one of " + ", ".join(GOALS), repr(metric))
    for name in strategies or ():
        if name not in STRATEGIES:
            bad("compare", "strategies", "among " + ", ".join(STRATEGIES), repr(name))
    for argument, value, least in (
        ("folds", folds, 3), ("repeats", repeats, 1), ("seed", seed, 0), ("epochs", epochs, 1), ("threads", threads, 1),
    ):  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            bad("compare", argument, f"a whole number of at least {least}", value)
    wanted = set(STRATEGIES if strategies is None else strategies) | set(ALWAYS)
    return [name for name in STRATEGIES if name in wanted]
