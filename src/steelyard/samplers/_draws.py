"""One pass through an epoch, on one rank: what an iterator of a sampler is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from steelyard.samplers._base import ReproducibleSampler

__all__ = ["Draws", "Plan", "Rows", "Start"]

T = TypeVar("T", covariant=True)
Rows = Any
"""int64 row numbers: an array, or a tensor of the device where they were drawn."""


class Plan(Protocol):
    """One epoch, ready to be drawn from by position."""

    def draw(self, first: int, step: int, count: int) -> Rows:
        """Rows of the positions first, first + step, ..., all below the epoch's number of draws."""

    def extra(self, first: int, step: int, count: int) -> Rows:
        """Rows of positions beyond it, where ranks could not share it out evenly."""


class Start(NamedTuple):
    """Where an iterator begins; a seed of None is the sampler's own, or the next of its generator."""

    epoch: int
    position: int
    seed: int | None


class Draws(Iterator[T]):
    """The draws of one rank from a position of an epoch on, as Python objects, some thousands at a time.

    Where it begins is settled by the first draw: loaders make iterators that they never use, and those are no epochs.
    """

    def __init__(self, sampler: ReproducibleSampler[T]) -> None:
        self.sampler = sampler
        self.finished = False
        self._start: Start | None = None
        self._plan: Plan | None = None
        self._done = 0  # draws before the block at hand
        self._block: list[T] = []
        self._items: Iterator[T] = iter(self._block)

    @property
    def start(self) -> Start:
        """Where it began, or would now."""
        return self._start or self.sampler._next

    @property
    def count(self) -> int:
        """Draws from the start to the end of the epoch, the same for every rank."""
        return -(-max(self.sampler.num_samples - self.start.position, 0) // self.sampler.num_replicas)

    @property
    def given(self) -> int:
        """Draws so far."""
        waiting: int = self._items.__length_hint__()  # type: ignore[attr-defined]
        return self._done + len(self._block) - waiting

    def after(self, given: int) -> Start:
        """How far the epoch is over all ranks when each has been given so many."""
        start = self.start
        return start._replace(position=start.position + given * self.sampler.num_replicas)

    @property
    def where(self) -> Start:
        """How far it is now."""
        return self.after(self.given)

    def _rows(self, done: int, count: int) -> Rows:
        sampler = self.sampler
        if self._start is None:
            self._start = sampler._begin(self)
        epoch, position, seed = self._start
        if self._plan is None:
            assert seed is not None, "the sampler gave it one"
            self._plan = sampler._plan(seed, epoch, position + self.count * sampler.num_replicas)
        step, first = sampler.num_replicas, position + sampler.rank + done * sampler.num_replicas
        regular = min(max(-(-(sampler.num_samples - first) // step), 0), count)
        rows = self._plan.draw(first, step, regular)
        if regular == count:
            return rows
        more = self._plan.extra(first + regular * step, step, count - regular)
        return torch.cat([rows, more]) if isinstance(rows, torch.Tensor) else np.concatenate([rows, more])

    def __iter__(self) -> Draws[T]:
        return self

    def __next__(self) -> T:
        try:
            return next(self._items)
        except StopIteration:
            pass
        self._done += len(self._block)
        self._block = []
        self._items = iter(self._block)
        left = self.count - self._done
        if left <= 0:
            if self._start is None:
                self._start = self.sampler._begin(self)
            self.finished = True
            self._plan = None
            raise StopIteration
        self._block = self.sampler._items(self._rows(self._done, min(self.sampler._block_size, left)))
        self._items = iter(self._block)
        return next(self._items)

    def rest(self) -> Rows:
        """All that is left, at once."""
        rows = self._rows(self._done, self.count - self._done)
        self._done, self._plan, self.finished = self.count, None, True
        return rows

    # For loaders that save iterators, such as torchdata's: at the end of an epoch they know better than the sampler
    # whether that was the last batch or the first of another epoch.

    def state_dict(self) -> dict[str, Any]:
        return self.where._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__(self.sampler)  # type: ignore[misc]
        self._start = self.sampler._begin(self, Start(state["epoch"], state["position"], state["seed"]))
