"""Calls of the two kernels: what one loss is to compute, and how its gradient is found when that is asked for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steelyard import ops
from steelyard.ops import accumulation_dtype, class_dim, cpu

__all__ = ["Call", "SigmoidCall", "SoftmaxCall", "guess", "room_for_a_number"]

_numbers: dict[torch.dtype, Tensor] = {}


def room_for_a_number(dtype: torch.dtype) -> Tensor:
    """A 0-d tensor on the CPU; ``empty_like`` is the cheapest way to one.

    Its template is made at the first call, where no mode is in force: the library may be imported under one.
    """
    template = _numbers.get(dtype)
    if template is None:
        template = _numbers[dtype] = torch.zeros((), dtype=dtype, device="cpu")
    return torch.empty_like(template)


_met: dict[Any, float] = {}
"""The upstream gradient that losses of a kind met last, by shape and dtype of their logits."""

_UNKEPT = (None, None)


def guess(input: Tensor) -> float:
    """The upstream gradient that a loss on such logits is likely to meet."""
    return _met.get((input.shape, input.dtype), 1.0) if _met else 1.0


def _spread(upstream: Any, call: Call) -> Any:
    """What the gradient of a mean is to the loss of each row."""
    if call.divisor == 0.0:
        return upstream * (0.0 if call.zero_if_empty else math.inf)
    return upstream / call.divisor


class Call:
    """One call of a loss: its tensors but for the logits, its numbers, what was computed, what it divides by."""

    # Of class: most calls leave most of these as they are.
    name: str
    tensors: tuple[Tensor | None, ...]
    numbers: tuple[Any, ...]
    divisor: float | None = None  # None where the loss was not reduced
    zero_if_empty = False
    statistics: tuple[Tensor, ...] = ()
    loss: Tensor | None = None
    gradient: Tensor | None = None
    upstream = 1.0
    inplace = False
    used = False
    logits: Tensor | None = None
    version = 0
    versions: list[int]

    def refuse_changes(self) -> None:
        """What autograd does for tensors that it saves: a gradient from targets that have changed would be wrong."""
        if self.versions != [t._version for t in self.tensors if t is not None]:
            raise RuntimeError(
                f"{self.name}: a target or weight needed for gradient computation has been modified by an inplace "
                "operation since the loss was computed."
            )

    def gradient_of(self, input: Tensor, grad: Tensor, statistics: list[Tensor]) -> Tensor:
        """The gradient, computed now."""
        if self.divisor is not None and not self.inplace:
            upstream = float(grad)
            if len(_met) > 256:
                _met.clear()
            _met[input.shape, input.dtype] = upstream
            result, unread = torch.empty_like(input), room_for_a_number(accumulation_dtype(input.dtype))
            done = self.scalar(input, unread, upstream, result)
        else:
            result = input.detach() if self.inplace else torch.empty_like(input)
            rows, scale = (grad, 1.0) if self.divisor is None else (None, _spread(float(grad), self))
            done = self.backward(input, rows, scale, statistics, result)
        if not done:
            # An upstream gradient that is not there in so many numbers (zeros, another's negative), or labels that have
            # changed behind autograd's back.
            return self.formula(self.spread(grad, input), input)
        if self.inplace:
            self.used = True
            torch.autograd.graph.increment_version(input)
        return result

    def spread(self, upstream: Tensor, input: Tensor) -> Tensor:
        """An upstream gradient as that of each row or element."""
        wide = upstream.to(accumulation_dtype(input.dtype))
        return wide if self.divisor is None else _spread(wide, self).expand(self.shape(input))

    def scalar(self, input: Tensor, out: Tensor, upstream: float, grad: Tensor | None) -> bool:
        """The loss as one number into ``out``, and its gradient into ``grad``; False where the long way is due."""
        raise NotImplementedError

    def room(self, input: Tensor) -> tuple[Tensor, ...]:
        """Room for what a backward pass begins with."""
        raise NotImplementedError

    def each(self, input: Tensor, loss: Tensor) -> bool:
        """The loss of each row or element into ``loss``."""
        raise NotImplementedError

    def backward(self, input: Tensor, upstream: Tensor | None, scale: float, statistics: Any, grad: Tensor) -> bool:
        """The gradient into ``grad``, ``upstream`` times ``scale`` being that of each row or element."""
        raise NotImplementedError

    def formula(self, upstream: Tensor, input: Tensor) -> Tensor:
        """The gradient by the reference, which can be differentiated again."""
        raise NotImplementedError

    def shape(self, input: Tensor) -> list[int]:
        """Of the losses before any reduction."""
        raise NotImplementedError


class SoftmaxCall(Call):
    table: Tensor | None = None
    by_rows = False
    given: float | None = 1.0

    def scalar(self, input: Tensor, out: Tensor, upstream: float, grad: Tensor | None) -> bool:
        found = cpu.kernels.softmax_scalar(
            input, *self.tensors, *self.numbers, self.table, self.by_rows, self.given, self.zero_if_empty,
            upstream, out, *(self.statistics or _UNKEPT), grad, cpu.threads(),
        )  # fmt: skip
        if found is None:
            return False
        self.divisor = found
        return True

    def room(self, input: Tensor) -> tuple[Tensor, ...]:
        shape, dtype = self.shape(input), accumulation_dtype(input.dtype)
        return input.new_empty(shape, dtype=dtype), input.new_empty(shape, dtype=dtype)

    def each(self, input: Tensor, loss: Tensor) -> bool:
        done: bool = cpu.kernels.softmax_forward(
            input, *self.tensors, *self.numbers, loss, *self.statistics, cpu.threads()
        )
        return done

    def backward(self, input: Tensor, upstream: Tensor | None, scale: float, statistics: Any, grad: Tensor) -> bool:
        done: bool = cpu.kernels.softmax_backward(
            input, *self.tensors, *self.numbers, upstream, scale, *statistics, grad, cpu.threads()
        )
        return done

    def formula(self, upstream: Tensor, input: Tensor) -> Tensor:
        target, weight, row_weight, offset, margin = (self.tensors[0], *(_wide(t, input) for t in self.tensors[1:]))
        assert target is not None
        if row_weight is not None and row_weight.dim() < upstream.dim():
            row_weight = row_weight.reshape([-1] + [1] * (upstream.dim() - 1))
        unused = input.detach()
        return ops.reference.softmax_loss_backward(
            upstream, input, target, unused, unused, weight, row_weight, offset, margin, *self.numbers
        )

    def shape(self, input: Tensor) -> list[int]:
        shape = list(input.shape)
        del shape[class_dim(input)]
        return shape


class SigmoidCall(Call):
    def _run(self, input: Tensor, up: Any, scale: float, divisor: float, out: Any, loss: Any, grad: Any) -> bool:
        done: bool = cpu.kernels.sigmoid(
            input, *self.tensors, *self.numbers, up, scale, divisor, out, loss, grad, cpu.threads()
        )
        return done

    def scalar(self, input: Tensor, out: Tensor, upstream: float, grad: Tensor | None) -> bool:
        assert self.divisor is not None
        if not (self.zero_if_empty and self.divisor == 0.0):
            return self._run(input, None, upstream, self.divisor, out, None, grad)
        done = self._run(input, None, 0.0, 1.0, out, None, grad)
        out.zero_()
        return done

    def room(self, input: Tensor) -> tuple[Tensor, ...]:
        return ()

    def each(self, input: Tensor, loss: Tensor) -> bool:
        return self._run(input, None, 1.0, 1.0, None, loss, None)

    def backward(self, input: Tensor, upstream: Tensor | None, scale: float, statistics: Any, grad: Tensor) -> bool:
        return self._run(input, upstream, scale, 1.0, None, None, grad)

    def formula(self, upstream: Tensor, input: Tensor) -> Tensor:
        target, weight, pos_weight = (self.tensors[0], *(_wide(t, input) for t in self.tensors[1:]))
        assert target is not None
        return ops.reference.sigmoid_loss_backward(upstream, input, target, weight, pos_weight, *self.numbers)

    def shape(self, input: Tensor) -> list[int]:
        return list(input.shape)


def _wide(values: Tensor | None, input: Tensor) -> Tensor | None:
    """Weights as the reference takes them."""
    return None if values is None else values.to(accumulation_dtype(input.dtype))
