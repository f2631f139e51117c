"""What all samplers share: epochs, ranks, where an epoch stands, and how that is saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

from steelyard._errors import describe, refuse
from steelyard._values import integer
from steelyard.samplers._draws import Draws, Plan, Rows, Start
from steelyard.samplers._expected import Expected

__all__ = ["ReproducibleSampler", "positive_integer"]

T = TypeVar("T", covariant=True)
_VERSION = 1
_KEYS = {"version", "sampler", "epoch", "position", "seed", "seeded", "num_samples", "options", "data"}


class ReproducibleSampler(DistributedSampler[T]):
    """A sampler whose draws depend on seed, epoch and position alone.

    It is a ``DistributedSampler`` so that a trainer which looks for one (Lightning) sees that it shares its draws out
    by itself, and leaves it alone; nothing else of that class is used. Accelerate, and with it the Hugging Face
    Trainer, deals out the batches of a loader among the ranks whatever its sampler is: there, make it for one rank
    (``num_replicas=1, rank=0``) with a seed, so that all ranks draw the same.

    Attributes:
        num_samples: Draws of an epoch over all ranks together.
        num_replicas: Ranks that share them. Of position p, rank p mod num_replicas gets the row.
        rank: Which of them this is.
        seed: An int, or None where every epoch takes a seed from the generator.
        epoch: That of the iterator at work, or of the next one.
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
        self._next = Start(0, 0, None)  # where the next iterator that draws anything begins
        self._at_work: Draws[T] | None = None  # the last that did, unless somebody has said otherwise since

    # What a kind of sampler is.

    @abstractmethod
    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        """The draws of an epoch; all positions that ranks will ask for are below ``end``."""

    def _items(self, rows: Rows) -> list[T]:
        """Drawn rows as an iterator gives them."""
        items: list[T] = rows.tolist()
        return items

    @abstractmethod
    def expected(self) -> Expected:
        """Coverage and repeats per class and epoch, before anything is drawn."""

    def _options(self) -> dict[str, Any]:
        """What a state must find again, beside the number of samples: plain values."""
        return {}

    def _data(self) -> int:
        """A number that tells whether the weights or labels are the same."""
        return 0

    _data_may_change = False  # whether the data of an epoch may be other than those of the one before

    # Iterating.

    def __iter__(self) -> Iterator[T]:
        return Draws(self)

    def _begin(self, draws: Draws[T], start: Start | None = None) -> Start:
        """An iterator draws its first: where the sampler stands, and the next one begins an epoch later."""
        epoch, position, seed = start or self._next
        if seed is None:
            seed = self._seed_of_an_epoch()
        self._next, self._at_work = Start(epoch + 1, 0, None), draws
        return Start(epoch, position, seed)

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
        rows = Draws(self).rest()
        return rows if isinstance(rows, torch.Tensor) else torch.from_numpy(rows)

    def __repr__(self) -> str:
        ranks = "" if self.num_replicas == 1 else f", rank={self.rank} of {self.num_replicas}"
        return f"{type(self).__name__}(num_samples={self.num_samples}, epoch={self.epoch}, seed={self.seed}{ranks})"

    # Epochs and state.

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """See the class."""
        return self._next.epoch if self._at_work is None else self._at_work.start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next. Without it, each iterator takes the epoch after the last one's.

        After ``load_state_dict``, the epoch that was loaded goes on where it stood.
        """
        name = f"{type(self).__name__}.set_epoch"
        epoch = integer(name, "epoch", epoch)
        if not 0 <= epoch < 2**32:
            refuse(name, "epoch", "in [0, 2**32)", epoch)
        at = self._at_work
        if at is None and self._next.epoch == epoch:
            return
        self._next = Start(epoch, 0, None)
        if at is None or at.start.epoch != epoch:
            self._at_work = None

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """Where the sampling stands, as plain numbers: the same for all ranks that have drawn the same number of times.

        Args:
            position: How much of what the iterator at work has given to this rank, since it began, training has used:
                rows, or batches of a batch sampler. Say so where the iterator is ahead: the workers of a
                ``DataLoader`` ask for batches in advance (``batches_done * batch_size``). None takes all that the
                iterator has given. torchdata's ``StatefulDataLoader`` sees to this by itself.

        Returns: A dict for :meth:`load_state_dict`, of a sampler with any number of ranks.
        """
        at = self._at_work
        where = self._next if at is None or at.finished else at.where
        if position is not None:
            name = f"{type(self).__name__}.state_dict"
            position, given = integer(name, "position", position), 0 if at is None else at.given
            if not 0 <= position <= given:
                hint = "It counts from where that iterator began, which after load_state_dict is not the epoch's start."
                refuse(name, "position", f"in [0, {given}], what the iterator at work has given", position, hint)
            if at is not None:
                where = at.after(position)
                if where.position >= self.num_samples:
                    where = Start(where.epoch + 1, 0, None)
        return {
            "version": _VERSION,
            "sampler": type(self).__name__,
            "epoch": where.epoch,
            "position": where.position,
            "seed": where.seed if where.seed is not None else self.seed,
            "seeded": self._seed_was_given,
            "num_samples": self.num_samples,
            "options": self._options(),
            "data": self._data(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken: the next iterator gives what was not given yet.

        Costs nothing, whatever the position, and the number of ranks may be another.

        Raises: TypeError, ValueError: not the state of a sampler like this one.
        """
        name = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, dict) or not state_dict.keys() >= _KEYS:
            refuse(name, "state_dict", "what state_dict() gave", describe(state_dict), error=TypeError)
        if state_dict["version"] != _VERSION:
            refuse(name, "state_dict", f"of version {_VERSION}", f"version {state_dict['version']!r}")
        epoch, position = integer(name, "epoch", state_dict["epoch"]), integer(name, "position", state_dict["position"])
        if epoch < 0 or position < 0:
            refuse(name, "state_dict", "with an epoch and a position of zero or more", f"{epoch} and {position}")
        self._must_be_like_this(name, state_dict, position)
        seed = state_dict["seed"]
        if seed is not None:
            seed = integer(name, "seed", seed)
        if self.seed is not None and seed is not None:
            self.seed = seed
        self._next, self._at_work = Start(epoch, position, seed), None

    def _must_be_like_this(self, name: str, state: dict[str, Any], position: int) -> None:
        """Refuse the state of a sampler that would draw something else."""
        hint = "Make the sampler as it was made when the state was taken."
        mine = {"sampler": type(self).__name__, "num_samples": self.num_samples, **self._options()}
        theirs = {"sampler": state["sampler"], "num_samples": state["num_samples"], **state["options"]}
        for key, value in mine.items():
            if theirs.get(key) != value:
                refuse(name, "state_dict", f"of a sampler with {key} = {value!r}", f"{theirs.get(key)!r}", hint)
        if self._seed_was_given and state["seed"] != self.seed:
            hint = "Make the sampler with the seed that it had."
            refuse(name, "state_dict", f"of a sampler with seed = {self.seed}", f"{state['seed']!r}", hint)
        if state["seeded"] and not self._seed_was_given:
            hint = f"Make the sampler with seed={state['seed']}, or later epochs would be other ones."
            refuse(name, "state_dict", "of a sampler without a seed of its own", f"seed = {state['seed']!r}", hint)
        if state["data"] != self._data() and (position > 0 or not self._data_may_change):
            what = "weights" if self._data_may_change else "labels"
            hint = f"With other {what}, a run cannot go on as it would have."
            refuse(name, "state_dict", f"of a sampler with the same {what}", f"one with other {what}", hint)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._at_work is not None and not self._at_work.finished:
            state["_next"] = self._at_work.where
        state["_at_work"] = None  # an iterator belongs to the process that runs it
        return state


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
