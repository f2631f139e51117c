"""Who runs: PyTorch eager, ``torch.compile``, Steelyard, Steelyard in place; and the copy beside them, the floor.

A contender is made for one case. Making it may fail, and then says why: a compiled line that captured no graph is not
compiled, whatever it is called.
"""

from __future__ import annotations

import inspect
import mmap
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case

__all__ = [
    "COMPILED",
    "EAGER",
    "FLOOR",
    "IN_PLACE",
    "OURS",
    "WARM_FLOOR",
    "Contender",
    "NotComparable",
    "make",
    "names",
]

EAGER, COMPILED, OURS, IN_PLACE = "PyTorch eager", "torch.compile", "steelyard", "steelyard in place"
FLOOR, WARM_FLOOR = "floor", "floor, warm"
HUGE_PAGE = 2 << 20  # bytes, on x86-64 and on most of arm64


class NotComparable(Exception):
    """Why a contender cannot run in a case."""


@dataclass(frozen=True)
class Contender:
    """A name and what it runs: from logits and the case's other tensors to a loss, or for a floor to a copy."""

    name: str
    run: Callable[..., Tensor]
    is_floor: bool = False
    graphs: Callable[[], int] | None = None
    """For a compiled line, how many graphs were captured so far."""


def names(case: Case) -> tuple[str, ...]:
    """The contenders of a case, without those that this version of Steelyard lacks."""
    ours = (OURS, IN_PLACE) if _takes(case.definition.function, "inplace_gradient") else (OURS,)
    return (EAGER, COMPILED, *ours, FLOOR, WARM_FLOOR)


def make(name: str, case: Case, logits: Tensor, rest: tuple[Tensor, ...], *, backend: str = "inductor") -> Contender:
    """The contender ``name`` for a case, ready to run.

    Raises: NotComparable: nothing was captured by ``torch.compile``, or not in one graph.
    """
    loss = case.definition
    if name == EAGER:
        return Contender(name, loss.line)
    if name == COMPILED:
        return _compiled(loss.line, logits, rest, backend)
    if name == OURS:
        return Contender(name, loss.ours)
    if name == IN_PLACE:
        ours = loss.ours
        return Contender(name, lambda z, *rest: ours(z, *rest, inplace_gradient=True))
    assert name in (FLOOR, WARM_FLOOR), name
    warm = fresh_like(logits).zero_() if name == WARM_FLOOR else None

    def floor(z: Tensor, target: Tensor, *_: Tensor) -> Tensor:
        z = z.detach()
        result = fresh_like(z) if warm is None else warm
        return torch.add(z, target, out=result) if loss.dense_target else result.copy_(z)

    return Contender(name, floor, is_floor=True)


def _takes(function: Callable[..., Tensor], keyword: str) -> bool:
    """Whether a function has a keyword, by itself or among the ``**options`` that its annotation lists."""
    parameters = inspect.signature(function).parameters
    rest = [p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    if keyword in parameters or not rest:
        return keyword in parameters
    options = typing.get_args(typing.get_type_hints(function)[rest[0]])
    return bool(options) and keyword in typing.get_type_hints(options[0])


def _compiled(line: Callable[..., Tensor], logits: Tensor, rest: tuple[Tensor, ...], backend: str) -> Contender:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(line, fullgraph=True, dynamic=False, backend=backend)
    with warnings.catch_warnings():
        # While it traces, the compiler looks at .grad of its inputs, which PyTorch warns of where one is not a leaf.
        warnings.filterwarnings("ignore", message="The .grad attribute")
        # Compiled by running it once, forward and backward, on logits as the timed ones are: not a leaf.
        compiled(logits.detach().requires_grad_().clone(), *rest).backward()
    captured, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    if captured != 1 or breaks:
        raise NotComparable(
            f"torch.compile captured {captured} graphs with {breaks} breaks, where one whole one is due"
        )
    return Contender(COMPILED, compiled, graphs=lambda: int(counters["stats"]["unique_graphs"]))


def fresh_like(tensor: Tensor) -> Tensor:
    """Memory never touched before, in huge pages; from the allocator where it is less than one such page.

    It goes back to the system with the tensor.
    """
    size = tensor.numel() * tensor.element_size()
    if size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty_like(tensor)
    # Private: shared memory, mmap's default, has huge pages of its own rules. One page more, to start at a whole one.
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    flat = torch.frombuffer(memory, dtype=torch.uint8)
    start = -flat.data_ptr() % HUGE_PAGE
    return flat[start : start + size].view(tensor.dtype).view(tensor.shape)
