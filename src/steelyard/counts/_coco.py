"""Counts the annotations of a COCO file, element by element: such files may be larger than memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from steelyard._errors import describe, refuse
from steelyard.counts._tally import Progress, Tally

__all__ = ["tally_coco"]

_PIECE = 1 << 20  # characters read at a time
_LARGEST = 1 << 26  # of one annotation: what does not parse within so many is broken
_TOLD = 1 << 14  # annotations between two calls of a progress
_RULE = "COCO annotations"


def tally_coco(path: Path, progress: Progress | None) -> Tally:
    """Annotations of each category, and images that contain it, by category name in the order of the ids.

    All annotations count, crowds too. Categories without any have a count of zero.
    """
    names: dict[Any, str] = {}
    listed: set[Any] = set()
    objects = _Objects(path)
    found: set[str] = set()
    for key, number, element in _elements(path):
        found.add(key)
        if number is None:
            continue
        if key == "categories":
            identity, name = _fields(path, f"category {number}", element, "id", "name")
            if identity in names or name in names.values():
                _refuse(path, f"category {number}, {name!r} with id {identity!r}, whose name or id comes twice")
            names[identity] = str(name)
        elif key == "images":
            (identity,) = _fields(path, f"image {number}", element, "id")
            if identity in listed:
                _refuse(path, f"image {number} with id {identity!r}, which comes twice")
            listed.add(identity)
        elif key == "annotations":
            objects.add(number, *_fields(path, f"annotation {number}", element, "image_id", "category_id"))
            if progress is not None and (number + 1) % _TOLD == 0:
                progress(number + 1, None)
    lacking = [key for key in ("images", "annotations", "categories") if key not in found]
    if lacking or not names:
        _refuse(path, f"no '{lacking[0] if lacking else 'categories'}'", "Without them the classes are not known.")
    return objects.tally(names, listed, progress)


class _Objects:
    """What is known of the annotations, each of which is seen once and let go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: dict[Any, int] = {}  # by category: the number of its first annotation
        self._counts: dict[Any, int] = {}
        self._images: dict[Any, tuple[int, int]] = {}  # by id: a number of our own, and the first annotation
        self._seen: dict[Any, array[int]] = {}  # by category: numbers of images, some of them repeated
        self._distinct: dict[Any, int] = {}

    def add(self, number: int, image: Any, category: Any) -> None:
        self._first.setdefault(category, number)
        self._counts[category] = self._counts.get(category, 0) + 1
        index, _ = self._images.setdefault(image, (len(self._images), number))
        seen = self._seen.setdefault(category, array("q"))
        seen.append(index)
        if len(seen) > 2 * self._distinct.get(category, 0) + 4096:  # eight bytes for each image and class, no more
            self._seen[category] = array("q", np.unique(np.asarray(seen)).tobytes())
            self._distinct[category] = len(self._seen[category])

    def tally(self, names: dict[Any, str], listed: set[Any], progress: Progress | None) -> Tally:
        for what, first, known in (
            ("category_id", self._first, names.keys()),
            ("image_id", {image: at for image, (_, at) in self._images.items()}, listed),
        ):
            unknown = [identity for identity in first if identity not in known]
            if unknown:
                where = f"{what} {unknown[0]!r} in annotation {first[unknown[0]]}"
                _refuse(self._path, f"{where}, which is not listed")
        order = sorted(names) if len({type(identity) for identity in names}) == 1 else list(names)
        present = [identity for identity in order if identity in self._counts]
        counts = [self._counts[identity] for identity in present]
        if not present:
            _refuse(self._path, "no annotation at all")
        if progress is not None:
            progress(sum(counts), sum(counts))
        return Tally(
            [names[identity] for identity in present],
            counts,
            lambda entries: min((self._first[present[entry]], entry) for entry in entries),
            lambda number: f"'{self._path}', annotation {number}",
            order=[names[identity] for identity in order],
            images=[len(np.unique(np.asarray(self._seen[identity]))) for identity in present],
            total=len(listed),
        )


def _fields(path: Path, what: str, element: Any, *names: str) -> list[Any]:
    if not isinstance(element, dict):
        _refuse(path, f"{describe(element)} for {what}")
    for name in names:
        value = element.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            _refuse(path, f"{what} with {describe(value) if name in element else 'no'} '{name}'")
    return [element[name] for name in names]


def _refuse(path: Path, what: str, hint: str = "") -> NoReturn:
    refuse("count_classes", "source", _RULE, f"'{path}': {what}", hint)


def _elements(path: Path) -> Iterator[tuple[str, int | None, Any]]:
    """Elements of the arrays in the one object of a file, with the name of the array and their number there.

    A member that is no array, or an empty one, comes with the number None.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = _Text(file)
            try:
                yield from text.members()
            except json.JSONDecodeError as error:
                _refuse(path, f"{error.msg[0].lower()}{error.msg[1:]} at character {text.passed + error.pos}")
    except UnicodeDecodeError as error:
        _refuse(path, f"byte {error.object[error.start]:#04x} is not UTF-8")


class _Text:
    """JSON that is read in pieces and parsed by Python's own decoder, a value at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._decoder = file, json.JSONDecoder()
        self._text, self._at, self._ended = "", 0, False
        self.passed = 0
        """Characters before those in memory."""

    def members(self) -> Iterator[tuple[str, int | None, Any]]:
        for _ in self._items("{", "}"):
            key = self._value()
            if not isinstance(key, str):
                raise json.JSONDecodeError("expecting a name in quotes", self._text, self._at)
            self._take(":")
            is_array = self._peek() == "["
            yield key, None, None if is_array else self._value()
            if is_array:
                for number in self._items("[", "]"):
                    yield key, number, self._value()
        if self._peek():
            raise json.JSONDecodeError("extra data", self._text, self._at)

    def _items(self, opening: str, closing: str) -> Iterator[int]:
        """Stands before each item in turn; whoever asks takes it."""
        self._take(opening)
        number, empty = 0, self._peek() == closing
        while not empty:
            yield number
            number += 1
            if self._peek() == closing:
                break
            self._take(",")
        self._take(closing)

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise json.JSONDecodeError(f"expecting '{wanted}'", self._text, self._at)
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if self._ended or len(self._text) - self._at > _LARGEST:
                    raise
            else:
                # A number at the end of a piece may go on in the next: 1, 1., 1.5, 1.5e, 1.5e3.
                if self._ended or (end < len(self._text) and self._text[end] not in "0123456789.eE+-"):
                    self._at = end
                    return found
            self._more()

    def _more(self) -> None:
        rest = self._text[self._at :]
        piece = self._file.read(max(_PIECE, len(rest)))
        self.passed += self._at
        self._text, self._at, self._ended = rest + piece, 0, not piece
