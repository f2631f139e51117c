"""From results to the tables of docs/benchmarks.md: `python -m benchmarks.table`. A test holds the page against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import between

__all__ = ["HEADINGS", "PAGE", "RESULTS", "headline", "load", "overview", "page", "tables"]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
START, END = "<!-- results: written by benchmarks/table.py -->", "<!-- /results -->"
NONE = "No results are committed yet: `make bench` makes them."
EAGER, COMPILED, OURS, IN_PLACE, FLOOR = "PyTorch eager", "torch.compile", "steelyard", "steelyard in place", "floor"


def load(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """The committed results, by file name."""
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def page(text: str, results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """docs/benchmarks.md with what is between its markers written anew."""
    block = "\n\n".join(tables(name, result) for name, result in results) or NONE
    return between(text, START, END, block, "docs/benchmarks.md")


def tables(name: str, result: dict[str, Any]) -> str:
    """One machine's results: where they are from, the headline, and everything."""
    parts = [
        f"## {_where(result['machine'])}",
        _circumstances(name, result),
        _markdown(HEADINGS, overview(result), words=2),
        headline(result),
        "### Everything measured",
        _everything(result),
    ]
    refused = _refused(result)
    if refused:
        parts += ["Not timed:", refused]
    return "\n\n".join(parts)


HEADINGS = (
    "loss", "shape", "eager, ms", "compiled, ms", "steelyard, ms", "in place, ms", "floor, ms",
    "eager / steelyard", "compiled / steelyard", "steelyard / floor",
)  # fmt: skip


def overview(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Forward and backward together, a row for each case under ``HEADINGS``: medians, and ratios with quartiles."""
    rows = []
    for case in result["cases"]:
        found = case["contenders"]
        times = [_median(found.get(who, {})) for who in (EAGER, COMPILED, OURS, IN_PLACE, FLOOR)]
        against = [_times(case["ratios"].get(f"{who} / {OURS}", {}).get("both")) for who in (EAGER, COMPILED)]
        of_floor = _times(found.get(OURS, {}).get("times_the_floor"), slower=False)
        rows.append((case["loss"], _shape(case), *times, *against, of_floor))
    return rows


def headline(result: dict[str, Any]) -> str:
    """In words, where we are slower; the table says where we are faster."""
    sentences = []
    for rival in (EAGER, COMPILED):
        compared = [case for case in result["cases"] if f"{rival} / {OURS}" in case["ratios"]]
        slower = [case for case in compared if case["ratios"][f"{rival} / {OURS}"]["both"]["median"] < 1]
        where = "; ".join(f"{case['loss']} {_shape(case)}" for case in slower)
        if compared:
            said = f"at {len(slower)} of {len(compared)}: {where}" if slower else f"at none of {len(compared)}"
            sentences.append(f"Slower than {rival} {said}.")
    return " ".join(sentences) or "Nothing could be compared."


def _everything(result: dict[str, Any]) -> str:
    headings = (
        "loss", "shape", "contender", "forward, ms", "backward, ms", "both, ms", "GB/s", "/ floor",
        "extra memory, MiB", "error of loss", "error of gradient",
    )  # fmt: skip
    rows = []
    for case in result["cases"]:
        for who, entry in case["contenders"].items():
            if "times" not in entry:
                continue
            error = entry.get("error", {})
            of_gradient = [error[key] for key in ("gradient_largest", "gradient_total") if key in error]
            rows.append(
                (
                    case["loss"], _shape(case), who,
                    *(_spread(entry["times"].get(p)) for p in ("forward", "backward", "both")),
                    f"{entry['gigabytes_per_second']:.3g}",
                    _times(entry.get("times_the_floor"), slower=False),
                    _mebibytes(entry.get("peak_extra_bytes")),
                    _exponent(error.get("loss")), _exponent(max(of_gradient, default=None)),
                )
            )  # fmt: skip
    return _markdown(headings, rows, words=3)


def _refused(result: dict[str, Any]) -> str:
    return "\n".join(
        f"- {case['loss']}, {_shape(case)}, {who}: {entry['refused']}"
        for case in result["cases"]
        for who, entry in case["contenders"].items()
        if "refused" in entry
    )


def _where(machine: dict[str, Any]) -> str:
    threads = f"{machine['threads']} thread" + ("" if machine["threads"] == 1 else "s")
    return f"{machine['processor']}, {machine['vector_instructions']}, {threads}"


def _circumstances(name: str, result: dict[str, Any]) -> str:
    machine, protocol = result["machine"], result["protocol"]
    pages = machine["huge_pages"]
    words = [
        f"Steelyard {machine['steelyard']}", f"PyTorch {machine['torch']}", f"Python {machine['python']}",
        machine["compiler"] or "no g++", machine["system"], f"{machine['cores']} cores",
        f"load {machine['load_before']:g} before the run",
        f"huge pages: {pages['system'] or 'unknown'}, "
        + ("asked for by PyTorch too" if pages["asked_for_by_torch"] else "not asked for by PyTorch")
        + (", got by the floor" if pages["floor_got_them"] else ", not got by the floor"),
        f"{protocol['rounds']} rounds" + (", a quick run: not to be quoted" if protocol["quick"] else ""),
        machine["date"],
    ]  # fmt: skip
    return f"{'; '.join(words)}. Data: `benchmarks/results/{name}`."


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """A table whose first ``words`` columns are words, and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(headings) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def _shape(case: dict[str, Any]) -> str:
    return "(" + ", ".join(map(str, case["shape"])) + ")" + ("" if case["dtype"] == "float32" else f" {case['dtype']}")


def _median(entry: dict[str, Any]) -> str:
    return _short(entry["times"]["both"]["median"]) if "times" in entry else "–"


def _spread(times: dict[str, Any] | None) -> str:
    return f"{_short(times['median'])} ({_short(times['q1'])}–{_short(times['q3'])})" if times else "–"


def _times(found: dict[str, float] | None, *, slower: bool = True) -> str:
    """A ratio with its quartiles; where ``slower``, in words too if it is under 1."""
    if not found:
        return "–"
    text = f"{_short(found['median'])}× ({_short(found['q1'])}–{_short(found['q3'])})"
    return f"{text}, slower" if slower and found["median"] < 1 else text


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:.0f}"


def _exponent(error: float | None) -> str:
    return "–" if error is None else f"{error:.0e}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")
