"""Counts as JSON, and as a file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from steelyard._errors import refuse

__all__ = ["KIND", "parse", "write_whole"]

KIND = {"kind": "steelyard.ClassCounts", "version": 1}
OPTIONAL = ("negatives", "images", "image_pixels", "num_images")


def parse(text: Any) -> tuple[list[Any], Any, int, dict[str, Any]]:
    """Classes, counts, total and the optional arguments of :class:`ClassCounts` from its JSON."""
    if not isinstance(text, str | bytes):
        hint = "For a file, use ClassCounts.load."
        refuse("ClassCounts.from_json", "text", "a string of JSON", text, hint, error=TypeError)
    try:
        data = json.loads(text)
    except ValueError as error:
        refuse("ClassCounts.from_json", "text", "JSON", f"text that is not ({error})")
    if not isinstance(data, dict) or any(data.get(key) != value for key, value in KIND.items()):
        refuse("ClassCounts.from_json", "text", "ClassCounts of version 1, as to_json writes", data)
    missing = {"classes", "counts", "total"} - data.keys()
    if missing or not isinstance(data["classes"], list):
        rule = "ClassCounts with lists 'classes', 'counts' and a number 'total'"
        refuse("ClassCounts.from_json", "text", rule, data)
    return data["classes"], data["counts"], data["total"], {key: data[key] for key in OPTIONAL if key in data}


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path``; an older file stays as it was if the write fails."""
    goal = Path(path)
    draft = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(goal)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
