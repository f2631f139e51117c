"""The recommendation on results made by hand: helps, does not help, all worse, costs elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.compare import STRATEGIES
from steelyard.compare.recommend import Recommendation, Scores, recommend

NOISE = np.array([-0.01, 0.0, 0.01, 0.005, -0.005])
"""Varies from split to split; added to every remedy, it cancels in pairs."""


def result(name: str, jitter: float = 0.0, **means: float) -> Scores:
    own = jitter * np.array([1, -1, 1, -1, 0])
    return Scores(name, {m: (v + NOISE + own).tolist() for m, v in means.items()}, np.tile([0.9, 0.1], (5, 1)))


def judge(*results: Scores, metric: str = "balanced_accuracy") -> Recommendation:
    return recommend(results, metric, test_ratio=0.25)


def test_the_best_of_those_that_help() -> None:
    advice = judge(
        result("none", balanced_accuracy=0.5),
        result("threshold", jitter=0.001, balanced_accuracy=0.6),
        result("weights", jitter=0.001, balanced_accuracy=0.7),
        result("focal", jitter=0.001, balanced_accuracy=0.4),
    )
    assert (advice.strategy, advice.helps) == ("weights", True)
    assert advice.headline == "Use class weights."
    assert "from 0.500 to 0.700: +0.200" in advice.reasons[0]
    assert advice.as_good == []


def test_the_highest_mean_loses_to_one_that_is_sure() -> None:
    advice = judge(
        result("none", balanced_accuracy=0.5),
        result("threshold", jitter=0.001, balanced_accuracy=0.55),
        result("weights", jitter=0.2, balanced_accuracy=0.6),  # more on average, and all over the place
    )
    assert advice.strategy == "threshold"


def test_nothing_helps_when_every_interval_holds_zero() -> None:
    advice = judge(
        result("none", balanced_accuracy=0.5),
        result("weights", jitter=0.1, balanced_accuracy=0.52),
        result("focal", jitter=0.1, balanced_accuracy=0.49),
    )
    assert (advice.strategy, advice.helps) == ("none", False)
    assert advice.headline.startswith("Do nothing")
    assert "class weights: +0.020" in advice.reasons[1]
    assert "includes zero" in advice.reasons[1]


def test_nothing_helps_when_all_are_surely_worse() -> None:
    advice = judge(
        result("none", balanced_accuracy=0.5),
        result("weights", jitter=0.001, balanced_accuracy=0.3),
        result("focal", jitter=0.001, balanced_accuracy=0.4),
    )
    assert advice.strategy == "none"
    assert "Not even the nearest, focal loss, γ = 2" in advice.reasons[1]
    assert "−0.100" in advice.reasons[1]


def test_less_is_better_for_a_loss() -> None:
    results = [
        result("none", log_loss=0.5),
        result("weights", jitter=0.001, log_loss=0.7),
        result("focal", jitter=0.001, log_loss=0.4),
        result("balanced_softmax", jitter=0.001, log_loss=0.45),
    ]
    assert judge(*results, metric="log_loss").strategy == "focal"
    assert judge(*results[::-1], metric="log_loss").strategy == "focal"
    assert judge(*results[:2], metric="log_loss").strategy == "none"


def test_costs_elsewhere_are_named_and_gains_are_not() -> None:
    advice = judge(
        result("none", balanced_accuracy=0.5, log_loss=0.3, log_loss_posterior=0.3, macro_f1=0.4, brier=0.2),
        result(
            "weights",
            jitter=0.001,
            balanced_accuracy=0.6,
            macro_f1=0.5,
            brier=0.2,
            log_loss=0.5,
            log_loss_posterior=0.31,
        ),
    )
    text = " ".join(advice.costs)
    assert "Log loss rises from 0.300 to 0.500: +0.200" in text
    assert "acro-F1" not in text
    assert "Brier" not in text
    assert "bent" in advice.costs[-1]
    assert "`loss.posterior(logits)` gives that back (log loss 0.310)" in advice.costs[-1]


def test_a_remedy_that_leaves_probabilities_alone_costs_none_of_them() -> None:
    same = {"log_loss": 0.3, "log_loss_posterior": 0.3}
    nothing = result("none", balanced_accuracy=0.5, **same)
    tuned = result("threshold", balanced_accuracy=0.6, **same)
    assert judge(nothing, tuned).costs == []


def test_of_remedies_that_cannot_be_told_apart_the_one_that_disturbs_least_goes_first() -> None:
    sure = result("sampling", jitter=0.001, balanced_accuracy=0.55)  # helps, and is surely less good
    nothing, best = result("none", balanced_accuracy=0.5), result("weights", balanced_accuracy=0.6)
    unbent = result("threshold", jitter=0.01, balanced_accuracy=0.595)
    reread = result("logit_adjustment", jitter=0.01, balanced_accuracy=0.597)
    trained = result("balanced_softmax", jitter=0.01, balanced_accuracy=0.598)

    advice = judge(nothing, trained, reread, unbent, best, sure)
    assert (advice.strategy, advice.as_good) == ("threshold", ["balanced_softmax", "logit_adjustment", "weights"])
    assert "class weights (+0.100)" in advice.reasons[-1]
    assert advice.reasons[-1].endswith("This one leaves the probabilities as they are.")

    advice = judge(nothing, trained, reread, best, sure)
    assert advice.strategy == "logit_adjustment"
    assert advice.reasons[-1].endswith("This one needs no training of its own.")

    advice = judge(nothing, trained, best, sure)
    assert (advice.strategy, advice.as_good) == ("weights", ["balanced_softmax"])
    assert advice.reasons[-1] == "No better than it by more than chance: balanced softmax (+0.098)."

    assert judge(nothing, unbent, sure).strategy == "threshold"
    assert judge(nothing, best, sure).as_good == []


def test_recall_that_moves_is_told() -> None:
    before = Scores("none", {"balanced_accuracy": [0.5, 0.51, 0.52]}, np.tile([0.95, 0.05], (3, 1)))
    after = Scores("weights", {"balanced_accuracy": [0.7, 0.72, 0.71]}, np.tile([0.8, 0.6], (3, 1)))
    advice = recommend([before, after], "balanced_accuracy", 0.25, ["well", "ill"])
    assert advice.reasons[1] == "Recall of 'ill' goes from 5% to 60%; recall of 'well' goes from 95% to 80%."


def test_every_recall_that_moves_is_told_up_to_six() -> None:
    for classes in (4, 9):
        up = np.linspace(0.3, -0.2, classes)
        before = Scores("none", {"balanced_accuracy": [0.5, 0.51, 0.52]}, np.full((3, classes), 0.5))
        after = Scores("weights", {"balanced_accuracy": [0.7, 0.72, 0.71]}, np.tile(0.5 + up, (3, 1)))
        said = recommend([before, after], "balanced_accuracy", 0.25, list("abcdefghi")[:classes]).reasons[1]
        assert said.startswith("Recall of 'a' goes from 50% to 80%; recall of '")
        assert said.count("goes from") == (4 if classes == 4 else 2)
        assert said.endswith("; the other 7 that move lie between.") == (classes == 9)


def test_a_change_that_rounds_to_nothing_is_not_printed_as_one() -> None:
    advice = judge(result("none", balanced_accuracy=0.5), result("weights", jitter=0.1, balanced_accuracy=0.5001))
    assert advice.reasons[1] == "Not even the nearest, class weights, changes it by 0.001 on average."


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_advice(name: str) -> None:
    assert STRATEGIES[name].advice.endswith(".")
