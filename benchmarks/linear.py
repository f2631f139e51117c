"""Time linear_cross_entropy beside PyTorch's: `python -m benchmarks.linear`, from the root of the repository.

Right first: loss and gradients of every contender are held against PyTorch's line in float64 on some rows before
anything is timed. Contenders take turns in a new order every round. The floor are the three matrix products that cannot
be avoided: logits, gradient of the features, gradient of the weight. Extra memory is the peak of one forward and
backward pass over what is there before, the gradients included, in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import steelyard.functional
from benchmarks.machine import describe
from benchmarks.measure import quartiles, ratio
from benchmarks.memory import _hand_back, _resident
from benchmarks.pages import between

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/linear/cpu.json"
PAGE = ROOT / "docs/kernels.md"
START, END = "<!-- results: written by benchmarks/linear.py -->", "<!-- /results -->"
EAGER, CHUNKED, OURS, FLOOR = "PyTorch eager", "PyTorch in chunks", "steelyard", "three products"


@dataclass(frozen=True)
class Case:
    """Features ``(rows, size)`` into so many classes; who takes part."""

    rows: int
    size: int
    classes: int
    contenders: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.size}x{self.classes}"

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, weight, labels and class weights, the same for every contender."""
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(self.rows, self.size, generator=generator)
        weight = torch.randn(self.classes, self.size, generator=generator) / self.size**0.5
        labels = torch.randint(0, self.classes, (self.rows,), generator=generator)
        class_weight = torch.rand(self.classes, generator=generator) + 0.5
        return features.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels, class_weight.to(dtype)


CASES = (
    Case(2048, 512, 32000, (EAGER, CHUNKED, OURS, FLOOR)),
    Case(8192, 256, 128_000, (OURS,)),
)


def _eager(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, w), y, weight=v)


def _chunked(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()  # from PyTorch 2.13 on
    found: Tensor = F.linear_cross_entropy(x, w, y, weight=v, options=options)
    return found


def _ours(x: Tensor, w: Tensor, y: Tensor, v: Tensor, memory_budget: int | None = None) -> Tensor:
    return steelyard.functional.linear_cross_entropy(x, w, y, weight=v, memory_budget=memory_budget)


LINES: dict[str, Callable[..., Tensor]] = {EAGER: _eager, CHUNKED: _chunked, OURS: _ours}


def _products(x: Tensor, w: Tensor) -> None:
    with torch.no_grad():
        logits = x @ w.t()
        _ = logits @ w
        _ = logits.t() @ x


def check(case: Case, who: str) -> float:
    """The largest relative error of loss and gradients on some rows. Raises: ValueError: above 1e-4."""
    small = Case(min(case.rows, 1500), case.size, min(case.classes, 3000), ())
    exact, given = small.tensors(torch.float64), small.tensors()
    truth = [t.detach() for t in _with_gradients(_eager, exact)]
    line = LINES[who]
    if who == OURS:  # so few rows would else be taken at once, and it is chunks that are timed
        line = partial(line, memory_budget=small.rows * small.classes)  # a quarter of the logits
    found = _with_gradients(line, given)
    worst = max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True))
    if not worst < 1e-4:
        raise ValueError(f"{who}: an error of {worst:g}")
    return float(f"{worst:.2g}")


def _with_gradients(line: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    loss = line(*tensors)
    return [loss.detach(), *torch.autograd.grad(loss, tensors[:2])]


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Values first, then times and memory."""
    entry: dict[str, Any] = {"rows": case.rows, "size": case.size, "classes": case.classes, "refused": {}}
    contenders = []
    entry["error"] = {}
    for who in case.contenders:
        try:
            if who != FLOOR:
                entry["error"][who] = check(case, who)
            contenders.append(who)
        except (ValueError, AttributeError, TypeError, RuntimeError) as error:
            entry["refused"][who] = str(error).splitlines()[0]
    tensors = case.tensors()
    samples: dict[str, list[float]] = {who: [] for who in contenders}
    order = random.Random(0)
    gc.disable()
    for _ in range(rounds):
        for who in order.sample(contenders, len(contenders)):
            start = time.perf_counter()
            if who == FLOOR:
                _products(tensors[0], tensors[1])
            else:
                _with_gradients(LINES[who], tensors)
            samples[who].append(time.perf_counter() - start)
    gc.enable()
    entry["seconds"] = {who: quartiles(times) for who, times in samples.items()}
    entry["ratio"] = {who: ratio(samples[who], samples[OURS]) for who in contenders if who not in (OURS, FLOOR)}
    if FLOOR in contenders:
        entry["times_the_products"] = ratio(samples[OURS], samples[FLOOR])
    entry["extra_bytes"] = {who: memory(case, who) for who in contenders if who != FLOOR}
    entry["gradient_bytes"] = 4 * case.size * (case.rows + case.classes)
    return entry


def memory(case: Case, who: str) -> int:
    """Peak bytes of a pass over what was there before."""
    command = [sys.executable, "-m", "benchmarks.linear", "--memory", case.name, who]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout))


def _memory(case: Case, who: str) -> int:
    tensors = case.tensors()
    _with_gradients(LINES[who], Case(4, case.size, 8, ()).tensors())
    _hand_back()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    kept = _with_gradients(LINES[who], tensors)
    peak = _resident("VmHWM") - before
    del kept
    return peak


def tables(result: dict[str, Any]) -> str:
    """The page's table, in Markdown."""
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['threads']} threads; PyTorch {machine['torch']}; "
        f"{result['rounds']} rounds; load {machine['load_before']:g} before the run; {machine['date']}. "
        "Data: `benchmarks/results/linear/cpu.json`.",
        "",
        "| features into classes | contender | forward + backward, s | contender / steelyard | extra memory, MiB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        shape = f"{case['rows']} × {case['size']} → {case['classes']:,}"
        for who, times in case["seconds"].items():
            found = case["ratio"].get(who)
            against = f"{found['median']:.3g}× ({found['q1']:.3g}–{found['q3']:.3g})" if found else "–"
            extra = case["extra_bytes"].get(who)
            memory = "–" if extra is None else f"{extra / 2**20:,.0f}"
            lines.append(f"| {shape} | {who} | {times['median']:.3g} | {against} | {memory} |")
        for who, why in case["refused"].items():
            lines.append(f"| {shape} | {who} | not timed: {why} | – | – |")
    sentences = []
    for case in result["cases"]:
        if "times_the_products" in case:
            found = case["times_the_products"]
            sentences.append(
                f"At {case['rows']} × {case['size']} → {case['classes']:,} ours takes {found['median']:.3g} times "
                f"({found['q1']:.3g}–{found['q3']:.3g}) the three products."
            )
    gradients = ", ".join(f"{case['gradient_bytes'] / 2**20:,.0f} MiB" for case in result["cases"])
    sentences.append(f"Gradients, which are in the extra memory, take {gradients}.")
    return "\n".join([*lines, "", " ".join(sentences)])


def page(text: str, result: dict[str, Any]) -> str:
    """docs/kernels.md with what is between its markers written anew."""
    return between(text, START, END, tables(result), "docs/kernels.md")


def main() -> int:
    """Exit code 0: done, results and page written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of every contender (7)")
    parser.add_argument("--memory", nargs=2, metavar=("ROWSxSIZExCLASSES", "WHO"), help="only this, as JSON")
    options = parser.parse_args()
    if options.memory:
        rows, size, classes = map(int, options.memory[0].split("x"))
        print(json.dumps(_memory(Case(rows, size, classes, ()), options.memory[1])))
        return 0
    result = {"machine": describe(), "rounds": options.rounds}
    result["cases"] = [run(case, options.rounds if case.classes < 10**5 else 2) for case in CASES]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(tables(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
