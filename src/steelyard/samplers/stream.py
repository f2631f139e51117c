"""Rebalancing what cannot be indexed: samples that stream by."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from steelyard._errors import describe, refuse
from steelyard._values import integer, number
from steelyard.counts import as_class_counts
from steelyard.samplers._expected import Expected

__all__ = ["RebalancedStream"]

_LOOK_EVERY = 256
"""Samples after which the class that sets the scale is looked for in any case: rare ones may have become frequent."""


class RebalancedStream(IterableDataset[Any]):
    r"""A stream of samples with the classes in other shares: thinned where they are frequent, repeated where rare.

    For an ``IterableDataset``, where no sampler can choose rows. Nothing need be known in advance: classes are
    counted as they come by, new ones welcome, and each sample is passed on m times on average, m being the share that
    its class should have over the share that it has had so far, on a scale on which the neediest class gets
    ``max_repeats``. With 1 (the default) that is rejection: samples of the neediest class all pass, of others a part.
    Classes rarer than ``min_ratio`` do not set the scale, or one odd label would hold back all the rest.

    Args:
        dataset: Any iterable of samples; it is iterated anew for each epoch. With several workers an
            ``IterableDataset`` must give each its own part, as always; of anything else each worker takes a part.
        label: How to find a sample's class: a function of it; or an index or key into it. A label is an int, str or
            bool, or a tensor or NumPy number with one element.
        target: The shares to aim at: a power as in :class:`ClassBalancedSampler` (1 for equal shares of all classes
            seen so far, 0 for natural ones), or a mapping from class to share, of which None stands for every class
            that is not named.
        max_repeats: How often a sample of the neediest class is passed on, above 0, on average.
        min_ratio: A class that has come less often than this times the most frequent one gets ``max_repeats``, and no
            more; in [0, 1].
        buffer_size: Samples held back to be mixed: each that comes in pushes out one at random. 0 keeps the order,
            and repeats behind one another.
        seed: Of the choices; with the epoch and the worker it fixes them all.

    Raises: TypeError, ValueError: an argument that is not as said; a sample whose class ``target`` neither names nor
    covers.

    Example:
        >>> stream = [("common", i) for i in range(900)] + [("rare", i) for i in range(100)]
        >>> import random; random.Random(0).shuffle(stream)
        >>> passed = list(RebalancedStream(stream, label=0, seed=0))
        >>> sum(kind == "rare" for kind, _ in passed)
        100
        >>> 100 < len(passed) < 300
        True

    Source: rejection sampling against a running estimate of the shares; the shuffle of a stream through a buffer is
        webdataset's and ``tf.data``'s.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        label: Callable[[Any], Any] | int | str = -1,
        *,
        target: float | Mapping[Any, float] = 1.0,
        max_repeats: float = 1.0,
        min_ratio: float = 1e-3,
        buffer_size: int = 0,
        seed: int = 0,
    ) -> None:
        name = type(self).__name__
        if not isinstance(dataset, Iterable):
            refuse(name, "dataset", "an iterable of samples", describe(dataset), error=TypeError)
        if isinstance(dataset, Iterator):
            hint = "Wrap it in an IterableDataset whose __iter__ starts it anew."
            refuse(name, "dataset", "an iterable that can be iterated again", describe(dataset), hint, error=TypeError)
        if not callable(label) and (isinstance(label, bool) or not isinstance(label, int | str)):
            refuse(name, "label", "a function of the sample, an index or a key", describe(label), error=TypeError)
        self.dataset = dataset
        self.label = label
        self.target = (
            _shares(name, target) if isinstance(target, Mapping) else number(name, "target", target, 0.0, np.inf)
        )
        self.max_repeats = number(name, "max_repeats", max_repeats, 0.0, np.inf)
        if self.max_repeats == 0.0:
            refuse(name, "max_repeats", "above zero", max_repeats)
        self.min_ratio = number(name, "min_ratio", min_ratio, 0.0, 1.0)
        self.buffer_size = integer(name, "buffer_size", buffer_size)
        if self.buffer_size < 0:
            refuse(name, "buffer_size", "zero or more", buffer_size)
        self.seed = integer(name, "seed", seed)
        if self.seed < 0:
            refuse(name, "seed", "zero or more", seed)
        self.epoch = 0
        self._at_work: _Passage | None = None
        self._state: dict[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, here and in the dataset if it takes one.

        Without it each iterator takes the next; but a ``DataLoader`` whose workers do not persist starts each epoch
        with copies of this object, which know only what it was told.
        """
        name = f"{type(self).__name__}.set_epoch"
        self.epoch = integer(name, "epoch", epoch)
        if not 0 <= self.epoch < 2**32:
            refuse(name, "epoch", "in [0, 2**32)", epoch)
        self._at_work = None
        if self._state is not None and self._state["epoch"] != epoch:
            self._state = None
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self._at_work is not None and self._at_work.seen:
            self.epoch = self._at_work.epoch + 1
        state, self._state = self._state, None
        self._at_work = _Passage(self, self.epoch, state)
        return self._at_work

    def class_of(self, sample: Any) -> Any:
        """The class of a sample."""
        name = type(self).__name__
        try:
            found = self.label(sample) if callable(self.label) else sample[self.label]
        except (LookupError, TypeError) as error:
            if callable(self.label):
                raise
            refuse(name, "label", "an index or key into every sample", f"{self.label!r}, where {error!r}")
        if isinstance(found, torch.Tensor | np.generic | np.ndarray):
            if getattr(found, "size", lambda: 1) != 1 and int(np.prod(found.shape)) != 1:
                refuse(name, "label", "what finds one class of a sample", describe(found))
            found = found.item()
        if isinstance(found, float) and found.is_integer():
            return int(found)
        if not isinstance(found, int | str | bool):
            refuse(name, "label", "what finds an int, str or bool", describe(found), error=TypeError)
        return found

    def expected(self, counts: Any) -> Expected:
        """What passes of a stream with such class counts, once the shares are known: coverage and repeats by class."""
        value = as_class_counts(counts, function=f"{type(self).__name__}.expected")
        held = {label: count for label, count in zip(value.classes, value.counts.tolist(), strict=True) if count}
        _, most = self._neediest(held)
        means = {label: self._mean_copies(self._need(label, count), most) for label, count in held.items()}
        draws = tuple(means[label] * held[label] for label in held)
        return Expected(tuple(held), tuple(held.values()), draws, tuple(min(mean, 1.0) for mean in means.values()))

    def _mean_copies(self, need: float, most: float) -> float:
        return self.max_repeats * min(need / most, 1.0) if most > 0.0 else 0.0

    def _neediest(self, counts: Mapping[Any, int]) -> tuple[Any, float]:
        """The class that sets the scale, and its need: the greatest among those that are not too rare.

        Where none of these is wanted at all, the greatest there is.
        """
        needs = {label: self._need(label, count) for label, count in counts.items()}
        least = self.min_ratio * max(counts.values(), default=0)
        frequent = {label: need for label, need in needs.items() if counts[label] >= least and need > 0.0} or needs
        neediest = max(frequent, key=frequent.__getitem__, default=None)
        return neediest, frequent.get(neediest, 0.0)

    def _need(self, label: Any, count: int) -> float:
        """The share that a class should have, over the one that it has, on some scale."""
        if not isinstance(self.target, dict):
            return math.pow(count, -self.target)
        share: float | None = self.target.get(label, self.target.get(None))
        if share is None:
            self._refuse_class(label, self.target)
        return share / count

    def _refuse_class(self, label: Any, target: Mapping[Any, float]) -> NoReturn:
        known = ", ".join(repr(one) for one in list(target)[:10])
        hint = f"It names {known}; a share for None would cover all others."
        rule = "such that every class of the stream has a share"
        refuse(type(self).__name__, "target", rule, f"class {label!r}", hint)

    # For torchdata's StatefulDataLoader, which asks every worker's dataset.

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, samples in the buffer included. The dataset's own state where it has one; else a
        resumed stream reads past what was read before.
        """
        if self._at_work is None:
            return self._state or {"epoch": self.epoch, "seen": 0, "options": self._options()}
        return self._at_work.state_dict()

    def _options(self) -> dict[str, Any]:
        """What a state must find again."""
        return {name: getattr(self, name) for name in ("seed", "target", "max_repeats", "min_ratio", "buffer_size")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        name = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, dict) or not state_dict.keys() >= {"epoch", "seen", "options"}:
            refuse(name, "state_dict", "what state_dict() gave", describe(state_dict), error=TypeError)
        for option, mine in self._options().items():
            theirs = state_dict["options"].get(option)
            if theirs != mine:
                hint = "Make the stream as it was made when the state was taken."
                refuse(name, "state_dict", f"of a stream with {option} = {mine!r}", repr(theirs), hint)
        self.epoch, self._at_work = state_dict["epoch"], None
        self._state = copy.copy(state_dict) if state_dict["seen"] else None


class _Passage(Iterator[Any]):
    """One epoch of one worker."""

    def __init__(self, stream: RebalancedStream, epoch: int, state: dict[str, Any] | None) -> None:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        self.stream, self.epoch = stream, epoch
        # One generator says what passes, another mixes: a buffer of another size changes the order and nothing else.
        seeds = np.random.SeedSequence([stream.seed, epoch, worker]).spawn(2)
        self.random, self.mixing = (np.random.Generator(np.random.Philox(seed)) for seed in seeds)
        self.seen = 0
        self.counts: dict[Any, int] = {}
        self.buffer: list[Any] = []
        self.ready: list[Any] = []  # copies that have passed and wait to be taken
        self.ended = False
        self.neediest: Any = None
        self.most = 0.0
        dataset = stream.dataset
        if state is not None:
            self.seen, self.ended = state["seen"], state["ended"]
            self.counts = dict(state["counts"])
            self.neediest, self.most = state["neediest"]
            self.buffer, self.ready = list(state["buffer"]), list(state["ready"])
            self.random.bit_generator.state, self.mixing.bit_generator.state = state["random"]
            if state["dataset"] is not None:
                dataset.load_state_dict(state["dataset"])  # type: ignore[attr-defined]
        self.source = iter(dataset)
        if info is not None and not isinstance(dataset, IterableDataset):
            self.source = itertools.islice(self.source, worker, None, info.num_workers)
        if state is not None and state["dataset"] is None and not self.ended:
            next(itertools.islice(self.source, self.seen, self.seen), None)

    def __next__(self) -> Any:
        while not self.ready:
            if self.ended:
                if not self.buffer:
                    raise StopIteration
                self.ready.append(self.buffer.pop())
                break
            try:
                sample = next(self.source)
            except StopIteration:
                self.ended = True
                order = self.mixing.permutation(len(self.buffer))
                self.buffer = [self.buffer[i] for i in order]
                continue
            self._pass(sample)
        return self.ready.pop()

    def _pass(self, sample: Any) -> None:
        label = self.stream.class_of(sample)
        self.seen += 1
        self.counts[label] = self.counts.get(label, 0) + 1
        if self.counts[label] == 1 or label == self.neediest or self.seen % _LOOK_EVERY == 0:
            self.neediest, self.most = self.stream._neediest(self.counts)
        mean = self.stream._mean_copies(self.stream._need(label, self.counts[label]), self.most)
        copies = int(mean) + (self.random.random() < mean % 1.0)
        for _ in range(copies):
            if len(self.buffer) < self.stream.buffer_size:
                self.buffer.append(sample)
            elif self.stream.buffer_size:
                place = int(self.mixing.integers(len(self.buffer)))
                self.ready.append(self.buffer[place])
                self.buffer[place] = sample
            else:
                self.ready.append(sample)

    def state_dict(self) -> dict[str, Any]:
        dataset: Any = self.stream.dataset
        has_state = hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict")
        return {
            "epoch": self.epoch,
            "seen": self.seen,
            "options": self.stream._options(),
            "ended": self.ended,
            "counts": dict(self.counts),
            "neediest": (self.neediest, self.most),
            "buffer": list(self.buffer),
            "ready": list(self.ready),
            "random": (self.random.bit_generator.state, self.mixing.bit_generator.state),
            "dataset": dataset.state_dict() if has_state else None,
        }


def _shares(name: str, target: Mapping[Any, Any]) -> dict[Any, float]:
    shares = {label: number(name, "target", share, 0.0, np.inf) for label, share in target.items()}
    if not any(shares.values()):
        refuse(name, "target", "a mapping with a share above zero", describe(dict(target)))
    return shares
