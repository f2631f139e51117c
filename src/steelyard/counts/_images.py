"""What images add to counts: how many contain a class, and how many pixels those have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from steelyard._errors import describe, refuse
from steelyard.counts._check import LARGEST_TOTAL, whole_numbers

__all__ = ["Images", "check_images"]


@dataclass(frozen=True, eq=False)
class Images:
    """Arrays stand in the order of the classes, int64, ``(C,)``."""

    containing: np.ndarray
    total: int
    pixels: np.ndarray | None

    def fields(self) -> dict[str, Any]:
        """The arguments of :class:`ClassCounts` that make it again."""
        pixels = {} if self.pixels is None else {"image_pixels": self.pixels.tolist()}
        return {"images": self.containing.tolist(), **pixels, "num_images": self.total}

    @property
    def kind(self) -> str:
        """What is known, in words: only counts of one kind can be added."""
        return "with images" + ("" if self.pixels is None else " and their pixels")


def check_images(counts: np.ndarray, images: Any, image_pixels: Any, num_images: Any) -> Images | None:
    """The three arguments of :class:`ClassCounts` as one value, or None where none is given."""
    function = "ClassCounts"
    if images is None:
        for name, value in (("image_pixels", image_pixels), ("num_images", num_images)):
            if value is not None:
                refuse(function, name, "None where 'images' is None", value)
        return None
    containing = _per_class("images", counts, images)
    wrong = (containing > counts) | ((containing == 0) != (counts == 0))
    if wrong.any():
        at = int(wrong.argmax())
        rule = "between 1 and the count of the class, or 0 where that is 0"
        refuse(function, "images", rule, f"{containing[at]} for a count of {counts[at]} at position {at}")
    if isinstance(num_images, bool) or not isinstance(num_images, int | np.integer):
        refuse(function, "num_images", "a whole number where 'images' is given", describe(num_images), error=TypeError)
    most = int(containing.max())
    if not most <= num_images < LARGEST_TOTAL:
        refuse(function, "num_images", f"at least {most}, the images that contain a class", int(num_images))
    if image_pixels is None:
        return Images(containing, int(num_images), None)
    pixels = _per_class("image_pixels", counts, image_pixels)
    if (pixels < counts).any():
        at = int((pixels < counts).argmax())
        rule = "at least the pixels of the class"
        refuse(function, "image_pixels", rule, f"{pixels[at]} for a count of {counts[at]} at position {at}")
    return Images(containing, int(num_images), pixels)


def _per_class(argument: str, counts: np.ndarray, values: Any) -> np.ndarray:
    array = whole_numbers("ClassCounts", argument, values)
    if len(array) != len(counts):
        refuse("ClassCounts", argument, f"one number per class, {len(counts)} of them", f"{len(array)}")
    return array
