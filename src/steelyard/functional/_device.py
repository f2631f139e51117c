"""The short way on a GPU: a loss that is one number has its gradient computed along with it, in one kernel.

The forward pass reads the logits and writes the gradient, for the upstream gradient that such a loss met the last time.
What it meets this time is known in the backward pass, and only to the device: reading it would make the host wait. So
the kernel is launched again, looks for itself, and ends at once where the guess was right; where it was not, it
computes the gradient anew. The guess cannot be seen: the numbers are those of a backward pass that knew. Guess and
comparison live on the device, so that all of it may be captured into a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard.functional._check import result_dtype
from steelyard.functional._reduce import Denominator, reduce
from steelyard.functional._watchers import PLAIN, again, saving_elsewhere, undisturbed
from steelyard.ops import accumulation_dtype, gpu, reference

__all__ = ["SIGMOID", "SOFTMAX", "Formula", "one_number"]

_MOST_GUESSES = 256

_met: dict[Any, Tensor] = {}
"""The upstream gradient that losses of a kind met last, 0-d on their device, by device, dtype, formula and shape.

An entry is never dropped: a CUDA graph that was captured with it goes on writing to its memory.
"""


class Formula(NamedTuple):
    """The kernels of one of the two formulas, and its gradient by the reference."""

    sums: Callable[..., tuple[Tensor, Tensor] | None]
    mend: Callable[..., None]
    backward: Callable[..., Tensor]


def _softmax_backward(grad: Tensor, input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    rows = list(input.shape)
    del rows[reference.class_dim(input)]
    unused = input.detach()
    return reference.softmax_loss_backward(grad.expand(rows), input, target, unused, unused, *settings)


def _sigmoid_backward(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:
    return reference.sigmoid_loss_backward(grad.expand(input.shape), input, *rest)


SOFTMAX = Formula(gpu.softmax_sums, gpu.softmax_mend, _softmax_backward)
SIGMOID = Formula(gpu.sigmoid_sums, gpu.sigmoid_mend, _sigmoid_backward)


def one_number(
    name: str,
    formula: Formula,
    input: Tensor,
    terms: tuple[Any, ...],
    reduction: str,
    denominator: Callable[[], Denominator],
    empty: str,
) -> Tensor | None:
    """The mean or the sum of the losses, or None where the long way is due.

    ``terms``: what the operator takes after the logits. ``denominator``: what a mean divides by.
    """
    if reduction == "none" or not _open(input, terms) or not gpu.ready(input):
        return None
    divisor = denominator() if reduction == "mean" else 1.0
    assert not isinstance(divisor, str)
    if isinstance(divisor, Tensor) and (divisor.requires_grad or type(divisor) not in PLAIN):
        return None
    call = _Call(formula, terms, reduction, divisor, empty, _guess(formula, reduction, input))
    with torch.no_grad():
        call.used = call.spread(call.met, divisor)
        found = formula.sums(input, terms[0], call.used, *terms[1:])
        if found is None:
            return None
        sums, call.gradient = found
        call.loss = reduce(name, sums, reduction, divisor, empty, result_dtype(input))
    loss: Tensor = _Derivative.apply(input, call, *call.tensors)  # type: ignore[no-untyped-call]
    return loss


def _open(input: Tensor, terms: tuple[Any, ...]) -> bool:
    """Whether the gradient with respect to the logits will be asked for, and nothing else, and nobody watches."""
    tensors = [input, *(term for term in terms if isinstance(term, Tensor))]
    return (
        input.requires_grad
        and torch.is_grad_enabled()
        and undisturbed()
        and not saving_elsewhere()
        and all(type(tensor) in PLAIN for tensor in tensors)
        and not any(tensor.requires_grad for tensor in tensors[1:])
    )


def _guess(formula: Formula, reduction: str, input: Tensor) -> Tensor:
    """The upstream gradient that such a loss on such logits is likely to meet; 1 where there is none to remember."""
    kind = "softmax" if formula is SOFTMAX else "sigmoid"
    key = input.device, input.dtype, kind, reduction, tuple(input.shape[1:])  # batches differ in size
    met = _met.get(key)
    if met is None:
        met = torch.ones((), dtype=accumulation_dtype(input.dtype), device=input.device)
        # What is made while a graph is captured belongs to the graph, which would make it 1 again in each replay.
        capturing = input.is_cuda and torch.cuda.is_current_stream_capturing()
        if len(_met) < _MOST_GUESSES and not capturing:
            _met[key] = met
    return met


class _Call:
    """One loss: what it was computed from, its gradient until that is handed over, and for which upstream gradient."""

    used: Tensor
    gradient: Tensor | None
    loss: Tensor | None

    def __init__(
        self,
        formula: Formula,
        terms: tuple[Any, ...],
        reduction: str,
        divisor: Tensor | float,
        empty: str,
        met: Tensor,
    ) -> None:
        self.formula, self.reduction, self.empty, self.met = formula, reduction, empty, met
        # The tensors are autograd's to keep, which sees when they are changed: the divisor too.
        kept = (*terms, divisor)
        self.places = [place for place, term in enumerate(kept) if isinstance(term, Tensor)]
        self.tensors = [kept[place] for place in self.places]
        self.kept = [None if isinstance(term, Tensor) else term for term in kept]

    def spread(self, upstream: Tensor, divisor: Tensor | float) -> Tensor:
        """What an upstream gradient of the result is to each loss before it was reduced, in the accumulation dtype."""
        wide = upstream.to(self.met.dtype)
        if self.reduction == "sum":
            return wide.clone()  # the guess may change before it is compared with
        if not isinstance(divisor, Tensor):
            if self.empty == "zero" and divisor == 0:
                return torch.zeros_like(wide)
            return wide / (torch.ones_like(wide) * divisor)
        # A 0-d divisor in float64 would make the result float64, which kernels do not take.
        if self.empty != "zero":
            return (wide / divisor).to(wide.dtype)
        divisor = divisor.to(wide.device, wide.dtype)
        nothing = divisor == 0
        return (wide / divisor.masked_fill(nothing, 1.0)).masked_fill(nothing, 0.0)

    def arguments(self, tensors: tuple[Tensor, ...]) -> list[Any]:
        """What the operator takes after the logits, put together again, and the divisor."""
        found = list(self.kept)
        for place, tensor in zip(self.places, tensors, strict=True):
            found[place] = tensor
        return found


class _Derivative(torch.autograd.Function):
    """The loss that was computed before it came here, and its gradient when that is asked for."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, call: _Call, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(input, *tensors)
        ctx.call = call
        loss, call.loss, call.tensors = call.loss, None, []
        assert loss is not None
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        input, *tensors = ctx.saved_tensors
        target, *settings, divisor = call.arguments(tuple(tensors))
        others = [None] * (1 + len(tensors))
        wanted = call.spread(grad, divisor)
        if again(grad):
            return call.formula.backward(wanted, input, target, *settings), *others
        # Handed over: from here on somebody else writes to it.
        gradient, call.gradient = call.gradient, None
        if gradient is None:
            found = call.formula.sums(input, target, wanted, *settings)
            assert found is not None
            return found[1], *others
        call.formula.mend(input, target, wanted, call.used, gradient, *settings)
        call.met.copy_(grad)
        return gradient, *others
