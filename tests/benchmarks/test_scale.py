"""The formulas of benchmarks/scale.py are what is counted on real ranks, and a thousand ranks are as exact as one."""

from __future__ import annotations

import itertools
from typing import Any

import class_parallel_jobs as jobs
import class_parallel_linear_jobs as linear_jobs
import pytest
import ranks
import torch
from benchmarks import scale

from steelyard.distributed import _group, class_parallel_cross_entropy
from steelyard.distributed._sharded import Terms, combine, gradient, local_sums, losses
from steelyard.distributed._shards import even_shards

LABELS = {"plain": {}, "weight": {"weighted": True}}
LABELS["smoothed weight"] = {"weighted": True, "smoothed": True}
LABELS["weight by target"] = LABELS["smoothed weight"] | {"by_target": True}


def test_the_page_is_what_the_formulas_say():
    text = scale.PAGE.read_text(encoding="utf-8")
    assert text == scale.page(text), "run python -m benchmarks.scale"


@pytest.mark.parametrize("size", [2, 4])
def test_what_is_sent_is_what_the_formulas_say(size):
    functions, modules = ranks.run(jobs.communicated, size), ranks.run(linear_jobs.communicated, size)
    for (classes, label, soft), calls in functions[0].items():
        options: dict[str, Any] = {"weighted": False, "smoothed": False} | LABELS[label]
        job = scale.Job(classes, size, rows=10, soft=soft, **options)
        assert sum(count for _, count in calls) == job.sent, label
    for (classes, _), (calls, _) in modules[0].items():
        job = scale.Job(classes, size, rows=10, features=linear_jobs.SIZE, weighted=False, smoothed=False)
        assert sum(count for _, count in calls) == job.sent + job.sent_for_features


@pytest.mark.parametrize(
    ("weighted", "soft", "smoothed", "by_target"), list(itertools.product((False, True), repeat=4))
)
def test_what_is_kept_is_what_the_formulas_say(weighted, soft, smoothed, by_target):
    rows, classes = 64, 50
    logits, weight = torch.randn(rows, classes, requires_grad=True), torch.rand(classes) if weighted else None
    target = torch.rand(rows, classes) if soft else torch.randint(classes, (rows,))
    held = {tensor.data_ptr() for tensor in (logits, target, weight) if tensor is not None}
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        class_parallel_cross_entropy(
            logits, target, weight, label_smoothing=0.1 * smoothed, smooth_weight=("class", "target")[by_target],
            reduction="sum",
        )  # fmt: skip
    job = scale.Job(classes, 1, rows=rows, weighted=weighted, soft=soft, smoothed=smoothed, by_target=by_target)
    own = [tensor.numel() * tensor.element_size() for tensor in kept if tensor.data_ptr() not in held]
    assert sum(own) == job.kept


def _by_halves(parts):
    """A sum as trees of ranks take it."""
    while len(parts) > 1:
        parts = [sum(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


@pytest.mark.parametrize("order", [_by_halves, sum], ids=["tree", "ring"])
@pytest.mark.parametrize("classes", [1000, 50_000])
def test_a_thousand_ranks_are_as_exact_as_one(monkeypatch, classes, order):
    """Simulated in one process, in float32: each rank's sums, the two collectives, and the gradient.

    A ring adds a thousand numbers one after the other, which costs up to three bits.
    """
    size, rows, smoothing = 1024, 16, 0.1
    generator = torch.Generator().manual_seed(3)
    x = 4.0 * torch.randn(rows, classes, generator=generator)
    target, weight = torch.randint(classes, (rows,), generator=generator), torch.rand(classes, generator=generator)
    shards, start, parts = even_shards(classes, size), 0, []
    assert 0 in shards
    for width in shards:
        here = slice(start, start + width)
        terms = Terms(target, weight[here], None, None, smoothing, False, -100, start, classes)
        parts.append((x[:, here], terms, local_sums(x[:, here], terms)))
        start += width
    highest = torch.stack([sums.maximum for _, _, sums in parts]).amax(0)
    monkeypatch.setattr(_group, "maximum", lambda group, own: highest.clone())
    packed: list[torch.Tensor] = []
    monkeypatch.setattr(_group, "summed", lambda group, own: packed.append(own) or own)
    for _, terms, sums in parts:
        combine(sums, terms, "a group")
    monkeypatch.setattr(_group, "summed", lambda group, own: order(packed))
    found = combine(parts[0][2], parts[0][1], "a group")
    loss = losses(found, parts[0][1])
    upstream = torch.ones(rows)
    gradients = torch.cat(
        [gradient(upstream, z, terms, found, torch.empty(z.shape)) for z, terms, _ in parts], 1
    )  # fmt: skip

    def eager(dtype):
        z = x.to(dtype).requires_grad_()
        value = torch.nn.functional.cross_entropy(
            z, target, weight.to(dtype), label_smoothing=smoothing, reduction="none"
        )
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    for ours, theirs, exact in zip((loss, gradients), eager(torch.float32), eager(torch.float64), strict=True):
        error, allowed = (((t - exact).norm() / exact.norm()).item() for t in (ours, theirs))
        unit = max(allowed, torch.finfo(torch.float32).eps / 2)  # one that happens to be closer has rounded, too
        assert error <= (1.5 if order is _by_halves else 8.0) * unit
