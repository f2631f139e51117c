"""What all samplers share: epochs, ranks, where an epoch stands, and how that is saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

from steelyard._errors import describe, refuse
from steelyard._values import integer
from steelyard.samplers._expected import Expected
from steelyard.samplers._random import I64

__all__ = ["Plan", "ReproducibleSampler", "positive_integer"]

T = TypeVar("T", covariant=True)
_VERSION = 1


class Plan(Protocol):
    """One epoch, ready to be drawn from by position."""

    def draw(self, first: int, step: int, count: int) -> I64:
        """Rows of the positions first, first + step, ..., all below the epoch's number of draws."""

    def extra(self, first: int, step: int, count: int) -> I64:
        """Rows of positions beyond it, where ranks could not share it out evenly."""


class _Start(NamedTuple):
    epoch: int
    position: int
    seed: int | None


class ReproducibleSampler(DistributedSampler[T]):
    """A sampler whose draws depend on seed, epoch and position alone.

    It is a ``DistributedSampler`` so that trainers which look for one (Lightning, Accelerate) see that it shares its
    draws out by itself, and leave it alone; nothing else of that class is used.

    Attributes:
        num_samples: Draws of an epoch over all ranks together.
        num_replicas: Ranks that share them. Of position p, rank p mod num_replicas gets the row.
        rank: Which of them this is.
        seed: An int, or None where every epoch takes a seed from the generator.
        epoch: That of the next iterator, or of the one at work.
    """

    seed: int | None  # type: ignore[assignment]

    _block_size = (
        16384  # draws at a time: enough that a call costs nothing beside them, few enough to be no list of all
    )

    def __init__(
        self,
        num_samples: int,
        generator: Any,
        num_replicas: int | None,
        rank: int | None,
        seed: int | None,
        *,
        one_seed: bool = False,
    ) -> None:
        """``one_seed``: without a seed, take one now and not for each epoch, as epochs depend on those before."""
        name = type(self).__name__
        self.num_samples = num_samples
        self.num_replicas, self.rank = _ranks(name, num_replicas, rank)
        if generator is not None:
            if not isinstance(generator, torch.Generator):
                refuse(name, "generator", "a torch.Generator or None", describe(generator), error=TypeError)
            if seed is not None:
                refuse(name, "seed", "None where there is a generator", seed, "Give one of the two.")
        if seed is not None:
            seed = integer(name, "seed", seed)
            if seed < 0:
                refuse(name, "seed", "zero or more", seed)
        elif generator is None and self.num_replicas > 1:
            seed = 0  # DistributedSampler's; ranks whose seeds differ would not share one draw
        self.generator = generator
        self.seed = seed
        self._seed_was_given = seed is not None
        if one_seed and seed is None:
            self.seed = self._seed_of_an_epoch()
        self._next: _Start | None = _Start(0, 0, None)
        self._at_work: _Draws[T] | None = None

    # What a kind of sampler is.

    @abstractmethod
    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        """The draws of an epoch; all positions that ranks will ask for are below ``end``."""

    def _items(self, rows: I64) -> list[T]:
        """Drawn rows as an iterator gives them."""
        items: list[T] = rows.tolist()
        return items

    @abstractmethod
    def expected(self) -> Expected:
        """Coverage and repeats per class and epoch, before anything is drawn."""

    # Iterating.

    def __iter__(self) -> Iterator[T]:
        start = self._next or self._following()
        self._next = None
        seed = start.seed
        if seed is None:
            seed = self._seed_of_an_epoch()
        self._at_work = _Draws(self, start.epoch, start.position, seed)
        return self._at_work

    def _following(self) -> _Start:
        """Where the next iterator begins if nobody says so: the epoch after that of the last one that drew anything."""
        last = self._last
        return _Start(last.epoch + 1, 0, None) if last.begun else last.origin

    @property
    def _last(self) -> _Draws[T]:
        """The iterator made last; there is one wherever nothing was said about the next."""
        assert self._at_work is not None
        return self._at_work

    def _seed_of_an_epoch(self) -> int:
        if self.seed is not None:
            return self.seed
        return int(torch.empty((), dtype=torch.int64).random_(generator=self.generator))

    def __len__(self) -> int:
        """What this rank gives in an epoch: ⌈num_samples / num_replicas⌉."""
        return -(-self.num_samples // self.num_replicas)

    def indices(self) -> torch.Tensor:
        """All that the next epoch gives this rank, at once: an int64 tensor, ``(len(self), ...)``.

        Faster than iterating. It counts as an epoch: the next one differs.
        """
        draws = iter(self)
        assert isinstance(draws, _Draws)
        return torch.from_numpy(draws.rest())

    def __repr__(self) -> str:
        ranks = "" if self.num_replicas == 1 else f", rank={self.rank} of {self.num_replicas}"
        return f"{type(self).__name__}(num_samples={self.num_samples}, epoch={self.epoch}, seed={self.seed}{ranks})"

    # Epochs and state.

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """See the class."""
        if self._next is not None:
            return self._next.epoch
        return self._last.epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next. Without it, each iterator takes the epoch after the last one's.

        After ``load_state_dict``, the epoch that was loaded goes on where it stood.
        """
        name = f"{type(self).__name__}.set_epoch"
        epoch = integer(name, "epoch", epoch)
        if not 0 <= epoch < 2**32:
            refuse(name, "epoch", "in [0, 2**32)", epoch)
        if self._next is None or self._next.epoch != epoch:
            self._next = _Start(epoch, 0, None)

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """Where the sampling stands, as plain numbers: the same for all ranks that have drawn the same number of times.

        Args:
            position: Draws that this rank's training has used in this epoch, where it is behind the iterator: the
                workers of a ``DataLoader`` ask for batches in advance (``batches_done * batch_size``). None takes
                what the iterator has given. torchdata's ``StatefulDataLoader`` sees to this by itself.

        Returns: A dict for :meth:`load_state_dict`, of a sampler with any number of ranks.
        """
        where = self._next or self._where()
        if position is not None:
            name = f"{type(self).__name__}.state_dict"
            position = integer(name, "position", position)
            if not 0 <= position <= len(self):
                refuse(name, "position", f"in [0, {len(self)}], the draws of this rank", position)
            origin = self._next or self._last.origin
            where = origin._replace(position=origin.position + position * self.num_replicas)
            if where.position >= self.num_samples:
                where = _Start(origin.epoch + 1, 0, None)
        return {
            "version": _VERSION,
            "sampler": type(self).__name__,
            "epoch": where.epoch,
            "position": where.position,
            "seed": where.seed if where.seed is not None else self.seed,
            "num_samples": self.num_samples,
        }

    def _where(self) -> _Start:
        last = self._last
        if last.finished:
            return _Start(last.epoch + 1, 0, None)
        return _Start(last.epoch, last.position, last.seed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken: the next iterator gives what was not given yet.

        Costs nothing, whatever the position, and the number of ranks may be another.

        Raises: TypeError, ValueError: not the state of a sampler like this one.
        """
        name = f"{type(self).__name__}.load_state_dict"
        wanted = {"version", "sampler", "epoch", "position", "seed", "num_samples"}
        if not isinstance(state_dict, dict) or not wanted <= state_dict.keys():
            refuse(name, "state_dict", "what state_dict() gave", describe(state_dict), error=TypeError)
        if state_dict["version"] != _VERSION:
            refuse(name, "state_dict", f"of version {_VERSION}", f"version {state_dict['version']!r}")
        for key, mine in (("sampler", type(self).__name__), ("num_samples", self.num_samples)):
            if state_dict[key] != mine:
                hint = "Make the sampler as it was made when the state was taken."
                refuse(name, "state_dict", f"of a sampler with {key} = {mine!r}", f"{state_dict[key]!r}", hint)
        if self._seed_was_given and state_dict["seed"] != self.seed:
            hint = "Make the sampler with the seed that it had."
            refuse(name, "state_dict", f"of a sampler with seed = {self.seed}", f"{state_dict['seed']!r}", hint)
        epoch, position = integer(name, "epoch", state_dict["epoch"]), integer(name, "position", state_dict["position"])
        if epoch < 0 or position < 0:
            refuse(name, "state_dict", "with an epoch and a position of zero or more", f"{epoch} and {position}")
        if self.seed is not None:
            self.seed = integer(name, "seed", state_dict["seed"])
        self._next = _Start(epoch, position, state_dict["seed"])

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_next"] = self._next or self._where()
        state["_at_work"] = None  # an iterator belongs to the process that runs it
        return state


class _Draws(Iterator[T]):
    """The draws of one rank from a position of an epoch on, as Python objects, some thousands at a time."""

    def __init__(self, sampler: ReproducibleSampler[T], epoch: int, start: int, seed: int) -> None:
        self.sampler = sampler
        self.epoch, self.start, self.seed = epoch, start, seed
        self.begun = False
        self.finished = False
        self._plan: Plan | None = None
        self._done = 0  # draws before the block at hand
        self._block: list[T] = []
        self._items: Iterator[T] = iter(self._block)

    @property
    def origin(self) -> _Start:
        """Where it began."""
        return _Start(self.epoch, self.start, self.seed)

    @property
    def count(self) -> int:
        """Draws from the start to the end of the epoch, the same for every rank."""
        return -(-max(self.sampler.num_samples - self.start, 0) // self.sampler.num_replicas)

    @property
    def position(self) -> int:
        """How far the epoch is over all ranks, if all have drawn as often as this one."""
        waiting: int = self._items.__length_hint__()  # type: ignore[attr-defined]
        given = self._done + len(self._block) - waiting
        return self.start + given * self.sampler.num_replicas

    def _rows(self, done: int, count: int) -> I64:
        sampler = self.sampler
        if self._plan is None:
            self._plan = sampler._plan(self.seed, self.epoch, self.start + self.count * sampler.num_replicas)
        step, first = sampler.num_replicas, self.start + sampler.rank + done * sampler.num_replicas
        regular = min(max(-(-(sampler.num_samples - first) // step), 0), count)
        rows = self._plan.draw(first, step, regular)
        if regular == count:
            return rows
        return np.concatenate([rows, self._plan.extra(first + regular * step, step, count - regular)])

    def __iter__(self) -> _Draws[T]:
        return self

    def __next__(self) -> T:
        try:
            return next(self._items)
        except StopIteration:
            pass
        self.begun = True
        self._done += len(self._block)
        self._block = []
        self._items = iter(self._block)
        left = self.count - self._done
        if left <= 0:
            self.finished = True
            self._plan = None
            raise StopIteration
        self._block = self.sampler._items(self._rows(self._done, min(self.sampler._block_size, left)))
        self._items = iter(self._block)
        return next(self._items)

    def rest(self) -> I64:
        """All that is left, as an array."""
        self.begun = self.finished = True
        rows = self._rows(self._done, self.count - self._done)
        self._done, self._plan = self.count, None
        return rows

    # For loaders that save iterators, such as torchdata's: at the end of an epoch they know better than the sampler
    # whether that was the last batch or the first of another epoch.

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__(self.sampler, state["epoch"], state["position"], state["seed"])  # type: ignore[misc]
        self.begun = True


def positive_integer(name: str, argument: str, value: Any) -> int:
    """An integer of one or more."""
    result = integer(name, argument, value)
    if result < 1:
        refuse(name, argument, "1 or more", value)
    return result


def _ranks(name: str, num_replicas: Any, rank: Any) -> tuple[int, int]:
    """How many share the draws, and which of them this is: as given, else by the process group, else one alone."""
    if (num_replicas is None) != (rank is None):
        given, absent = ("rank", "num_replicas") if num_replicas is None else ("num_replicas", "rank")
        refuse(name, absent, f"given where {given} is", None)
    if num_replicas is None:
        grouped = dist.is_available() and dist.is_initialized()
        return (dist.get_world_size(), dist.get_rank()) if grouped else (1, 0)
    num_replicas, rank = positive_integer(name, "num_replicas", num_replicas), integer(name, "rank", rank)
    if not 0 <= rank < num_replicas:
        refuse(name, "rank", f"in [0, {num_replicas}), below num_replicas", rank)
    return num_replicas, rank
