"""The benchmark of linear_cross_entropy refuses wrong answers, and its page is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import linear


@pytest.mark.parametrize("who", [linear.EAGER, linear.OURS])
def test_contenders_agree(who: str) -> None:
    assert linear.check(linear.Case(40, 8, 30, ()), who) < 1e-4


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = lambda x, w, y, v, **_: linear._eager(x, w, y, torch.ones_like(v))  # noqa: E731
    monkeypatch.setitem(linear.LINES, linear.OURS, wrong)
    with pytest.raises(ValueError, match="steelyard: an error of"):
        linear.check(linear.Case(40, 8, 30, ()), linear.OURS)


def test_the_page_is_what_the_committed_results_say() -> None:
    result = json.loads(linear.RESULT.read_text(encoding="utf-8"))
    text = linear.PAGE.read_text(encoding="utf-8")
    assert text == linear.page(text, result), "run python -m benchmarks.linear"
    assert [(c["rows"], c["size"], c["classes"]) for c in result["cases"]] == [
        (case.rows, case.size, case.classes) for case in linear.CASES
    ]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's to tell")
def test_logits_are_never_all_in_memory() -> None:
    """256 MiB of logits, in two chunks; the gradients that must be there are 9 MiB."""
    case = linear.Case(2048, 64, 32768, ())
    assert 128 << 20 < linear.memory(case, linear.OURS) < 192 << 20
