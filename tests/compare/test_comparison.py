"""A whole comparison on small data: what it holds, that it repeats, and that the Python it prints really runs."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from steelyard.compare import METRICS, STRATEGIES, Comparison, InputError, Inspection, compare, inspect, load
from steelyard.compare.comparison import GOALS
from steelyard.compare.inspection import find_duplicates
from steelyard.compare.paste import script


def test_every_remedy_has_every_score_on_every_split(comparison: Comparison) -> None:
    assert [o.strategy.name for o in comparison.outcomes] == list(STRATEGIES)
    for outcome in comparison.outcomes:
        assert len(outcome.scores) == 6
        for scores in outcome.scores:
            assert np.isfinite([scores[m] for m in METRICS]).all()
            assert len(scores["recall"]) == 3


def test_remedies_that_share_a_network_share_its_probabilities(comparison: Comparison) -> None:
    scores = comparison.scores
    for metric in ("log_loss", "brier", "average_precision"):
        assert scores["threshold"].values[metric] == scores["none"].values[metric]
    assert scores["logit_adjustment"].values["log_loss_posterior"] == pytest.approx(scores["none"].values["log_loss"])
    assert scores["logit_adjustment"].values["log_loss"] != scores["none"].values["log_loss"]


def test_the_posterior_is_where_the_bend_was(comparison: Comparison) -> None:
    """A remedy that bends is nearer to doing nothing through its posterior than as it comes, in every measure."""
    scores = comparison.scores
    for name in ("log_loss", "brier", "calibration_error"):
        for outcome in comparison.outcomes:
            own = scores[outcome.strategy.name].values
            if not outcome.strategy.bends:
                assert own[name + "_posterior"] == pytest.approx(own[name])
        for bent in ("weights", "sampling", "balanced_softmax", "logit_adjustment"):
            own = scores[bent].values
            assert np.mean(own[name + "_posterior"]) < np.mean(own[name]), (name, bent)


def test_reliability_counts_every_row_of_the_first_repeat_before_and_after(comparison: Comparison) -> None:
    rows = len(comparison.table.target)
    weights = next(o for o in comparison.outcomes if o.strategy.name == "weights")
    for c, (raw, posterior) in enumerate(comparison.reliability(weights)):
        for curve in (raw, posterior):
            assert curve.rows.sum() == rows
            assert curve.observed @ curve.rows == pytest.approx(comparison.table.counts[c])
    raw, posterior = comparison.reliability(weights)[int(comparison.table.counts.argmin())]
    share = comparison.table.counts.min() / rows
    said, undone = (float(curve.predicted @ curve.rows / rows) for curve in (raw, posterior))
    assert said > 2 * share  # the rare class is said too often
    assert abs(undone - share) < abs(said - share) / 2


def test_cut_offs_come_with_intervals_on_every_split(comparison: Comparison) -> None:
    tuned = next(o for o in comparison.outcomes if o.strategy.name == "threshold").thresholds
    assert len(tuned) == 6
    for found in tuned:
        assert found.metric == "balanced_accuracy"
        assert found.threshold.sum() == pytest.approx(1.0)
        assert (found.low <= found.threshold).all()
        assert (found.threshold <= found.high).all()
    entry = comparison.to_dict()["strategies"][1]
    assert entry["thresholds"][0]["low"] == tuned[0].low.tolist()


def test_each_row_is_predicted_once_in_the_first_repeat(comparison: Comparison) -> None:
    for outcome in comparison.outcomes:
        assert outcome.probabilities is not None
        assert outcome.probabilities.sum(axis=1) == pytest.approx(1)
        assert np.isfinite(outcome.probabilities).all()


def keys(value: Any) -> Any:
    """The shape of a JSON value: names of keys, and the first entry of a list."""
    if isinstance(value, dict):
        return {k: keys(v) for k, v in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return type(value).__name__


def test_the_layout_of_the_json_stands(comparison: Comparison) -> None:
    """A change here is a new ``format``."""
    report = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert report["format"] == 2
    assert set(report) == {
        "format", "data", "settings", "baselines", "strategies", "recommendation", "findings", "python", "versions"
    }  # fmt: skip
    assert set(report["data"]) == {
        "name", "target", "rows", "classes", "imbalance_ratio", "duplicates", "kept_together", "columns", "notes"
    }  # fmt: skip
    assert keys(report["data"]["classes"]) == [{"label": "str", "count": "int", "share": "float"}]
    assert set(report["settings"]) == {"metric", "folds", "repeats", "seed", "recipe", "splits", "test_ratio"}
    assert set(report["baselines"]) == set(METRICS)
    for entry in report["strategies"]:
        assert set(entry) == {
            "name", "label", "idea", "bends_probabilities", "metrics", "difference_to_none", "recall", "thresholds",
            "reliability", "best_epochs",
        }  # fmt: skip
        assert set(entry["metrics"]) == set(METRICS)
        assert set(entry["metrics"]["log_loss"]) == {"mean", "low", "high", "per_split"}
        assert (entry["difference_to_none"] is None) == (entry["name"] == "none")
        assert set(entry["recall"]) == {"common", "rare", "rarest"}
        assert (entry["thresholds"] is not None) == (entry["name"] == "threshold")
        assert set(entry["reliability"]) == {"common", "rare", "rarest"}
        curve = {"predicted": ["float"], "observed": ["float"], "rows": ["int"]}
        assert keys(entry["reliability"]["rarest"]) == {"raw": curve, "posterior": curve}
    assert set(report["recommendation"]) == {
        "strategy", "metric", "helps", "headline", "reasons", "costs", "as_good"
    }  # fmt: skip


def test_intervals_in_the_report_are_those_of_the_scores(comparison: Comparison) -> None:
    entry = next(e for e in comparison.to_dict()["strategies"] if e["name"] == "weights")
    nothing = comparison.to_dict()["strategies"][0]
    own, base = entry["metrics"]["macro_f1"]["per_split"], nothing["metrics"]["macro_f1"]["per_split"]
    difference = np.subtract(own, base)
    assert entry["metrics"]["macro_f1"]["mean"] == pytest.approx(np.mean(own))
    assert entry["difference_to_none"]["macro_f1"]["mean"] == pytest.approx(difference.mean())
    half = 2.570581836 * np.sqrt((1 / 6 + comparison.test_ratio) * difference.var(ddof=1))  # t(0.975, 5 degrees)
    assert entry["difference_to_none"]["macro_f1"]["high"] == pytest.approx(difference.mean() + half)
    assert comparison.test_ratio == pytest.approx(0.5, abs=0.01)


def test_baselines_know_the_class_shares_only(comparison: Comparison) -> None:
    """The same scores as scikit-learn gives to a constant prediction."""
    table = comparison.table
    constant = np.tile(table.counts / table.counts.sum(), (len(table.target), 1))
    from steelyard.compare.evaluate import prediction_scores

    scores = prediction_scores(table.target, constant, constant.argmax(axis=1), constant, int(table.counts.argmin()))
    for name, value in comparison.baselines.items():
        expected = 1 / 3 if name == "average_precision" else scores[name]
        assert value == pytest.approx(expected), name


def test_the_same_seed_gives_the_same_report_and_another_does_not(csv: Path) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    options: dict[str, Any] = {"folds": 3, "repeats": 1, "epochs": 2, "strategies": ["sampling"]}
    one, two, other = (compare(csv, "kind", seed=seed, **options).to_dict() for seed in (4, 4, 5))
    assert one == two
    assert one["strategies"] != other["strategies"]
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_only_what_was_asked_for_beside_doing_nothing(csv: Path) -> None:
    found = compare(csv, "kind", folds=3, repeats=1, epochs=1, strategies=["focal"], metric="log_loss")
    assert [o.strategy.name for o in found.outcomes] == ["none", "threshold", "focal"]
    assert found.recommendation.metric == "log_loss"


def test_progress_counts_up_to_its_total(csv: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    compare(
        csv, "kind", folds=3, repeats=1, epochs=1, strategies=["weights"], progress=lambda *call: calls.append(call)
    )  # fmt: skip
    assert [done for done, _, _ in calls] == list(range(7))
    assert {total for _, total, _ in calls} == {6}
    assert calls[1][2] == "split 1 of 3: class weights"


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "metric": ({"metric": "auc"}, "'metric' must be one of balanced_accuracy, "),
    "the posterior is no goal": ({"metric": "log_loss_posterior"}, "'metric' must be one of "),
    "strategies": ({"strategies": ["smote"]}, "'strategies' must be among none, threshold, "),
    "folds": ({"folds": 2}, "'folds' must be a whole number of at least 3; got int 2"),
    "repeats": ({"repeats": 0}, "'repeats' must be a whole number of at least 1"),
    "seed": ({"seed": -1}, "'seed' must be"),
    "epochs": ({"epochs": 1.5}, "'epochs' must be a whole number of at least 1; got float 1.5"),
    "threads": ({"threads": True}, "'threads' must be"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_refused_before_the_data_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        compare("no such file.csv", "kind", **options)
    assert message in str(caught.value)


def test_a_diverged_training_names_the_remedy(monkeypatch: pytest.MonkeyPatch, csv: Path) -> None:
    from steelyard.compare import run

    def diverges(*_: Any, **__: Any) -> None:
        raise FloatingPointError("training diverged in epoch 1: the validation loss is nan")

    monkeypatch.setattr(run, "fit", diverges)
    with pytest.raises(RuntimeError, match="'none' on split 1: training diverged in epoch 1"):
        compare(csv, "kind", folds=3, repeats=1)


FEW_ROWS = pytest.mark.filterwarnings("ignore:tune_threshold. tuning wants 30")  # the small data has few


@FEW_ROWS
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_printed_python_runs_and_reaches_the_same_scores(comparison: Comparison, name: str) -> None:
    settings = comparison.settings
    split_rows = 440 - 147 - 147
    rows = len(comparison.outcomes[0].probabilities)  # type: ignore[arg-type]
    assert rows == 440
    code = script(
        name, comparison.table, {}, settings.recipe, metric=settings.metric, folds=settings.folds, seed=settings.seed,
        rows=split_rows,
    )  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    own = next(o for o in comparison.outcomes if o.strategy.name == name)
    expected = own.scores[0]
    assert f"balanced accuracy {expected['balanced_accuracy']:.4f}" in printed.getvalue()
    undone = f"of the posterior {expected['log_loss_posterior']:.4f}"
    assert f"log loss {expected['log_loss']:.4f}, {undone}" in printed.getvalue()


@FEW_ROWS
def test_the_recommended_python_is_the_one_in_the_report(comparison: Comparison) -> None:
    assert comparison.python.startswith("# small.parquet, target 'kind': ")
    assert STRATEGIES[comparison.recommendation.strategy].label in comparison.python
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(comparison.python, "recommended", "exec"), {})


@FEW_ROWS
def test_a_data_frame_of_ones_own_is_named_frame_in_the_python(frame: pl.DataFrame) -> None:
    found = compare(frame, "kind", folds=3, repeats=1, epochs=1, strategies=[], drop=["count"], split_duplicates=True)
    assert "load(frame, 'kind', drop=['count'], split_duplicates=True)" in found.python
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(found.python, "recommended", "exec"), {"frame": frame})


def test_a_comparison_can_be_pickled(comparison: Comparison) -> None:
    assert pickle.loads(pickle.dumps(comparison)).to_dict() == comparison.to_dict()


@pytest.mark.parametrize(
    "target", [[0, 1], ["no", "yes"], [False, True], [1.5, 2.5]], ids=["int", "str", "bool", "float"]
)
def test_two_classes_of_any_kind(target: list[Any]) -> None:
    rng = np.random.default_rng(0)
    y = np.r_[0, 1, 0, 1, 0, 1, rng.random(54) < 0.2].astype(int)
    frame = pl.DataFrame({"x": rng.normal(size=60) + y, "y": [target[i] for i in y]})
    found = compare(frame, "y", folds=3, repeats=1, epochs=2, strategies=["weights"]).to_dict()
    assert [c["label"] for c in found["data"]["classes"]] == target
    json.dumps(found, allow_nan=False)


def test_inspect_counts_duplicates_and_contradictions() -> None:
    frame = pl.DataFrame({"x": [1, 1, 1, 2, 2, 3], "id": list("abcdef"), "y": ["p", "p", "q", "p", "q", "p"]})
    found = inspect(frame, "y", drop=["id"])
    assert found.duplicates.to_dict() == {
        "repeated_rows": 1,
        "contradicting_rows": 5,
        "best_possible_accuracy": pytest.approx((2 + 1 + 1) / 6),
    }
    assert found.imbalance_ratio == 2
    assert found.majority_accuracy == pytest.approx(4 / 6)


def test_inspect_says_what_stands_out(frame: pl.DataFrame) -> None:
    text = "\n".join(inspect(frame, "kind").observations)
    assert "'rarest' has" in text
    assert "Always answering 'common' is right for" in text
    assert "40 rows repeat an earlier row" in text
    assert "'nothing' is left out: every value is missing." in text
    assert "'name' is left out: nearly every value is different" in text
    balanced = inspect(pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": list("abab")}), "y")
    assert balanced.observations[0].startswith("The classes are about equally frequent")


def test_inspect_shows_what_check_finds() -> None:
    marked = pl.DataFrame({"x": np.arange(90.0), "y": [0] * 40 + [1] * 40 + [255] * 10})
    found = inspect(marked, "y")
    assert [finding.code for finding in found.findings] == ["SY114"]
    assert found.to_dict()["findings"] == found.findings.to_dict()
    assert inspect(marked.with_columns(pl.col("y").replace(255, 2)), "y").findings == []
    mixed = marked.with_columns(pl.col("y").cast(pl.Float64) + 0.5 * (pl.col("y") > 1))
    assert inspect(mixed, "y").findings == []  # 0, 1 and 255.5 have but words in common


def test_compare_shows_what_check_finds_in_the_recommended_remedy(comparison: Comparison) -> None:
    told = replace(comparison, recommendation=replace(comparison.recommendation, strategy="weights"))
    (bent,) = (finding for finding in told.findings if finding.code == "SY118")
    outcome = next(o for o in comparison.outcomes if o.strategy.name == "weights")
    assert outcome.probabilities is not None
    rarest = comparison.table.words.index("rarest")
    assert f"average {100 * outcome.probabilities[:, rarest].mean():.1f}".removesuffix(".0") in bent.message
    assert "class 'rarest'" in bent.message
    assert told.to_dict()["findings"] == told.findings.to_dict()
    for name in ("none", "threshold"):
        told = replace(comparison, recommendation=replace(comparison.recommendation, strategy=name))
        assert not any(finding.code == "SY118" for finding in told.findings)


def test_equal_rows_on_both_sides_are_not_called_kept_together(frame: pl.DataFrame) -> None:
    for apart, words in ((False, "compare sees to that"), (True, "here they may be on both sides")):
        table = load(frame, "kind", split_duplicates=apart)
        said = [text for text in Inspection(table, find_duplicates(table)).observations if "repeat an earlier" in text]
        assert len(said) == 1
        assert words in said[0]


def test_the_page_names_every_remedy_and_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in (*STRATEGIES, *GOALS))
