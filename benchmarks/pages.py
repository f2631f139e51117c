"""Pages of the docs, of which a script writes what stands between two markers."""

from __future__ import annotations

import re

__all__ = ["between"]


def between(text: str, start: str, end: str, block: str, where: str) -> str:
    """The text with ``block`` between its markers; ``where`` says what text it is."""
    pattern = re.escape(start) + ".*?" + re.escape(end)
    written, count = re.subn(pattern, lambda _: f"{start}\n\n{block}\n\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"benchmarks: {where} must hold its markers once; got {count} pairs.")
    return written
