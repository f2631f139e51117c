"""What :func:`steelyard.check` answers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

__all__ = ["SEVERITIES", "Finding", "Findings"]

SEVERITIES = ("error", "warning", "note")
"""Worst first: the result is wrong or fails; it is not what was meant; it is worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Attributes:
        code: Stable name of the rule, ``"SY101"`` and so on; docs/findings.md has a section for each.
        severity: ``"error"``, ``"warning"`` or ``"note"``.
        message: What is wrong, with the numbers that were measured.
        fix: What to do.
    """

    code: str
    severity: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.code} {self.severity}: {self.message}\n  Fix: {self.fix}"

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return asdict(self)


class Findings(list[Finding]):
    """A list of findings, worst first, that prints as text and shows in a notebook.

    Attributes:
        not_given: Arguments of ``check`` that were left out, so that rules on them could not speak.
        unknown: A loss that is neither ours nor PyTorch's, so that most rules on losses could not.
    """

    def __init__(
        self, found: Iterable[Finding] = (), not_given: Sequence[str] = (), unknown: Sequence[str] = ()
    ) -> None:
        super().__init__(found)
        self.not_given, self.unknown = tuple(not_given), tuple(unknown)

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self) or self._nothing()

    def _nothing(self) -> str:
        unseen = f" Not given, and so not looked at: {', '.join(self.not_given)}." if self.not_given else ""
        unknown = f" {', '.join(self.unknown)} is no loss that check knows: its settings were not looked at."
        unknown = unknown if self.unknown else ""
        return f"No findings.{unknown}{unseen}"

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{self._nothing()}</p>"
        parts = []
        for found in self:
            message, fix = html.escape(found.message), html.escape(found.fix)
            parts.append(f"<li><b>{found.code} {found.severity}</b>: {message}<br><i>Fix:</i> {fix}</li>")
        return "<ul>" + "".join(parts) + "</ul>"

    def to_dict(self) -> list[dict[str, str]]:
        """Plain values, ready for JSON."""
        return [finding.to_dict() for finding in self]
