"""Train and score every remedy on every split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard.compare.evaluate import prediction_scores
from steelyard.compare.splits import Split
from steelyard.compare.strategies import STRATEGIES, Strategy, Training
from steelyard.compare.table import Table
from steelyard.compare.train import Fit, Recipe, fit, logits, preprocessor
from steelyard.posterior import TunedThreshold, tune_threshold

__all__ = ["SAMPLES", "Outcome", "Progress", "run_splits", "tuned_for"]

SAMPLES = 100
"""Bootstrap samples behind the interval of a cut-off."""

Progress = Callable[[int, int, str], None]
"""Called with (trainings done, trainings in all, what runs now)."""


@dataclass
class Outcome:
    """What one remedy reached on every split, in the order of the splits."""

    strategy: Strategy
    scores: list[dict[str, Any]] = field(default_factory=list)
    thresholds: list[TunedThreshold] = field(default_factory=list)
    """Cut-offs, where they are tuned."""
    best_epochs: list[int] = field(default_factory=list)
    probabilities: np.ndarray | None = None
    """Of the first repeat, in which each row is tested once, ``(N, C)``."""
    posterior: np.ndarray | None = None
    """The same with the remedy's bend taken out."""


def tuned_for(metric: str) -> str:
    """What cut-offs are tuned for: the metric that judges, where it looks at decisions and not at probabilities."""
    return metric if metric in ("balanced_accuracy", "macro_f1", "mcc", "accuracy") else "balanced_accuracy"


def run_splits(
    table: Table,
    splits: Sequence[Split],
    strategies: Sequence[str],
    *,
    metric: str,
    recipe: Recipe,
    seed: int,
    progress: Progress | None = None,
) -> list[Outcome]:
    """One :class:`Outcome` per strategy, trained on the same splits from the same first weights.

    Raises: RuntimeError: a training diverged.
    """
    outcomes = {name: Outcome(STRATEGIES[name]) for name in strategies}
    trained = [name for name in strategies if not STRATEGIES[name].same_network_as]
    total, done = len(splits) * len(trained), 0
    target = torch.from_numpy(table.target)
    rarest = int(table.counts.argmin())
    for number, split in enumerate(splits):
        prepare = preprocessor(table.features).fit(table.features[split.train])
        rows = {part: getattr(split, part) for part in ("train", "validation", "test")}
        inputs = {
            part: torch.from_numpy(np.asarray(prepare.transform(table.features[index]), dtype=np.float32))
            for part, index in rows.items()
        }
        counts = torch.bincount(target[split.train], minlength=len(table.classes))
        split_seed = int(np.random.SeedSequence([seed, split.repeat, split.fold]).generate_state(1)[0])
        fits: dict[str, tuple[Fit, Training]] = {}
        for name in strategies:
            strategy = STRATEGIES[name]
            network_of = strategy.same_network_as or name
            if network_of not in fits:
                if progress:
                    progress(done, total, f"split {number + 1} of {len(splits)}: {STRATEGIES[network_of].label}")
                training = strategy.training(counts)
                sampling = training.class_sampling
                parts = [(inputs[part], target[rows[part]]) for part in ("train", "validation")]
                try:
                    found = fit(
                        parts[0], parts[1], len(table.classes), training.loss,
                        validation_loss=training.validation_loss,
                        row_weights=None if sampling is None else sampling[target[split.train]],
                        recipe=recipe, seed=split_seed,
                    )  # fmt: skip
                except FloatingPointError as error:
                    raise RuntimeError(f"compare: '{name}' on split {number + 1}: {error}.") from error
                fits[network_of] = found, training
                done += 1
            _score(outcomes[name], *fits[network_of], inputs, table, split, counts, metric, rarest)
    if progress:
        progress(total, total, "done")
    return list(outcomes.values())


def _score(
    outcome: Outcome,
    found: Fit,
    training: Training,
    inputs: dict[str, Tensor],
    table: Table,
    split: Split,
    counts: Tensor,
    metric: str,
    rarest: int,
) -> None:
    strategy = outcome.strategy
    prior = counts.double() / counts.sum()
    raw = logits(found.model, inputs["test"]).double()
    probabilities = _normal(strategy.probabilities(raw, prior, training))
    posterior = _normal(training.posterior(raw, counts))
    decisions = probabilities.argmax(axis=1)
    if strategy.tuned:
        validated = logits(found.model, inputs["validation"]).double()
        held_out = _normal(strategy.probabilities(validated, prior, training))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "tune_threshold: tuning wants", UserWarning)  # the report has the rows
            tuned = tune_threshold(
                held_out, table.target[split.validation], tuned_for(metric), bootstrap=SAMPLES, seed=split.fold
            )
        decisions = tuned.predict(probabilities)
        outcome.thresholds.append(tuned)
    outcome.scores.append(prediction_scores(table.target[split.test], probabilities, decisions, posterior, rarest))
    outcome.best_epochs.append(found.best_epoch)
    if split.repeat == 0:
        if outcome.probabilities is None or outcome.posterior is None:
            outcome.probabilities = np.full((len(table.target), len(counts)), np.nan)
            outcome.posterior = outcome.probabilities.copy()
        outcome.probabilities[split.test] = probabilities
        outcome.posterior[split.test] = posterior


def _normal(probabilities: Tensor) -> np.ndarray:
    """float64 rows that add up to 1 exactly enough for scikit-learn."""
    values = probabilities.detach().double()
    return np.asarray((values / values.sum(1, keepdim=True)).numpy())
