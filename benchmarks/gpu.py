"""Time the losses on a GPU: `python -m benchmarks.gpu`, from the root of the repository.

Right first: loss and gradient of every contender are held against PyTorch's line in float64 before anything is timed.
Contenders take turns in a new order every round, between events of the device, on inputs that take turns too, so many
that none of them is in the cache when its turn comes (64 of them at most). The floor is a copy on the device, of as
many bytes as a loss has to move: logits in, gradient out, a dense target in. Beside eager PyTorch run `torch.compile`,
refused unless it captured one whole graph, and Liger-Kernel and torchvision where they are installed.

`--dry` runs everything on tiny tensors of the CPU, the kernels under Triton's interpreter: it shows that this script
works, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.check import errors, tolerance, truth
from benchmarks.contenders import COMPILED, EAGER, OURS, Contender, NotComparable, make
from benchmarks.gpu_linear import CASES as LINEAR
from benchmarks.gpu_linear import run as run_linear
from benchmarks.machine import describe, without_paths
from benchmarks.measure import digits, quartiles, ratio

__all__ = ["CASES", "Clock", "main", "run_case", "sampled", "tables"]

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/gpu.json"
COPY, LIGER, VISION = "copy", "Liger-Kernel", "torchvision"
HALF, FULL = torch.bfloat16, torch.float32
SEED = 0
ELEMENTS = 2**27
"""Logits of a case with many classes: 256 MiB of bfloat16, more than any cache holds."""
LEAST_SAMPLE = 0.02  # seconds


def _many(classes: int) -> tuple[int, int]:
    return ELEMENTS // classes, classes


CASES = (
    *(
        Case("cross_entropy", shape, reason, dtype)
        for dtype in (HALF, FULL)
        for shape, reason in (
            ((128, 10), "a small batch: what a call costs before any work"),
            ((2**22, 10), "rows shorter than a word of memory is wide"),
            (_many(100), "some rows for each program"),
            (_many(1000), "ImageNet's classes"),
            (_many(4096), "one row for each program"),
            (_many(32000), "a vocabulary, as long as rows on chip may be"),
            (_many(50257), "a vocabulary of odd length, and too long for that"),
            (_many(131072), "rows that fit the L2 cache, one for each multiprocessor"),
            (_many(262144), "rows that do not"),
            ((8, 21, 512, 512), "segmentation: classes a megabyte apart"),
        )
    ),
    Case("label_smoothing", _many(1000), "every class is part of every row's loss", HALF),
    Case("label_smoothing", _many(32000), "the same, walked over tile by tile", HALF),
    Case("soft_targets", _many(1000), "mixup: the target is as large as the logits", HALF),
    Case("ignore_index", (8, 21, 512, 512), "segmentation with unlabelled pixels", HALF),
    *(
        Case("bce", shape, reason, dtype)
        for dtype in (HALF, FULL)
        for shape, reason in (
            ((2**20, 80), "multi-label with COCO's classes"),
            ((2**26, 1), "one logit a row, as many as an epoch of click data"),
        )
    ),
    Case("sigmoid_focal", (2**20, 80), "a detector's anchors", HALF),
    Case("sigmoid_focal", (2**20, 80), "a detector's anchors", FULL),
)
DRY = (
    Case("cross_entropy", (6, 10), "dry"),
    Case("cross_entropy", (2, 5, 3, 4), "dry", HALF),
    Case("label_smoothing", (5, 33), "dry", HALF),
    Case("bce", (6, 4), "dry"),
    Case("sigmoid_focal", (6, 4), "dry", HALF),
)


# ------------------------------------------------------------------------------------------------------------- clocks


class Clock:
    """Seconds between two moments of a device: by its events on a GPU, by the host's clock without one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, work: Callable[[], None]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self.device)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def extra_bytes(self, work: Callable[[], None]) -> int | None:
        """Peak of memory over what is there before; None without a GPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def sampled(
    clock: Clock, work: dict[str, Callable[[int], None]], rounds: int, before: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of a pass, one for each round, by name; ``work`` is given the number of the pass."""
    repeats = {}
    for name, once in work.items():
        for number in range(3):
            before()
            once(number)
        count = 8
        seconds = clock.seconds(lambda once=once, count=count: [once(n) for n in range(count)] and None) / count
        repeats[name] = 1 if clock.device.type != "cuda" else max(4, min(500, int(LEAST_SAMPLE / max(seconds, 1e-6))))
    order, samples = random.Random(SEED), {name: [] for name in work}
    for _ in range(rounds):
        for name in order.sample(list(work), len(work)):
            before()
            once, count = work[name], repeats[name]

            def passes(once: Callable[[int], None] = once, count: int = count) -> None:
                for number in range(count):
                    once(number)

            samples[name].append(clock.seconds(passes) / count)
    return samples


# ---------------------------------------------------------------------------------------------------------- contenders


def others(case: Case) -> dict[str, Callable[..., Tensor]]:
    """Lines of other libraries that compute the loss of a case, where they are installed."""
    found: dict[str, Callable[..., Tensor]] = {}
    if case.loss in ("cross_entropy", "label_smoothing") and len(case.shape) == 2 and _installed("liger-kernel"):
        from liger_kernel.transformers.functional import liger_cross_entropy

        smoothing = 0.1 if case.loss == "label_smoothing" else 0.0
        found[LIGER] = lambda z, y, w: liger_cross_entropy(z, y, weight=w.float(), label_smoothing=smoothing)
    if case.loss == "sigmoid_focal" and _installed("torchvision"):
        from torchvision.ops import sigmoid_focal_loss

        found[VISION] = lambda z, t: sigmoid_focal_loss(z, t, reduction="mean")
    return found


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _copy(case: Case, logits: list[Tensor], rest: tuple[Tensor, ...]) -> Callable[[int], None]:
    """As many bytes as the loss has to move."""
    out = torch.empty_like(logits[0])

    def once(number: int) -> None:
        z = logits[number % len(logits)].detach()
        torch.add(z, rest[0], out=out) if case.definition.dense_target else out.copy_(z)

    return once


# ---------------------------------------------------------------------------------------------------------------- cases


def run_case(case: Case, device: torch.device, rounds: int, backend: str = "inductor") -> dict[str, Any]:
    """What a case gave, ready for JSON. A contender that fails or is wrong says so and has no times."""
    logits, rest = case.tensors(SEED)
    logits, rest = logits.to(device), tuple(t.to(device) for t in rest)
    known = truth(case, logits, rest)
    found: dict[str, dict[str, Any]] = {}
    right: list[Contender] = []
    lines = others(case)
    for name in (EAGER, COMPILED, OURS, *lines):
        entry = found[name] = {}
        try:
            made = Contender(name, lines[name]) if name in lines else make(name, case, logits, rest, backend=backend)
            wrong = errors(made, logits, rest, known)
            entry["error"] = max(digits(e) for e in (wrong.loss, wrong.gradient_largest, wrong.gradient_total))
            if not wrong.within(tolerance(name, case.dtype)):
                raise NotComparable(f"wrong by {entry['error']:g}, more than {tolerance(name, case.dtype):g}")
            right.append(made)
        except Exception as error:
            entry["refused"] = without_paths(str(error).strip().splitlines()[0][:200] if str(error) else repr(error))
    del known
    return _timed(case, logits, rest, right, found, Clock(device), rounds)


def _timed(
    case: Case, logits: Tensor, rest: tuple[Tensor, ...], right: list[Contender], found: dict[str, dict[str, Any]],
    clock: Clock, rounds: int,
) -> dict[str, Any]:  # fmt: skip
    cache = 0
    if clock.device.type == "cuda":
        cache = torch.cuda.get_device_properties(clock.device).L2_cache_size
    turns = max(2, min(64, -(-4 * cache // max(case.logit_bytes, 1))))
    leaves = [logits.clone().requires_grad_() for _ in range(turns)]

    def forward(contender: Contender) -> Callable[[int], None]:
        return lambda number: contender.run(leaves[number % turns], *rest) is None and None

    def both(contender: Contender) -> Callable[[int], None]:
        def once(number: int) -> None:
            leaf = leaves[number % turns]
            contender.run(leaf, *rest).backward()
            leaf.grad = None

        return once

    def restore() -> None:  # some write their gradient over the logits
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(logits)

    work: dict[str, Callable[[int], None]] = {COPY: _copy(case, leaves, rest)}
    for contender in right:
        work[f"{contender.name}: forward"] = forward(contender)
        work[f"{contender.name}: both"] = both(contender)
    graphs = {c.name: c.graphs() for c in right if c.graphs is not None}
    with _quiet():
        samples = sampled(clock, work, rounds, restore)
    floor = samples[COPY]
    for contender in right:
        entry = found[contender.name]
        if contender.graphs is not None and contender.graphs() != graphs[contender.name]:
            entry["refused"] = "torch.compile captured another graph while it was timed"
            continue
        for what in ("forward", "both"):
            entry[f"{what}_seconds"] = quartiles(samples[f"{contender.name}: {what}"])
        times = samples[f"{contender.name}: both"]
        entry["gigabytes_per_second"] = digits(case.floor_bytes / entry["both_seconds"]["median"] / 1e9)
        entry["share_of_copy"] = ratio(floor, times)
        if f"{OURS}: both" in samples:
            entry["times_ours"] = ratio(times, samples[f"{OURS}: both"])
        entry["extra_bytes"] = clock.extra_bytes(lambda c=contender: both(c)(0))
    return {
        "case": case.name, "reason": case.reason, "inputs_in_turn": turns, "floor_bytes": case.floor_bytes,
        "copy_seconds": quartiles(floor),
        "copy_gigabytes_per_second": digits(case.floor_bytes / quartiles(floor)["median"] / 1e9), "contenders": found,
    }  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# -------------------------------------------------------------------------------------------------------------- report


def machine(device: torch.device) -> dict[str, Any]:
    """The GPU in words, and versions."""
    found = {
        key: value for key, value in describe().items() if key in ("date", "steelyard", "torch", "python", "system")
    }
    found |= {name: _installed(name) for name in ("triton", "liger-kernel", "torchvision")}
    if device.type != "cuda":
        return {**found, "device": "no GPU: a dry run, whose times mean nothing"}
    properties = torch.cuda.get_device_properties(device)
    return {
        **found, "device": properties.name, "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory, "l2_bytes": properties.L2_cache_size, "cuda": torch.version.cuda,
    }  # fmt: skip


def _beside_ours(entry: dict[str, Any]) -> tuple[str, str]:
    """How many times ours a contender takes, and its memory in MiB, as far as either was measured."""
    times = f"{entry['times_ours']['median']:.3g}×" if "times_ours" in entry else "–"
    return times, "–" if entry["extra_bytes"] is None else f"{entry['extra_bytes'] / 2**20:,.0f}"


def tables(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    about = result["machine"]
    lines = [
        f"{about['device']}; PyTorch {about['torch']}, Triton {about['triton']}; {result['rounds']} rounds; "
        f"{about['date']}. Data: `benchmarks/results/gpu.json`.",
        "",
        "| case | contender | forward + backward, µs | GB/s | share of a copy | contender / steelyard | extra MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        for name, entry in case["contenders"].items():
            if "refused" in entry:
                lines.append(f"| {case['case']} | {name} | not timed: {entry['refused']} | – | – | – | – |")
                continue
            times, extra = _beside_ours(entry)
            lines.append(
                f"| {case['case']} | {name} | {entry['both_seconds']['median'] * 1e6:,.4g} | "
                f"{entry['gigabytes_per_second']:,.4g} | {entry['share_of_copy']['median']:.0%} | {times} | {extra} |"
            )
    lines += ["", "| linear layer | contender | forward + backward, ms | contender / steelyard | extra MiB |"]
    lines += ["| --- | --- | ---: | ---: | ---: |"]
    for case in result["linear"]:
        for name, entry in case["contenders"].items():
            if "refused" in entry:
                lines.append(f"| {case['case']} | {name} | not timed: {entry['refused']} | – | – |")
                continue
            times, extra = _beside_ours(entry)
            lines.append(f"| {case['case']} | {name} | {entry['seconds']['median'] * 1e3:,.4g} | {times} | {extra} |")
    return "\n".join(lines)


@contextmanager
def _dry() -> Iterator[None]:
    """The kernels on the CPU, by Triton's interpreter."""
    import numpy as np

    from steelyard.ops import cpu, gpu

    before = set(gpu.DEVICES)
    with ExitStack() as stack:
        stack.enter_context(cpu.using("reference"))
        stack.enter_context(np.errstate(all="ignore"))
        gpu.DEVICES.add("cpu")
        stack.callback(lambda: (gpu.DEVICES.clear(), gpu.DEVICES.update(before)))
        yield


def _resumed(new: dict[str, Any], old: dict[str, Any], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What an earlier run has measured, if it was one of the same kind."""
    for what in ("device", "torch", "triton", "steelyard"):
        if new["machine"][what] != old["machine"][what]:
            parser.error(f"--resume: {what} was {old['machine'][what]}, and is {new['machine'][what]}")
    if new["rounds"] != old["rounds"]:
        parser.error(f"--resume: --rounds was {old['rounds']}")
    return old


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: done and written; 1: some contender was refused; 2: wrong usage, or no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of every contender (20)")
    parser.add_argument("--cases", default="", metavar="PART", help="only cases whose name holds this")
    parser.add_argument("--output", type=Path, metavar="FILE", help="elsewhere than benchmarks/results/gpu.json")
    parser.add_argument("--resume", action="store_true", help="leave alone what the output has of such a run")
    parser.add_argument("--dry", action="store_true", help="tiny tensors, without a GPU; needs --output")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more")
    if (options.dry or options.cases) and options.output is None:
        parser.error("only a whole run is kept by itself: --dry and --cases need --output")
    if not options.dry and not torch.cuda.is_available():
        parser.error("there is no GPU that PyTorch can use; --dry runs without one")
    device = torch.device("cpu" if options.dry else "cuda")
    result: dict[str, Any] = {"machine": machine(device), "rounds": options.rounds, "cases": [], "linear": []}
    with ExitStack() as stack:
        if options.dry:
            os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
            stack.enter_context(_dry())
        backend = "eager" if options.dry else "inductor"
        output = options.output or RESULT
        output.parent.mkdir(parents=True, exist_ok=True)
        if options.resume and output.exists():
            result = _resumed(result, json.loads(output.read_text(encoding="utf-8")), parser)
        known = {case["case"] for case in (*result["cases"], *result["linear"])}
        for case in DRY if options.dry else CASES:
            if options.cases in case.name and case.name not in known:
                result["cases"].append(run_case(case, device, options.rounds, backend))
                print(case.name, flush=True)
                # After each case: what was measured outlives a run that is cut off.
                output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for layer in LINEAR:
            wanted = options.cases in f"linear-{layer.name}" and layer.dry == options.dry
            if wanted and layer.name not in known:
                result["linear"].append(run_linear(layer, Clock(device), options.rounds, sampled))
                output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables(result))
    entries = [entry for case in (*result["cases"], *result["linear"]) for entry in case["contenders"].values()]
    return int(any("refused" in entry for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
