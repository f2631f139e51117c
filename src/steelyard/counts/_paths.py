"""What a path stands for: a file, a pattern of files, or a folder of tables, of masks or of class folders."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NoReturn
from urllib.parse import unquote

from steelyard._errors import describe, refuse
from steelyard.counts._coco import tally_coco
from steelyard.counts._files import TABLES, table_kind, tally_file
from steelyard.counts._masks import MASKS, tally_mask_files
from steelyard.counts._tally import Progress, Sum, Tally, behind

__all__ = ["tally_path"]

_PHOTOS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for an image: a folder counts here what that trains on."""

_LOGS = {"_delta_log": "polars.scan_delta", ".hoodie": "the engine that wrote it", "metadata": "polars.scan_iceberg"}
"""Folders by which a table is known whose files do not all belong to its present state, and what reads it."""


def tally_path(
    source: str | os.PathLike[str], target: Any, ignore_index: int | None, progress: Progress | None
) -> Tally:
    """Distinct labels of whatever is at a path."""
    path = Path(source)
    if path.is_dir():
        return _tally_folder(path, target, ignore_index, progress)
    if path.exists():
        return _tally_files([path], path.parent, target, ignore_index, progress)
    if not glob.has_magic(str(path)):
        refuse("count_classes", "source", "a file that exists", f"'{path}'", error=FileNotFoundError)
    root = Path(*_before(path.parts, glob.has_magic))
    matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [file for found in matched for file in (_table_files(found) if found.is_dir() else [found])]
    if not files:
        what = f"'{path}', which matches none"
        refuse("count_classes", "source", "a pattern that matches files", what, error=FileNotFoundError)
    return _tally_files(files, root, target, ignore_index, progress)


def _before(parts: Sequence[str], stops: Callable[[str], bool]) -> list[str]:
    end = next((number for number, part in enumerate(parts) if stops(part)), len(parts))
    return list(parts[:end])


def _tally_files(
    files: list[Path], root: Path, target: Any, ignore_index: int | None, progress: Progress | None
) -> Tally:
    """Files of one kind: tables, masks or COCO annotations."""
    kinds = [_kind(file) for file in files]
    odd = next((number for number, kind in enumerate(kinds) if kind != kinds[0]), None)
    if odd is not None:
        refuse("count_classes", "source", f"files of one kind, here {kinds[0]}", f"'{files[odd]}', {kinds[odd]}")
    if kinds[0] == "tables":
        return _tally_tables(files, root, target, progress)
    _no_target(target, kinds[0])
    if kinds[0] == "masks":
        return tally_mask_files(files, ignore_index, progress)
    found = Sum()
    for file in files:
        found.add(tally_coco(file, progress), f"'{file}'")
    return found.tally()


def _kind(file: Path) -> str:
    if table_kind(file) is not None:
        return "tables"
    suffix = file.suffix.lower()
    if suffix in MASKS:
        return "masks"
    if suffix != ".json":
        _unknown(file)
    return "COCO annotations"


def _unknown(file: Path) -> NoReturn:
    rule = f"a file that ends in {', '.join(TABLES)}, .json (COCO) or {', '.join(MASKS)} (masks)"
    lossy = file.suffix.lower() in (".jpg", ".jpeg")
    hint = "JPEG changes class indices: masks have to be saved without loss." if lossy else ""
    refuse("count_classes", "source", rule, f"'{file}'", hint)


def _no_target(target: Any, kind: str) -> None:
    if target is not None:
        refuse("count_classes", "target", f"None for {kind}, which have no columns", describe(target), error=TypeError)


def _tally_tables(files: list[Path], root: Path, target: Any, progress: Progress | None) -> Tally:
    """The files of one table, each counted by itself: an error knows its file, and a column its absence."""
    found, rows = Sum(), 0
    kinds: dict[type, Path] = {}
    loose = all(table_kind(file) not in ("parquet", "pq") for file in files)
    for file in files:
        keys = _partition_keys(file, root)
        part = tally_file(file, target, behind(progress, rows), keys)
        _check_alike(part, file, kinds, loose or target in keys)
        found.add(part, f"'{file}'")
        rows += sum(part.counts)
    if rows == 0:
        what = f"'{files[0]}', which has" if len(files) == 1 else f"{len(files)} files as '{files[0]}', which have"
        refuse("count_classes", "source", "a file with labels in it", f"{what} columns and no rows")
    if progress is not None:
        progress(rows, rows)
    tally = found.tally()
    if (
        loose and {float, int} <= kinds.keys()
    ):  # as within one file of text: numbers are integers only if all of them are
        labels = [float(label) if type(label) is int else label for label in tally.labels]
        return replace(tally, labels=labels)
    return tally


def _check_alike(part: Tally, file: Path, kinds: dict[type, Path], loose: bool) -> None:
    """Refuse a file whose labels are of another kind than those of the files before; remember its own in ``kinds``."""
    own = {type(label): file for label in part.labels if label is not None}
    numbers = {int, float}
    if kinds and own and not own.keys() <= (kinds.keys() | (numbers if loose and kinds.keys() <= numbers else set())):
        first, where = next(iter(kinds.items()))
        odd = [entry for entry, label in enumerate(part.labels) if label is not None and type(label) is not first]
        if loose and first in numbers:  # one word made strings of all the numbers beside it
            odd = [entry for entry in odd if not _is_number(part.labels[entry])] or odd
        rule = f"labels of one kind, here {first.__name__} as in '{where}'"
        part.refuse(rule, odd, "Convert them to one kind first.", TypeError)
    for kind in own:
        kinds.setdefault(kind, file)


def _is_number(label: Any) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _partition_keys(file: Path, root: Path) -> dict[str, str | None]:
    """Columns that the folders of a partitioned table hold: ``year=2024/part.parquet``."""
    parts = file.relative_to(root).parent.parts if file.is_relative_to(root) else ()
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, value in pairs}


def _tally_folder(path: Path, target: Any, ignore_index: int | None, progress: Progress | None) -> Tally:
    """A folder: with a ``target`` of tables, else of masks, or of class folders."""
    if target is not None:
        return _tally_files(_table_files(path), path, target, ignore_index, progress)
    with os.scandir(path) as entries:
        visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    files = [Path(entry.path) for entry in visible if entry.is_file()]
    folders = [entry.name for entry in visible if entry.is_dir()]
    if any(table_kind(file) is not None for file in files):
        rule = f"the column of the tables in '{path}' that holds the labels"
        refuse("count_classes", "target", rule, None)
    masks = [file for file in files if file.suffix.lower() in MASKS]
    photos = [file for file in files if file.suffix.lower() in _PHOTOS and file not in set(masks)]
    if photos:
        hint = "Images need a folder for each class; masks must not be JPEG."
        refuse(
            "count_classes", "source", "a folder of class folders or of masks", f"'{photos[0]}' directly in it", hint
        )
    counts = _count_images(path, folders, progress) if folders else {}
    if masks and any(counts.values()):
        what = f"'{path}', which has both '{masks[0].name}' and images in '{max(counts, key=counts.__getitem__)}'"
        hint = f"For the masks alone, give the pattern '{path / '*'}{masks[0].suffix}'."
        refuse("count_classes", "source", "a folder of class folders, or one of masks", what, hint)
    if masks:
        return tally_mask_files(masks, ignore_index, progress)
    if not any(counts.values()):
        _nothing_in(path)
    hidden = _count_images(path, [name for name in sorted(os.listdir(path)) if name[0] == "."], None)
    if any(hidden.values()):
        name = next(name for name, count in hidden.items() if count)
        hint = "ImageFolder would take it for a class: move or delete it."
        refuse("count_classes", "source", "a folder of class folders", f"images in the hidden '{path / name}'", hint)
    classes = [name for name in counts if counts[name]]
    if progress is not None:
        progress(sum(counts.values()), sum(counts.values()))
    return Tally(
        classes,
        [counts[name] for name in classes],
        lambda entries: (min(entries), min(entries)),
        lambda entry: f"'{path / classes[entry]}'",
        order=list(counts),
    )


def _count_images(path: Path, folders: Sequence[str], progress: Progress | None) -> dict[str, int]:
    """Images in each folder and below it, by name; none is opened."""
    counts: dict[str, int] = {}
    for name in folders:
        counts[name] = 0
        for _, _, files in os.walk(path / name, followlinks=True):
            counts[name] += sum(file.lower().endswith(_PHOTOS) for file in files)
            if progress is not None:
                progress(sum(counts.values()), None)
    return counts


def _nothing_in(path: Path) -> NoReturn:
    if any(table_kind(Path(file)) is not None for _, _, files in os.walk(path) for file in files):
        refuse("count_classes", "target", f"the column of the tables in '{path}' that holds the labels", None)
    rule = "a folder of class folders with images, of masks or of tables"
    refuse("count_classes", "source", rule, f"'{path}', which has none of these")


def _table_files(path: Path) -> list[Path]:
    """The files of the table that a folder is, in order; those of a name in ``_`` or ``.`` are no part of it."""
    found: list[Path] = []
    for folder, below, files in os.walk(path):
        log = next((name for name in _LOGS if name in below), None)
        if log == "metadata" and not any(Path(folder, log).glob("*.metadata.json")):
            log = None
        if log is not None:
            what = f"'{folder}', a table with a log of changes ('{log}')"
            hint = f"Not all of its files are part of it now: give count_classes the frame of {_LOGS[log]}."
            refuse("count_classes", "source", "a folder of plain files", what, hint)
        below[:] = sorted(name for name in below if not _hidden(name))
        found += [Path(folder, name) for name in sorted(files) if not _hidden(name) and table_kind(PurePath(name))]
    kinds = {table_kind(file) for file in found}
    if len(kinds) > 1:
        two = [next(file for file in found if table_kind(file) == kind) for kind in sorted(map(str, kinds))[:2]]
        hint = "Name those that count with a pattern."
        refuse("count_classes", "source", "a folder of one kind of table", f"'{two[0]}' and '{two[1]}'", hint)
    if not found:
        rule, hint = "a folder with tables where a target is given", "Images and masks have no columns: leave it out."
        refuse("count_classes", "source", rule, f"'{path}', which has none", hint)
    return found


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))
