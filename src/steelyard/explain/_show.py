"""An explanation on the page: its two tables, and the whole as plain text, as HTML and for Rich."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from steelyard.explain._words import html_table, number, percent, plural, text_table

if TYPE_CHECKING:
    from steelyard.explain._explanation import Explanation

__all__ = ["Captioned", "html", "rich", "tables", "text"]

Captioned = tuple[str, list[str], list[list[str]]]
"""Caption, head and cells of a table."""

COLUMNS = ["contribution", "share", "of gradient"]


def tables(found: Explanation, count: int) -> list[Captioned]:
    """By class, then by row; of more than ``count`` those that contribute most."""
    kind = "class" if found.call.settings.exclusive else "answer"
    return [_by_class(found, kind, count), _by_row(found, kind, count)]


def _by_class(found: Explanation, kind: str, count: int) -> Captioned:
    parts, caption = found.classes, f"Means and sums by {kind}:"
    if len(parts) > count:
        caption = f"The {count} of {plural(len(parts), 'group')} that contribute most:"
        parts = sorted(parts, key=lambda part: -abs(part.contribution))[:count]
        parts = [part for part in found.classes if part in parts]
    cells = [
        [part.label, f"{part.rows:,}", number(part.loss / part.rows), number(part.weight / part.rows),
         number(part.contribution), percent(part.share), percent(part.gradient_share)]
        for part in parts
    ]  # fmt: skip
    return caption, [kind, f"{found.noun}s", "mean loss", "mean weight", *COLUMNS], cells


def _by_row(found: Explanation, kind: str, count: int) -> Captioned:
    rows, total = found.rows, len(found.rows.loss)
    caption = f"By {found.noun}:"
    if total > count:
        caption = f"The {count} of {plural(total, found.noun)} that contribute most:"
    cells = [
        [found.place(at), found.label(int(rows.group[at])), number(float(rows.loss[at])),
         number(float(rows.weight[at])), number(float(rows.contribution[at])), percent(float(found.share[at])),
         percent(float(found.gradient_share[at]))]
        for at in found.top(count)
    ]  # fmt: skip
    return caption, [found.noun, kind, "loss", "weight", *COLUMNS], cells


def text(found: Explanation) -> str:
    """Plain lines: the number, the reasons, the tables."""
    lines = [found.headline, *found.reasons]
    for caption, head, cells in found.tables():
        lines += ["", caption, *text_table(head, cells)]
    return "\n".join([*lines, "", found.effective])


def html(found: Explanation) -> str:
    """The same for a notebook, escaped."""
    parts = [f"<p><b>{escape(found.headline)}</b></p>"]
    parts.append("<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in found.reasons) + "</ul>")
    for caption, head, cells in found.tables():
        parts += [f"<p>{escape(caption)}</p>", html_table(head, cells)]
    return "".join([*parts, f"<p>{escape(found.effective)}</p>"])


def rich(found: Explanation) -> Any:
    """The same for Rich, which is loaded when it asks."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(found.headline, style="bold")]
    bullets = Table.grid(padding=(0, 1))
    for reason in found.reasons:
        bullets.add_row("•", Text(reason))
    parts.append(bullets)
    for caption, head, cells in found.tables():
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for index, name in enumerate(head):
            table.add_column(name, justify="right" if index else "left")
        for line in cells:
            table.add_row(*(Text(cell) for cell in line))
        parts += [Text(f"\n{caption}"), table]
    return Group(*parts, Text(f"\n{found.effective}"))
