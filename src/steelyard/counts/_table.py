"""Class counts as a table, for the terminal and for a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steelyard.counts._check import Label
    from steelyard.counts._value import ClassCounts

__all__ = ["ROWS_SHOWN", "as_html", "as_text"]

ROWS_SHOWN = 30
"""Longer lists keep their first and last classes; a row in between says how many were left out."""


def as_text(counts: ClassCounts) -> str:
    """Aligned columns and a line of summary."""
    head, rows = _cells(counts)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *rest in [head, *rows]:
        numbers = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip())
    return "\n".join([*lines, _summary(counts)])


def as_html(counts: ClassCounts) -> str:
    """The same as an HTML table, with labels escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head, rows = _cells(counts)
    body = "".join(line(row, "td") for row in rows)
    summary = html.escape(_summary(counts))
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table><p>{summary}</p>"


def _cells(counts: ClassCounts) -> tuple[list[str], list[list[str]]]:
    positives, negatives, prior = counts.positives.tolist(), counts.negatives.tolist(), counts.prior.tolist()
    images = None if counts.images is None else counts.images.tolist()
    if counts.is_multilabel:
        head = ["class", "positives", "negatives", "share", "negatives/positives"]
    else:
        head = ["class", "count", *(["images"] if images else []), "share", "largest/count"]
    shown, left_out = list(range(counts.num_classes)), 0
    if counts.num_classes > ROWS_SHOWN:
        half = ROWS_SHOWN // 2
        shown, left_out = [*shown[:half], *shown[-half:]], counts.num_classes - 2 * half
    rows = []
    for index in shown:
        count = positives[index]
        beside = negatives if counts.is_multilabel else images
        numbers = [f"{count:,}", *([f"{beside[index]:,}"] if beside else [])]
        other = negatives[index] if counts.is_multilabel else max(positives)
        ratio = f"{other / count:,.2f}" if count else "-"
        rows.append([_name(counts.classes[index]), *numbers, _percent(prior[index]), ratio])
    if left_out:
        rows.insert(half, [f"... {left_out} more ...", *[""] * (len(head) - 1)])
    return head, rows


def _summary(counts: ClassCounts) -> str:
    classes = f"{counts.num_classes} class" + ("es" if counts.num_classes != 1 else "")
    unit = "row" if counts.images is None else "pixel" if counts.image_pixels is not None else "label"
    text = f"{classes}, {_many(counts.total, unit)}"
    if counts.num_images is not None:
        text += f" in {_many(counts.num_images, 'image')}"
    if counts.total == 0:
        return text
    ratio, accuracy = counts.imbalance_ratio, _percent(counts.majority_accuracy)
    absent = int((counts.positives == 0).sum())
    if math.isfinite(ratio):
        text += f", {ratio:,.4g} : 1"
    if absent:
        text += f", {absent} without samples"
    if counts.is_multilabel:
        return f"{text}; the commoner answer is right {accuracy} of the time, averaged over the classes"
    majority = _short(repr(counts.classes[int(counts.positives.argmax())]))
    return f"{text}; always answering {majority} is right {accuracy} of the time"


def _many(number: int, unit: str) -> str:
    return f"{number:,} {unit}" + ("s" if number != 1 else "")


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"


def _name(label: Label) -> str:
    return _short(label if isinstance(label, str) and label.isprintable() and label else repr(label))


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
