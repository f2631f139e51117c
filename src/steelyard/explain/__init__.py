"""A loss that explains itself, and rules that find mistakes.

:func:`explain` says what one call of a loss did; :func:`check` looks for the mistakes that people make again and again.
"""

from steelyard.explain._check import check
from steelyard.explain._difference import Difference
from steelyard.explain._explain import explain
from steelyard.explain._explanation import ClassShare, Explanation
from steelyard.explain._findings import Finding, Findings
from steelyard.explain._rule import RULES, Rule

__all__ = [
    "RULES",
    "ClassShare",
    "Difference",
    "Explanation",
    "Finding",
    "Findings",
    "Rule",
    "check",
    "explain",
]
