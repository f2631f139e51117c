"""Tuned cut-offs: equal to brute force over every cut, for any metric and cost; intervals; decisions that keep them."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from steelyard.posterior import TunedThreshold, bayes_decision, tune_threshold
from steelyard.posterior._score import METRICS
from steelyard.posterior._search import decide

pytestmark = pytest.mark.filterwarnings("ignore:tune_threshold. tuning wants 30")

SKLEARN: dict[str, Any] = {
    "balanced_accuracy": sk.balanced_accuracy_score,
    "macro_f1": lambda y, d: sk.f1_score(y, d, average="macro", zero_division=0.0, labels=np.arange(y.max() + 1)),
    "accuracy": sk.accuracy_score,
    "f1": lambda y, d: sk.f1_score(y, d, zero_division=0.0),
    "mcc": sk.matthews_corrcoef,
}


def youden(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return (hits / actual).sum(axis=-1) - 1.0


def precision(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return hits[..., 1] / predicted[..., 1]  # undefined where nothing is found


def brute_force(scores: np.ndarray, labels: np.ndarray, judge: Any) -> float:
    cuts = [-math.inf, *np.unique(scores), math.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return max(judge(labels, (scores >= cut).astype(int)) for cut in cuts)


@st.composite
def binary(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tie, or are equal up to the last bit, or are far apart; both labels occur."""
    rows = draw(st.integers(2, 40))
    value = st.one_of(
        st.sampled_from([0.0, 0.5, math.nextafter(0.5, 1), 1.0, -3.0, 1e300, -1e300, 5e-324]),
        st.floats(-2, 2, allow_subnormal=False),
    )
    scores = np.array(draw(st.lists(value, min_size=rows, max_size=rows)))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    labels[:2] = [0, 1]
    return scores, labels


@settings(max_examples=150, deadline=None)
@given(data=binary(), metric=st.sampled_from(sorted(METRICS)))
def test_binary_is_the_best_of_all_cut_offs(data: tuple[np.ndarray, np.ndarray], metric: str) -> None:
    scores, labels = data
    found = tune_threshold(scores, labels, metric, bootstrap=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reached = SKLEARN[metric](labels, found.predict(scores))
    assert found.value == pytest.approx(reached, abs=1e-12)
    assert reached == pytest.approx(brute_force(scores, labels, SKLEARN[metric]), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(data=binary(), cost=st.lists(st.floats(-3, 10), min_size=4, max_size=4))
def test_binary_costs_are_the_least_of_all_cut_offs(data: tuple[np.ndarray, np.ndarray], cost: list[float]) -> None:
    scores, labels = data
    matrix = np.array(cost).reshape(2, 2)
    found = tune_threshold(scores, labels, cost=matrix, bootstrap=0)
    least = -brute_force(scores, labels, lambda y, d: -matrix[y, d].mean())
    assert matrix[labels, found.predict(scores)].mean() == pytest.approx(least, abs=1e-9)
    assert found.value == pytest.approx(least, abs=1e-9)
    assert found.metric == "mean cost"


@settings(max_examples=50, deadline=None)
@given(data=binary())
def test_a_metric_of_ones_own_is_the_best_of_all_cut_offs(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = data
    found = tune_threshold(scores, labels, youden, bootstrap=0)
    best = brute_force(scores, labels, lambda y, d: 2 * sk.balanced_accuracy_score(y, d) - 1)
    assert found.value == pytest.approx(best, abs=1e-12)
    assert found.metric == "youden"
    best = brute_force(scores, labels, lambda y, d: (y[d == 1] == 1).mean() if d.any() else -1.0)
    assert tune_threshold(scores, labels, precision, bootstrap=0).value == pytest.approx(best, abs=1e-12)


def test_the_cut_lies_midway_and_fewest_yeses_win_a_tie() -> None:
    found = tune_threshold([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], bootstrap=0)
    assert found.threshold == pytest.approx(0.4)
    assert tune_threshold([1.0, 2.0, 3.0], [1, 0, 1], "accuracy", bootstrap=0).threshold == pytest.approx(2.5)
    assert tune_threshold([1.0, 2.0], [1, 0], "accuracy", bootstrap=0).threshold == math.inf
    assert tune_threshold([1.0, 1.0, 1.0], [1, 1, 0], "accuracy", bootstrap=0).threshold == -math.inf
    next_to = [0.5, math.nextafter(0.5, 1)]
    assert tune_threshold(next_to, [0, 1], bootstrap=0).predict(next_to).tolist() == [0, 1]


def test_a_thousand_cut_offs_and_no_grid() -> None:
    """Two cuts of 1e-9 apart, which a grid would not see."""
    scores = np.r_[np.linspace(0, 0.3, 500), 0.3 + 1e-9, 0.3 + 2e-9, np.linspace(0.4, 1, 500)]
    labels = np.r_[np.zeros(501), 1, np.ones(500)]
    found = tune_threshold(scores, labels, bootstrap=0)
    assert found.value == 1.0
    assert 0.3 + 1e-9 < found.threshold < 0.3 + 2e-9


def test_several_labels_are_several_questions() -> None:
    rng = np.random.default_rng(0)
    s = rng.normal(size=(300, 3))
    y = (s + rng.normal(size=(300, 3)) > [0.0, 1.0, 2.0]).astype(int)
    found = tune_threshold(s, y, "f1", bootstrap=20)
    assert found.kind == "multilabel"
    for c in range(3):
        single = tune_threshold(s[:, c], y[:, c], "f1", bootstrap=0)
        assert found.threshold[c] == single.threshold
        assert found.value[c] == single.value
        assert found.low[c] <= found.threshold[c] <= found.high[c]
    assert found.rows.tolist() == y.sum(axis=0).tolist()
    assert (found.predict(s) == (s >= found.threshold)).all()
    json.dumps(found.to_dict())


# ------------------------------------------------------------------------------------- classes that exclude one another


def sample(classes: int, rows: int, seed: int, grid: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Targets with a rare tail, and probabilities that know something about them; on a grid many of them tie."""
    rng = np.random.default_rng(seed)
    share = 0.3 ** np.arange(classes)
    target = np.r_[np.arange(classes), rng.choice(classes, rows - classes, p=share / share.sum())]
    scores = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[target] + np.log(share)
    odds = np.exp(scores)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    if grid:
        positive = (np.floor(probabilities[:, 1] * grid) + 0.5) / grid
        probabilities = np.stack([1 - positive, positive], axis=1)
    return probabilities, target


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(3, 60),
    grid=st.sampled_from([None, 3, 8]),
    metric=st.sampled_from(sorted(METRICS)),
)
def test_two_classes_find_the_best_of_all_cut_offs(seed: int, rows: int, grid: int | None, metric: str) -> None:
    p, y = sample(2, rows, seed, grid)
    found = tune_threshold(p, y, metric, bootstrap=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reached = SKLEARN[metric](y, found.predict(p))
    assert reached == pytest.approx(brute_force(p[:, 1], y, SKLEARN[metric]), abs=1e-12)
    assert found.value == pytest.approx(reached, abs=1e-12)
    assert found.threshold.sum() == pytest.approx(1.0)
    away = np.abs(p[:, 1] - found.threshold[1]) > 1e-9
    assert (found.predict(p)[away] == (p[away, 1] > found.threshold[1])).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(3, 4), kind=st.sampled_from(["macro_f1", "mcc", "cost"]))
def test_no_change_of_a_single_class_improves(seed: int, classes: int, kind: str) -> None:
    p, y = sample(classes, 40, seed)
    cost = np.random.default_rng(seed).random((classes, classes))
    options: dict[str, Any] = {"cost": cost} if kind == "cost" else {"metric": kind}
    found = tune_threshold(p, y, **options, bootstrap=0)

    def judge(decisions: np.ndarray) -> float:
        if kind == "cost":
            return -float(cost[y, decisions].mean())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(SKLEARN[kind](y, decisions))

    reached = judge(found.predict(p))
    assert abs(found.value) == pytest.approx(abs(reached), abs=1e-9)
    assert reached >= judge(p.argmax(axis=1)) - 1e-12
    weighed = p * found.multipliers
    for c in range(classes):
        others = np.delete(weighed, c, axis=1).max(axis=1)
        turns = np.sort(others / p[:, c])
        between = np.r_[turns[0] / 2, (turns[1:] + turns[:-1]) / 2, turns[-1] * 2]
        for m in between:
            trial = found.multipliers.copy()
            trial[c] = m
            assert judge(decide(p, trial)) <= reached + 1e-9


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "accuracy"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_better_than_or_equal_to_argmax(classes: int, metric: str) -> None:
    for seed in range(5):
        p, y = sample(classes, 300, seed)
        tuned, plain = tune_threshold(p, y, metric, bootstrap=0).predict(p), p.argmax(axis=1)
        assert SKLEARN[metric](y, tuned) >= SKLEARN[metric](y, plain)
        if metric == "balanced_accuracy":
            assert SKLEARN[metric](y, tuned) > SKLEARN[metric](y, plain) + 0.02


def test_multipliers_are_positive_with_geometric_mean_one() -> None:
    p, y = sample(4, 200, 0)
    found = tune_threshold(p, y, bootstrap=0)
    assert (found.multipliers > 0).all()
    assert np.log(found.multipliers).mean() == pytest.approx(0, abs=1e-12)
    assert found.multipliers[3] > found.multipliers[0]  # the rarest class is lifted over the most frequent one
    assert (decide(p, found.multipliers) == found.predict(p)).all()
    with pytest.raises(ValueError, match="'kind' must be 'multiclass'; got binary"):
        _ = tune_threshold(p[:, 0], y == 0, bootstrap=0).multipliers


def test_zero_probabilities_are_no_trouble() -> None:
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert tune_threshold(p, [0, 0, 1], bootstrap=0).predict(p).tolist() == [0, 0, 1]


def test_with_honest_probabilities_tuning_comes_to_bayes() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 8, 60_000)
    y = (rng.random(len(p)) < p).astype(int)
    cost = np.array([[0.0, 1.0], [9.0, 0.0]])
    found = tune_threshold(p, y, cost=cost, bootstrap=100)
    assert found.threshold == pytest.approx(0.1, abs=0.015)
    assert found.low <= 0.1 <= found.high
    assert cost[y, bayes_decision(p, cost)].mean() == pytest.approx(found.value, rel=0.005)


# ------------------------------------------------------------------------------------------------------------ intervals


def test_the_bootstrap_draws_each_class_as_often_as_it_has_rows() -> None:
    seen: list[np.ndarray] = []

    def watch(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
        seen.append(np.array(actual))
        return hits[..., 1]

    s, y = np.linspace(0, 1, 50), np.array([0] * 35 + [1] * 15)
    tune_threshold(s, y, watch, bootstrap=7)
    assert len(seen) == 1 + 2 * 7
    assert all(actual.tolist() == [35, 15] for actual in seen)


def test_intervals_hold_the_cut_off_and_shrink_with_rows() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for rows in (300, 30_000):
        y = (rng.random(rows) < 0.2).astype(int)
        s = rng.normal(size=rows) + 2.0 * y
        found = tune_threshold(s, y, bootstrap=200)
        assert found.low < found.threshold < found.high
        assert found.value_low < found.value < found.value_high
        assert found.low < 1.0 < found.high  # where the densities of both kinds cross
        widths.append((found.high - found.low, found.value_high - found.value_low))
    assert widths[1][0] < widths[0][0] / 2
    assert widths[1][1] < widths[0][1] / 5  # about 1/10: the square root of the rows


def test_intervals_cover_as_often_as_they_say() -> None:
    """The cut-off that halves the rows estimates the median of the scores, ½: about 80 of 100 intervals hold it."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        s, y = rng.random(400), np.r_[np.ones(200), np.zeros(200)]

        def halves(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
            return -np.abs(predicted[..., 1] - actual.sum() / 2)

        found = tune_threshold(s, y, halves, bootstrap=50, level=0.8, seed=2)
        held += found.low <= 0.5 <= found.high
    assert 68 <= held <= 92


def test_the_same_seed_gives_the_same_interval_and_no_global_generator_moves() -> None:
    p, y = sample(3, 200, 0)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, two, other = (tune_threshold(p, y, bootstrap=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.low, two.low)
    assert np.array_equal(one.high, two.high)
    assert not np.array_equal(one.low, other.low)
    assert np.array_equal(one.threshold, other.threshold)
    assert (one.low <= one.threshold).all()
    assert (one.threshold <= one.high).all()
    assert isinstance(one.value_low, float)
    assert before == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert tune_threshold(p, y, bootstrap=0).low is None


# ------------------------------------------------------------------------------------------------ warnings and refusals


@pytest.mark.filterwarnings("default:tune_threshold")
def test_few_positives_are_warned_of() -> None:
    s = np.linspace(0, 1, 200)
    for positives, warned in ((29, True), (30, False), (171, True), (170, False)):
        y = np.arange(200) >= 200 - positives
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tune_threshold(s, y, bootstrap=0)
        assert bool(caught) == warned
        if warned:
            text = str(caught[0].message)
            what = "positives" if positives < 100 else "negatives"
            assert f"tuning wants 30 {what}; there are 29. Its cut-off is mostly chance" in text
    p = np.full((100, 3), 1 / 3)
    with pytest.warns(UserWarning, match="30 rows of each class; class 2 has 10"):
        tune_threshold(p, [0] * 50 + [1] * 40 + [2] * 10, bootstrap=0)
    with pytest.warns(UserWarning, match="30 positives; column 1 has 5"):
        tune_threshold(p[:, :2], np.stack([np.arange(100) < 50, np.arange(100) < 5], axis=1), bootstrap=0)


S, Y = [0.1, 0.9, 0.4], [0, 1, 1]
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scores": [0.1, math.nan, 0.4]}, ValueError, r"'scores' must be finite; got nan at position \(1,\)"),
    ({"scores": "abc"}, TypeError, "'scores' must be scores of shape"),
    ({"scores": []}, ValueError, "'scores' must be of shape"),
    ({"scores": [[[0.1]]]}, ValueError, "'scores' must be of shape"),
    ({"scores": [[0.1, 0.8]] * 3}, ValueError, "'scores' must be rows that add up to 1"),
    ({"scores": [[-1.0, 2.0]] * 3}, ValueError, r"'scores' must be probabilities in \[0, 1\]"),
    ({"labels": [0, 1]}, ValueError, r"'labels' must be 0 and 1, of shape \(3,\)"),
    ({"labels": [0, 1, 2]}, IndexError, "'labels' must be 0 or 1; got 2"),
    ({"labels": [1, 1, 1]}, ValueError, "'labels' must be of both kinds; got only 1"),
    ({"labels": [0, 0, 0]}, ValueError, "'labels' must be of both kinds; got only 0"),
    ({"labels": [0.5, 1, 1]}, TypeError, "'labels' must be whole numbers"),
    (
        {"scores": [[0.5, 0.5]] * 3, "labels": [0, 0, 0]},
        ValueError,
        "'labels' must be of every class; got none of class 1",
    ),
    ({"metric": "auc"}, ValueError, "'metric' must be one of 'balanced_accuracy'.* got 'auc'"),
    ({"metric": 3}, TypeError, "'metric' must be one of"),
    ({"metric": lambda h, p, a: 1.0}, ValueError, r"'metric' must be a function that gives one number for each cut"),
    ({"metric": "f1", "cost": [[0, 1], [1, 0]]}, ValueError, "'metric' must be left out where there is a 'cost'"),
    ({"cost": [[0, 1, 2], [1, 0, 2]]}, ValueError, r"'cost' must be of shape \(2, 2\)"),
    ({"scores": np.eye(3), "labels": [0, 1, 2], "metric": "f1"}, ValueError, "'metric' must be for several classes"),
    ({"bootstrap": -1}, ValueError, "'bootstrap' must be a whole number of at least 0"),
    ({"bootstrap": True}, ValueError, "'bootstrap' must be a whole number"),
    ({"level": 1.0}, ValueError, "'level' must be a number in"),
    ({"level": 0.0}, ValueError, "'level' must be above 0"),
    ({"seed": -1}, ValueError, "'seed' must be a whole number"),
]


@pytest.mark.parametrize(("given", "error", "words"), BAD, ids=short)
def test_bad_values_are_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^tune_threshold: {words}"):
        tune_threshold(**{"scores": S, "labels": Y, **given})


def test_scores_of_another_shape_are_refused_in_predict() -> None:
    several = tune_threshold(np.array([S, S]).T, np.array([Y, Y]).T, bootstrap=0)
    with pytest.raises(ValueError, match=r"^TunedThreshold\.predict: 'scores' must be of shape \(N, 2\)"):
        several.predict([0.1])
    exclusive = tune_threshold(np.eye(3), [0, 1, 2], bootstrap=0)
    with pytest.raises(ValueError, match="'scores' must be of 3 classes; got 2"):
        exclusive.predict([[0.5, 0.5]])


def test_tensors_go_in_and_decisions_come_out_as_tensors() -> None:
    found = tune_threshold(torch.tensor(S), torch.tensor(Y), bootstrap=0)
    assert isinstance(found, TunedThreshold)
    decisions = found.predict(torch.tensor(S))
    assert isinstance(decisions, torch.Tensor)
    assert decisions.dtype == torch.int64
