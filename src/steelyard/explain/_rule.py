"""What a rule of :func:`steelyard.check` is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steelyard.explain._setup import Setup

__all__ = ["RULES", "Rule", "Said", "rule"]

Said = tuple[str, str] | None
"""The message, with the numbers that were measured, and what to do; None where all is well."""


@dataclass(frozen=True)
class Rule:
    """One mistake that people make again and again.

    Attributes:
        code: Stable; never given to another rule.
        severity: ``"error"``, ``"warning"`` or ``"note"``.
        title: The mistake.
        symptom: What its maker sees.
        reason: Why that is so.
        fine: What looks like it and is no mistake.
        example: Python that makes the mistake and prints what ``check`` says.
        find: The rule itself.
    """

    code: str
    severity: str
    title: str
    symptom: str
    reason: str
    fine: str
    example: str
    find: Callable[[Setup], Said]


RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: str, title: str, *, symptom: str, reason: str, fine: str, example: str
) -> Callable[[Callable[[Setup], Said]], Callable[[Setup], Said]]:
    """Enter a function into the registry."""

    def enter(find: Callable[[Setup], Said]) -> Callable[[Setup], Said]:
        assert code not in RULES
        RULES[code] = Rule(code, severity, title, symptom, reason, fine, example.strip(), find)
        return find

    return enter
