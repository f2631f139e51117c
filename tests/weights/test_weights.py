"""Class weights: each scheme by hand and against scikit-learn, each option, refusals; weights per row."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from steelyard.counts import ClassCounts, count_classes
from steelyard.nn import CrossEntropyLoss
from steelyard.weights import SCHEMES, class_weights, pos_weight, sample_weights

LONG_TAIL = [100000, 100, 10]
MULTI = ClassCounts(["a", "b"], [20, 5], negatives=[80, 95])


def close(result: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(result, torch.tensor(expected, dtype=result.dtype), rtol=1e-6, atol=0)


# 1 Schemes


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("inverse", [1e-5, 1e-2, 1e-1]),
        ("max_ratio", [1.0, 1000.0, 10000.0]),
        ("balanced", [100110 / (3 * n) for n in LONG_TAIL]),
        ("sqrt_inverse", [n**-0.5 for n in LONG_TAIL]),
        ("median_frequency", [1e-3, 1.0, 10.0]),
        ("log", [1 / math.log(1.02 + n / 100110) for n in LONG_TAIL]),
    ],
)
def test_schemes_by_hand(scheme: str, expected: list[float]) -> None:
    weights = class_weights(LONG_TAIL, scheme)
    assert weights.dtype == torch.float32
    close(weights, expected)


def test_the_default_is_max_ratio() -> None:
    assert torch.equal(class_weights(LONG_TAIL), class_weights(LONG_TAIL, "max_ratio"))


def test_median_of_an_even_number_of_classes_is_between_the_middle_two() -> None:
    close(class_weights([1, 2, 4, 100], "median_frequency"), [3.0, 1.5, 0.75, 0.03])


def test_log_stays_within_its_published_bounds() -> None:
    weights = class_weights([10**12, 1], "log")
    assert weights[0].item() == pytest.approx(1 / math.log(2.02))
    assert weights[1].item() == pytest.approx(50.498, abs=1e-3)


def test_effective_number_keeps_its_digits() -> None:
    # For n = 1 it is 1 whatever beta is. Written as (1−β)/(1−βⁿ), the last line would be wrong in the second digit.
    for beta in (0.0, 0.9, 0.9999, 1 - 1e-12):
        assert class_weights([1, 1], "effective_number", beta=beta).tolist() == [1.0, 1.0]
    close(class_weights([1, 3], "effective_number", beta=0.5), [1.0, 0.5 / (1 - 0.125)])
    close(class_weights([10, 1000], "effective_number", beta=1 - 1e-12), [0.1, 0.001])
    close(class_weights([10**15, 7, 3], "effective_number"), [1e-15 / (1 - math.exp(-1)), 1 / 7, 1 / 3])


def test_effective_number_without_beta_takes_the_total() -> None:
    n, total = np.array([900.0, 100.0]), 1000
    beta = (total - 1) / total
    close(class_weights([900, 100], "effective_number"), ((1 - beta) / (1 - beta**n)).tolist())
    assert class_weights([1], "effective_number").tolist() == [1.0]  # beta = 0


@pytest.mark.parametrize(("counts", "beta"), [([50, 5000], 0.9), ([5_000_000, 50_000_000], 0.9999), ([1, 100], 0.0)])
def test_effective_number_warns_when_saturated(counts: list[int], beta: float) -> None:
    with pytest.warns(UserWarning, match=f"beta={beta} is saturated: the counts differ by a factor of"):
        weights = class_weights(counts, "effective_number", beta=beta)
    assert weights.max() <= 1.01 * weights.min()


@pytest.mark.parametrize(("counts", "beta"), [([40, 5000], 0.9), ([5000, 5100], 0.9), ([10, 10**9], None)])
def test_effective_number_is_silent_when_it_does_something_or_has_nothing_to_do(counts: list[int], beta: float) -> None:
    class_weights(counts, "effective_number", beta=beta)  # a warning would be an error


def test_a_function_as_scheme() -> None:
    def scheme(n: torch.Tensor) -> torch.Tensor:
        assert n.dtype == torch.float64
        return n ** -(1 / 3)

    close(class_weights([8, 1000], scheme), [0.5, 0.1])
    close(class_weights([8, 1000], lambda n: [3, 0]), [3.0, 0.0])
    close(class_weights([0, 4], lambda n: 1 / n, missing="zero"), [0.0, 0.25])


def test_a_function_cannot_reach_the_counts() -> None:
    counts = ClassCounts([0, 1], [1, 2])
    class_weights(counts, lambda n: n.fill_(7))
    assert counts.counts.tolist() == [1, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=200))
def test_balanced_equals_scikit_learn(labels: list[int]) -> None:
    counts = count_classes(labels)
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    torch.testing.assert_close(class_weights(counts, "balanced"), torch.from_numpy(expected).float(), rtol=1e-7, atol=0)


def test_balanced_equals_scikit_learn_on_strings() -> None:
    labels = np.random.default_rng(0).choice(["cat", "dog", "eel"], size=5000, p=[0.9, 0.09, 0.01])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    torch.testing.assert_close(class_weights(count_classes(labels), "balanced"), torch.from_numpy(expected).float())


counts_lists = st.lists(st.integers(1, 10**9), min_size=1, max_size=30)


@settings(deadline=None)
@given(counts_lists, st.sampled_from(sorted(SCHEMES)), st.sampled_from([0.0, 0.5, 1.0, 1.5]))
def test_rarer_never_weighs_less(counts: list[int], scheme: str, power: float) -> None:
    weights = class_weights(sorted(counts), scheme, power=power)
    assert weights.isfinite().all()
    assert (weights > 0).all()
    assert (weights.diff() <= 0).all()


# 2 Options


@settings(deadline=None)
@given(counts_lists, st.floats(0, 2))
def test_power_raises_the_weights(counts: list[int], power: float) -> None:
    expected = class_weights(counts).double() ** power
    torch.testing.assert_close(class_weights(counts, power=power).double(), expected, rtol=1e-6, atol=0)


def test_power_works_on_every_scheme() -> None:
    for scheme in [*SCHEMES, lambda n: 1 / n]:
        torch.testing.assert_close(class_weights([9, 3], scheme, power=0.5), class_weights([9, 3], scheme).sqrt())
        assert class_weights([9, 3], scheme, power=0).tolist() == [1.0, 1.0]


@settings(deadline=None)
@given(counts_lists, st.sampled_from(sorted(SCHEMES)))
def test_normalize(counts: list[int], scheme: str) -> None:
    plain = class_weights(counts, scheme).double()
    prior = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    statistics = {"mean": torch.mean, "sum": torch.sum, "max": torch.max, "prior": lambda w: (prior * w).sum()}
    for name, statistic in statistics.items():
        weights = class_weights(counts, scheme, normalize=name).double()
        assert statistic(weights).item() == pytest.approx(1, rel=1e-5)
        torch.testing.assert_close(weights, plain / statistic(plain), rtol=1e-5, atol=0)


def test_balanced_needs_no_prior_normalisation() -> None:
    torch.testing.assert_close(
        class_weights(LONG_TAIL, "balanced"), class_weights(LONG_TAIL, "inverse", normalize="prior")
    )


def test_cap_lowers_the_large_weights_and_says_so() -> None:
    with pytest.warns(
        UserWarning, match=r"cap=100 lowered the weight of classes 'b', 'c': the largest was 1e\+04 times"
    ):
        weights = class_weights(ClassCounts("abc", LONG_TAIL), cap=100)
    assert weights.tolist() == [1.0, 100.0, 100.0]
    with pytest.warns(UserWarning, match="class 2: the largest was 10 times"):
        assert class_weights([100, 50, 10], cap=5).tolist() == [1.0, 2.0, 5.0]


def test_warnings_point_at_the_callers_line() -> None:
    for call in (class_weights, CrossEntropyLoss.from_counts):
        with pytest.warns(UserWarning, match="cap=5 lowered") as said:
            call([100, 50, 10], cap=5)
        assert said[0].filename == __file__


def test_cap_that_is_not_reached_is_silent() -> None:
    assert class_weights([100, 10], cap=10).tolist() == [1.0, 10.0]
    for n in range(1, 100):  # equal but for rounding
        assert class_weights([3 * n, 3], "sqrt_inverse", cap=n**0.5).shape == (2,)


def test_cap_is_about_weights_that_are_not_zero() -> None:
    with pytest.warns(UserWarning, match="class 3"):
        weights = class_weights([0, 100, 50, 10], cap=5, missing="zero")
    assert weights.tolist() == [0.0, 1.0, 2.0, 5.0]
    with pytest.warns(UserWarning, match="class 2"):
        assert class_weights([1, 1, 1], lambda n: [0, 1, 9], cap=3).tolist() == [0.0, 1.0, 3.0]


def test_cap_comes_after_power_and_before_normalize() -> None:
    with pytest.warns(UserWarning, match="class 2"):
        weights = class_weights(LONG_TAIL, power=0.5, cap=50, normalize="max")
    close(weights, [1 / 50, 1000**0.5 / 50, 1.0])


def test_missing() -> None:
    counts = ClassCounts(["a", "b", "c", "d"], [10, 0, 5, 0])
    with pytest.raises(
        ValueError, match=r"samples in every class; got none for classes 'b', 'd'\. Choose missing='zero'"
    ):
        class_weights(counts)
    assert class_weights(counts, missing="zero").tolist() == [1.0, 0.0, 2.0, 0.0]
    assert class_weights(counts, missing="zero", power=0).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert class_weights(counts, missing="max").tolist() == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_absent_classes_do_not_change_the_others(scheme: str) -> None:
    with_absent = class_weights([10, 0, 5], scheme, missing="zero")
    assert torch.equal(with_absent[[0, 2]], class_weights([10, 5], scheme))


def test_missing_is_filled_before_normalising() -> None:
    assert class_weights([10, 0, 5], missing="max", normalize="sum").tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert class_weights([10, 0, 10], missing="zero", normalize="mean").tolist() == [1.5, 0.0, 1.5]


def test_missing_max_comes_after_the_cap() -> None:
    with pytest.warns(UserWarning, match="class 2"):
        assert class_weights([10, 0, 1], missing="max", cap=4).tolist() == [1.0, 4.0, 4.0]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=10).filter(any),
    st.sampled_from(sorted(SCHEMES)),
    st.sampled_from(["zero", "max"]),
    st.sampled_from([None, "mean", "sum", "max", "prior"]),
    st.sampled_from([None, 1.0, 7.5]),
)
def test_weights_are_finite_and_not_negative(counts, scheme, missing, normalize, cap) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = class_weights(counts, scheme, missing=missing, normalize=normalize, cap=cap)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    positive = weights[weights > 0].double()
    assert len(positive) == (len(counts) if missing == "max" else sum(n > 0 for n in counts))
    if cap is not None:
        assert positive.max() <= cap * positive.min() * (1 + 1e-6)


def test_counts_of_any_form() -> None:
    expected = class_weights(LONG_TAIL)
    array = np.array(LONG_TAIL)
    forms = [tuple(LONG_TAIL), array, array.astype(float), torch.tensor(LONG_TAIL), pd.Series(LONG_TAIL)]
    for counts in [*forms, pl.Series(LONG_TAIL), ClassCounts("abc", LONG_TAIL)]:
        assert torch.equal(class_weights(counts), expected)


# 3 pos_weight


def test_pos_weight_is_negatives_over_positives() -> None:
    weights = pos_weight(ClassCounts([0, 1], [300, 100]))
    assert weights.tolist() == [3.0]
    assert weights.dtype == torch.float32
    assert pos_weight([300, 100]).shape == (1,)


def test_labels_that_look_like_counts_are_pointed_out() -> None:
    with pytest.raises(ValueError, match=r"look like labels, not counts: count them by count_classes\(labels\)"):
        class_weights([0, 1, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0])


def test_strings_have_no_positive_one_until_it_is_named() -> None:
    counts = count_classes(["legit"] * 90 + ["fraud"] * 10)
    assert pos_weight(counts, positive="fraud").tolist() == [9.0]
    assert pos_weight(counts, positive="legit").tolist() == [pytest.approx(1 / 9)]
    with pytest.raises(ValueError, match="'positive' must be one of the labels 'fraud' and 'legit'; got None"):
        pos_weight(counts)


def test_the_larger_label_is_the_positive_one() -> None:
    assert pos_weight([300, 100], positive=0).tolist() == [pytest.approx(1 / 3)]
    assert pos_weight(count_classes([True, False, False])).tolist() == [2.0]
    assert pos_weight(ClassCounts([1, 0], [1, 2])).tolist() == [2.0]


def test_pos_weight_per_class() -> None:
    assert pos_weight(MULTI).tolist() == [4.0, 19.0]
    unknown = count_classes([[1, -1], [0, 1], [0, 0], [0, -1]], ignore_index=-1)
    assert pos_weight(unknown).tolist() == [3.0, 1.0]


def test_pos_weight_without_positives() -> None:
    counts = ClassCounts(["a", "b", "c"], [0, 20, 50], negatives=[100, 80, 50])
    with pytest.raises(ValueError, match=r"pos_weight: 'counts' must be counts with positives .* none for class 'a'"):
        pos_weight(counts)
    assert pos_weight(counts, missing="zero").tolist() == [0.0, 4.0, 1.0]
    assert pos_weight(counts, missing="max").tolist() == [4.0, 4.0, 1.0]
    for missing in ("raise", "zero", "max"):
        with pytest.raises(ValueError, match="none in any class"):
            pos_weight([5, 0], missing=missing)


def test_pos_weight_without_negatives() -> None:
    with pytest.raises(ValueError, match="counts with negatives in every class; got none for class 1"):
        pos_weight([0, 5])
    assert pos_weight([0, 5], missing="zero").tolist() == [0.0]


# 4 sample_weights


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1, 2],
        (0, 2, 1, 2),
        np.array([0, 2, 1, 2], dtype=np.uint8),
        torch.tensor([0, 2, 1, 2]),
        torch.tensor([0.0, 2.0, 1.0, 2.0]),
        [torch.tensor(0), torch.tensor(2), torch.tensor(1), torch.tensor(2)],
        pd.Series([0, 2, 1, 2]),
        pd.Series([0, 2, 1, 2], dtype="Int64"),
        pl.Series([0, 2, 1, 2]),
    ],
)
@pytest.mark.parametrize(
    "weight",
    [
        [0.5, 2.0, 8.0],
        torch.tensor([0.5, 2.0, 8.0], dtype=torch.bfloat16, requires_grad=True),
        np.array([0.5, 2.0, 8.0]),
        {2: 8, 1: 2, 0: 0.5, 17: 0},
        ClassCounts([0, 1, 2], [16, 4, 1]),
    ],
)
def test_sample_weights(labels, weight) -> None:
    result = sample_weights(labels, weight)
    assert result.dtype == torch.float64
    expected = torch.tensor([0.5, 8.0, 2.0, 8.0], dtype=torch.float64)
    if isinstance(weight, ClassCounts):
        expected = 21 / torch.tensor([16.0, 1.0, 4.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "cat"],
        np.array(["cat", "dog", "cat"]),
        np.array(["cat", "dog", "cat"], dtype=object),
        pd.Series(["cat", "dog", "cat"]),
        pd.Series(["cat", "dog", "cat"], dtype="category"),
        pl.Series(["cat", "dog", "cat"]),
        pl.Series(["cat", "dog", "cat"], dtype=pl.Categorical),
    ],
)
def test_sample_weights_of_strings(labels) -> None:
    assert sample_weights(labels, {"dog": 3, "cat": 1}).tolist() == [1.0, 3.0, 1.0]
    assert sample_weights(labels, count_classes(labels)).tolist() == [1.5, 3.0, 1.5]


def test_sampling_by_counts_gives_every_class_the_same_mass() -> None:
    labels = np.random.default_rng(0).choice(5, size=1000, p=[0.6, 0.2, 0.1, 0.08, 0.02])
    weights = sample_weights(labels, count_classes(labels)).numpy()
    assert np.bincount(labels, weights) == pytest.approx([1000.0] * 5)


def test_a_large_range_of_labels() -> None:
    assert sample_weights([10**12, -5, 10**12], {-5: 2, 10**12: 1}).tolist() == [1.0, 2.0, 1.0]
    assert sample_weights(np.array([10**12, -5, 10**12]), {-5: 2, 10**12: 1}).tolist() == [1.0, 2.0, 1.0]


def test_no_rows_no_weights() -> None:
    for labels in ([], np.array([], dtype=int), torch.tensor([], dtype=torch.long)):
        assert sample_weights(labels, [1.0]).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "weight", "message"),
    [
        ([0, 1, 3], [1, 2, 3], r"got 3 at position 2. There are weights for 0, 1, 2\."),
        (np.array([0, -100]), [1, 2], "got -100 at position 1"),
        (["cat", "cow"], {"cat": 1}, "got 'cow' at position 1. There are weights for 'cat'"),
        ([0, 1], ClassCounts([0, 1], [3, 0]), "got 1 at position 1"),
        (torch.tensor([5]), list(range(1, 6)), "labels that have a weight; got 5 at position 0"),
    ],
)
def test_labels_without_weight(labels, weight, message: str) -> None:
    with pytest.raises(IndexError, match=f"sample_weights: 'labels' must be .*{message}"):
        sample_weights(labels, weight)


# 5 Refusals

BAD = {
    class_weights: {
        "counts": [
            ([], ValueError, "at least one count; got none"),
            ([1, -2], ValueError, "zero or more, one per class; got -2 at position 1"),
            ([0.5, 0.5], ValueError, "got 0.5 at position 0. Counts are wanted here, not shares"),
            ([1.0, math.inf], ValueError, "got inf at position 1"),
            ([[1, 2]], ValueError, "one count per class, of shape"),
            ([0, 0], ValueError, "counts with samples; got none in any class"),
            ([3, 0], ValueError, "got none for class 1"),
            ([1, 0, 0, 2], ValueError, r"such classes out\. Or these look like labels, not counts: count them by"),
            ({0: 3, 1: 1}, TypeError, r"got dict .*by ClassCounts\(\*zip\(\*sorted\(counts.items\(\)\)\)\)\."),
            (
                pd.Series([3, 1], index=[1, 0]),
                ValueError,
                r"order of the classes 0, 1, .*index is 1, 0, .*count_classes",
            ),
            (pd.Series(["b", "a"]).value_counts(), ValueError, r"index is '[ab]'.*Use count_classes\(labels\)"),
            (torch.tensor([3, 1]).to_sparse(), TypeError, "whole numbers .* of layout torch.sparse_coo"),
            ("abc", TypeError, "or a 1-d sequence, array or tensor of counts"),
            ([True, False], TypeError, "whole numbers"),
            (["cat", "dog"], TypeError, r"whole numbers .* Labels are counted by count_classes\(labels\)"),
            (["1"], TypeError, "whole numbers"),
            (None, TypeError, "ClassCounts, or"),
            (MULTI, ValueError, "single-label counts; got multi-label counts. Use pos_weight"),
        ],
        "scheme": [
            ("invers", ValueError, "one of 'inverse', 'max_ratio'"),
            (None, TypeError, "one of 'inverse'"),
            ([], TypeError, "one of 'inverse'"),
            (lambda n: n[:1], ValueError, r"gives 2 weights, .*got one that gives shape \(1,\)"),
            (lambda n: -n, ValueError, "not negative, .* gives -3.0 for class 0"),
            (lambda n: n * math.nan, ValueError, "gives nan for class 0"),
            (lambda n: n * 0, ValueError, "only zeros"),
            (lambda n: "heavy", TypeError, "gives str"),
        ],
        "power": [
            (-1.0, ValueError, r"in \[0, inf\); got -1.0"),
            (math.nan, ValueError, "in "),
            ("2", TypeError, "a number"),
            (True, TypeError, "a number"),
            (1e9, ValueError, "such that all weights fit into float64"),
            (100.0, ValueError, "such that all weights fit into float32"),
            (-math.inf, ValueError, "in "),
        ],
        "beta": [
            (1.0, ValueError, r"in \[0, 1\)"),
            (-0.1, ValueError, r"in \[0, 1\)"),
            ("0.9", TypeError, "a number"),
            (0.9, ValueError, "None unless the scheme is 'effective_number'"),
        ],
        "normalize": [("median", ValueError, "one of 'mean', 'sum', 'max', 'prior'"), (True, TypeError, "one of")],
        "cap": [(0.5, ValueError, r"in \[1, inf\)"), (math.inf, ValueError, "in "), ("5", TypeError, "a number")],
        "missing": [("ignore", ValueError, "one of 'raise', 'zero', 'max'"), (None, TypeError, "one of")],
    },
    pos_weight: {
        "counts": [
            ([1, 2, 3], ValueError, "multi-label counts or those of two classes; got 3 classes. .*class_weights"),
            ([4], ValueError, "two classes; got 1 class"),
            ([1, -1], ValueError, "got -1 at position 1"),
            ([5, 0], ValueError, "positives; got none in any class. There is nothing to learn from"),
            ([0, 5], ValueError, "negatives in every class; .* there is nothing to tell them from"),
            ("ab", TypeError, "ClassCounts, or"),
        ],
        "positive": [
            ("1", ValueError, "one of the labels 0 and 1"),
            (2, ValueError, "got 2"),
            (True, ValueError, "got"),
        ],
        "missing": [("drop", ValueError, "one of"), (0, TypeError, "one of")],
    },
    sample_weights: {
        "labels": [
            ([[1, 0], [0, 1]], ValueError, r"one label per row, \(N,\); got shape \(2, 2\). A row with several labels"),
            (torch.tensor(1), ValueError, "one label per row"),
            ([0, None], ValueError, "labels without gaps; got a missing label at position 1"),
            (np.array([0.0, math.nan]), ValueError, "missing label at position 1"),
            (pd.Series([0, None], dtype="Int64"), ValueError, "missing label at position 1"),
            (pd.Series([0.0, math.nan]), ValueError, "missing label at position 1"),
            (pl.Series([0, None]), ValueError, "missing label at position 1"),
            ([0, {}], TypeError, "labels that are int, str, bool or whole float"),
            ("cat", TypeError, "a tensor, array, sequence or Series of labels"),
            (iter([0, 1]), TypeError, r"An iterator can be given as list\(...\)"),
            ([0.5], IndexError, "got 0.5 at position 0"),
            ([2], IndexError, "got 2 at position 0"),
            (torch.ones(2, device="meta"), TypeError, "a dense tensor of integers, .* without values"),
        ],
        "weight": [
            ([1.0, -1.0], ValueError, "finite and not negative; got -1.0 for class 1"),
            ([1.0, math.nan], ValueError, "got nan for class 1"),
            ({0: 1, 1: math.inf}, ValueError, "got inf for class 1"),
            ({0: 1, 1: "heavy"}, TypeError, "one weight per class"),
            ([[1.0, 2.0]], ValueError, r"one weight per class, \(C,\)"),
            (2.0, TypeError, "a mapping from label to weight, or ClassCounts"),
            ("balanced", TypeError, "a mapping from label to weight"),
            (MULTI, ValueError, "single-label counts; got multi-label"),
        ],
    },
}
GOOD = {
    class_weights: {"counts": [3, 1]},
    pos_weight: {"counts": [3, 1]},
    sample_weights: {"labels": [0, 1], "weight": [1, 2]},
}


@pytest.mark.parametrize("function", BAD)
def test_bad_arguments(function) -> None:
    assert list(BAD[function]) == list(inspect.signature(function).parameters)
    for argument, cases in BAD[function].items():
        for value, error, message in cases:
            with pytest.raises(error, match=message) as caught:
                function(**(GOOD[function] | {argument: value}))
            assert str(caught.value).startswith(f"{function.__name__}: '{argument}' must be "), caught.value
            assert "\n" not in str(caught.value)


def test_weights_that_vanish_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"such that all weights fit into float32; got weights that do not. Lower power"
    ):
        class_weights([10, 10**6], "inverse", power=10)
    with pytest.raises(ValueError, match="such that all weights fit into float64"):
        class_weights([10, 10**6], "inverse", power=60)
    close(class_weights([10, 10**6], "inverse", power=6, normalize="max"), [1.0, 1e-30])


def test_string_labels_need_a_mapping() -> None:
    with pytest.raises(TypeError, match=r"a mapping or ClassCounts where labels are strings; .*dict\(zip"):
        sample_weights(["cat", "dog"], [1.0, 2.0])


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string", "category", "float64", object])
def test_a_gap_in_a_series_of_labels(dtype) -> None:
    values = ["a", None] if dtype in ("string", object) else [True, None]
    with pytest.raises(
        ValueError, match="sample_weights: 'labels' must be labels without gaps; got a missing label at"
    ):
        sample_weights(pd.Series(values, dtype=dtype), [1.0, 1.0])
