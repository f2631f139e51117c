"""Run the benchmarks: `python -m benchmarks.run`, from the root of the repository."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case, find
from benchmarks.machine import describe
from benchmarks.measure import LEAST_SAMPLE
from benchmarks.memory import SEED
from benchmarks.suite import run_case
from benchmarks.table import HEADINGS, RESULTS, headline, overview

__all__ = ["main"]

QUICK_BYTES = 32 << 20
WHOLE = RESULTS / "cpu.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done. 1: done, but a contender was refused, or failed. 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if importlib.util.find_spec("rich") is None:
            raise ValueError("benchmarks: 'rich' must be installed, for the progress bar: pip install '.[all]'.")
        cases = find(options.cases)
        if options.quick:
            cases = tuple(case for case in cases if case.logit_bytes <= QUICK_BYTES)
        if not cases:
            raise ValueError(f"benchmarks: '--quick' leaves out shapes over {QUICK_BYTES >> 20} MiB; none is left.")
        rounds = options.rounds if options.rounds is not None else (5 if options.quick else 25)
        if rounds < 2:
            raise ValueError(f"benchmarks: '--rounds' must be 2 or more, for a spread; got {rounds}.")
        output = _output(options.output, whole=cases == CASES and not options.quick)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        result = _run(cases, rounds, options.seed)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; nothing was written.", file=sys.stderr)
        return 130
    result["protocol"]["quick"] = options.quick
    _show(result)
    refused = [
        f"{case['name']}, {name}: {entry['refused']}"
        for case in result["cases"]
        for name, entry in case["contenders"].items()
        if "refused" in entry
    ]
    print(*(f"not timed: {line}" for line in refused), sep="\n", end="\n" if refused else "")
    if output:
        output.write_text(_as_text(result), encoding="utf-8")
        print(f"Written to {output.name}; python -m benchmarks.table puts benchmarks/results/ into docs/benchmarks.md.")
    return 1 if refused else 0


def _run(cases: Sequence[Case], rounds: int, seed: int) -> dict[str, Any]:
    machine = describe()
    results = []
    with _progress(len(cases) * (rounds + 2)) as advance:
        for case in cases:
            advance(0, f"{case.name}: compile and check")
            results.append(run_case(case, rounds=rounds, seed=seed, tick=_naming(case, advance)))
    protocol = {"rounds": rounds, "seed": seed, "least_sample_ms": 1e3 * LEAST_SAMPLE}
    return {"machine": machine, "protocol": protocol, "cases": results}


def _naming(case: Case, advance: Callable[[int, str], None]) -> Callable[[str], None]:
    return lambda text: advance(1, f"{case.name}: {text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Time Steelyard's losses beside PyTorch's, after comparing their values.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small shapes and 5 rounds: does it run? No result to quote"
    )
    parser.add_argument(
        "--cases", default="", metavar="PATTERN", help="cases whose name holds this; * and ? are wildcards"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="samples of every contender (25)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the order in which contenders run (0)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="JSON; without it, only a whole run is kept, in benchmarks/results/cpu.json",
    )
    return parser


def _output(given: Path | None, *, whole: bool) -> Path | None:
    """Where to write, tried before hours of work. Raises: ValueError: it cannot be written."""
    if given is None and not whole:
        return None
    path = given or WHOLE
    if path.is_dir():
        raise ValueError(f"benchmarks: '--output' must be a file; got the folder {path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise ValueError(
            f"benchmarks: '--output' must be a file that can be written; got {path}: {error.strerror}."
        ) from None
    if path.stat().st_size == 0:
        path.unlink()  # made by the trial; nothing half-written is left if the run is interrupted
    return path


def _as_text(result: dict[str, Any]) -> str:
    """JSON to be read and compared by people too: lists of numbers on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\s+[\d.,\se+-]+\]", lambda found: " ".join(found.group().split()), text) + "\n"


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in overview(result):
        table.add_row(*row)
    console.print(table)
    console.print(headline(result))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error with the time left; gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(), TimeElapsedColumn(), TextColumn("so far,"), TimeRemainingColumn(), TextColumn("left"),
        TextColumn("{task.description}"), console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=total)
        yield lambda steps, text: bar.update(task, advance=steps, description=text)


if __name__ == "__main__":
    sys.exit(main())
