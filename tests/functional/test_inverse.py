"""Free logits, fitted to a known posterior under each loss, come back to it; and nothing comes back where nothing can.

The fit is Newton's method on the expected loss of the loss itself, by autograd: it knows none of the inverses' algebra.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import steelyard
from steelyard import NotInvertibleError, functional, nn
from steelyard.functional.inverse import sigmoid_posterior, softmax_posterior
from steelyard.registry import LOSSES, LossEntry

DOUBLE = torch.float64
COUNTS = [700, 250, 45, 5]
CLASSES = len(COUNTS)
WEIGHT = [0.4, 1.0, 6.0, 50.0]
OFFSET = [0.3, -1.0, 2.0, 0.0]
MARGIN = [0.1, 0.2, 0.7, 1.5]
TRUTH = torch.tensor(
    [[0.90, 0.07, 0.025, 0.005], [0.02, 0.03, 0.05, 0.90], [0.6, 0.38, 1e-3, 0.019]],
    dtype=DOUBLE,
)
SHARES = torch.tensor([1e-3, 0.02, 0.3, 0.5, 0.77, 0.995], dtype=DOUBLE)


def settle(expected: Any, z: Tensor) -> Tensor:
    """The stationary point of ``expected``, summed over rows of free logits: LBFGS to get near, Newton to arrive."""
    z = z.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z], max_iter=1000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = expected(z)
        value.backward()
        return value

    optimizer.step(closure)
    z = z.detach()
    for _ in range(3):
        gradient = torch.autograd.functional.jacobian(expected, z).flatten()
        hessian = torch.autograd.functional.hessian(expected, z).reshape(gradient.numel(), -1)
        z = z - (torch.linalg.pinv(hessian, hermitian=True, rtol=1e-10) @ gradient).reshape(z.shape)
    assert float(torch.autograd.functional.jacobian(expected, z).abs().max()) < 1e-9
    return z


def settled_softmax(loss: Any, truth: Tensor = TRUTH, distribution: bool = False) -> Tensor:
    """Logits where the loss of labels drawn from ``truth`` is least: one row for each class, weighted by its chance.

    ``loss(logits, target, sample_weight)`` gives a sum.
    """
    rows, classes = truth.shape
    labels = torch.arange(classes).repeat(rows)
    target = torch.eye(classes, dtype=DOUBLE)[labels] if distribution else labels

    def expected(z: Tensor) -> Tensor:
        return loss(z.repeat_interleave(classes, 0), target, truth.flatten())

    return settle(expected, torch.zeros_like(truth))


def settled_sigmoid(loss: Any, truth: Tensor = SHARES) -> Tensor:
    def expected(z: Tensor) -> Tensor:
        yes, no = loss(z, torch.ones_like(z)), loss(z, torch.zeros_like(z))
        return (truth * yes + (1 - truth) * no).sum()

    return settle(expected, torch.zeros_like(truth))


# ------------------------------------------------------------------------------------- every loss, and all its settings

SMOOTHING = [{}, {"label_smoothing": 0.1}, {"label_smoothing": 0.3, "smooth_weight": "target"}]
BENT: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [
        {**offset, **margin, **gamma}
        for offset, margin, gamma in itertools.product(
            ({}, {"logit_offset": OFFSET}), ({}, {"margin": MARGIN}), ({}, {"gamma": 2.0}, {"gamma": 0.5})
        )
    ],
    "focal_loss": [{"gamma": 0.0}, {"gamma": 0.3}, {"gamma": 2.0}, {"gamma": 5.0}],
    "logit_adjusted_loss": [{"tau": 0.5}, {"tau": 2.0}],
    "ldam_loss": [{}, {"max_margin": 0.2, "scale": 4.0}, {"max_margin": 0.0, "scale": 1.0}],
    "linear_cross_entropy": [{}, {"logit_offset": OFFSET}],
    "balanced_softmax_loss": [{}],
    "nll_loss": [{}],
}


def softmax_cases() -> list[Any]:
    cases = []
    for entry in LOSSES.values():
        if entry.targets == ("elements",):
            continue
        smoothings = SMOOTHING if entry.formula == "softmax" else [{}]
        if entry.input == "features":
            smoothings = SMOOTHING[:2]  # its function takes no smooth_weight
        for bent, smooth, weight in itertools.product(BENT[entry.name], smoothings, ({}, {"weight": WEIGHT})):
            options = {**bent, **smooth, **weight}
            if "margin" in options and "gamma" in options and smooth:
                continue  # refused, see below
            forms = entry.targets if "margin" not in options else ("indices",)
            cases += [
                pytest.param(entry, options, form, id="-".join([entry.name, form, *map(str, options.items())]))
                for form in forms
            ]
    return cases


def module_of(entry: LossEntry, options: dict[str, Any]) -> Any:
    if entry.input == "features":
        made = entry.module(CLASSES, CLASSES, dtype=DOUBLE, reduction="sum", **options)
        with torch.no_grad():
            made.linear.weight.copy_(torch.eye(CLASSES))
        return made.double()
    given = [COUNTS] if entry.counts else []
    return entry.module(*given, reduction="sum", **options).double()


@pytest.mark.parametrize(("entry", "options", "form"), softmax_cases())
def test_free_logits_come_back_to_the_posterior(entry: LossEntry, options: dict[str, Any], form: str) -> None:
    module = module_of(entry, options)
    log = entry.input == "log-probabilities"

    def loss(z: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return module(z.log_softmax(1) if log else z, target, sample_weight=weight)

    z = settled_softmax(loss, distribution=form == "distribution")
    p = module.posterior(z.log_softmax(1) if log else z).detach()
    assert float((p - TRUTH).abs().max()) < 1e-6
    bends = {"weight", "gamma", "margin", "label_smoothing", "logit_offset"} & options.keys() or entry.counts
    plain = entry.name == "ldam_loss" and options.get("max_margin") == 0.0 and options.get("scale") == 1.0
    if bends and options != {"gamma": 0.0} and not (plain and set(options) == {"max_margin", "scale"}):
        assert float((z.softmax(1) - TRUTH).abs().max()) > 1e-3  # it was bent


SIGMOIDS: dict[str, list[dict[str, Any]]] = {
    "binary_cross_entropy_with_logits": [
        {**alpha, **focus, **clip}
        for alpha, focus, clip in itertools.product(
            ({}, {"alpha": 0.8}),
            ({}, {"gamma_pos": 2.0}, {"gamma_neg": 3.0}, {"gamma_pos": 0.5, "gamma_neg": 1.5}),
            ({}, {"clip": 0.1}),
        )
        if not clip or "gamma_neg" in focus
    ],
    "sigmoid_focal_loss": [{}, {"alpha": None, "gamma": 0.5}, {"alpha": 0.9, "gamma": 4.0}, {"gamma": 0.0}],
    "asymmetric_loss": [{}, {"gamma_neg": 2.0, "gamma_pos": 0.0}, {"clip": 0.0}, {"clip": 0.3, "gamma_pos": 2.0}],
    "binary_cross_entropy": [{}],
}


def sigmoid_cases() -> list[Any]:
    return [
        pytest.param(entry, {**options, **weight}, id="-".join([entry.name, *map(str, {**options, **weight}.items())]))
        for entry in LOSSES.values()
        if entry.targets == ("elements",)
        for options in SIGMOIDS[entry.name]
        for weight in ({}, {"pos_weight": 30.0}, {"weight": 3.0})
        if entry.formula == "sigmoid" or "pos_weight" not in weight
    ]


@pytest.mark.parametrize(("entry", "options"), sigmoid_cases())
def test_free_logits_of_elements_come_back_to_the_posterior(entry: LossEntry, options: dict[str, Any]) -> None:
    module = entry.module(reduction="none", **options).double()
    probability = entry.input == "probabilities"
    truth = SHARES
    if getattr(module, "clip", 0.0) and not module.gamma_pos:
        # There an output of 1 stands for every probability from the last one up.
        most = module.posterior(torch.tensor([700.0], dtype=DOUBLE))
        assert float(most) < 0.999
        truth = truth * most

    def loss(z: Tensor, t: Tensor) -> Tensor:
        return module(z.sigmoid() if probability else z, t)

    z = settled_sigmoid(loss, truth)
    p = module.posterior(z.sigmoid() if probability else z)
    assert float((p - truth).abs().max()) < 1e-6


def test_the_cases_are_all_losses() -> None:
    assert set(BENT) | set(SIGMOIDS) == set(LOSSES)


def test_weights_of_each_class_for_several_labels() -> None:
    module = nn.BCEWithLogitsLoss(pos_weight=[1.0, 10.0, 100.0])
    truth = torch.tensor([[0.3, 0.03, 0.003]], dtype=DOUBLE)
    z = truth.logit() + torch.tensor([1.0, 10.0, 100.0], dtype=DOUBLE).log()
    torch.testing.assert_close(module.posterior(z), truth)


# ------------------------------------------------------------------------------------------------- sampling, and shifts


def test_a_sampler_that_draws_classes_equally_is_undone() -> None:
    prior = torch.tensor([0.7, 0.25, 0.045, 0.005], dtype=DOUBLE)
    seen = TRUTH / prior
    seen = seen / seen.sum(1, keepdim=True)
    for module in (nn.CrossEntropyLoss(reduction="sum"), nn.FocalLoss(reduction="sum", weight=WEIGHT)):
        z = settled_softmax(lambda z, t, w, m=module: m(z, t, sample_weight=w), seen)
        p = module.posterior(z, prior, train_prior=[1, 1, 1, 1])
        assert float((p - TRUTH).abs().max()) < 1e-6
        assert float((module.posterior(z) - seen).abs().max()) < 1e-6


def test_a_loss_with_counts_knows_the_prior_that_is_left_out() -> None:
    z = torch.randn(5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for module in (nn.BalancedSoftmaxLoss(COUNTS), nn.LogitAdjustedLoss(COUNTS, 0.5), nn.LDAMLoss(COUNTS, scale=2.0)):
        new = [0.1, 0.2, 0.3, 0.4]
        assert torch.equal(module.posterior(z, new), module.posterior(z, new, train_prior=COUNTS))
        assert torch.equal(
            module.posterior(z, train_prior=[1, 1, 1, 1]), module.posterior(z, COUNTS, train_prior=[1, 1, 1, 1])
        )
        assert torch.equal(module.posterior(z, COUNTS), module.posterior(z))


def test_raw_logits_of_balanced_softmax_are_its_posterior_where_classes_are_alike() -> None:
    z = torch.randn(5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nn.BalancedSoftmaxLoss(COUNTS).posterior(z, [1, 1, 1, 1]), z.softmax(1))


def test_only_ratios_of_shares_matter_and_class_counts_will_do() -> None:
    z = torch.randn(3, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    counts = steelyard.ClassCounts(["no", "yes"], [98, 2])
    expected = softmax_posterior(z, [0.98, 0.02], train_prior=[0.5, 0.5])
    torch.testing.assert_close(softmax_posterior(z, counts, train_prior=[7, 7]), expected)
    torch.testing.assert_close(softmax_posterior(z, torch.tensor([49, 1]), train_prior=torch.ones(2)), expected)
    yes = sigmoid_posterior(z[:, 1] - z[:, 0], counts, train_prior=0.5)
    torch.testing.assert_close(yes, expected[:, 1])
    labels = steelyard.count_classes([[1, 0], [1, 1], [0, 0], [1, 0]])
    torch.testing.assert_close(
        sigmoid_posterior(z, labels, train_prior=0.5), sigmoid_posterior(z, [0.75, 0.25], train_prior=[0.5, 0.5])
    )


def test_a_class_that_will_not_occur_gets_nothing() -> None:
    p = softmax_posterior(torch.zeros(1, 3), [1.0, 0.0, 1.0], train_prior=[1.0, 1.0, 1.0])
    assert p.tolist() == [[0.5, 0.0, 0.5]]


# ----------------------------------------------------------------------------------------------------- deferred weights


def test_deferred_weights_are_undone_once_they_act() -> None:
    loss = nn.DeferredReweighting(nn.CrossEntropyLoss(weight=[1.0, 9.0]), start_epoch=2)
    z = torch.zeros(1, 2)
    assert loss.posterior(z).tolist() == [[0.5, 0.5]]
    loss.set_epoch(2)
    torch.testing.assert_close(loss.posterior(z), torch.tensor([[0.9, 0.1]]))


# ------------------------------------------------------------------------------------------------------------- extremes

SETTINGS: list[dict[str, Any]] = [
    {},
    {"weight": [1e-6, 1.0, 1e6]},
    {"gamma": 2.0},
    {"gamma": 0.5},
    {"margin": [0.1, 1.0, 15.0]},
    {"margin": [0.1, 1.0, 15.0], "gamma": 2.0},
    {"label_smoothing": 0.1, "weight": [1.0, 2.0, 3.0]},
    {"label_smoothing": 0.1, "weight": [1.0, 2.0, 3.0], "smooth_weight": "target", "margin": [0.1, 1.0, 15.0]},
    {"logit_offset": [0.0, -3.0, 3.0]},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_confident_logits_stay_numbers(options: dict[str, Any], dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [0.0, 1e4, 1e4]], dtype=dtype)
    p = softmax_posterior(z, **options)
    assert p.dtype == dtype
    assert p.isfinite().all()
    torch.testing.assert_close(p.sum(1), torch.ones(4, dtype=dtype))
    assert p[0].argmax() == 0
    rest = 2.1e-6 if "label_smoothing" in options else 0.0  # smoothing leaves a millionth to each of the others
    assert 1.0 - rest <= float(p[0, 0]) <= 1.0
    torch.testing.assert_close(p[1], p[2])  # a constant added to a row changes nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"gamma_pos": 2.0, "gamma_neg": 2.0}, {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05}, {"pos_weight": 1e6}],
    ids=str,
)
def test_confident_elements_stay_numbers_and_keep_their_order(options: dict[str, Any], dtype: torch.dtype) -> None:
    z = torch.tensor([-1e4, -200.0, -90.0, -5.0, 0.0, 5.0, 17.5, 90.0, 200.0, 1e4], dtype=dtype)
    p = sigmoid_posterior(z, **options)
    assert p.isfinite().all()
    assert (p.diff() >= 0).all()
    assert p[0] == 0.0
    assert p[-1] == 1.0


@pytest.mark.parametrize("options", [{"gamma": 2.0}, {"gamma": 0.5, "margin": [0.1, 1.0]}, {"gamma": 7.0}], ids=str)
def test_a_confident_row_is_undone_to_full_accuracy(options: dict[str, Any]) -> None:
    """Rests of 1e-5 and less would be lost in ``1 − s``; mpmath holds the digits."""
    import mpmath

    gamma, margin = options["gamma"], options.get("margin", [0.0, 0.0])
    for gap in (0.5, 12.0, 30.0, 45.0):
        p = softmax_posterior(torch.tensor([[gap, 0.0]], dtype=DOUBLE), **options)
        with mpmath.workdps(60):
            s = [1 / (1 + mpmath.e ** (-gap)), 1 / (1 + mpmath.e**gap)]
            raw = []
            for c in (0, 1):
                n = 1 - s[c] * (1 - mpmath.e ** (-margin[c]))
                own = s[c] * mpmath.e ** (-margin[c]) / n
                rest = 1 - own
                raw.append(s[c] * n / (rest**gamma - gamma * rest ** (gamma - 1) * own * mpmath.log(own)))
            exact = float(raw[1] / (raw[0] + raw[1]))
        assert float(p[0, 1]) == pytest.approx(exact, rel=1e-9)


def test_large_logits_do_not_round_an_offset_away() -> None:
    near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[10_001.0, 10_000.0]])
    for options in ({"logit_offset": [0.0004, 0.0]}, {"logit_offset": [0.0004, 0.0], "gamma": 2.0}):
        torch.testing.assert_close(
            softmax_posterior(far, **options), softmax_posterior(near, **options), rtol=1e-6, atol=0
        )
    large = nn.LDAMLoss([16, 1], scale=30.0).posterior(far)
    torch.testing.assert_close(large, nn.LDAMLoss([16, 1], scale=30.0).posterior(near), rtol=1e-6, atol=0)


def test_pytorchs_mean_lets_weights_act_less_in_small_batches_and_samples_in_full() -> None:
    """One logit pair for all rows, over all batches of 8: each batch divides by its own weights, or by 8."""
    n, share, weight = 8, 0.1, [1.0, 9.0]
    target = torch.tensor([[row < k for row in range(n)] for k in range(n + 1)]).long()
    chance = torch.tensor([math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)], dtype=DOUBLE)
    found = {}
    for denominator in ("torch", "samples"):
        loss = nn.CrossEntropyLoss(weight, denominator=denominator).double()

        def expected(z: Tensor, loss: Any = loss) -> Tensor:
            return torch.stack([p * loss(z.expand(n, 2), t) for p, t in zip(chance, target, strict=True)]).sum()

        found[denominator] = float(loss.posterior(settle(expected, torch.zeros(1, 2, dtype=DOUBLE)))[0, 1])
    assert found["samples"] == pytest.approx(share, abs=1e-9)
    assert found["torch"] < 0.06


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_the_posterior_can_be_differentiated(options: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4, 3, dtype=DOUBLE, generator=g).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: softmax_posterior(z, **options), (z,))
    sure = torch.tensor([[1e4, 0.0, -1e4], [90.0, 0.0, 0.0]], requires_grad=True)
    softmax_posterior(sure, **options)[:, 1].sum().backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_elements_can_be_differentiated_and_both_compiled() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4, 3, dtype=DOUBLE, generator=g).requires_grad_()
    for options in ({"pos_weight": 3.0}, {"gamma_pos": 2.0, "gamma_neg": 0.5}, {"gamma_neg": 4.0, "clip": 0.05}):
        assert torch.autograd.gradcheck(lambda z, o=options: sigmoid_posterior(z, **o), (z,))
        compiled = torch.compile(lambda z, o=options: sigmoid_posterior(z, **o), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(z), sigmoid_posterior(z, **options))
    for module in (nn.FocalLoss(WEIGHT), nn.LDAMLoss(COUNTS), nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1)):
        module = module.double()
        z = torch.randn(5, 4, dtype=DOUBLE, generator=g)
        compiled = torch.compile(module.posterior, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(z), module.posterior(z))


def test_one_class_is_certain() -> None:
    for options in ({}, {"gamma": 2.0}, {"label_smoothing": 0.1}, {"margin": [1.0]}):
        assert softmax_posterior(torch.zeros(2, 1), **options).tolist() == [[1.0], [1.0]]


def test_a_class_taken_out_by_its_offset_gets_nothing() -> None:
    offset = [0.0, -math.inf, 0.0]
    for options in ({}, {"gamma": 2.0}, {"gamma": 2.0, "margin": [0.5, 0.5, 0.5]}):
        p = softmax_posterior(torch.zeros(1, 3), logit_offset=offset, **options)
        assert p.tolist() == [[0.5, 0.0, 0.5]]
        alone = softmax_posterior(torch.zeros(3), logit_offset=[0.0, -math.inf, -math.inf], **options)
        assert alone.tolist() == [1.0, 0.0, 0.0]


def test_half_precision_is_computed_and_given_in_float32() -> None:
    z = torch.tensor([[3.0, -2.0, 0.5]])
    for dtype in (torch.float16, torch.bfloat16):
        p = softmax_posterior(z.to(dtype), weight=[1.0, 10.0, 2.0])
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, softmax_posterior(z, weight=[1.0, 10.0, 2.0]))


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_classes_lie_on_axis_1(options: dict[str, Any]) -> None:
    z = torch.randn(2, 3, 4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    p = softmax_posterior(z, **options)
    assert p.shape == z.shape
    torch.testing.assert_close(p[1, :, 2, 3], softmax_posterior(z[1, :, 2, 3], **options))
    flat = z.movedim(1, -1).reshape(-1, 3)
    torch.testing.assert_close(p.movedim(1, -1).reshape(-1, 3), softmax_posterior(flat, **options))


def test_the_logits_are_left_alone_and_empty_batches_are_empty() -> None:
    z = torch.randn(2, 3)
    before = z.clone()
    softmax_posterior(z, weight=[1.0, 2.0, 3.0], gamma=2.0, label_smoothing=0.0)
    sigmoid_posterior(z, pos_weight=3.0, gamma_neg=2.0, clip=0.1)
    assert torch.equal(z, before)
    assert softmax_posterior(torch.zeros(0, 3), gamma=2.0).shape == (0, 3)
    assert sigmoid_posterior(torch.zeros(0)).shape == (0,)


def test_an_output_below_the_floor_of_smoothing_gets_a_millionth() -> None:
    """With ε = 0.3 on three classes no converged output is below 0.1. Zero would be a log loss without bounds."""
    p = softmax_posterior(torch.tensor([[0.9, 0.09, 0.01]]).log(), label_smoothing=0.3)
    assert 5e-7 < float(p[0, 1]) == float(p[0, 2]) < 2e-6
    assert float(p.sum()) == pytest.approx(1.0)
    many = torch.zeros(1, 10_000)
    many[0, 0] = 30.0
    assert float(softmax_posterior(many, label_smoothing=0.1)[0, 0]) > 0.995


# ---------------------------------------------------------------------------------------------------------- no way back


def test_not_invertible_is_an_error_of_its_own_that_says_what_to_do_instead() -> None:
    z = torch.zeros(2, 3)
    refused = [
        (nn.CrossEntropyLoss(label_smoothing=1.0), "'label_smoothing' must be below 1"),
        (nn.CrossEntropyLoss(weight=[1.0, 0.0, 1.0]), r"'weight' must be > 0; got 0 at position \(1,\)"),
        (nn.CrossEntropyLoss(weight=[1.0, -2.0, 1.0]), "'weight' must be > 0"),
        (nn.CrossEntropyLoss(margin=[1.0, 1.0, 1.0], gamma=2.0, label_smoothing=0.1), "'gamma' must be 0 where"),
        (nn.CrossEntropyLoss(margin=[1.0, -1.0, 1.0], label_smoothing=0.1), "'margin' must be ≥ 0 where"),
        (nn.NLLLoss(weight=[1.0, 0.0, 1.0]), "'weight' must be > 0"),
        (nn.BCEWithLogitsLoss(alpha=0.0), "'alpha' must be between 0 and 1"),
        (nn.SigmoidFocalLoss(alpha=1.0), "'alpha' must be between 0 and 1"),
        (nn.BCEWithLogitsLoss(pos_weight=[1.0, 0.0, 1.0]), "'pos_weight' must be > 0"),
        (nn.BCEWithLogitsLoss(weight=[1.0, -1.0, 1.0]), "'weight' must be > 0"),
        (nn.BCELoss(weight=[0.0, 1.0, 1.0]), "'weight' must be > 0"),
    ]
    for loss, words in refused:
        with pytest.raises(NotInvertibleError, match=words) as caught:
            loss.posterior(z)
        message = str(caught.value)
        assert message.startswith(f"{type(loss).__name__}.posterior: ")
        assert "calibrate" in message
        assert "TemperatureScaling" in message
    assert issubclass(NotInvertibleError, ValueError)


def test_a_loss_of_ones_own_has_no_inverse_until_it_gets_one() -> None:
    class Dice(nn._base.Loss):
        pass

    with pytest.raises(NotInvertibleError, match=r"Dice\.posterior: .*calibrate"):
        Dice().posterior(torch.zeros(2, 3))


def test_below_the_clip_is_zero_with_focusing_and_no_answer_without() -> None:
    z = torch.tensor([-5.0, 2.0])
    assert nn.AsymmetricLoss(clip=0.05).posterior(z)[0] == 0.0
    unfocused = nn.AsymmetricLoss(gamma_neg=0.0, clip=0.05)
    with pytest.raises(NotInvertibleError, match=r"'gamma_neg' must be above 0 .*clip of 0\.05; got 0, and .*\(0,\)"):
        unfocused.posterior(z)
    assert 0 < float(unfocused.posterior(z[1:])) < 1
    # Where values cannot be read there is no error, but NaN rather than a plausible number.
    unread = torch.func.vmap(unfocused.posterior)(z)
    assert unread.isnan().tolist() == [True, False]


def test_zero_is_right_below_the_clip() -> None:
    """What tends to happen never ends there: from the clip the loss pushes up as long as p is above 0."""
    module = nn.AsymmetricLoss(reduction="none").double()
    for p in (1e-9, 1e-4, 0.3):
        z = torch.tensor([math.log(0.05 / 0.95) - 1e-3], dtype=DOUBLE, requires_grad=True)
        (p * module(z, torch.ones(1)) + (1 - p) * module(z, torch.zeros(1))).sum().backward()
        assert z.grad is not None
        assert float(z.grad) < 0


# ------------------------------------------------------------------------------------------------------------ bad input

Z = torch.zeros(2, 3)
BAD_SOFTMAX: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": [[0.0, 1.0]]}, TypeError, "'logits' must be a tensor of logits"),
    ({"logits": torch.zeros(2, 3, dtype=torch.long)}, TypeError, "'logits' must be a floating-point tensor"),
    ({"logits": torch.tensor(0.0)}, ValueError, "'logits' must be of shape"),
    ({"logits": torch.zeros(2, 0)}, ValueError, "'logits' must be of at least one class"),
    ({"weight": [1.0, 2.0]}, ValueError, r"'weight' must be of shape \(3,\)"),
    ({"weight": [1.0, math.nan, 1.0]}, ValueError, "'weight' must be finite"),
    ({"weight": "abc"}, TypeError, "'weight' must be numbers"),
    ({"logit_offset": [1.0, math.inf, 1.0]}, ValueError, "'logit_offset' must be finite or -inf"),
    ({"margin": [1.0]}, ValueError, r"'margin' must be of shape \(3,\)"),
    ({"gamma": -1.0}, ValueError, "'gamma' must be a number in"),
    ({"label_smoothing": 1.5}, ValueError, "'label_smoothing' must be a number in"),
    ({"smooth_weight": "row"}, ValueError, "'smooth_weight' must be one of 'class', 'target'"),
    ({"prior": [1, 1, 1]}, TypeError, "'train_prior' must be given where 'prior' is; got None"),
    ({"train_prior": [1, 1, 1]}, TypeError, "'prior' must be given where 'train_prior' is; got None"),
    ({"prior": [1, 1], "train_prior": [1, 1, 1]}, ValueError, r"'prior' must be of shape \(3,\), shares or counts"),
    ({"prior": [1, 1, 1], "train_prior": [1, 0, 1]}, ValueError, "'train_prior' must be > 0; got 0 for class 1"),
    ({"prior": [1, -1, 1], "train_prior": [1, 1, 1]}, ValueError, "'prior' must be ≥ 0; got -1 for class 1"),
    ({"prior": [0, 0, 0], "train_prior": [1, 1, 1]}, ValueError, "'prior' must be above 0 for some class; got zeros"),
    ({"prior": [1, math.nan, 1], "train_prior": [1, 1, 1]}, ValueError, "'prior' must be finite"),
    ({"prior": "abc", "train_prior": [1, 1, 1]}, TypeError, "'prior' must be shares or counts"),
    (
        {"prior": steelyard.count_classes([[1, 0, 1]]), "train_prior": [1, 1, 1]},
        ValueError,
        "'prior' must be single-label counts",
    ),
]


@pytest.mark.parametrize(("given", "error", "words"), BAD_SOFTMAX, ids=lambda value: str(value)[:40])
def test_bad_values_are_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^softmax_posterior: {words}"):
        softmax_posterior(**{"logits": Z, **given})


BAD_SIGMOID: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": [0.0]}, TypeError, "'logits' must be a tensor of logits"),
    ({"pos_weight": [1.0, 2.0]}, ValueError, r"'pos_weight' must be broadcastable to the shape of 'logits', \(2, 3\)"),
    ({"pos_weight": torch.ones(4, 2, 3)}, ValueError, r"'pos_weight' must be broadcastable to the shape of 'logits'"),
    ({"pos_weight": math.inf}, ValueError, "'pos_weight' must be finite"),
    ({"gamma_pos": -1.0}, ValueError, "'gamma_pos' must be a number in"),
    ({"gamma_neg": True}, TypeError, "'gamma_neg' must be a number in"),
    ({"clip": 1.0}, ValueError, "'clip' must be a number in"),
    ({"alpha": 2.0}, ValueError, "'alpha' must be a number in"),
    ({"prior": 0.1}, TypeError, "'train_prior' must be given where 'prior' is"),
    ({"prior": 3, "train_prior": 0.5}, ValueError, "'prior' must be a share of positives between 0 and 1; got 3"),
    ({"prior": 0.1, "train_prior": 1.0}, ValueError, "'train_prior' must be a share of positives between 0 and 1"),
    (
        {"prior": steelyard.count_classes([0, 1, 2]), "train_prior": 0.5},
        ValueError,
        "'prior' must be multi-label counts, or of two classes; got counts of 3 classes",
    ),
]


@pytest.mark.parametrize(("given", "error", "words"), BAD_SIGMOID, ids=lambda value: str(value)[:40])
def test_bad_values_of_elements_are_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^sigmoid_posterior: {words}"):
        sigmoid_posterior(**{"logits": Z, **given})


def test_modules_name_themselves_and_their_own_input() -> None:
    with pytest.raises(TypeError, match=r"^LDAMLoss\.posterior: 'logits' must be a tensor"):
        nn.LDAMLoss(COUNTS).posterior([0.0])
    with pytest.raises(ValueError, match=r"^LDAMLoss\.posterior: 'counts' must be of shape \(3,\)"):
        nn.LDAMLoss(COUNTS).posterior(Z)
    with pytest.raises(TypeError, match=r"^NLLLoss\.posterior: 'input' must be a tensor of log-probabilities"):
        nn.NLLLoss().posterior(None)
    with pytest.raises(ValueError, match=r"^BCELoss\.posterior: 'input' must be probabilities in \[0, 1\]; got 1\.5"):
        nn.BCELoss().posterior(torch.tensor([1.5]))
    with pytest.raises(ValueError, match=r"^LinearCrossEntropyLoss\.posterior: 'linear_weight' must be of shape"):
        nn.LinearCrossEntropyLoss(4, 3).posterior(Z)


def test_the_functions_are_not_losses() -> None:
    assert not {"softmax_posterior", "sigmoid_posterior"} & set(functional.__all__)
