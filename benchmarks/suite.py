"""One case from start to end: make the contenders, hold each against the truth, time those that are right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.cases import Case
from benchmarks.check import errors, floor_is_right, tolerance, truth
from benchmarks.contenders import COMPILED, EAGER, FLOOR, HUGE_PAGE, IN_PLACE, OURS, Contender, make, names
from benchmarks.machine import without_paths
from benchmarks.measure import PASSES, Samples, digits, quartiles, ratio, time_all
from benchmarks.memory import SEED, peak_extra

__all__ = ["Tick", "run_case"]

Tick = Callable[[str], None]
"""Called after each piece of work with what comes next, in words."""


def run_case(
    case: Case,
    *,
    rounds: int,
    seed: int = SEED,
    memory: bool = True,
    backend: str = "inductor",
    wanted: Iterable[str] | None = None,
    extra: Iterable[Contender] = (),
    tick: Tick = lambda text: None,
) -> dict[str, Any]:
    """What a case gave, ready for JSON. A contender that fails or is wrong says so and has no times.

    Args:
        case, rounds, seed: What, how often, and the seed of the data and of the order.
        memory: Measure peak memory too, in a process for each contender.
        backend: Of ``torch.compile``.
        wanted: Names of contenders; all that there are unless given.
        extra: Contenders beside those.
        tick: Told of progress: once for the checks, once a round, once for the memory.
    """
    logits, rest = case.tensors(SEED)
    found: dict[str, dict[str, Any]] = {}
    right: list[Contender] = []
    known = truth(case, logits, rest)
    candidates = list(names(case) if wanted is None else wanted)
    ready: dict[str, Contender | None] = dict.fromkeys(candidates) | {contender.name: contender for contender in extra}
    for name, given in ready.items():
        limit = tolerance(name, case.dtype)
        entry: dict[str, Any] = {}
        found[name] = entry
        try:
            made = given or make(name, case, logits, rest, backend=backend)
            if made.is_floor:
                fine = floor_is_right(made, case, logits, rest)
            else:
                entry["tolerance"] = limit
                wrong = errors(made, logits, rest, known)
                fine = wrong.within(limit)
                entry["error"] = {key: _number(value) for key, value in vars(wrong).items()}
        except Exception as error:  # a contender may fail in any way; the others still run
            entry["refused"] = f"{type(error).__name__}: {_first_line(error)}"
            continue
        if not fine:
            entry["refused"] = f"wrong by {entry.get('error', 'some bytes')}, where {limit:g} is allowed"
            continue
        right.append(made)
    del known
    tick("checked")
    samples = time_all(right, logits, rest, rounds=rounds, seed=seed, tick=tick)
    for contender in right:
        if contender.graphs and contender.graphs() != 1:
            found[contender.name]["refused"] = f"compiled {contender.graphs()} times; its times hold compilation"
            continue
        found[contender.name].update(_timed(contender, samples, case))
        if contender.graphs:
            found[contender.name]["graphs"] = contender.graphs()
    del logits, rest, right
    if memory:
        _add_memory(case, found, [name for name in candidates if "times" in found[name]])
    tick("memory")
    return {
        "name": case.name,
        "loss": case.definition.says,
        "shape": list(case.shape),
        "dtype": case.dtype_name,
        "reason": case.reason,
        "floor_bytes": case.floor_bytes,
        "contenders": found,
        "ratios": _ratios(samples, found),
    }


def _timed(contender: Contender, samples: Samples, case: Case) -> dict[str, Any]:
    """Times in ms, and what they mean beside the bytes that had to be moved."""
    passes = {p: [1e3 * s for s in samples[contender.name, p]] for p in PASSES if (contender.name, p) in samples}
    entry: dict[str, Any] = {
        "times": {p: quartiles(values) | {"samples": [digits(v) for v in values]} for p, values in passes.items()}
    }
    entry["gigabytes_per_second"] = digits(case.floor_bytes / entry["times"]["both"]["median"] / 1e6)
    # Below a huge page the copy measures the call of a copy.
    if not contender.is_floor and (FLOOR, "both") in samples and case.logit_bytes >= HUGE_PAGE:
        entry["times_the_floor"] = ratio(samples[contender.name, "both"], samples[FLOOR, "both"])
    return entry


def _ratios(samples: Samples, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``"PyTorch eager / steelyard"``: how many times faster we are, for each pass. Under 1, slower."""
    ratios: dict[str, dict[str, Any]] = {}
    for ours in (OURS, IN_PLACE):
        for theirs in (EAGER, COMPILED):
            if all("times" in found.get(name, {}) for name in (ours, theirs)):
                ratios[f"{theirs} / {ours}"] = {p: ratio(samples[theirs, p], samples[ours, p]) for p in PASSES}
    return ratios


def _add_memory(case: Case, found: dict[str, dict[str, Any]], timed: list[str]) -> None:
    for name in timed:
        if "error" in found[name]:  # a floor's extra memory is its result, no news
            try:
                found[name]["peak_extra_bytes"] = peak_extra(case, name)
            except RuntimeError as error:
                found[name]["peak_extra_bytes"] = None
                found[name]["peak_extra_failed"] = _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return without_paths(lines[0]) if lines else ""


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return digits(value) if math.isfinite(value) else None
