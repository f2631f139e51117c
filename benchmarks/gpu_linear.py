"""linear_cross_entropy on a GPU, beside PyTorch's line, Liger-Kernel's, and the three products that have to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import steelyard
from benchmarks.machine import without_paths
from benchmarks.measure import digits, quartiles, ratio

__all__ = ["CASES", "LINES", "Layer", "check", "run"]

EAGER, COMPILED, OURS, LIGER, PRODUCTS = "PyTorch eager", "torch.compile", "steelyard", "Liger-Kernel", "three products"
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""Relative, of the norm. Products of float32 may be taken in TF32, where the caller has asked for that."""


@dataclass(frozen=True)
class Layer:
    """Features ``(rows, size)`` into so many classes."""

    rows: int
    size: int
    classes: int
    dtype: torch.dtype
    dry: bool = False

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.size}x{self.classes}-{str(self.dtype).removeprefix('torch.')}"

    def tensors(self, device: torch.device, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, weight, labels and class weights; the same numbers in any dtype."""
        generator = torch.Generator(device).manual_seed(0)
        features = torch.randn(self.rows, self.size, generator=generator, device=device).to(self.dtype)
        weight = (torch.randn(self.classes, self.size, generator=generator, device=device) / self.size**0.5).to(
            self.dtype
        )
        labels = torch.randint(0, self.classes, (self.rows,), generator=generator, device=device)
        class_weight = torch.rand(self.classes, generator=generator, device=device) + 0.5
        wanted = dtype or self.dtype
        return (
            features.to(wanted, copy=True).requires_grad_(),
            weight.to(wanted, copy=True).requires_grad_(),
            labels,
            class_weight.to(wanted if dtype else torch.float32),
        )


CASES = (
    Layer(4096, 4096, 128256, torch.bfloat16),
    Layer(16384, 2048, 32000, torch.bfloat16),
    Layer(2048, 512, 32000, torch.float32),
    Layer(9, 4, 6, torch.float32, dry=True),
)


def _eager(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, w), y, weight=v.to(x.dtype))


def _ours(x: Tensor, w: Tensor, y: Tensor, v: Tensor, memory_budget: int | None = None) -> Tensor:
    return steelyard.functional.linear_cross_entropy(x, w, y, weight=v, memory_budget=memory_budget)


def _liger(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    found: Tensor = liger_fused_linear_cross_entropy(x, w, y, ce_weight=v)
    return found


LINES: dict[str, Callable[..., Tensor]] = {EAGER: _eager, COMPILED: _eager, OURS: _ours, LIGER: _liger}


def _with_gradients(line: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    loss = line(*tensors)
    return [loss.detach(), *torch.autograd.grad(loss, tensors[:2])]


def check(layer: Layer, line: Callable[..., Tensor], device: torch.device, *, chunks: bool) -> float:
    """The largest relative error of loss and gradients, of some rows and classes. Raises: ValueError: too large."""
    small = Layer(min(layer.rows, 1500), layer.size, min(layer.classes, 3000), layer.dtype)
    truth = [t.detach() for t in _with_gradients(_eager, small.tensors(device, torch.float64))]
    if chunks:  # so few rows would else be taken at once, and it is chunks that are timed
        line = partial(line, memory_budget=max(1, small.rows * small.classes * layer.dtype.itemsize // 4))
    found = _with_gradients(line, small.tensors(device))
    worst = max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True))
    if not worst < TOLERANCE[layer.dtype]:
        raise ValueError(f"an error of {worst:g}, more than {TOLERANCE[layer.dtype]:g}")
    return digits(worst)


def run(layer: Layer, clock: Any, rounds: int, sampled: Callable[..., dict[str, list[float]]]) -> dict[str, Any]:
    """Values first, then times and memory; as ``run_case`` of benchmarks.gpu."""
    found: dict[str, dict[str, Any]] = {}
    lines: dict[str, Callable[..., Tensor]] = {}
    tensors = layer.tensors(clock.device)
    for name, line in LINES.items():
        entry = found[name] = {}
        try:
            if name == COMPILED:  # for these sizes, as whoever trains with them has it, and not for any
                torch._dynamo.reset()
                backend = "eager" if layer.dry else "inductor"
                line = torch.compile(line, fullgraph=True, dynamic=False, backend=backend)
            entry["error"] = check(layer, line, clock.device, chunks=name == OURS)
            _with_gradients(line, tensors)  # whoever needs more memory than there is says so here
            lines[name] = line
        except Exception as error:
            entry["refused"] = without_paths(str(error).strip().splitlines()[0][:200] if str(error) else repr(error))
    x, w = (t.detach() for t in tensors[:2])

    def products(number: int) -> None:
        logits = x @ w.t()
        _, _ = logits @ w, logits.t() @ x

    def passes(line: Callable[..., Tensor]) -> Callable[[int], None]:
        return lambda number: _with_gradients(line, tensors) and None

    work = {name: passes(line) for name, line in lines.items()} | {PRODUCTS: products}
    samples = sampled(clock, work, rounds)
    for name in work:
        entry = found.setdefault(name, {})
        entry["seconds"] = quartiles(samples[name])
        if OURS in samples:
            entry["times_ours"] = ratio(samples[name], samples[OURS])
        entry["extra_bytes"] = clock.extra_bytes(lambda name=name: work[name](0))
    return {"case": layer.name, "contenders": found}
