"""Classes without samples: what may be made of them, and how the others are told."""

from __future__ import annotations

from torch import Tensor

from steelyard._errors import refuse
from steelyard.counts import ClassCounts

__all__ = ["ABSENT", "check_absent", "names_of"]

ABSENT = ("raise", "zero", "max")
"""The choices of ``missing``."""


def check_absent(function: str, argument: str, counts: ClassCounts, absent: Tensor, missing: str, what: str) -> None:
    """Refuse classes without samples, unless ``missing`` says what becomes of them; all of them absent always."""
    if not absent.any():
        return
    if absent.all() and what != "negatives":
        hint = "There is nothing to learn from." if what == "positives" else ""
        refuse(function, argument, f"counts with {what}", "none in any class", hint)
    if missing == "raise":
        hint = "Choose missing='zero' or missing='max', or leave such classes out."
        if what == "negatives":
            hint = "Leave such classes out: there is nothing to tell them from."
        if counts.num_classes > 2 and counts.counts.max() < counts.num_classes:
            looks = "These look like labels, not counts: count them by count_classes(labels)."
            hint = looks if counts.num_classes > 10 else f"{hint} {looks.replace('These', 'Or these')}"
        refuse(function, argument, f"counts with {what} in every class", f"none for {names_of(counts, absent)}", hint)


def names_of(counts: ClassCounts, chosen: Tensor) -> str:
    """The classes where ``chosen`` is true, in words."""
    labels = [repr(counts.classes[index]) for index in chosen.nonzero().flatten().tolist()]
    text = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if labels[10:] else "")
    return f"class {text}" if len(labels) == 1 else f"classes {text}"
