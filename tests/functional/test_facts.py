"""Facts, one test each: what PyTorch does and ours does with it, and what the papers say of their losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.functional import (
    asymmetric_loss,
    balanced_softmax_loss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    ldam_loss,
    linear_cross_entropy,
    logit_adjusted_loss,
    nll_loss,
    sigmoid_focal_loss,
)

F64 = torch.float64


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=F64) * 2


@pytest.fixture
def target() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 0, 2, 1])


WEIGHT = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=F64)


def one_hot(target: Tensor, classes: int = 4) -> Tensor:
    return F.one_hot(target, classes).to(F64)


# --------------------------------------------------------------------------------------------------------- denominators


def test_in_a_batch_of_one_the_weight_cancels(logits: Tensor) -> None:
    for y in range(4):
        row, label = logits[:1], torch.tensor([y])
        torch.testing.assert_close(cross_entropy(row, label, WEIGHT), cross_entropy(row, label))
        torch.testing.assert_close(
            cross_entropy(row, label, WEIGHT, denominator="samples"), WEIGHT[y] * cross_entropy(row, label)
        )


@pytest.mark.parametrize("why", ["all rows ignored", "all weights zero", "no rows"])
def test_a_mean_over_nothing_is_nan_unless_asked_otherwise(why: str, logits: Tensor, target: Tensor) -> None:
    weight = WEIGHT
    if why == "all rows ignored":
        target = torch.full_like(target, -100)
    elif why == "all weights zero":
        weight = torch.zeros(4, dtype=F64)
    else:
        logits, target = logits[:0], target[:0]
    logits.requires_grad_()
    assert F.cross_entropy(logits, target, weight).isnan()
    assert cross_entropy(logits, target, weight).isnan()
    zero = cross_entropy(logits, target, weight, empty="zero")
    assert zero == 0
    assert zero.requires_grad  # a rank without rows takes part in the all-reduce of DDP
    zero.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    with pytest.raises(ValueError, match=r"^cross_entropy: the mean must have something to divide by"):
        cross_entropy(logits, target, weight, empty="raise")


@pytest.mark.parametrize("empty", ["nan", "zero", "raise"])
def test_empty_changes_nothing_where_there_is_something(empty: str, logits: Tensor, target: Tensor) -> None:
    assert cross_entropy(logits, target, WEIGHT, empty=empty) == cross_entropy(logits, target, WEIGHT)


def test_one_hot_targets_divide_by_the_rows_and_indices_by_their_weights(logits: Tensor, target: Tensor) -> None:
    """The same labels, two answers; denominator='weights' makes them one."""
    by_index, by_one_hot = cross_entropy(logits, target, WEIGHT), cross_entropy(logits, one_hot(target), WEIGHT)
    torch.testing.assert_close(by_index, F.cross_entropy(logits, target, WEIGHT))
    torch.testing.assert_close(by_one_hot, F.cross_entropy(logits, one_hot(target), WEIGHT))
    torch.testing.assert_close(by_one_hot / by_index, WEIGHT[target].sum() / 8)
    assert not torch.isclose(by_one_hot, by_index)
    for form in (target, one_hot(target)):
        torch.testing.assert_close(cross_entropy(logits, form, WEIGHT, denominator="weights"), by_index)
        torch.testing.assert_close(cross_entropy(logits, form, WEIGHT, denominator="samples"), by_one_hot)


def test_the_mean_of_shard_means_is_not_the_mean_and_a_common_denominator_is(logits: Tensor, target: Tensor) -> None:
    whole = cross_entropy(logits, target, WEIGHT)
    for shards in (2, 4, 8):
        parts = list(zip(logits.chunk(shards), target.chunk(shards), strict=True))
        means = torch.stack([cross_entropy(z, y, WEIGHT) for z, y in parts])
        assert not torch.isclose(means.mean(), whole, rtol=1e-3)
        common = WEIGHT[target].sum()
        for denominator in (common, float(common)):
            total = sum(cross_entropy(z, y, WEIGHT, denominator=denominator) for z, y in parts)
            torch.testing.assert_close(total, whole)


def test_the_weighted_mean_starves_the_rarest_class_in_small_batches() -> None:
    """At (.9, .09, .01) with balanced weights it should carry a third of the loss; at batch 8 it carries about 7 %."""
    prior = torch.tensor([0.9, 0.09, 0.01], dtype=F64)
    weight = 1 / prior
    g = torch.Generator().manual_seed(0)
    for batch, share, drawn in ((8, 0.069, 40_000), (32, 0.177, 20_000), (128, 0.282, 10_000)):
        target = torch.multinomial(prior.float(), drawn * batch, replacement=True, generator=g).view(drawn, batch)
        mass = weight[target]
        carried = ((mass * (target == 2)).sum(1) / mass.sum(1)).mean()
        assert carried == pytest.approx(share, abs=0.012)
        # the same through our loss: at equal logits each row of a batch counts by its weight
        batch_loss = cross_entropy(torch.zeros(batch, 3, dtype=F64), target[0], weight)
        assert batch_loss == pytest.approx(math.log(3))


def test_weighted_smoothing_multiplies_the_intended_probability_of_the_rare_class() -> None:
    """Balanced weights and ε = 0.1 at a prior of 1 : 9999 turn an intended ½ into 0.998; weights by target do not."""
    e = 0.1
    for prior, expected in ((0.1, 0.594), (0.01, 0.861), (1e-4, 0.998)):
        p = torch.tensor([prior, 1 - prior], dtype=F64)
        w = 1 / p
        rows = torch.tensor([0, 1])

        def risk(z: Tensor, how: str, p: Tensor = p, w: Tensor = w, rows: Tensor = rows) -> Tensor:
            return (
                p * cross_entropy(z.expand(2, 2), rows, w, reduction="none", label_smoothing=e, smooth_weight=how)
            ).sum()

        # The published minimiser of the first, s ∝ w((1 − ε)p + ε/K), has a gradient of zero ...
        s = w * ((1 - e) * p + e / 2)
        s = s / s.sum()
        assert float(s[0]) == pytest.approx(expected, abs=5e-4)
        z = s.log().requires_grad_()
        (gradient,) = torch.autograd.grad(risk(z, "class"), z)
        torch.testing.assert_close(gradient, torch.zeros(2, dtype=F64), rtol=0, atol=1e-12)
        # ... and ½ is the minimiser of the second, as balanced weights intend.
        z = torch.zeros(2, dtype=F64, requires_grad=True)
        (gradient,) = torch.autograd.grad(risk(z, "target"), z)
        torch.testing.assert_close(gradient, torch.zeros(2, dtype=F64), rtol=0, atol=1e-12)


def test_a_weighted_smoothed_mean_still_divides_by_the_targets_weights(logits: Tensor, target: Tensor) -> None:
    e, log_s = 0.1, logits.log_softmax(1)
    rows = (1 - e) * WEIGHT[target] * -log_s.gather(1, target[:, None])[:, 0] + e / 4 * (WEIGHT * -log_s).sum(1)
    ours = cross_entropy(logits, target, WEIGHT, label_smoothing=e)
    torch.testing.assert_close(ours, rows.sum() / WEIGHT[target].sum())
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, WEIGHT, label_smoothing=e))
    mass = (1 - e) * WEIGHT[target] + e / 4 * WEIGHT.sum()
    by_weights = cross_entropy(logits, target, WEIGHT, label_smoothing=e, denominator="weights")
    torch.testing.assert_close(by_weights, rows.sum() / mass.sum())


def test_scaling_the_weights_cancels_in_the_index_mean_only(logits: Tensor, target: Tensor) -> None:
    plain = cross_entropy(logits, target, WEIGHT)
    torch.testing.assert_close(cross_entropy(logits, target, 7 * WEIGHT), plain)
    for other in (
        {"reduction": "sum"},
        {"denominator": "samples"},
        {"denominator": 3.0},
    ):
        torch.testing.assert_close(
            cross_entropy(logits, target, 7 * WEIGHT, **other), 7 * cross_entropy(logits, target, WEIGHT, **other)
        )


# ------------------------------------------------------------------------------------------------------------- numerics


@pytest.mark.parametrize("classes", [1000, 32000])
def test_a_bf16_loss_is_the_exact_one_rounded_once(classes: int) -> None:
    g = torch.Generator().manual_seed(0)
    logits = (torch.randn(16, classes, generator=g) * 3).bfloat16()
    target = torch.randint(classes, (16,), generator=g)
    exact = F.cross_entropy(logits.double(), target)
    ours = cross_entropy(logits, target)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, exact.bfloat16())
    rows = cross_entropy(logits, target, reduction="none")
    assert torch.equal(rows, F.cross_entropy(logits.double(), target, reduction="none").bfloat16())


@pytest.mark.parametrize("loss", [ldam_loss, balanced_softmax_loss, logit_adjusted_loss], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shifts_and_scales_round_nothing_on_the_way(loss: Any, dtype: torch.dtype) -> None:
    logits = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    target = torch.arange(64) % 3
    ours = loss(logits, target, [1000, 30, 1], reduction="none")
    exact = loss(logits.double(), target, [1000, 30, 1], reduction="none")
    assert ours.dtype == dtype
    assert ((ours.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() * 0.51 + 1e-5).all()


def test_an_infinite_logit_in_an_ignored_row_leaves_its_gradient_zero() -> None:
    logits = torch.zeros(2, 3)
    logits[1, 0] = torch.inf
    logits.requires_grad_()
    for options in ({}, {"label_smoothing": 0.1}, {"weight": [1.0, 2.0, 3.0]}, {"gamma": 2.0}):
        loss = cross_entropy(logits, torch.tensor([0, -100]), **options)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert torch.equal(gradient[1], torch.zeros(3))
        assert (gradient[0] != 0).all()


def test_a_class_of_minus_infinity_takes_no_part(logits: Tensor, target: Tensor) -> None:
    without = torch.tensor([0, 1, 3])
    there = target != 2
    offset = torch.tensor([0.0, 0.0, -torch.inf, 0.0])
    renamed = torch.tensor([0, 1, -1, 2])[target[there]]
    expected = cross_entropy(logits[there][:, without], renamed)
    masked = logits.index_fill(1, torch.tensor([2]), -torch.inf)
    for form in (target[there], one_hot(target[there])):
        torch.testing.assert_close(cross_entropy(logits[there], form, logit_offset=offset), expected)
        torch.testing.assert_close(cross_entropy(masked[there], form), expected)
    leaf = logits[there].requires_grad_()
    for form in (target[there], one_hot(target[there])):
        (gradient,) = torch.autograd.grad(cross_entropy(leaf, form, logit_offset=offset), leaf)
        assert (gradient[:, 2] == 0).all()
        assert gradient.isfinite().all()
    assert cross_entropy(logits[:3], target[:3], logit_offset=offset, reduction="none")[2] == torch.inf


def test_one_class_is_never_wrong() -> None:
    loss = cross_entropy(torch.randn(5, 1), torch.zeros(5, dtype=torch.long), reduction="none")
    assert torch.equal(loss, torch.zeros(5))


# ------------------------------------------------------------------------------------- as PyTorch, also where it is odd


def test_negative_weights_are_computed_as_pytorch_does(logits: Tensor, target: Tensor) -> None:
    weight = torch.tensor([-1.0, 2.0, 0.5, 3.0], dtype=F64)
    for reduction in ("none", "sum", "mean"):
        torch.testing.assert_close(
            cross_entropy(logits, target, weight, reduction=reduction),
            F.cross_entropy(logits, target, weight, reduction=reduction),
        )
    cancel = torch.tensor([1.0, -1.0], dtype=F64)
    ours = cross_entropy(logits[:2, :2], torch.tensor([0, 1]), cancel)
    assert torch.equal(ours, F.cross_entropy(logits[:2, :2], torch.tensor([0, 1]), cancel))


def test_binary_targets_are_not_range_checked(logits: Tensor) -> None:
    two = torch.full_like(logits, 2.0)
    torch.testing.assert_close(
        binary_cross_entropy_with_logits(logits, two), F.binary_cross_entropy_with_logits(logits, two)
    )
    negative = torch.tensor([-1.0, 2.0, 1.0, 0.0], dtype=F64)
    torch.testing.assert_close(
        binary_cross_entropy_with_logits(logits, one_hot(torch.arange(8) % 4), pos_weight=negative),
        F.binary_cross_entropy_with_logits(logits, one_hot(torch.arange(8) % 4), pos_weight=negative),
    )


def test_a_pos_weight_per_class_lands_on_the_width_of_an_image() -> None:
    logits, target = torch.zeros(2, 3, 5, 3), torch.ones(2, 3, 5, 3)
    weight = torch.tensor([1.0, 10.0, 100.0])
    ours = binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    theirs = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours[0, 0, 0], weight * math.log(2))  # along W
    meant = binary_cross_entropy_with_logits(logits, target, pos_weight=weight.view(3, 1, 1), reduction="none")
    torch.testing.assert_close(meant[0, :, 0, 0], weight * math.log(2))  # along C
    with pytest.raises(ValueError, match="broadcastable"):
        binary_cross_entropy_with_logits(torch.zeros(2, 3, 5, 7), torch.ones(2, 3, 5, 7), pos_weight=weight)


def test_logarithms_of_probabilities_stop_at_minus_100() -> None:
    p, t = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
    assert binary_cross_entropy(p, t, reduction="none").tolist() == [100.0, 100.0, 50.0]
    leaf = p.clone().requires_grad_()
    theirs = p.clone().requires_grad_()
    (ours,) = torch.autograd.grad(binary_cross_entropy(leaf, t), leaf)
    (expected,) = torch.autograd.grad(F.binary_cross_entropy(theirs, t), theirs)
    torch.testing.assert_close(ours, expected)
    assert ours.isfinite().all()


def test_old_arguments_reduce_as_in_pytorch(logits: Tensor, target: Tensor) -> None:
    calls = [
        (cross_entropy, F.cross_entropy, (logits, target)),
        (nll_loss, F.nll_loss, (logits, target)),
        (binary_cross_entropy, F.binary_cross_entropy, (logits.sigmoid(), logits.sigmoid())),
        (binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, (logits, logits.sigmoid())),
    ]
    for ours, theirs, args in calls:
        for old in ({"reduce": False}, {"size_average": False}, {"size_average": True, "reduce": True}):
            with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
                expected = theirs(*args, **old)
            with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
                torch.testing.assert_close(ours(*args, **old), expected)


def test_a_linear_layer_and_a_loss_are_one_call() -> None:
    x, w, b = torch.randn(5, 4, dtype=F64), torch.randn(3, 2, 4, dtype=F64), torch.randn(3, 2, dtype=F64)
    target = torch.randint(3, (5, 2))
    logits = torch.einsum("ni,cdi->ncd", x, w) + b
    torch.testing.assert_close(linear_cross_entropy(x, w, target, linear_bias=b), F.cross_entropy(logits, target))
    torch.testing.assert_close(
        linear_cross_entropy(x, w, logits.softmax(1), label_smoothing=0.1),
        F.cross_entropy(logits - b, logits.softmax(1), label_smoothing=0.1),
    )


# ---------------------------------------------------------------------------------------------------------- from papers

COUNTS = [500, 100, 20, 5]


def test_tau_0_is_cross_entropy_and_tau_1_balanced_softmax(logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(logit_adjusted_loss(logits, target, COUNTS, tau=0.0), cross_entropy(logits, target))
    torch.testing.assert_close(
        logit_adjusted_loss(logits, target, COUNTS), balanced_softmax_loss(logits, target, COUNTS)
    )


def test_balanced_softmax_is_eq_4_of_its_paper(logits: Tensor, target: Tensor) -> None:
    n = torch.tensor(COUNTS, dtype=F64)
    share = n * logits.exp() / (n * logits.exp()).sum(1, keepdim=True)
    expected = -share.gather(1, target[:, None])[:, 0].log()
    torch.testing.assert_close(balanced_softmax_loss(logits, target, COUNTS, reduction="none"), expected)
    torch.testing.assert_close(balanced_softmax_loss(logits, target, COUNTS), F.cross_entropy(logits + n.log(), target))


def test_only_the_proportions_of_counts_matter(logits: Tensor, target: Tensor) -> None:
    tenfold = [10 * n for n in COUNTS]
    for loss in (balanced_softmax_loss, logit_adjusted_loss, ldam_loss):
        torch.testing.assert_close(loss(logits, target, tenfold), loss(logits, target, COUNTS))


def test_equal_counts_make_balanced_softmax_cross_entropy(logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(balanced_softmax_loss(logits, target, [7] * 4), cross_entropy(logits, target))


def test_focal_without_focusing_is_cross_entropy(logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(focal_loss(logits, target, WEIGHT, gamma=0.0), cross_entropy(logits, target, WEIGHT))


def test_focal_is_eq_5_with_the_weight_outside(logits: Tensor, target: Tensor) -> None:
    """(1 − s)^γ and never (1 − s^w)^γ, which focusing an already weighted loss comes to."""
    nats = F.cross_entropy(logits, target, reduction="none")
    expected = WEIGHT[target] * (1 - (-nats).exp()) ** 2 * nats
    torch.testing.assert_close(focal_loss(logits, target, WEIGHT, reduction="none"), expected)
    torch.testing.assert_close(focal_loss(logits, target, WEIGHT), expected.sum() / WEIGHT[target].sum())
    weighted = F.cross_entropy(logits, target, WEIGHT, reduction="none")
    assert not torch.allclose((1 - (-weighted).exp()) ** 2 * weighted, expected)


def torchvision_sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2) -> Tensor:
    """As torchvision.ops writes it, without the reduction."""
    p = torch.sigmoid(inputs)
    ce_loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = ce_loss * ((1 - p_t) ** gamma)
    if alpha >= 0:
        alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
        loss = alpha_t * loss
    return loss


@pytest.mark.parametrize("alpha", [0.25, 0.9, 1.0, 0.0, -1])
@pytest.mark.parametrize("gamma", [2, 0.5, 0])
def test_sigmoid_focal_is_torchvisions(alpha: float, gamma: float, logits: Tensor) -> None:
    targets = one_hot(torch.arange(8) % 4)
    ours = sigmoid_focal_loss(logits, targets, alpha, gamma)
    torch.testing.assert_close(ours, torchvision_sigmoid_focal_loss(logits, targets, alpha, gamma))
    assert ours.shape == logits.shape  # reduction="none" is torchvision's default
    if alpha < 0:
        torch.testing.assert_close(ours, sigmoid_focal_loss(logits, targets, None, gamma))


def test_asymmetric_without_asymmetry_is_binary_cross_entropy(logits: Tensor) -> None:
    targets = torch.rand(8, 4, dtype=F64)
    torch.testing.assert_close(
        asymmetric_loss(logits, targets, gamma_neg=0, gamma_pos=0, clip=0),
        F.binary_cross_entropy_with_logits(logits, targets),
    )


def authors_asymmetric_loss(x: Tensor, y: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """As Alibaba-MIIL/ASL writes it, without its clamp of the logarithms at 1e-8 and before its sum."""
    xs_pos = torch.sigmoid(x)
    xs_neg = (1 - xs_pos + clip).clamp(max=1)
    loss = y * torch.log(xs_pos) + (1 - y) * torch.log(xs_neg)
    pt = xs_pos * y + xs_neg * (1 - y)
    return -loss * torch.pow(1 - pt, gamma_pos * y + gamma_neg * (1 - y))


@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
def test_asymmetric_is_its_authors(clip: float, logits: Tensor) -> None:
    targets = one_hot(torch.arange(8) % 4)
    torch.testing.assert_close(
        asymmetric_loss(logits, targets, 4, 1, clip, reduction="none"),
        authors_asymmetric_loss(logits, targets, 4, 1, clip),
    )


def test_asymmetric_drops_the_easiest_negatives() -> None:
    easy, hard = torch.tensor([-4.0]), torch.tensor([4.0])
    assert asymmetric_loss(easy, torch.zeros(1)) == 0
    assert asymmetric_loss(easy, torch.ones(1)) > 0
    assert asymmetric_loss(hard, torch.zeros(1)) > 0


def test_ldam_by_hand() -> None:
    """Counts 16 and 1: 16^(−¼) = ½, so margins ¼ and ½. Scale 1, logits 0.5 each, class 1: log(1 + e^½) = 0.9741."""
    logits = torch.tensor([[0.5, 0.5]], dtype=F64)
    rare = ldam_loss(logits, torch.tensor([1]), [16, 1], scale=1.0)
    frequent = ldam_loss(logits, torch.tensor([0]), [16, 1], scale=1.0)
    assert float(rare) == pytest.approx(math.log1p(math.exp(0.5)), abs=1e-12)
    assert float(frequent) == pytest.approx(math.log1p(math.exp(0.25)), abs=1e-12)
    scaled = ldam_loss(logits, torch.tensor([1]), [16, 1], max_margin=0.2, scale=10.0)
    assert float(scaled) == pytest.approx(math.log1p(math.exp(2.0)), abs=1e-12)


def test_ldam_without_margin_is_scaled_cross_entropy(logits: Tensor, target: Tensor) -> None:
    torch.testing.assert_close(
        ldam_loss(logits, target, COUNTS, max_margin=0.0, scale=3.0), F.cross_entropy(3 * logits, target)
    )


def test_label_smoothing_is_a_mixture_with_the_uniform_distribution(logits: Tensor, target: Tensor) -> None:
    e = 0.3
    mixed = (1 - e) * one_hot(target) + e / 4
    expected = -(mixed * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(cross_entropy(logits, target, label_smoothing=e, reduction="none"), expected)
    torch.testing.assert_close(cross_entropy(logits, mixed, reduction="none"), expected)
    torch.testing.assert_close(cross_entropy(logits, one_hot(target), label_smoothing=e, reduction="none"), expected)


def test_a_margin_is_taken_off_the_rows_own_logit_only(logits: Tensor, target: Tensor) -> None:
    margin = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    shifted = logits - one_hot(target) * margin
    torch.testing.assert_close(cross_entropy(logits, target, margin=margin), F.cross_entropy(shifted, target))


def test_cross_entropy_of_its_own_softmax_is_the_entropy(logits: Tensor) -> None:
    s = logits.softmax(1)
    torch.testing.assert_close(cross_entropy(logits, s), -(s * s.log()).sum(1).mean())
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(leaf, s), leaf)
    torch.testing.assert_close(gradient, torch.zeros_like(logits), rtol=0, atol=1e-15)


def test_a_numpy_number_is_a_number(logits: Tensor, target: Tensor) -> None:
    for one in (np.float64(2.0), np.float32(2.0), np.int64(2)):
        torch.testing.assert_close(focal_loss(logits, target, gamma=one), focal_loss(logits, target, gamma=2.0))
        torch.testing.assert_close(
            cross_entropy(logits, target, denominator=one), cross_entropy(logits, target, denominator=2.0)
        )
