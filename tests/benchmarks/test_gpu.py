"""The benchmark of the GPU runs, refuses wrong answers, and says what it timed; without a GPU under the interpreter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu, gpu_linear
from benchmarks.cases import Case
from benchmarks.contenders import COMPILED, EAGER, OURS
from gpu_cases import HAS_GPU, interpreted

from steelyard.ops.gpu import DEVICES

CPU = torch.device("cpu")


def test_a_dry_run_times_everything_and_writes_it_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton")
    if HAS_GPU:
        pytest.skip("the kernels are compiled here, not interpreted")
    output = tmp_path / "gpu.json"
    before = set(DEVICES)
    with interpreted():
        code = gpu.main(["--dry", "--rounds", "2", "--output", str(output)])
    assert before == DEVICES
    result = json.loads(output.read_text(encoding="utf-8"))
    assert [case["case"] for case in result["cases"]] == [case.name for case in gpu.DRY]
    for case in result["cases"]:
        for name in (EAGER, COMPILED, OURS):
            assert "refused" not in case["contenders"][name], (case["case"], name)
            assert case["contenders"][name]["both_seconds"]["median"] > 0
    (linear,) = result["linear"]
    refused = {name for name, entry in linear["contenders"].items() if "refused" in entry}
    assert refused <= {gpu_linear.LIGER}
    assert code == bool(refused)
    assert "no GPU" in result["machine"]["device"]
    assert gpu.tables(result) in capsys.readouterr().out

    del result["cases"][1:], result["linear"][:]  # as if it had been cut off there
    result["cases"][0]["reason"] = "measured before"
    output.write_text(json.dumps(result), encoding="utf-8")
    with interpreted():
        gpu.main(["--dry", "--rounds", "2", "--output", str(output), "--resume"])
    again = json.loads(output.read_text(encoding="utf-8"))
    assert [case["case"] for case in again["cases"]] == [case.name for case in gpu.DRY]
    assert [case["reason"] == "measured before" for case in again["cases"]] == [True] + [False] * (len(gpu.DRY) - 1)
    assert len(again["linear"]) == 1
    with interpreted(), pytest.raises(SystemExit):
        gpu.main(["--dry", "--rounds", "3", "--output", str(output), "--resume"])
    assert "--rounds was 2" in capsys.readouterr().err


def test_our_contender_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from steelyard.ops.gpu import softmax_launch

    seen: list[Any] = []
    launch = softmax_launch.launch
    monkeypatch.setattr(softmax_launch, "launch", lambda *a, **b: seen.append(b) or launch(*a, **b))
    with interpreted():
        entry = gpu.run_case(gpu.DRY[0], gpu.torch.device("cuda" if HAS_GPU else "cpu"), 2, "eager")
    assert seen
    assert entry["contenders"][OURS]["error"] < 1e-5


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = lambda case: {"wrong": lambda z, y, w: torch.nn.functional.cross_entropy(z, y)}  # noqa: E731
    monkeypatch.setattr(gpu, "others", wrong)
    entry = gpu.run_case(Case("cross_entropy", (6, 10), "wrong"), CPU, 2, "eager")["contenders"]
    assert "wrong by" in entry["wrong"]["refused"]
    assert "both_seconds" not in entry["wrong"]
    assert "both_seconds" in entry[EAGER]
    with pytest.raises(ValueError, match="an error of"):
        gpu_linear.check(
            gpu_linear.CASES[-1], lambda x, w, y, v: gpu_linear._eager(x, w, y, v * y.sum()) * 2, CPU, chunks=False
        )


def test_a_line_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such kernel in /some/where/else.so\nmore")

    monkeypatch.setattr(gpu, "others", lambda case: {"broken": broken})
    entry = gpu.run_case(Case("cross_entropy", (6, 10), "broken"), CPU, 2, "eager")["contenders"]["broken"]
    assert entry["refused"] == "no such kernel in …"


def test_contenders_take_turns_in_a_new_order() -> None:
    seen: list[str] = []
    work = {name: (lambda number, name=name: seen.append(name)) for name in "abc"}
    samples = gpu.sampled(gpu.Clock(CPU), work, 6)
    assert {name: len(times) for name, times in samples.items()} == {"a": 6, "b": 6, "c": 6}
    rounds = ["".join(seen[-18:][i : i + 3]) for i in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


@pytest.mark.parametrize(
    "wrong", [["--rounds", "1"], ["--dry"], ["--cases", "bce"], *([] if HAS_GPU else [[]])], ids=" ".join
)
def test_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(wrong)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_cases_reach_from_ten_classes_to_a_quarter_million_in_both_dtypes() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        classes = {case.shape[1] for case in gpu.CASES if case.loss == "cross_entropy" and case.dtype == dtype}
        assert min(classes) == 10
        assert max(classes) == 262_144
        assert any(case.loss == "bce" and case.dtype == dtype for case in gpu.CASES)
        assert any(case.shape == (8, 21, 512, 512) and case.dtype == dtype for case in gpu.CASES)
    assert len({case.name for case in gpu.CASES}) == len(gpu.CASES)
