"""Time contenders against one another: interleaved, in a new order every round, on logits made anew for each pass.

A pass is what one training step asks of the loss: logits that a layer has just written, a loss, and a gradient that did
not exist before and is let go when the layer below has used it. Only the part between the two readings of the clock
counts; logits are made, and the forward pass before a lone backward pass is run, while it stands still.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from benchmarks.contenders import Contender

__all__ = ["LEAST_SAMPLE", "PASSES", "quartiles", "ratio", "time_all"]

PASSES = ("forward", "backward", "both")
LEAST_SAMPLE = 2e-3  # seconds; shorter ones would measure the clock and the scheduler
MOST_REPEATS = 2000

Samples = dict[tuple[str, str], list[float]]
"""Seconds per pass, one for each round, by contender and pass."""


def time_all(
    contenders: Sequence[Contender],
    logits: Tensor,
    rest: tuple[Tensor, ...],
    *,
    rounds: int,
    seed: int,
    tick: Callable[[str], None],
) -> Samples:
    """Samples of every contender's passes; of a floor, which has no backward pass, only ``both``."""
    layer = logits.detach().clone().requires_grad_()
    work = [(c, p) for c in contenders for p in PASSES if p == "both" or not c.is_floor]
    order = random.Random(seed)
    samples: Samples = {(c.name, p): [] for c, p in work}
    with _quiet():
        repeats = {(c.name, p): _repeats(c, p, layer, rest) for c, p in work}
        for number in range(rounds):
            for contender, what in order.sample(work, len(work)):
                key = contender.name, what
                samples[key].append(_sample(contender, what, layer, rest, repeats[key]))
            tick(f"round {number + 1} of {rounds}")
    return samples


def _sample(contender: Contender, what: str, layer: Tensor, rest: tuple[Tensor, ...], repeats: int) -> float:
    """Seconds per pass, the mean of ``repeats`` passes."""
    if repeats > 1:  # a short pass would pay for whatever ran before it; a long one hardly notices
        _once(contender, what, layer, rest)
    return sum(_once(contender, what, layer, rest) for _ in range(repeats)) / repeats


def _once(contender: Contender, what: str, layer: Tensor, rest: tuple[Tensor, ...]) -> float:
    run, clock = contender.run, time.perf_counter
    logits = [layer.clone()]
    # The memory is held here, so that nobody pays for its return. The tensor itself is not: who writes the gradient
    # into it may hand it on, which autograd does without a copy only for a tensor that nobody else holds.
    memory = logits[0].untyped_storage()
    if what == "forward":
        start = clock()
        loss = run(logits.pop(), *rest)
        end = clock()
    elif what == "backward":
        loss = run(logits.pop(), *rest)
        start = clock()
        loss.backward()
        layer.grad = None
        end = clock()
    elif contender.is_floor:
        start = clock()
        loss = run(logits.pop(), *rest)
        del loss
        end = clock()
    else:
        start = clock()
        loss = run(logits.pop(), *rest)
        loss.backward()
        layer.grad = None
        end = clock()
    del memory
    return end - start


def _repeats(contender: Contender, what: str, layer: Tensor, rest: tuple[Tensor, ...]) -> int:
    """Passes in a sample, so that it lasts ``LEAST_SAMPLE`` or more; two warm-ups come first."""
    for _ in range(2):
        _once(contender, what, layer, rest)
    repeats = 1
    while repeats < MOST_REPEATS:
        # Kept under a fast sample, not a slow one: an interruption here must not leave the samples too short.
        fastest = min(_sample(contender, what, layer, rest, repeats) for _ in range(3 if repeats > 1 else 1))
        if repeats * fastest >= LEAST_SAMPLE:
            break
        repeats = min(MOST_REPEATS, max(repeats + 1, math.ceil(1.1 * LEAST_SAMPLE / fastest)))
    return repeats


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the garbage collector, which would run in the middle of somebody's pass."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of two values or more, rounded to 4 significant digits."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": digits(middle), "q1": digits(low), "q3": digits(high)}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times faster the second is: quartiles over rounds of the ratio in the same round."""
    return quartiles([s / f for s, f in zip(slow, fast, strict=True)])


def digits(value: float) -> float:
    """Rounded to 4 significant digits."""
    return float(f"{value:.4g}")
