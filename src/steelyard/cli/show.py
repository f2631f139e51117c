"""What the commands print: tables and sentences for people. Progress goes to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from steelyard.compare import METRICS, Comparison, CountInspection, Inspection
from steelyard.compare.report import change_text, verdict
from steelyard.explain import Explanation, Findings
from steelyard.registry import LOSSES

__all__ = [
    "COUNTED",
    "comparison",
    "counted",
    "counting_bar",
    "explanation",
    "inspection",
    "progress_bar",
    "weight_code",
    "weight_table",
    "weights",
]

COUNTED = tuple(name for name, entry in LOSSES.items() if entry.counts)
"""Losses that take class counts."""

SEVERE = {"error": "red", "warning": "yellow", "note": "dim"}
COLOURS = {"better": "green", "worse": "yellow", "": "dim"}


def _console() -> Console:
    """Standard output; a fixed width where it is no terminal, so that a file or log reads the same everywhere."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=False)


def _table(*columns: str, left: int = 1, whole: Sequence[int] = ()) -> Table:
    """A light table: ``left`` columns of words, then numbers; columns in ``whole`` are not broken over lines."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        justify: Literal["left", "right"] = "left" if index < left else "right"
        heading = name.replace(" ", "\n") if whole and index not in whole else name
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index in whole, vertical="top")
    return table


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A bar with the time left, on standard error; gone when the work is done."""
    if hidden:
        yield None
        return
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("trainings,"),
        TimeElapsedColumn(), TextColumn("so far,"), TimeRemainingColumn(), TextColumn("left"),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("reading and splitting", total=None)

        def update(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=escape(text))

        yield update


@contextmanager
def counting_bar() -> Iterator[Callable[[int, int | None], None]]:
    """What has been counted, on standard error where that is a terminal; gone when the work is done."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("counting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("so far"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def counted(found: CountInspection) -> None:
    """Print what ``inspect`` counted."""
    console, data = _console(), found.to_dict()
    of = "" if found.target is None else f", target [bold]{escape(found.target)}[/]"
    inside = "" if data["images"] is None else f" in {data['images']:,} images"
    console.print(f"[bold]{escape(data['data'])}[/]: {data['total']:,} {data['unit']}{inside}{of}\n")
    images = data["images"] is not None
    table = _table("class", data["unit"], *(["in images"] if images else []), "share", "largest / this")
    most = data["classes"][0]["count"]
    for line in data["classes"]:
        count = line["count"]
        numbers = [f"{count:,}", *([f"{line['images']:,}"] if images else []), f"{line['share']:.1%}"]
        table.add_row(escape(str(line["label"])), *numbers, f"{most / count:,.1f}" if count else "-")
    console.print(table)
    ratio = data["imbalance_ratio"]
    said = "a class without any" if ratio is None else f"{ratio:,.1f} : 1"
    console.print(f"\nimbalance ratio {said} · accuracy of the most frequent class {data['majority_accuracy']:.1%}\n")
    _bullets(console, data["observations"])


def inspection(found: Inspection) -> None:
    """Print what ``inspect`` found."""
    console, data = _console(), found.to_dict()
    console.print(f"[bold]{escape(data['data'])}[/]: {data['rows']:,} rows, target [bold]{escape(data['target'])}[/]\n")
    table = _table("class", "rows", "share", "largest / this")
    most = data["classes"][0]["count"]
    for line in data["classes"]:
        table.add_row(
            escape(str(line["label"])), f"{line['count']:,}", f"{line['share']:.1%}", f"{most / line['count']:,.1f}"
        )  # fmt: skip
    console.print(table)
    repeats = data["duplicates"]
    console.print(
        f"\nimbalance ratio {data['imbalance_ratio']:,.1f} : 1 · accuracy of the most frequent class "
        f"{data['majority_accuracy']:.1%} · repeated rows {repeats['repeated_rows']:,} · rows that contradict another "
        f"{repeats['contradicting_rows']:,}\n"
    )
    table = _table("column", "type", "enters as", "missing", "different", left=3)
    for column in data["columns"]:
        table.add_row(
            escape(column["name"]),
            escape(column["dtype"]),
            column["role"],
            f"{column['nulls']:,}",
            f"{column['unique']:,}",
        )
    console.print(table)
    console.print()
    _bullets(console, data["observations"])
    _findings(console, found.findings)


def _bullets(console: Console, lines: Sequence[str]) -> None:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("•", escape(line))
    console.print(grid)


def explanation(found: Explanation, findings: Findings) -> None:
    """Print what a loss did, and what looks wrong about it."""
    console = _console()
    console.print(found)
    _findings(console, findings)


def _findings(console: Console, findings: Findings) -> None:
    """What ``check`` found, or nothing."""
    if not findings:
        return
    console.print("\nTo look at (docs/findings.md says why):")
    grid = Table.grid(padding=(0, 1))
    for finding in findings:
        grid.add_row(f"[{SEVERE[finding.severity]}]{finding.code}[/]", escape(finding.message))
        grid.add_row("", escape(f"Fix: {finding.fix}"))
    console.print(grid)


def weight_table(classes: Sequence[Any], counts: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Rows of the weight table and Kish's effective sample size, ``(Σ n w)² / Σ n w²``, in rows."""
    linear = sum(n * w for n, w in zip(counts, values, strict=True))
    square = sum(n * w * w for n, w in zip(counts, values, strict=True))
    effective = linear * linear / square if square else 0.0
    rows = [
        {"index": i, "label": label, "count": n, "weight": w, "share_of_weight": n * w / linear if linear else 0.0}
        for i, (label, n, w) in enumerate(zip(classes, counts, values, strict=True))
    ]
    return {"classes": rows, "effective_sample_size": effective, "effective_share": effective / max(sum(counts), 1)}


def weight_code(
    source: str, target: str | None, scheme: str, options: dict[str, Any], classes: Sequence[Any], ignore: int | None
) -> str:
    """The Python that makes the same weights and a loss with them."""
    usual = {"power": 1.0, "beta": None, "cap": None, "normalize": None, "missing": "raise"}
    given = "".join(f", {name}={value!r}" for name, value in options.items() if value != usual[name])
    column = "" if target is None else f", {target!r}"
    ignored = "" if ignore is None else f", ignore_index={ignore}"
    named = ", ".join(f"{i} = {label!r}" for i, label in enumerate(classes[:10])) + ", ..." * (len(classes) > 10)
    return (
        "import steelyard.nn\n"
        "from steelyard.counts import count_classes\n"
        "from steelyard.weights import class_weights\n\n"
        f"counts = count_classes({source!r}{column}{ignored})  # better: of the training rows only\n"
        f"# Labels of the loss, in the order of the weights: {named}\n"
        f"loss = steelyard.nn.CrossEntropyLoss(weight=class_weights(counts, {scheme!r}{given}){ignored})"
    )


def weights(table: dict[str, Any], code: str, scheme: str) -> None:
    """Print the weights."""
    console = _console()
    grid = _table("class", "index", "rows", f"weight ({scheme})", "share of all weight")
    for row in table["classes"]:
        grid.add_row(
            escape(str(row["label"])), str(row["index"]), f"{row['count']:,}", f"{row['weight']:,.6g}",
            f"{row['share_of_weight']:.1%}",
        )  # fmt: skip
    console.print(grid)
    console.print(
        f"\nEffective sample size {table['effective_sample_size']:,.0f} rows, {table['effective_share']:.0%} of all: "
        "so many equally weighted rows would be as noisy.\n"
        "Weighted training bends the probabilities: it says too often what is rare. loss.posterior(logits) undoes it.\n"
    )
    console.print(escape(code), soft_wrap=True)


def _widest(console: Console, found: Comparison) -> Table:
    """The scores with as many metrics as fit: a table that is too wide would lose digits at its edge."""
    side = _side(found)
    while True:
        table = _scores(found, side, whole=(0, 1, 3))
        if _natural_width(table) <= console.width:
            return table
        if not side:
            return _scores(found, [], whole=())
        side.pop()


def _side(found: Comparison) -> list[str]:
    """The metrics beside the chosen one, the most telling first."""
    names = ("balanced_accuracy", "macro_f1", "average_precision", "log_loss", "log_loss_posterior")
    return [m for m in names if m != found.settings.metric]


def _natural_width(table: Table) -> int:
    """Columns of text that a table takes where nothing is cut off."""
    return Console(width=1000).measure(table).maximum


def _scores(found: Comparison, side: Sequence[str], whole: Sequence[int]) -> Table:
    """One row per remedy: the chosen metric, its difference to doing nothing, and the metrics of ``side``."""
    scores, ratio, base = found.scores, found.test_ratio, found.baselines
    chosen = found.settings.metric
    names = ["", "remedy", METRICS[chosen].label, "difference (95% interval)", *(METRICS[m].label for m in side)]
    table = _table(*names, left=2, whole=whole)
    for outcome in found.outcomes:
        name = outcome.strategy.name
        own, change = scores[name], None
        if name != "none":
            change = own.difference(scores["none"], chosen, ratio)
        interval = "" if change is None else f" ({change.low:+.3f} to {change.high:+.3f})".replace("-", "−")
        number = change_text(chosen, change).split(" ")[0]
        colour = COLOURS[verdict(chosen, change)]
        cells = [f"{own.interval(m, ratio).mean:.3f}" for m in (chosen, *side)]
        cells.insert(1, f"[{colour}]{number}{interval}[/]")
        best = name == found.recommendation.strategy
        table.add_row("→" if best else "", escape(outcome.strategy.label), *cells, style="bold" if best else "")
    table.add_row("", "class shares alone", f"{base[chosen]:.3f}", "", *(f"{base[m]:.3f}" for m in side), style="dim")
    return table


def comparison(found: Comparison, written: Sequence[str], *, code: bool = False) -> None:
    """Print the table, the recommendation, and where the program was written or, for ``code``, the program."""
    console, advice = _console(), found.recommendation
    console.print(
        f"\n[bold]{escape(found.table.name)}[/], target [bold]{escape(found.table.target_name)}[/]: "
        f"{len(found.table.target):,} rows, {len(found.outcomes[0].scores)} splits\n"
    )
    scores = _widest(console, found)
    console.print(scores)
    if len(scores.columns) < len(_scores(found, _side(found), whole=()).columns):
        console.print("[dim]More scores: a wider terminal shows them, and so does the report (--output DIR).[/]")
    console.print(f"\n[bold]{escape(advice.headline)}[/]")
    _bullets(console, advice.reasons)
    if advice.costs:
        console.print("It costs:")
        _bullets(console, [cost.replace("`", "") for cost in advice.costs])
    console.print("About the data:")
    _bullets(console, found.observations)
    _findings(console, found.findings)
    console.print()
    for path in written:
        console.print(escape(path), soft_wrap=True)
    if code:
        console.print(escape(found.python), soft_wrap=True)
    elif not written:
        console.print("The program that trains this: --show-code prints it, --output DIR writes it with a report.")
