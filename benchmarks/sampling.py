"""Time draws beside PyTorch's: `python -m benchmarks.sampling`, from the root of the repository.

Right first: the draws of every contender are held against the weights (chi-square over 64 stretches of rows, and no
row of weight zero) before anything is timed. Contenders take turns in a new order every round. Making the sampler is
part of the time, as PyTorch does that work when it draws.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import describe
from benchmarks.measure import quartiles, ratio
from benchmarks.memory import _hand_back, _resident
from benchmarks.pages import between
from steelyard.samplers import WeightedRandomSampler

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/sampling/cpu.json"
PAGE = ROOT / "docs/sampling.md"
START, END = "<!-- results: written by benchmarks/sampling.py -->", "<!-- /results -->"

PYTORCH, OURS, FLOOR = "PyTorch", "steelyard", "floor"
Draw = Callable[[Any, int, int], Any]


def _weights(n: int) -> Tensor:
    weights = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[::17] = 0.0
    return weights


def _torch(weights: Tensor, count: int, seed: int, replacement: bool = True) -> Tensor:
    return torch.multinomial(weights, count, replacement, generator=torch.Generator().manual_seed(seed))


def _torch_ints(weights: Tensor, count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.utils.data.WeightedRandomSampler(weights, count, generator=generator))  # type: ignore[arg-type]


def _ours(weights: Any, count: int, seed: int, **options: Any) -> Tensor:
    return WeightedRandomSampler(weights, count, seed=seed, **options).indices()


def _ours_ints(weights: Tensor, count: int, seed: int) -> list[int]:
    return list(WeightedRandomSampler(weights, count, seed=seed))


def _floor(weights: Tensor, count: int, seed: int) -> Tensor:
    """Each weight read once, each row number written once, in order."""
    weights.sum()
    return torch.full((count,), seed, dtype=torch.int64)


@dataclass(frozen=True)
class Case:
    """Draws of a kind from so many weights; ``reason`` is why it is here."""

    name: str
    n: int
    count: int
    reason: str
    contenders: dict[str, Draw]
    distinct: bool = False


def _pair(theirs: Draw, ours: Draw) -> dict[str, Draw]:
    return {PYTORCH: theirs, OURS: ours, FLOOR: _floor}


LARGEST = 2**24  # PyTorch takes no more
CASES = (
    Case("with replacement", 2**16, 2**16, "a data set of ordinary size", _pair(_torch, _ours)),
    Case("with replacement", LARGEST, LARGEST, "the most that PyTorch takes", _pair(_torch, _ours)),
    Case("as Python ints", 2**20, 2**20, "what a DataLoader asks for: list(sampler)", _pair(_torch_ints, _ours_ints)),
    Case("as Python ints", LARGEST, LARGEST, "the same, at PyTorch's limit", _pair(_torch_ints, _ours_ints)),
    Case(
        "without replacement", LARGEST, LARGEST // 2, "half of the rows, each once",
        _pair(lambda w, k, s: _torch(w, k, s, False), lambda w, k, s: _ours(w, k, s, replacement=False)), distinct=True,
    ),
    Case(
        "exact quotas", LARGEST, LARGEST, "systematic=True, beside PyTorch's draws by chance",
        _pair(_torch, lambda w, k, s: _ours(w, k, s, systematic=True)),
    ),
)  # fmt: skip


def check(case: Case, rows: Any, weights: Tensor) -> float:
    """Chi-square over 64 stretches of rows, in standard deviations from its mean.

    Raises: ValueError: rows that the weights do not give.
    """
    found = np.asarray(rows)
    if len(found) != case.count or (weights.numpy()[found] == 0).any():
        raise ValueError(f"{case.name}: {len(found)} draws, rows of weight zero among them or not {case.count}")
    if case.distinct:
        if len(np.unique(found)) != case.count:
            raise ValueError(f"{case.name}: a row came twice")
        return 0.0  # chances are not in proportion to the weights; tests/samplers/test_table.py has them by enumeration
    share = weights.reshape(64, -1).sum(1).numpy() / float(weights.sum())
    mean = share * case.count
    statistic = float(((np.bincount(found * 64 // case.n, minlength=64) - mean) ** 2 / mean).sum())
    deviation = (statistic - 63) / math.sqrt(2 * 63)
    if deviation > 6:
        raise ValueError(f"{case.name}: draws do not follow the weights (chi-square {statistic:.0f}, 63 degrees)")
    return round(deviation, 2)


def run(case: Case, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Values first, then times."""
    weights = _weights(case.n)
    entry: dict[str, Any] = {"name": case.name, "weights": case.n, "draws": case.count, "reason": case.reason}
    entry["chi_square"] = {
        who: check(case, draw(weights, case.count, 1), weights) for who, draw in case.contenders.items() if who != FLOOR
    }
    order, samples = random.Random(seed), {who: [] for who in case.contenders}  # type: dict[str, list[float]]
    gc.disable()
    for number in range(rounds):
        for who in order.sample(list(case.contenders), len(case.contenders)):
            start = time.perf_counter()
            drawn = case.contenders[who](weights, case.count, number)
            samples[who].append(time.perf_counter() - start)
            del drawn
    gc.enable()
    entry["seconds"] = {who: quartiles(times) for who, times in samples.items()}
    entry["ratio"] = ratio(samples[PYTORCH], samples[OURS])
    return entry


def large(n: int, count: int) -> dict[str, Any]:
    """More weights than PyTorch takes, on disk; peak memory in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sampling", "--large", str(n), str(count)], cwd=ROOT, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _large(n: int, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights")
        stored = np.memmap(path, np.float32, "w+", shape=(n,))
        random_numbers = np.random.default_rng(0)
        for start in range(0, n, 2**22):
            part = stored[start : start + 2**22]
            part[:] = random_numbers.random(len(part), np.float32)
        del stored
        weights = np.memmap(path, np.float32, "r", shape=(n,))
        try:
            next(iter(torch.utils.data.WeightedRandomSampler(torch.ones(2**24 + 1), 1)))  # type: ignore[arg-type]
            refusal = None
        except RuntimeError as error:
            refusal = str(error)
        WeightedRandomSampler([1.0], 1, seed=0).indices()
        _hand_back()
        before = _anonymous()
        start_time = time.perf_counter()
        sampler = WeightedRandomSampler(weights, count, seed=0)
        made = time.perf_counter()
        beside = _anonymous() - before
        rows = sampler.indices().numpy()
        drawn = time.perf_counter()
        mean = weights[rows[: 2**20]].mean()  # of the weight of a row drawn: 2/3 where weights are uniform
        if abs(float(mean) - 2 / 3) > 0.002:
            raise ValueError(f"draws do not follow the weights: a mean weight of {mean}")
        return {
            "weights": n, "draws": count, "seconds_to_make": round(made - start_time, 3),
            "seconds_to_draw": round(drawn - made, 3), "bytes_beside_the_weights": sampler.nbytes,
            "resident_bytes_beside_the_weights": beside, "peak_resident_bytes": _resident("VmHWM"),
            "pytorch": refusal,
        }  # fmt: skip


def _anonymous() -> int:
    """Bytes of memory that is no file's; pages of a memmap come and go as the system likes."""
    return _resident("RssAnon")


def tables(result: dict[str, Any]) -> str:
    """The page's tables, in Markdown."""
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['threads']} threads; PyTorch {machine['torch']}; "
        f"Python {machine['python']}; {result['rounds']} rounds; load {machine['load_before']:g} before the run; "
        f"{machine['date']}. Data: `benchmarks/results/sampling/cpu.json`.",
        "",
        "| draws | weights | drawn | PyTorch, s | steelyard, s | floor, s | PyTorch / steelyard |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        times = [f"{case['seconds'][who]['median']:.3g}" for who in (PYTORCH, OURS, FLOOR)]
        found = case["ratio"]
        times.append(f"{found['median']:.3g}× ({found['q1']:.3g}–{found['q3']:.3g})")
        lines.append("| " + " | ".join([case["name"], f"{case['weights']:,}", f"{case['draws']:,}", *times]) + " |")
    big = result["large"]
    sizes = ("bytes_beside_the_weights", "resident_bytes_beside_the_weights")
    mebibytes = {key: f"{big[key] / 2**20:,.0f} MiB" for key in sizes}
    lines += [
        "",
        f"{big['weights']:,} float32 weights in a file: made ready in {big['seconds_to_make']:.2g} s, "
        f"{big['draws']:,} rows drawn in {big['seconds_to_draw']:.2g} s, with {mebibytes['bytes_beside_the_weights']} "
        f"beside the weights ({big['bytes_beside_the_weights'] / big['weights']:.2f} bytes each); "
        f"{mebibytes['resident_bytes_beside_the_weights']} by the system's count. "
        f'PyTorch, of more than 2^24 weights: "{big["pytorch"]}".',
    ]
    return "\n".join(lines)


def page(text: str, result: dict[str, Any]) -> str:
    """docs/sampling.md with what is between its markers written anew."""
    return between(text, START, END, tables(result), "docs/sampling.md")


def main() -> int:
    """Exit code 0: done, results and page written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of every contender (7)")
    parser.add_argument("--large", type=int, nargs=2, metavar=("WEIGHTS", "DRAWS"), help="only this, as JSON")
    options = parser.parse_args()
    if options.large:
        print(json.dumps(_large(*options.large)))
        return 0
    result = {"machine": describe(), "rounds": options.rounds}
    result["cases"] = [run(case, options.rounds) for case in CASES]
    result["large"] = large(10**8, 10**7)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(tables(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
