"""Names of test cases that are the same in every process: without the addresses of functions."""

from __future__ import annotations

import re


def short(value: object) -> str:
    """What a value prints as, cut to some forty letters."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))[:40]
