"""Count labels in a Parquet file: `python -m benchmarks.counting`, from the root of the repository.

Steelyard beside the line of pandas that people write, and beside the group-by of two engines. Every sample is a process
of its own, in a new order every round, with its libraries loaded and the file in the system's cache: the first call,
which is what counting once costs, and the next, which finds memory that the process already has. Peak memory is that of
the first. A sample whose counts are wrong ends the contender.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, describe
from benchmarks.measure import quartiles, ratio
from benchmarks.memory import _hand_back, _resident
from benchmarks.pages import between
from benchmarks.table import PAGE, RESULTS

__all__ = ["CONTENDERS", "KINDS", "block", "main", "write"]

WHOLE = RESULTS / "counting" / "cpu.json"  # a folder of its own: benchmarks.table reads what lies beside it
START, END = "<!-- counting: written by benchmarks/counting.py -->", "<!-- /counting -->"
ROWS, GROUP, CLASSES, SEED = 10**8, 2**20, 100, 0
OURS, PANDAS = "steelyard", "pandas"
KINDS = ("int64", "string")
CALLS = ("first_seconds", "next_seconds")

Counts = dict[Any, int]


def _steelyard(path: str) -> Counts:
    import steelyard

    counts = steelyard.count_classes(path, "label")
    return dict(zip(counts.classes, counts.counts.tolist(), strict=True))


def _pandas(path: str) -> Counts:
    import pandas as pd

    return dict(pd.read_parquet(path, columns=["label"])["label"].value_counts().items())


def _polars(path: str) -> Counts:
    import polars as pl

    found = pl.scan_parquet(path).group_by("label").agg(pl.len()).collect(engine="streaming")
    return dict(found.iter_rows())


def _duckdb(path: str) -> Counts:
    import duckdb

    return dict(duckdb.execute("select label, count(*) from read_parquet(?) group by label", [path]).fetchall())


CONTENDERS: dict[str, Callable[[str], Counts]] = {
    OURS: _steelyard,
    PANDAS: _pandas,
    "Polars": _polars,
    "DuckDB": _duckdb,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done. 1: done, but a contender counted wrongly. 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"labels in the file ({ROWS:,})")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="times of every contender (5), 2 or more")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON; only a run of all rows is kept without it")
    parser.add_argument("--sample", nargs=2, metavar=("CONTENDER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sample:
        print(json.dumps(_measure(*options.sample)))
        return 0
    if options.rows < 1 or options.rounds < 2:
        parser.error("--rows must be 1 or more, and --rounds 2 or more")
    output = options.output or (WHOLE if options.rows == ROWS else None)
    if output is not None and output.is_dir():
        parser.error(f"--output must be a file; got the folder {output}")
    result = _run(options.rows, options.rounds)
    print(_table(result))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(_as_text(result), encoding="utf-8")
    if output == WHOLE:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return int(any("refused" in entry for case in result["cases"] for entry in case["contenders"].values()))


def write(path: Path, kind: str, rows: int) -> Counts:
    """A file as pandas writes it by default, in groups of 2**20 rows; its true counts. Shares fall to 1 in 1,000."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    order = np.random.default_rng(SEED)
    shares = np.cumsum(1000 ** -np.linspace(0, 1, CLASSES))
    names = np.array([f"class {number}" for number in range(CLASSES)]) if kind == "string" else np.arange(CLASSES)
    bins = np.zeros(CLASSES, dtype=np.int64)
    with parquet.ParquetWriter(path, pa.schema([("label", getattr(pa, kind)())])) as file:
        for start in range(0, rows, GROUP):
            draw = np.searchsorted(shares, order.random(min(GROUP, rows - start)) * shares[-1], side="right")
            bins += np.bincount(draw, minlength=CLASSES)
            column = pa.DictionaryArray.from_arrays(pa.array(draw), pa.array(names)).dictionary_decode()
            file.write_table(pa.table({"label": column}))
    return {name: count for name, count in zip(names.tolist(), bins.tolist(), strict=True) if count}


def _run(rows: int, rounds: int) -> dict[str, Any]:
    machine = describe()
    versions = {name: importlib.import_module(name).__version__ for name in ("pandas", "polars", "pyarrow", "duckdb")}
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"{kind}.parquet"
            _say(f"{kind}: writing {rows:,} labels")
            truth = write(path, kind, rows)
            cases.append({"labels": kind, "file_bytes": path.stat().st_size, **_case(str(path), truth, rounds)})
    protocol = {"rows": rows, "rounds": rounds, "classes": CLASSES, "row_group": GROUP, "seed": SEED}
    return {"machine": machine | versions, "protocol": protocol, "cases": cases}


def _case(path: str, truth: Counts, rounds: int) -> dict[str, Any]:
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    found: dict[str, dict[str, Any]] = {name: {} for name in CONTENDERS}
    order = random.Random(SEED)
    for number in range(rounds):
        for name in order.sample(list(CONTENDERS), len(CONTENDERS)):
            if found[name]:
                continue
            _say(f"round {number + 1} of {rounds}: {name}")
            sample = _sample(name, path)
            if dict(map(tuple, sample.pop("counts"))) != truth:
                found[name] = {"refused": "its counts are not those that were written"}
            samples[name].append(sample)
    names = [name for name in CONTENDERS if not found[name]]
    for name in names:
        for when in CALLS:
            found[name][when] = quartiles([sample[when] for sample in samples[name]])
        peaks = [sample["peak_extra_bytes"] for sample in samples[name]]
        found[name]["peak_extra_bytes"] = None if None in peaks else max(peaks)
    rivals = [name for name in names if name != OURS] if OURS in names else []
    return {
        "contenders": found,
        "ratios": {
            f"{name} / {OURS}": {
                when: ratio([s[when] for s in samples[name]], [s[when] for s in samples[OURS]]) for when in CALLS
            }
            for name in rivals
        },
    }


def _sample(name: str, path: str) -> dict[str, Any]:
    """Seconds of the first call and of the next, and the memory of the first, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.counting", "--sample", name, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"benchmarks: {name} failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measure(name: str, path: str) -> dict[str, Any]:
    """One sample. Bytes are those over what the process holds once its libraries are loaded, where the system says."""
    count, peak = CONTENDERS[name], Path("/proc/self/clear_refs")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.parquet"
        write(small, "int64", 1000)
        count(str(small))  # loads what is loaded once
    Path(path).read_bytes()
    _hand_back()
    before = _resident("VmRSS") if peak.exists() else 0
    if peak.exists():
        peak.write_text("5")
    times = []
    for _ in CALLS:
        start = time.perf_counter()
        counts = count(path)
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            extra = max(0, _resident("VmHWM") - before) if peak.exists() else None
    return {**dict(zip(CALLS, times, strict=True)), "peak_extra_bytes": extra, "counts": list(counts.items())}


def _say(text: str) -> None:
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)


def _table(result: dict[str, Any]) -> str:
    """Markdown: a row for each contender."""
    heads = ("first call, s", "/ steelyard", "next call, s", "/ steelyard", "extra memory, MiB")
    lines = [f"| labels | contender | {' | '.join(heads)} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for case in result["cases"]:
        for name, entry in case["contenders"].items():
            if "refused" in entry:
                cells = [entry["refused"], *["–"] * 4]
            else:
                against = case["ratios"].get(f"{name} / {OURS}", {})
                cells = [cell for when in CALLS for cell in (f"{entry[when]['median']:.3g}", _times(against.get(when)))]
                peak = entry["peak_extra_bytes"]
                cells.append("–" if peak is None else f"{peak / 2**20:.0f}")
            lines.append(f"| {case['labels']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(found: dict[str, float] | None) -> str:
    return f"{found['median']:.3g}× ({found['q1']:.3g}–{found['q3']:.3g})" if found else "–"


def block() -> str:
    """What docs/benchmarks.md says of the committed results."""
    if not WHOLE.exists():
        return "No results are committed yet: `python -m benchmarks.counting` makes them."
    result = json.loads(WHOLE.read_text(encoding="utf-8"))
    machine, protocol = result["machine"], result["protocol"]
    where = f"{machine['processor']}, {machine['threads']} threads"
    words = (
        f"{protocol['rows']:,} labels of {protocol['classes']} classes in one file of Parquet, in groups of "
        f"{protocol['row_group']:,} rows as pandas writes them; {where}; "
        f"Steelyard {machine['steelyard']}, pandas {machine['pandas']}, Polars {machine['polars']}, DuckDB "
        f"{machine['duckdb']}, PyArrow {machine['pyarrow']}; medians of {protocol['rounds']} rounds, ratios of times "
        f"in the same round with their quartiles; load {machine['load_before']:g} before the run; {machine['date']}. "
        "Data: `benchmarks/results/counting/cpu.json`."
    )
    return f"{words}\n\n{_table(result)}"


def page(text: str) -> str:
    """docs/benchmarks.md with what is between the markers written anew."""
    return between(text, START, END, block(), "docs/benchmarks.md, for counting,")


def _as_text(result: dict[str, Any]) -> str:
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
