"""One sentence for every refusal: ``function: 'argument' must be RULE; got WHAT. HINT``.

TypeError for kind and dtype, ValueError for shape, range and option, IndexError for a label.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import torch

__all__ = ["NotInvertibleError", "choice", "describe", "refuse", "warn"]

_HERE = str(Path(__file__).parent)


class NotInvertibleError(ValueError):
    """A loss whose settings leave no way back from the network's output to the probability; calibrate instead."""


def refuse(
    function: str,
    argument: str,
    rule: str,
    got: object,
    hint: str = "",
    *,
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raise ``error`` with the house's one sentence.

    ``got`` is described by :func:`describe` unless it is a string, which is taken as the description itself.
    """
    what = got if isinstance(got, str) else describe(got)
    raise error(f"{function}: '{argument}' must be {rule}; got {what}." + (f" {hint}" if hint else "")) from None


def warn(message: str) -> None:
    """A UserWarning that points at the line of the user's that led here, however many of ours are between."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def describe(value: Any) -> str:
    """A value in a few words: a tensor or array by dtype and shape, anything else by its (short) repr."""
    if isinstance(value, torch.Tensor):
        return _with_article(f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}")
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return _with_article(f"{value.dtype} {type(value).__name__} of shape {tuple(value.shape)}")
    text = repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    named = isinstance(value, str | type(None)) or text.startswith(type(value).__name__)
    return text if named else f"{type(value).__name__} {text}"


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"  # uint is said with a y


def choice(function: str, argument: str, value: Any, allowed: Collection[str], hint: str = "") -> None:
    """Refuse a ``value`` that is not one of the ``allowed`` words."""
    if not isinstance(value, str) or value not in allowed:
        rule = "one of " + ", ".join(repr(word) for word in allowed)
        got = repr(value) if isinstance(value, str) else value
        refuse(function, argument, rule, got, hint, error=ValueError if isinstance(value, str) else TypeError)
