"""Losses on a GPU: the gradient along with the loss, whatever the upstream gradient turns out to be, and no waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from device_reads import Reads, waiting_is_an_error
from gpu_cases import DEVICE, NEEDS_GPU, dispatched, interpreted
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import steelyard
from steelyard.functional import _device, binary_cross_entropy_with_logits, cross_entropy, linear_cross_entropy
from steelyard.ops import cpu, gpu

F = torch.nn.functional


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    with interpreted():
        _device._met.clear()
        yield
        _device._met.clear()


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


LOGITS, LABELS = _drawn(9, 5), (torch.arange(9) % 5).to(DEVICE)
TARGETS = _drawn(9, 5, seed=1).sigmoid()
WEIGHT = _drawn(5, seed=2).abs() + 0.1
DIVISOR = torch.tensor(3.0, device=DEVICE)
LOSSES: dict[str, Callable[..., Tensor]] = {
    "mean": lambda z, **more: cross_entropy(z, LABELS, WEIGHT, **more),
    "sum": lambda z, **more: cross_entropy(z, LABELS, WEIGHT, reduction="sum", **more),
    "weights": lambda z, **more: cross_entropy(z, LABELS, WEIGHT, label_smoothing=0.1, denominator="weights", **more),
    "samples": lambda z, **more: cross_entropy(z, LABELS.clone().fill_(-100).index_fill(0, LABELS[:4], 2),
                                               denominator="samples", gamma=2.0, **more),
    "a number": lambda z, **more: cross_entropy(z, LABELS, WEIGHT, denominator=7.5, **more),
    "a tensor": lambda z, **more: cross_entropy(z, LABELS, denominator=DIVISOR, **more),
    "soft": lambda z, **more: cross_entropy(z, TARGETS, WEIGHT, **more),
    "bce": lambda z, **more: binary_cross_entropy_with_logits(z, TARGETS, pos_weight=WEIGHT, **more),
    "bce sum": lambda z, **more: binary_cross_entropy_with_logits(z, TARGETS, TARGETS, reduction="sum", **more),
    "bce alpha": lambda z, **more: binary_cross_entropy_with_logits(z, LABELS[:, None].expand(9, 5) % 2, alpha=0.25,
                                                                    gamma_pos=2.0, gamma_neg=2.0, **more),
}  # fmt: skip


def _by_reference(loss: Callable[[Tensor], Tensor], input: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "DEVICES", set())
        leaf = input.detach().clone().requires_grad_()
        out = loss(leaf)
        return out.detach(), torch.autograd.grad(out, leaf, upstream)[0]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were asked for, in order."""
    from steelyard.ops.gpu import sigmoid_launch, softmax_launch

    found: list[str] = []

    def watch(module: Any, name: str) -> None:
        launch = module.launch

        def launched(*args: Any, **options: Any) -> Any:
            given = {name for name, value in options.items() if value is not None}
            what = "mend" if "used" in given else "gradient" if "upstream" in given else "loss"
            what += " over the logits" if options.get("gradient") is args[0] else ""
            found.append(f"{name} {'sums and ' if options.get('loss') == 2 else ''}{what}")
            return launch(*args, **options)

        monkeypatch.setattr(module, "launch", launched)

    watch(softmax_launch, "softmax")
    watch(sigmoid_launch, "sigmoid")
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_the_numbers_are_those_of_a_backward_pass_that_knew(name: str, dtype: torch.dtype, launches: list[str]) -> None:
    """The first guess is 1. A wrong one, then the same upstream gradient again, then another."""
    loss = LOSSES[name]
    for scale in (1.0, 0.3, 0.3, 65536.0, 0.0):
        leaf = LOGITS.to(dtype, copy=True).requires_grad_()
        launches.clear()
        out = loss(leaf)
        assert [word.split(" ", 1)[1] for word in launches] == ["sums and gradient"]
        upstream = torch.full_like(out, scale)
        (grad,) = torch.autograd.grad(out, leaf, upstream)
        assert [word.split(" ", 1)[1] for word in launches] == ["sums and gradient", "mend"]
        value, expected = _by_reference(loss, LOGITS.to(dtype), upstream)
        bound = {"rtol": 1e-5, "atol": 1e-6 * max(scale, 1)} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
        torch.testing.assert_close(out.detach(), value, **bound)
        torch.testing.assert_close(grad, expected, rtol=bound["rtol"], atol=1e-6 * max(scale, 1e-3))
        assert (out.dtype, grad.dtype) == (dtype, dtype)
        met = float(next(iter(_device._met.values())))
        assert met == float(upstream)


def test_a_right_guess_leaves_the_gradient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of the forward pass is handed over, to be written to by whoever gets it; a second pass computes anew."""
    leaf = LOGITS.clone().requires_grad_()
    out = LOSSES["mean"](leaf)
    (first,) = torch.autograd.grad(out, leaf, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(out, leaf)
    assert torch.equal(second, kept)
    assert second.data_ptr() != first.data_ptr()


@pytest.mark.parametrize("name", ["mean", "sum", "bce sum"])
def test_losses_that_wait_for_their_backward_passes_keep_their_own_guess(name: str) -> None:
    """The first backward pass changes what the next loss will guess, not what the second loss has guessed."""
    first, second = (LOGITS.clone().requires_grad_() for _ in range(2))
    losses = LOSSES[name](first), LOSSES[name](second)
    for loss, leaf in zip(losses, (first, second), strict=True):
        loss.backward(torch.full_like(loss, 3.0))
        _, expected = _by_reference(LOSSES[name], LOGITS, torch.full_like(loss, 3.0))
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-5)


def test_what_labels_weigh_is_summed_up_in_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not where somebody would not see it, or asks for its gradient."""
    from steelyard.ops.gpu import labels

    launch, seen = labels.launch, []
    monkeypatch.setattr(labels, "launch", lambda *args: seen.append(args) or launch(*args))
    leaf = LOGITS.clone().requires_grad_()
    cross_entropy(leaf, LABELS, WEIGHT).backward()
    assert len(seen) == 1
    weight = WEIGHT.clone().requires_grad_()
    cross_entropy(leaf, LABELS, weight).backward()
    with Reads():
        cross_entropy(leaf, LABELS, WEIGHT)
    torch.func.grad(lambda w: cross_entropy(leaf.detach(), LABELS, w))(WEIGHT)
    assert len(seen) == 1
    _, expected = _by_reference(lambda w: cross_entropy(LOGITS, LABELS, w), WEIGHT, torch.tensor(1.0, device=DEVICE))
    torch.testing.assert_close(weight.grad, expected)


def test_half_precision_is_scaled_before_it_is_rounded() -> None:
    """A gradient of 1/D each would be 0 in float16; with the loss scaled, as against that, it is not."""
    logits = _drawn(4, 3).half()
    for _ in range(2):
        leaf = logits.clone().requires_grad_()
        loss = cross_entropy(leaf.float().half(), torch.tensor([0, 1, 2, 0], device=DEVICE), denominator=1e9)
        (grad,) = torch.autograd.grad(loss, leaf, torch.tensor(65504.0, device=DEVICE).half())
        wide = logits.float().requires_grad_()
        (exact,) = torch.autograd.grad(
            F.cross_entropy(wide, torch.tensor([0, 1, 2, 0], device=DEVICE), reduction="sum"), wide
        )
        torch.testing.assert_close(grad.float(), exact * 65504.0 / 1e9, rtol=2e-3, atol=1e-7)
        assert grad.any()


@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_a_denominator_in_float64_reaches_the_kernels_as_float32(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from steelyard.ops.gpu import softmax_launch

    launch, seen = softmax_launch.launch, []

    def launched(*args: Any, **options: Any) -> Any:
        seen.extend(options[name].dtype for name in ("upstream", "used") if options.get(name) is not None)
        return launch(*args, **options)

    monkeypatch.setattr(softmax_launch, "launch", launched)
    leaf = LOGITS.bfloat16().requires_grad_()
    cross_entropy(leaf, LABELS, denominator=DIVISOR.double(), empty=empty).backward()
    assert seen == [torch.float32] * 3


def test_a_denominator_that_changes_before_the_backward_pass_is_an_error() -> None:
    divisor, leaf = DIVISOR.clone(), LOGITS.clone().requires_grad_()
    loss = cross_entropy(leaf, LABELS, denominator=divisor)
    divisor.fill_(6.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_two_losses_of_one_shape_keep_guesses_of_their_own() -> None:
    for loss, factor in ((LOSSES["mean"], 0.5), (LOSSES["sum"], 2.0), (LOSSES["bce"], 3.0)):
        leaf = LOGITS.clone().requires_grad_()
        loss(leaf).backward(torch.tensor(factor, device=DEVICE))
    assert sorted(float(met) for met in _device._met.values()) == [0.5, 2.0, 3.0]


def test_a_denominator_with_a_gradient_takes_the_long_way(launches: list[str]) -> None:
    divisor, leaf = DIVISOR.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    cross_entropy(leaf, LABELS, denominator=divisor).backward()
    total = F.cross_entropy(LOGITS, LABELS, reduction="sum")
    torch.testing.assert_close(divisor.grad, -total / 9)
    assert "softmax sums and gradient" not in launches


@pytest.mark.parametrize("watcher", [Reads, lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)])
def test_whoever_watches_or_keeps_tensors_sees_every_step(watcher: Any, launches: list[str]) -> None:
    leaf = LOGITS.clone().requires_grad_()
    with watcher():
        loss = LOSSES["mean"](leaf)
    assert "softmax sums and gradient" not in launches
    loss.backward()
    _, expected = _by_reference(LOSSES["mean"], LOGITS, torch.tensor(1.0, device=DEVICE))
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-6)


def test_checkpointing_and_batched_gradients_are_right() -> None:
    leaf = LOGITS.clone().requires_grad_()
    checkpoint(lambda z: LOSSES["mean"](z * 1.0), leaf, use_reentrant=False).backward()
    _, expected = _by_reference(LOSSES["mean"], LOGITS, torch.tensor(1.0, device=DEVICE))
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-6)
    (batched,) = torch.autograd.grad(
        LOSSES["mean"](leaf), leaf, torch.tensor([1.0, 2.0], device=DEVICE), is_grads_batched=True
    )
    torch.testing.assert_close(batched, torch.stack([expected, 2 * expected]), rtol=1e-5, atol=1e-6)


def test_labels_that_change_before_the_backward_pass_are_an_error() -> None:
    labels, leaf = LABELS.clone(), LOGITS.clone().requires_grad_()
    loss = cross_entropy(leaf, labels)
    labels[0] = 3
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_are_the_references(name: str) -> None:
    def second(z: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(LOSSES[name](z), z, create_graph=True)
        return torch.autograd.grad((grad * TARGETS).sum(), z)[0]

    ours = second(LOGITS.clone().requires_grad_())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "DEVICES", set())
        expected = second(LOGITS.clone().requires_grad_())
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_gradients_of_targets_and_weights_are_the_references(launches: list[str]) -> None:
    leaf, soft = LOGITS.clone().requires_grad_(), TARGETS.clone().requires_grad_()
    cross_entropy(leaf, soft).backward()
    assert launches == []
    assert soft.grad is not None
    weight = WEIGHT.clone().requires_grad_()
    binary_cross_entropy_with_logits(leaf, TARGETS, pos_weight=weight).backward()
    assert launches == []
    assert weight.grad is not None


@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_a_mean_of_nothing(empty: str) -> None:
    leaf = LOGITS.clone().requires_grad_()
    loss = cross_entropy(leaf, torch.full_like(LABELS, -100), empty=empty)
    loss.backward()
    value, grad = _by_reference(
        lambda z: cross_entropy(z, torch.full_like(LABELS, -100), empty=empty), LOGITS, torch.ones_like(loss)
    )
    torch.testing.assert_close((loss.detach(), leaf.grad), (value, grad), equal_nan=True)
    assert bool(loss.isnan()) == (empty == "nan")
    leaf = LOGITS.clone().requires_grad_()
    loss = cross_entropy(leaf, LABELS, torch.zeros_like(WEIGHT), empty=empty, denominator=0)
    loss.backward()
    assert bool(leaf.grad.isnan().all()) == (empty == "nan")
    with pytest.raises(ValueError, match="something to divide by"):
        cross_entropy(leaf, torch.full_like(LABELS, -100), empty="raise")


def test_a_label_out_of_range_is_nan_and_so_is_the_mean() -> None:
    labels, leaf = LABELS.clone(), LOGITS.clone().requires_grad_()
    labels[3] = 5
    loss = cross_entropy(leaf, labels)
    loss.backward()
    assert bool(loss.isnan())
    assert leaf.grad.isnan().all(1).tolist() == [row == 3 for row in range(9)]


def test_evaluation_reads_logits_once(launches: list[str]) -> None:
    with torch.no_grad():
        loss = LOSSES["mean"](LOGITS.clone().requires_grad_())
    assert "softmax gradient" not in launches
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, LABELS, WEIGHT))


def test_guesses_are_bounded_and_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "_MOST_GUESSES", 1)
    for classes in (3, 4):
        leaf = _drawn(4, classes).requires_grad_()
        cross_entropy(leaf, LABELS[:4].clamp(max=2)).backward(torch.tensor(2.0, device=DEVICE))
    assert [key[-1] for key in _device._met] == [(3,)]


# ------------------------------------------------------------------------------------------------------------- linear


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_cross_entropy_in_chunks(dtype: torch.dtype, reduction: str, launches: list[str]) -> None:
    features, layer, bias = _drawn(9, 4), _drawn(5, 4, seed=3), _drawn(5, seed=4)

    def gradients(*dtypes: torch.dtype, **more: Any) -> list[Tensor]:
        leaves = [t.to(dtype).to(*dtypes, copy=True).requires_grad_() for t in (features, layer, bias)]
        loss = linear_cross_entropy(
            *leaves[:2], LABELS, linear_bias=leaves[2], weight=WEIGHT, reduction=reduction, **more
        )
        upstream = torch.linspace(-1, 2, loss.numel(), device=DEVICE).reshape(loss.shape).to(loss.dtype)
        return [loss.detach(), *torch.autograd.grad(loss, leaves, upstream)]

    with dispatched():
        ours = gradients(memory_budget=4 * 5 * dtype.itemsize)
    # Three chunks; where they are summed up, one kernel each for loss and gradient.
    one = ["softmax sums and gradient over the logits"] * 3
    # With one upstream gradient for each row, logits are made again in the backward pass.
    each = ["softmax loss"] * 3 + ["softmax loss", "softmax gradient over the logits"] * 3
    assert launches == (one if reduction != "none" else each)
    exact = gradients(torch.float64)
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    for found, truth in zip(ours, exact, strict=True):
        torch.testing.assert_close(found.double(), truth, rtol=bound, atol=bound)


@pytest.mark.parametrize("factor", [1.0, 1 / 3, 3e-8, 65504.0])
@pytest.mark.parametrize("denominator", ["torch", 0.0, 1e-30, 7.0], ids=str)
def test_linear_gradients_of_any_scale(denominator: Any, factor: float) -> None:
    """Of a mean that divides by nothing too, or by next to nothing; twice over; in half precision rounded once."""
    features, layer = _drawn(9, 4), _drawn(5, 4, seed=3)
    upstream = torch.tensor(factor, device=DEVICE)

    def gradients(dtype: torch.dtype, times: int = 1) -> list[Tensor]:
        leaves = [t.to(torch.float16).to(dtype).requires_grad_() for t in (features, layer)]
        loss = linear_cross_entropy(
            *leaves, LABELS, weight=WEIGHT, denominator=denominator, empty="zero", memory_budget=4 * 5 * dtype.itemsize
        )
        for _ in range(times):
            found = torch.autograd.grad(loss, leaves, upstream.to(loss.dtype), retain_graph=True)
        return list(found)

    exact = gradients(torch.float64)
    scale = max(float(t.abs().max()) for t in exact)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 3e-3)):
        if dtype == torch.float16 and not 1e-3 < scale < 6e4:
            continue  # no numbers of that dtype
        for times in (1, 2):
            with dispatched():
                found = gradients(dtype, times)
            for ours, theirs in zip(found, exact, strict=True):
                torch.testing.assert_close(ours.double(), theirs, rtol=bound, atol=bound * scale)


@pytest.mark.parametrize("denominator", [1e39, 1e200, 1e-39, 1e-200])
def test_a_linear_mean_that_divides_by_what_float32_does_not_hold(denominator: float) -> None:
    features = _drawn(9, 4).requires_grad_()
    with dispatched():
        loss = linear_cross_entropy(features, _drawn(5, 4, seed=3), LABELS, denominator=denominator, memory_budget=80)
        loss.backward()
    large = features.grad.abs().max()
    assert bool(large < 1e-37) if denominator > 1 else not bool(large < 1e37)


# ------------------------------------------------------------------------------------------------------- no waiting


@contextmanager
def _no_reading() -> Iterator[None]:
    """Without a GPU: whoever reads a value of a tensor, in Python or through the dispatcher, would have waited."""
    from steelyard.ops.gpu import labels, sigmoid_launch, softmax_launch

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this would wait for the device")

    names = ("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "cpu", "numpy", "nonzero")
    held = {name: getattr(Tensor, name) for name in names}

    def lifted(launch: Any) -> Any:
        """The interpreter reads, as it must."""

        def run(*args: Any, **options: Any) -> Any:
            with pytest.MonkeyPatch.context() as inner:
                for name, method in held.items():
                    inner.setattr(Tensor, name, method)
                return launch(*args, **options)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax_launch, "launch", lifted(softmax_launch.launch))
        patch.setattr(sigmoid_launch, "launch", lifted(sigmoid_launch.launch))
        patch.setattr(labels, "launch", lifted(labels.launch))
        # What is looked at only where it lies on the host.
        for module in (
            steelyard._values,
            steelyard.functional._check,
            steelyard.functional._reduce,
            steelyard.ops.library,
        ):
            patch.setattr(module, "readable", lambda tensor, **_: False, raising=False)
        for name in names:
            patch.setattr(Tensor, name, refuse)
        yield


def _no_waiting() -> Any:
    return waiting_is_an_error() if DEVICE.type == "cuda" else _no_reading()


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits_for_the_device(name: str) -> None:
    leaf = LOGITS.clone().requires_grad_()
    with _no_waiting():
        LOSSES[name](leaf).backward()
        LOSSES[name](leaf).backward()


def test_no_loss_of_each_row_and_no_linear_one_waits() -> None:
    leaf, layer = LOGITS.clone().requires_grad_(), _drawn(6, 5).requires_grad_()
    ones = torch.ones(9, device=DEVICE)
    with _no_waiting():
        cross_entropy(leaf, LABELS, WEIGHT, reduction="none").backward(ones)
        linear_cross_entropy(leaf, layer, LABELS, memory_budget=60).backward()
        linear_cross_entropy(leaf, layer, LABELS, memory_budget=60, denominator=12.0).backward()


MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "weight": lambda: steelyard.nn.CrossEntropyLoss(weight=WEIGHT),
    "pos_weight": lambda: steelyard.nn.BCEWithLogitsLoss(pos_weight=WEIGHT),
    "counts": lambda: steelyard.nn.BalancedSoftmaxLoss(torch.tensor([5, 4, 3, 2, 1])).to(DEVICE),
    "adjusted": lambda: steelyard.nn.LogitAdjustedLoss(torch.tensor([5, 4, 3, 2, 1])).to(DEVICE),
    "ldam": lambda: steelyard.nn.LDAMLoss(torch.tensor([5, 4, 3, 2, 1])).to(DEVICE),
    "focal": lambda: steelyard.nn.FocalLoss(weight=WEIGHT, gamma=2.0),
    "sigmoid focal": lambda: steelyard.nn.SigmoidFocalLoss(reduction="mean"),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_wait_at_construction_only(name: str) -> None:
    loss, leaf = MODULES[name](), LOGITS.clone().requires_grad_()
    target = TARGETS if "sigmoid" in name or name == "pos_weight" else LABELS
    with _no_waiting():
        loss(leaf, target).backward()
    assert leaf.grad.isfinite().all()


def test_the_guard_sees_a_value_that_is_read() -> None:
    with _no_waiting(), pytest.raises((AssertionError, RuntimeError)):
        float(LOGITS.sum())


@NEEDS_GPU
@pytest.mark.parametrize("name", LOSSES)
def test_a_cuda_graph_takes_forward_and_backward(name: str) -> None:
    leaf = LOGITS.clone().requires_grad_()
    scale = torch.ones((), device=DEVICE)

    def step() -> tuple[Tensor, Tensor]:
        out = LOSSES[name](leaf)
        return out, torch.autograd.grad(out, leaf, scale.to(out.dtype))[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for factor in (1.0, 0.25, 0.25):
        with torch.no_grad():
            leaf.add_(0.1)
        scale.fill_(factor)
        graph.replay()
        value, grad = _by_reference(LOSSES[name], leaf.detach(), scale)
        torch.testing.assert_close(captured, (value, grad), rtol=1e-5, atol=1e-6)


@NEEDS_GPU
@pytest.mark.parametrize("name", ["mean", "bce"])
def test_compiled_on_a_gpu(name: str) -> None:
    compiled = torch.compile(LOSSES[name], fullgraph=True)
    leaf = LOGITS.clone().requires_grad_()
    out = compiled(leaf)
    out.backward()
    value, grad = _by_reference(LOSSES[name], LOGITS, torch.ones_like(out))
    torch.testing.assert_close((out.detach(), leaf.grad), (value, grad), rtol=1e-5, atol=1e-6)


def test_the_cpus_kernels_go_first() -> None:
    """Tensors on the CPU never come here while their own kernels serve."""
    if cpu.available()[-1] == "reference" or DEVICE.type == "cuda":
        pytest.skip("no kernels of the CPU's")
    with cpu.using(cpu.available()[-1]):
        leaf = LOGITS.clone().requires_grad_()
        cross_entropy(leaf, LABELS).backward()
    assert not _device._met
