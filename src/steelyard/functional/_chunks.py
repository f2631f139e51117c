"""Cross entropy of a linear layer, some rows of logits at a time.

A chunk of rows makes its logits, its losses, and the gradient over the same memory, which goes into the gradients of
features, weight and bias at once; then the next chunk takes its place. What is kept is no larger than the gradients
that have to be there anyway. Sums over the rows of all chunks (the gradient of the weight, of the bias) are kept in the
accumulation dtype, for half precision too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from steelyard import ops
from steelyard.functional._check import per_row
from steelyard.functional._family import SoftmaxTerms
from steelyard.functional._reduce import ordered_sum
from steelyard.functional._watchers import again
from steelyard.ops import accumulation_dtype, cpu, gpu

__all__ = ["LEAST_ROWS", "Layer", "chunked", "rows_within", "shape_only"]

BUDGET = 128 << 20
"""Bytes of logits at a time where nobody says how many."""

LEAST_ROWS = 1024
"""Rows at a time at least, likewise: below some hundreds a matrix product is slow, whatever it saves."""

_CLASSES = 4096  # of a half-precision gradient that are widened at a time

# From PyTorch 2.8 on a product of half-precision matrices on NVIDIA's can be had in float32, as cuBLAS sums it.
_WIDE_PRODUCTS = hasattr(torch.ops.aten.mm, "dtype") and torch.version.hip is None


class Layer(NamedTuple):
    """A linear layer and what it is applied to; outputs ``(C,)`` or ``(C, d1, ...)``."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def outputs(self) -> torch.Size:
        """The shape of the logits of a row."""
        return self.weight.shape[:-1]

    def logits(self, rows: slice | None = None) -> Tensor:
        """``(N, C, d1, ...)`` or ``(C,)``, of all rows or some."""
        features = self.input if rows is None else self.input[rows]
        bias = None if self.bias is None else self.bias.reshape(-1)
        flat = linear(features, self.weight.reshape(self.outputs.numel(), self.weight.shape[-1]), bias)
        return flat.reshape(features.shape[:-1] + self.outputs)


def shape_only(layer: Layer) -> Tensor:
    """A tensor in the shape and dtype of the logits that holds one number: for checks, which read no other."""
    return layer.input.new_zeros(()).expand(layer.input.shape[:-1] + layer.outputs)


def rows_within(layer: Layer, budget: int | None) -> int:
    """Rows whose logits fit into so many bytes."""
    bytes_of_row = max(layer.outputs.numel() * layer.input.element_size(), 1)
    if budget is None:
        return max(BUDGET // bytes_of_row, LEAST_ROWS)
    return max(budget // bytes_of_row, 1)


def chunked(
    name: str,
    layer: Layer,
    terms: SoftmaxTerms,
    size: int,
    rule: str | None,
    given: Tensor | float,
    whole: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> tuple[Tensor, Tensor | float | None]:
    """Losses in the accumulation dtype, and what a mean divides by if ``rule`` is one.

    With a rule or ``rule=""`` (a sum) it is one loss for each chunk, their gradients computed along; with None one for
    each row. ``given`` is what they will be divided by where no rule says. ``whole`` is the same loss without chunks,
    for whoever differentiates it twice.
    """
    per_row(name, lambda: _labels_are_classes(layer, terms))
    divisor = None
    if rule:
        parts = [terms.rows(rows).denominator(rule, shape_only(layer)[rows]) for rows in _slices(layer, size)]
        divisor = sum(parts[1:], parts[0]) if parts else 0.0
    upstream = _upstream(
        given if divisor is None else divisor, accumulation_dtype(layer.input.dtype), layer.input.device
    )
    call = _Call(terms, size, reduced=rule is not None, upstream=upstream, whole=whole)
    losses: Tensor = _Chunked.apply(*layer, call)  # type: ignore[no-untyped-call]
    return losses, divisor


def _upstream(divisor: Tensor | float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a sum that is divided meets in its backward pass; half precision has no room for gradients without it."""
    if isinstance(divisor, Tensor):
        upstream = divisor.detach().to(device, dtype).reciprocal()
    else:  # a fill on the device, where a copy from the host would wait for it
        number = 1.0 / divisor if divisor else math.inf
        number = number if abs(number) <= torch.finfo(dtype).max else math.inf
        upstream = torch.full((), number, dtype=dtype, device=device)
    return torch.where(upstream.isfinite() & (upstream > 0), upstream, torch.ones_like(upstream))


def _labels_are_classes(layer: Layer, terms: SoftmaxTerms) -> Tensor:
    ops.library.check_labels(shape_only(layer), terms.target, terms.ignore_index)
    return layer.input


def _slices(layer: Layer, size: int) -> Iterator[slice]:
    rows = len(layer.input)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class _Call:
    def __init__(
        self, terms: SoftmaxTerms, size: int, *, reduced: bool, upstream: Tensor, whole: Callable[..., Tensor]
    ) -> None:
        self.terms, self.size, self.reduced, self.upstream, self.whole = terms, size, reduced, upstream, whole
        self.recording = torch.is_grad_enabled()  # which it never is within a Function
        self.ready: _Gradients | None = None


class _Gradients:
    """Of features, weight and bias, as far as they are asked for."""

    def __init__(self, layer: Layer, wanted: tuple[bool, ...]) -> None:
        self.layer = layer
        wide = accumulation_dtype(layer.input.dtype)
        inputs, weight, bias = wanted
        self.input = torch.empty_like(layer.input, memory_format=torch.contiguous_format) if inputs else None
        flat = layer.outputs.numel(), layer.weight.shape[-1]
        self.weight = layer.weight.new_zeros(flat, dtype=wide) if weight else None
        self.bias = layer.weight.new_zeros(flat[0], dtype=wide) if bias and layer.bias is not None else None

    def add(self, rows: slice, gradient: Tensor) -> None:
        """What the gradient of some rows of logits adds."""
        flat = gradient.reshape(len(gradient), -1)
        features = self.layer.input[rows]
        if self.input is not None:
            torch.mm(flat, self.layer.weight.reshape(-1, self.layer.weight.shape[-1]), out=self.input[rows])
        if self.bias is not None:
            self.bias += flat.sum(0, dtype=self.bias.dtype)
        if self.weight is None:
            return
        if flat.dtype == self.weight.dtype:
            self.weight.addmm_(flat.t(), features)
            return
        if flat.is_cuda and _WIDE_PRODUCTS:
            self.weight += torch.ops.aten.mm.dtype(flat.t(), features, self.weight.dtype)
            return
        features = features.to(self.weight.dtype)
        for start in range(0, flat.shape[1], _CLASSES):
            part = flat[:, start : start + _CLASSES].to(self.weight.dtype)
            self.weight[start : start + _CLASSES].addmm_(part.t(), features)

    def times(self, factor: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients, times a number; whoever asks gets them to keep."""
        layer = self.layer
        found: list[Tensor | None] = []
        for gradient, of in ((self.input, layer.input), (self.weight, layer.weight), (self.bias, layer.bias)):
            if gradient is None or of is None:
                found.append(None)
                continue
            if factor is not None:
                # A product with a half-precision tensor may round the factor first, or make it 0.
                for part in gradient.split(_CLASSES):
                    part.copy_(part.to(factor.dtype) * factor)
            found.append(gradient.to(of.dtype).reshape(of.shape))
        return found[0], found[1], found[2]


class _Chunked(torch.autograd.Function):
    """Losses of chunks (or rows) and, where they will be summed, the gradients of their sum in the same go."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> Tensor:
        layer, terms = Layer(input, weight, bias), call.terms
        ctx.save_for_backward(*layer)
        ctx.call = call
        wanted = tuple(ctx.needs_input_grad[:3])
        gradients = _Gradients(layer, wanted) if call.reduced and call.recording and any(wanted) else None
        losses = []
        for rows in _slices(layer, call.size):
            logits, some = layer.logits(rows), terms.rows(rows)
            # On a GPU loss and gradient come from one kernel, which writes over the logits as it reads them.
            at_once = (
                None if gradients is None else gpu.softmax_sums(logits, some[0], call.upstream, *some[1:], out=logits)
            )
            if at_once is not None and gradients is not None:
                loss = at_once[0]
                gradients.add(rows, at_once[1])
            else:
                loss, maximum, total = _losses(logits, some)
                if gradients is not None:
                    upstream = call.upstream.expand_as(loss).contiguous()
                    gradients.add(rows, _gradient(upstream, logits, some, maximum, total))
            losses.append(ordered_sum(loss.double()).to(loss.dtype) if call.reduced else loss)
            del logits  # before the next ones are made, or there would be two chunks
        call.ready = gradients
        if not call.reduced:
            return torch.cat(losses)
        return torch.stack(losses)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        layer = Layer(*ctx.saved_tensors)
        wanted = tuple(ctx.needs_input_grad[:3])
        if again(grad):
            return *_formula(call, layer, wanted, grad), None
        gradients, call.ready = call.ready, None
        if gradients is None:
            gradients = _Gradients(layer, wanted)
            for rows in _slices(layer, call.size):
                logits, some = layer.logits(rows), call.terms.rows(rows)
                loss, maximum, total = _losses(logits, some)
                upstream = (call.upstream.expand_as(loss) if call.reduced else grad[rows]).contiguous()
                gradients.add(rows, _gradient(upstream, logits, some, maximum, total))
                del logits
        # The losses of chunks are summed up next, so that all of them have one upstream gradient.
        return *gradients.times(grad[0] / call.upstream if call.reduced else None), None


def _losses(logits: Tensor, terms: SoftmaxTerms) -> tuple[Tensor, Tensor, Tensor]:
    loss, maximum, total = torch.ops.steelyard.softmax_loss(logits, *terms)
    return loss, maximum, total


def _gradient(upstream: Tensor, logits: Tensor, terms: SoftmaxTerms, maximum: Tensor, total: Tensor) -> Tensor:
    """The gradient of some logits, over their memory where a kernel writes it."""
    if logits.is_cpu and cpu.ready():
        settings = (*terms, upstream, 1.0, maximum, total)
        if cpu.kernels.softmax_backward(logits, *settings, logits, cpu.threads()):
            return logits
    if gpu.ready(logits):
        return gpu.softmax_loss_backward(upstream, logits, terms[0], maximum, total, *terms[1:], out=logits)
    result: Tensor = torch.ops.steelyard.softmax_loss_backward(upstream, logits, terms[0], maximum, total, *terms[1:])
    return result


def _formula(call: _Call, layer: Layer, wanted: tuple[bool, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients by the loss without chunks, which can be differentiated again."""
    asked = [tensor for tensor, asked in zip(layer, wanted, strict=True) if asked and tensor is not None]
    with torch.enable_grad():
        losses = call.whole(*layer)
        if call.reduced:
            losses = torch.stack([losses[rows].sum() for rows in _slices(layer, call.size)])
        found = iter(torch.autograd.grad(losses, asked, grad, create_graph=True))
    return tuple(
        next(found) if asked and tensor is not None else None for tensor, asked in zip(layer, wanted, strict=True)
    )
