"""What the tests of the CPU kernels share: arguments of the two operators, and layouts of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.ops import cpu, reference

__all__ = [
    "DTYPES",
    "KERNELS",
    "LAYOUTS",
    "OPS",
    "SPREADS",
    "Elements",
    "Rows",
    "any_kernel",
    "bits",
    "each_kernel",
    "gradient_of",
    "laid_out",
    "logits",
    "random_elements",
    "random_rows",
    "same_bits",
    "upstream_of",
]

OPS = torch.ops.steelyard
F64 = torch.float64
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
KERNELS = [name for name in cpu.available() if name != "reference"]


def each_kernel(test: Any, kernels: list[str] = KERNELS) -> Any:
    """Run the test with each implementation that this machine has, one right after the other."""
    return pytest.mark.parametrize("kernel", kernels, indirect=True)(pytest.mark.usefixtures("kernel")(test))


def any_kernel(test: Any) -> Any:
    """Run the test with the best implementation: for what is the same around all of them."""
    return each_kernel(test, KERNELS[-1:])


@dataclass(frozen=True)
class Rows:
    """Arguments of the softmax operator, and an upstream gradient."""

    input: Tensor
    target: Tensor
    upstream: Tensor
    weight: Tensor | None = None
    row_weight: Tensor | None = None
    offset: Tensor | None = None
    margin: Tensor | None = None
    gamma: float = 0.0
    smoothing: float = 0.0
    smooth_by_target: bool = False
    ignore_index: int = -100

    @property
    def settings(self) -> tuple[Any, ...]:
        return (self.weight, self.row_weight, self.offset, self.margin,
                self.gamma, self.smoothing, self.smooth_by_target, self.ignore_index)  # fmt: skip

    def wide(self) -> Rows:
        """The same numbers in float64, contiguous."""
        return replace(self, **{name: _wide(value) for name, value in vars(self).items()})

    def operator(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient by the operator."""
        loss, maximum, total = OPS.softmax_loss(self.input, self.target, *self.settings)
        return loss, OPS.softmax_loss_backward(
            self.upstream, self.input, self.target, maximum, total, *self.settings
        )  # fmt: skip

    def reference(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient by the definition."""
        target = self.target if self.target.is_floating_point() else self.target.long()
        loss, maximum, total = reference.softmax_loss(self.input, target, *self.settings)
        return loss, reference.softmax_loss_backward(
            self.upstream, self.input, target, maximum, total, *self.settings
        )  # fmt: skip


@dataclass(frozen=True)
class Elements:
    """Arguments of the sigmoid operator, and an upstream gradient."""

    input: Tensor
    target: Tensor
    upstream: Tensor
    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    neg_weight: float = 1.0
    gamma_pos: float = 0.0
    gamma_neg: float = 0.0
    clip: float = 0.0
    ignore_index: int | None = None

    @property
    def settings(self) -> tuple[Any, ...]:
        return (self.weight, self.pos_weight, self.neg_weight,
                self.gamma_pos, self.gamma_neg, self.clip, self.ignore_index)  # fmt: skip

    def wide(self) -> Elements:
        """The same numbers in float64, contiguous."""
        return replace(self, **{name: _wide(value) for name, value in vars(self).items()})

    def operator(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient by the operator."""
        return (
            OPS.sigmoid_loss(self.input, self.target, *self.settings),
            OPS.sigmoid_loss_backward(self.upstream, self.input, self.target, *self.settings),
        )

    def reference(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient by the definition."""
        target = self.target if self.target.is_floating_point() else self.target.long()
        return (
            reference.sigmoid_loss(self.input, target, *self.settings),
            reference.sigmoid_loss_backward(self.upstream, self.input, target, *self.settings),
        )


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.double() if value.is_floating_point() else value).contiguous()
    return value


def bits(tensor: Tensor) -> Tensor:
    """The bits, for which NaN is NaN and −0 is not 0."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(whole)


def upstream_of(out: Tensor, seed: int = 5) -> Tensor:
    """A random gradient for ``out``, the same each time."""
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out.dtype)


def gradient_of(
    loss: Callable[[Tensor], Tensor], input: Tensor, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A loss, and its gradient for a random upstream one."""
    leaf = input.detach().clone().requires_grad_()
    out = loss(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, upstream_of(out) if upstream is None else upstream)[0]


def same_bits(ours: Any, expected: Any) -> None:
    """Two sequences of tensors alike, down to NaN and the sign of 0."""
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(bits(a), bits(b))


# ------------------------------------------------------------------------------------------------------------ numbers

SPREADS = ("normal", "confident", "shifted")


def logits(shape: tuple[int, ...], dtype: torch.dtype, g: torch.Generator, spread: str = "normal") -> Tensor:
    """Normal; or most of them at ±1e4, so that rows are sure; or normal beside a common 1e4."""
    z = torch.randn(shape, generator=g, dtype=F64) * 2
    if spread == "confident":
        z = torch.where(torch.rand(shape, generator=g) < 0.7, z.sign() * 1e4, z)
    elif spread == "shifted":
        z = z + 1e4
    return z.to(dtype)


def random_rows(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    spread: str = "normal",
    target: str = "indices",
    given: tuple[str, ...] = (),
    **settings: Any,
) -> Rows:
    """Rows; ``given`` names the weights, offsets and margins to be drawn."""
    g = torch.Generator().manual_seed(seed + sum(shape))
    dim = 0 if len(shape) == 1 else 1
    rows, classes = shape[:dim] + shape[dim + 1 :], shape[dim]
    accumulation = reference.accumulation_dtype(dtype)

    def uniform(*size: int) -> Tensor:
        return (torch.rand(size, generator=g, dtype=F64) * 2 + 0.1).to(accumulation)

    y = torch.randint(classes, rows, generator=g)
    if target == "ignored":
        y = y.masked_fill(torch.rand(rows, generator=g) < 0.3, settings.setdefault("ignore_index", -100))
    elif target.startswith("soft"):
        y = torch.randn(shape, generator=g, dtype=F64).mul(2).softmax(dim)
        kinds = {"soft": dtype, "soft64": F64, "soft32": torch.float32, "soft16": torch.bfloat16}
        y = y.to(kinds[target])
    drawn = {name: uniform(*rows) if name == "row_weight" else uniform(classes) for name in given if name != "masked"}
    if "masked" in given:  # an offset of −inf takes classes out
        out = torch.rand(classes, generator=g) < 0.25
        drawn["offset"] = (uniform(classes) - 1).masked_fill(out, -torch.inf)
    upstream = torch.randn(rows, generator=g, dtype=F64).to(accumulation)
    return Rows(logits(shape, dtype, g, spread), y, upstream, **drawn, **settings)


def random_elements(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    spread: str = "normal",
    target: str = "soft",
    weight: str | None = None,
    pos_weight: str | None = None,
    **settings: Any,
) -> Elements:
    """Elements; ``weight`` and ``pos_weight`` say how the drawn ones broadcast."""
    g = torch.Generator().manual_seed(seed + sum(shape))
    accumulation = reference.accumulation_dtype(dtype)

    def uniform(how: str | None) -> Tensor | None:
        if how is None:
            return None
        size = {
            "scalar": (), "one": (1,), "last": shape[-1:], "rows": shape[:1] + (1,) * (len(shape) - 1), "full": shape,
            "axis 1": shape[1:2] + (1,) * (len(shape) - 2), "expanded": (), "every other": shape[-1:],
        }[how]  # fmt: skip
        drawn = (torch.rand(size, generator=g, dtype=F64) * 2 + 0.1).to(accumulation)
        if how == "expanded":
            return drawn.expand(shape)
        return laid_out(drawn, "every other") if how == "every other" else drawn

    t = torch.rand(shape, generator=g, dtype=F64)
    binary = (t > 0.6).double()
    ignored = settings.get("ignore_index")
    if ignored is not None:
        out = torch.rand(shape, generator=g) < 0.3
        t, binary = t.masked_fill(out, ignored), binary.masked_fill(out, ignored)
    kinds = {"soft": dtype, "soft64": F64, "soft32": torch.float32, "binary": dtype}
    values = t if target.startswith("soft") else binary
    upstream = torch.randn(shape, generator=g, dtype=F64).to(accumulation)
    return Elements(
        logits(shape, dtype, g, spread),
        values.to(kinds.get(target) or getattr(torch, target)),
        upstream,
        uniform(weight),
        uniform(pos_weight),
        **settings,
    )


# ------------------------------------------------------------------------------------------------------------- layouts

LAYOUTS = ("contiguous", "transposed", "classes last", "every other", "sliced", "expanded rows", "expanded last")


def laid_out(tensor: Tensor, how: str) -> Tensor:
    """The tensor, or for the expanded ones a tensor like it, in other places of memory."""
    if tensor.dim() == 0 or how == "contiguous":
        return tensor
    if how == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "classes last" and tensor.dim() > 1:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if how == "every other":
        return torch.stack([tensor, torch.zeros_like(tensor)], -1).flatten(-2)[..., ::2]
    if how == "sliced":  # with a start that no vector is aligned to, and gaps between rows
        wide = torch.nn.functional.pad(tensor.double(), (1, 2)).to(tensor.dtype)
        return wide[..., 1 : 1 + tensor.shape[-1]]
    if how == "expanded rows" and tensor.shape[0]:
        return tensor[:1].expand(tensor.shape)
    if how == "expanded last" and tensor.shape[-1]:
        return tensor[..., :1].expand(tensor.shape)
    return tensor
