"""Counts the pixels of label masks, and the images that contain each class: in memory, and in files of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelyard._errors import refuse
from steelyard.counts._labels import as_array, as_zeros_and_ones, tally_array
from steelyard.counts._tally import Progress, Sum, Tally

__all__ = ["MASKS", "is_mask_list", "tally_mask_files", "tally_masks"]

MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".npy")
"""Kinds of files that keep class indices as they are; JPEG does not."""

_RULE = "masks with one class index per pixel, of integers or bools"
_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"}  # one integer per pixel; of a palette, its index


def is_mask_list(source: Any) -> bool:
    """Whether ``source`` is a list or tuple of 2-d arrays or tensors, which need not be of one size."""
    arrays = isinstance(source, list | tuple) and bool(source)
    return arrays and all(isinstance(mask, torch.Tensor | np.ndarray) and mask.ndim == 2 for mask in source)


def tally_masks(masks: Sequence[Any] | np.ndarray, ignore_index: int | None, progress: Progress | None) -> Tally:
    """Pixels and images of each class index in masks ``(H, W)`` or one array ``(N, H, W)``."""
    named = ((f"image {number}", as_array(mask)) for number, mask in enumerate(masks))
    return _add_up(named, len(masks), ignore_index, progress)


def tally_mask_files(paths: Sequence[Path], ignore_index: int | None, progress: Progress | None) -> Tally:
    """The same of files, one read at a time. An ``.npy`` file holds one mask ``(H, W)``, or many ``(N, H, W)``."""
    return _add_up(_read(paths), None if any(p.suffix.lower() == ".npy" for p in paths) else len(paths),
                   ignore_index, progress)  # fmt: skip


def _add_up(
    masks: Iterable[tuple[str, np.ndarray]], total: int | None, ignore_index: int | None, progress: Progress | None
) -> Tally:
    found, done = Sum(), 0
    for name, mask in masks:
        found.add(_tally_mask(mask, name, ignore_index), keep=False)
        done += 1
        if progress is not None:
            progress(done, total)
    if progress is not None and total is None:
        progress(done, done)
    return found.tally()


def _tally_mask(mask: np.ndarray, name: str, ignore_index: int | None) -> Tally:
    if mask.ndim != 2 or mask.dtype.kind not in "biu":
        hint = "Leave out the channel: one mask is (H, W)." if mask.ndim > 2 else ""
        hint = hint or ("Convert colours or probabilities to class indices first." if mask.dtype.kind == "f" else "")
        error = TypeError if mask.ndim == 2 else ValueError
        refuse("count_classes", "source", _RULE, f"{mask.dtype} of shape {mask.shape} at {name}", hint, error=error)
    flat = np.ascontiguousarray(mask).reshape(-1)
    part = tally_array(as_zeros_and_ones(flat) if mask.dtype.kind == "b" else flat, None)
    # The pixels of an image are those that count, whichever class they have: ignored ones are nobody's.
    ignored = sum(n for label, n in zip(part.labels, part.counts, strict=True) if label == ignore_index)
    size, width = len(part.labels), mask.shape[1]
    return replace(
        part,
        place=lambda at: f"{name}, pixel ({at // width}, {at % width})",
        images=[1] * size,
        pixels=[flat.size - ignored] * size,
        total=1,
    )


def _read(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        if path.suffix.lower() == ".npy":
            yield from _read_array(path)
        else:
            yield f"'{path}'", _read_image(path)


def _read_array(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        refuse("count_classes", "source", "a readable array", f"'{path}': {' '.join(str(error).split())}")
    if array.ndim == 3:
        yield from ((f"'{path}', image {number}", mask) for number, mask in enumerate(array))
        return
    if array.ndim == 1:
        hint = "Labels that are no masks: count_classes(numpy.load(path, mmap_mode='r'))."
        refuse("count_classes", "source", _RULE, f"shape {array.shape} at '{path}'", hint)
    yield f"'{path}'", array


def _read_image(path: Path) -> np.ndarray:
    image_module = _import_pillow()
    try:
        with image_module.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if image.mode not in _MODES or frames != 1:
                what = f"{frames} frames" if frames != 1 else f"colours ({image.mode})"
                hint = "Convert it to an image of class indices first, with one channel or a palette."
                refuse("count_classes", "source", _RULE, f"{what} at '{path}'", hint)
            return np.asarray(image)
    except (OSError, SyntaxError, EOFError, image_module.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        what = f"'{path}': {' '.join(str(error).split()).replace(repr(str(path)), 'it')}"
        refuse("count_classes", "source", "a readable image", what)


def _import_pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        message = "count_classes: reading masks needs Pillow. Install it with: pip install 'steelyard[data]'"
        raise ImportError(message) from error
    return Image
