"""Counts a field of a JSON lines file, read in pieces by Arrow; where Arrow gives up, line by line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steelyard._errors import describe, refuse
from steelyard.counts._frames import check_column
from steelyard.counts._tally import Progress, Tally

__all__ = ["tally_jsonl"]

_BLOCK = 1 << 22  # bytes that Arrow parses at a time
_TOLD = 1 << 16  # lines between two calls of a progress
_BROKEN = (OSError, EOFError, zlib.error)  # what a packed file gives that breaks off, or is none

Counts = dict[tuple[type, Any], int]
"""By kind and label: True is not 1 here."""


def tally_jsonl(path: Path, target: Any, progress: Progress | None) -> Tally:
    """Distinct labels of a field of the objects in ``path``, one a line."""
    check_column(target, _first_columns(path), f"'{path}'")
    counts = _fast(path, target, progress)
    if counts is None:
        counts = _exact(path, target, progress)
    kinds = {kind for kind, _ in counts}
    whole = {int, float} <= kinds <= {int, float, type(None)}  # JSON has one kind of number, however it is written
    keys = {key: (float, float(key[1])) if whole and key[1] is not None else key for key in counts}
    labels = list(dict.fromkeys(keys.values()))
    sizes = dict.fromkeys(labels, 0)
    for key, count in counts.items():
        sizes[keys[key]] += count
    if progress is not None:
        progress(sum(sizes.values()), sum(sizes.values()))

    def first(entries: list[int]) -> tuple[int, int]:
        wanted = {labels[entry]: entry for entry in entries}
        return next(
            (line, wanted[key]) for line, label in _labels(path, target) if (key := keys[type(label), label]) in wanted
        )

    place = f"'{path}', line {{}}, field '{target}'".format
    return Tally([label for _, label in labels], list(sizes.values()), first, place)


def _fast(path: Path, target: str, progress: Progress | None) -> Counts | None:
    """The counts, if all labels are of the kind of the first; None if not, or if Arrow cannot read the file.

    Arrow is told the kind: it would take what the first block holds for the kind of all, and fails over any other field
    that changes its kind on the way.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow.json import ParseOptions, ReadOptions, open_json
    except ImportError:  # neither Arrow, nor one that reads in pieces (before 20): Python does it, more slowly
        return None
    kind = type(next((label for _, label in _labels(path, target)), None))
    types = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    if kind not in types:
        return None
    parse = ParseOptions(explicit_schema=pa.schema([(target, types[kind])]), unexpected_field_behavior="ignore")
    counts: Counts = {}
    done = 0
    try:
        with _open(path) as file, open_json(file, ReadOptions(block_size=_BLOCK), parse) as batches:
            for batch in batches:
                found = pc.value_counts(batch.column(0))
                for label, count in zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True):
                    key = (type(label), label) if label == label else (type(None), None)
                    counts[key] = counts.get(key, 0) + count
                done += batch.num_rows
                if progress is not None:
                    progress(done, None)
    except (pa.ArrowException, UnicodeDecodeError, *_BROKEN):
        return None  # reading line by line finds where, and says it
    return counts


def _exact(path: Path, target: str, progress: Progress | None) -> Counts:
    counts: Counts = {}
    for number, (line, label) in enumerate(_labels(path, target), start=1):
        if isinstance(label, dict | list):
            what = f"{describe(label)} at '{path}', line {line}, field '{target}'"
            refuse("count_classes", "source", "labels that are int, str, bool or whole float", what, error=TypeError)
        counts[type(label), label] = counts.get((type(label), label), 0) + 1
        if progress is not None and number % _TOLD == 0:
            progress(number, None)
    return counts


def _first_columns(path: Path) -> list[str]:
    """The fields of the first object."""
    first = next(_objects(path), None)
    if first is None:
        refuse("count_classes", "source", "a file with labels in it", f"'{path}', which has only blank lines")
    return list(first[1])


def _labels(path: Path, target: str) -> Iterator[tuple[int, Any]]:
    for line, found in _objects(path):
        label = found.get(target)
        yield line, label if label == label else None  # Python reads NaN, which JSON does not know


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and the objects there; blank lines hold none."""
    line = 0
    try:
        with _open(path) as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                found = json.loads(text.decode("utf-8-sig" if line == 1 else "utf-8"))
                if not isinstance(found, dict):
                    what = f"{describe(found)} at '{path}', line {line}"
                    refuse("count_classes", "source", "one JSON object a line", what)
                yield line, found
    except json.JSONDecodeError as error:
        refuse("count_classes", "source", "one JSON object a line", f"'{path}', line {line}: {_reason(error)}")
    except UnicodeDecodeError as error:
        what = f"'{path}', line {line}: byte {error.object[error.start]:#04x} is not UTF-8"
        refuse("count_classes", "source", "one JSON object a line", what)
    except _BROKEN as error:
        refuse("count_classes", "source", "a readable file", f"'{path}', after line {line}: {error}")


def _reason(error: json.JSONDecodeError) -> str:
    return f"{error.msg[0].lower()}{error.msg[1:]} at character {error.pos + 1}"


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
