"""From scores per split to a recommendation in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steelyard.compare.evaluate import METRICS, Interval, corrected_interval
from steelyard.compare.strategies import STRATEGIES

__all__ = ["Recommendation", "Scores", "recommend"]


@dataclass(frozen=True)
class Scores:
    """Scores of one remedy, one per split for each metric, and recall per split and class."""

    name: str
    values: Mapping[str, Sequence[float]]
    recall: np.ndarray
    """``(splits, C)``."""

    def interval(self, metric: str, test_ratio: float) -> Interval:
        """Mean and 95% interval."""
        return corrected_interval(self.values[metric], test_ratio)

    def difference(self, other: Scores, metric: str, test_ratio: float) -> Interval:
        """Own minus ``other``, paired by split."""
        pairs = np.subtract(self.values[metric], other.values[metric])
        return corrected_interval(pairs.tolist(), test_ratio)


@dataclass(frozen=True)
class Recommendation:
    """Which remedy to take, or none, and what speaks for and against it."""

    strategy: str
    metric: str
    helps: bool
    """False where doing nothing is recommended."""
    headline: str
    reasons: list[str] = field(default_factory=list)
    costs: list[str] = field(default_factory=list)
    as_good: list[str] = field(default_factory=list)
    """Remedies that help too and cannot be told from the recommended one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "strategy": self.strategy,
            "metric": self.metric,
            "helps": self.helps,
            "headline": self.headline,
            "reasons": self.reasons,
            "costs": self.costs,
            "as_good": self.as_good,
        }


def recommend(
    results: Sequence[Scores], metric: str, test_ratio: float, classes: Sequence[str] | None = None
) -> Recommendation:
    """Of the remedies that help and cannot be told from the best, the one that disturbs least; or doing nothing.

    A remedy helps if its paired interval against doing nothing on ``metric`` lies wholly on the good side. Among those
    whose paired interval against the highest mean includes zero, one that leaves the probabilities as they are goes
    first, then one that needs no training of its own, then the highest mean.

    Args:
        results: One :class:`Scores` per remedy, among them ``"none"``.
        metric: A key of ``METRICS``.
        test_ratio: Rows tested per row learnt from, for the intervals.
        classes: Names of the classes, for the sentence on recall.
    """
    measure = METRICS[metric]
    nothing = next(r for r in results if r.name == "none")
    others = [r for r in results if r.name != "none"]
    gains = {r.name: r.difference(nothing, metric, test_ratio) for r in others}
    helping = [r for r in others if _good(gains[r.name], measure.sign)]
    if not helping:
        return _nothing(others, gains, metric)
    best = max(helping, key=lambda r: measure.better(gains[r.name].mean))
    alike = [r for r in helping if r is best or _touches_zero(r.difference(best, metric, test_ratio))]
    chosen = min(alike, key=lambda r: (*_disturbance(r), r is not best, -measure.better(gains[r.name].mean)))
    before, after = nothing.interval(metric, test_ratio).mean, chosen.interval(metric, test_ratio).mean
    change = f"{signed(gains[chosen.name])} against doing nothing"
    reasons = [f"{measure.title} goes from {before:.3f} to {after:.3f}: {change}."]
    if classes is not None:
        reasons += _recall(nothing, chosen, classes)
    rest = [r for r in alike if r is not chosen]
    if rest:
        named = ", ".join(f"{STRATEGIES[r.name].label} ({gains[r.name].mean:+.3f})" for r in rest)
        merit = ""
        if chosen is not best:
            merit = " This one leaves the probabilities as they are."
            if STRATEGIES[chosen.name].bends:
                merit = " This one needs no training of its own."
        reasons.append(f"No better than it by more than chance: {named.replace('-', '−')}.{merit}")
    costs = _costs(nothing, chosen, metric, test_ratio)
    return Recommendation(
        chosen.name, metric, True, STRATEGIES[chosen.name].advice, reasons, costs, [r.name for r in rest]
    )


def _disturbance(result: Scores) -> tuple[bool, bool]:
    """Whether a remedy bends the probabilities, and whether it trains a network of its own: less comes first."""
    strategy = STRATEGIES[result.name]
    return strategy.bends, not strategy.same_network_as


def _good(difference: Interval, sign: int) -> bool:
    return difference.above_zero if sign > 0 else difference.below_zero


def _touches_zero(difference: Interval) -> bool:
    return not difference.above_zero and not difference.below_zero


def signed(difference: Interval) -> str:
    """A difference with its interval: ``+0.105 (95% interval +0.075 to +0.135)``."""
    return f"{difference.mean:+.3f} (95% interval {difference.low:+.3f} to {difference.high:+.3f})".replace("-", "−")


def _nothing(others: Sequence[Scores], gains: Mapping[str, Interval], metric: str) -> Recommendation:
    measure = METRICS[metric]
    reasons = [f"No remedy changes {measure.label} for the better by more than chance."]
    if others:
        closest = max(others, key=lambda r: measure.better(gains[r.name].mean))
        label, change = STRATEGIES[closest.name].label, signed(gains[closest.name])
        if abs(gains[closest.name].mean) < 0.0005:
            reasons.append(f"Not even the nearest, {label}, changes it by 0.001 on average.")
        elif measure.better(gains[closest.name].mean) > 0:
            reasons.append(f"The nearest to help is {label}: {change}, which includes zero.")
        else:
            reasons.append(f"Not even the nearest, {label}, is better on average: {change}.")
    return Recommendation("none", metric, False, STRATEGIES["none"].advice, reasons)


def _recall(nothing: Scores, best: Scores, classes: Sequence[str]) -> list[str]:
    """The classes whose recall moves, the largest gain first; of more than six the one at each end."""
    before, after = nothing.recall.mean(axis=0), best.recall.mean(axis=0)
    change = after - before
    moved = [int(c) for c in (-change).argsort(kind="stable") if abs(change[c]) > 0.005]
    rest = len(moved) - 2 if len(moved) > 6 else 0
    if rest:
        moved = [moved[0], moved[-1]]
    said = [f"recall of '{classes[c]}' goes from {before[c]:.0%} to {after[c]:.0%}" for c in moved]
    if rest:
        said.append(f"the other {rest} that move lie between")
    text = "; ".join(said)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _costs(nothing: Scores, best: Scores, metric: str, test_ratio: float) -> list[str]:
    costs = []
    for name, measure in METRICS.items():
        if name == metric or name not in best.values:
            continue
        difference = best.difference(nothing, name, test_ratio)
        if _good(difference, -measure.sign):
            before, after = nothing.interval(name, test_ratio).mean, best.interval(name, test_ratio).mean
            way = "falls" if after < before else "rises"
            costs.append(f"{measure.title} {way} from {before:.3f} to {after:.3f}: {signed(difference)}.")
    strategy = STRATEGIES[best.name]
    if strategy.bends:
        known = "log_loss_posterior" in best.values
        reached = f" (log loss {best.interval('log_loss_posterior', test_ratio).mean:.3f})" if known else ""
        costs.append(
            "Its probabilities are bent: they no longer say how often a class occurs. "
            f"`{strategy.posterior_code}` gives that back{reached}."
        )
    return costs
