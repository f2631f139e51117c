"""The benchmark of draws refuses wrong ones, and its page is what was measured. Nothing here looks at a clock."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from benchmarks import sampling


def small(case: sampling.Case) -> sampling.Case:
    return dataclasses.replace(case, n=2**10, count=2**9 if case.distinct else 2**10)


@pytest.mark.parametrize("case", sampling.CASES, ids=lambda case: f"{case.name} {case.n}")
def test_every_contender_draws_by_the_weights(case: sampling.Case) -> None:
    case = small(case)
    weights = sampling._weights(case.n)
    for who, draw in case.contenders.items():
        if who != sampling.FLOOR:
            sampling.check(case, draw(weights, case.count, 1), weights)


def test_wrong_draws_are_not_timed() -> None:
    case = small(sampling.CASES[0])
    weights = sampling._weights(case.n)
    uniform = torch.randint(1, 16, (case.count,)) + 17 * torch.randint(0, 60, (case.count,))
    for wrong in (torch.zeros(case.count, dtype=torch.int64), uniform % 64 + 1, uniform[:-1]):
        with pytest.raises(ValueError, match=r"^with replacement: "):
            sampling.check(case, wrong, weights)
    distinct = small(next(case for case in sampling.CASES if case.distinct))
    with pytest.raises(ValueError, match="a row came twice"):
        sampling.check(distinct, torch.ones(distinct.count, dtype=torch.int64), weights)


def test_a_run_says_what_it_measured() -> None:
    found = sampling.run(small(sampling.CASES[0]), rounds=2)
    assert set(found["seconds"]) == {sampling.PYTORCH, sampling.OURS, sampling.FLOOR}
    assert found["ratio"]["q1"] <= found["ratio"]["median"] <= found["ratio"]["q3"]


def test_the_large_case_runs() -> None:
    found: dict[str, Any] = sampling.large(200_000, 300_000)
    assert found["weights"] == 200_000
    assert found["bytes_beside_the_weights"] <= 8 * 200_000 + 64
    assert "2^24" in found["pytorch"]


def test_the_page_is_what_the_committed_results_say() -> None:
    result = json.loads(sampling.RESULT.read_text(encoding="utf-8"))
    text = sampling.PAGE.read_text(encoding="utf-8")
    assert text == sampling.page(text, result), "run python -m benchmarks.sampling"
    assert {(case["name"], case["weights"]) for case in result["cases"]} == {
        (case.name, case.n) for case in sampling.CASES
    }
