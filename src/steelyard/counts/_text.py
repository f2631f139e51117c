"""What labels are that come as text: of CSV files, and of the folder names of a partitioned table."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from steelyard.counts._tally import Tally

__all__ = ["from_text"]

_NUMBER = re.compile(r"\s*[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_NOTHING = {"na", "n/a", "nan", "null", "none", "<na>", "?", "-"}


def from_text(tally: Tally) -> Tally:
    """Text labels as what they all are: integers, else floats, else bools, else strings as they stand.

    Leading zeros (``007``) make strings. A blank is a missing label, and so is a word such as ``NA`` among numbers.
    """
    texts = [text if text is not None and text.strip() else None for text in tally.labels]
    words = [text for text in texts if text is not None]
    numbers = {word for word in words if _NUMBER.fullmatch(word)}
    labels: list[Any] = texts
    if numbers and all(word in numbers or word.strip().lower() in _NOTHING for word in words):
        number = int if all(_INTEGER.fullmatch(word) for word in numbers) else float
        labels = [None if text is None or text not in numbers else number(text) for text in texts]
    elif words and all(word.strip().lower() in {"true", "false"} for word in words):
        labels = [None if text is None else text.strip().lower() == "true" for text in texts]
    return replace(tally, labels=labels)
