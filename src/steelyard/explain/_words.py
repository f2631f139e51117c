"""Numbers and tables as text; what both kinds of output print."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["html_table", "json_number", "number", "percent", "plural", "summed", "text_table"]


def number(value: float) -> str:
    """Five digits, no more zeros than needed: 0.69227, 1.1, 1,234.5, 100,110."""
    if not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "−inf"}.get(value, "NaN")
    text = f"{value:.5g}"
    if 1000 <= abs(value) < 1e15:
        text = f"{value:,.0f}" if value == int(value) or abs(value) >= 1e5 else f"{value:,.1f}"
    return text.replace("-", "−") if not text.startswith("-0") or float(text) else "0"


def percent(share: float) -> str:
    """A share as a percentage: 33.3 %, 0.02 %, 100 %."""
    if not math.isfinite(share):
        return "NaN"
    text = f"{100 * share:.1f}" if abs(share) >= 0.001 or share == 0 else f"{100 * share:.2g}"
    return text.removesuffix(".0").replace("-", "−") + " %"


def plural(count: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``, ``3 classes``."""
    many = noun + "es" if noun.endswith("s") else noun + "s"
    return f"{count:,} {noun if count == 1 else many}"


def summed(values: Sequence[float]) -> str:
    """``0.1 + 1``."""
    return " + ".join(number(value) for value in values).replace("+ −", "− ")


def json_number(value: float) -> float | str:
    """A number as JSON has it; it has neither NaN nor infinities, which become words."""
    if math.isfinite(value):
        return value
    return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines: the first column to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = []
    for first, *rest in (head, *rows):
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def html_table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """The same as an HTML table, escaped."""

    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
