"""The benchmarks compare right answers and publish what they measured. Nothing here looks at how long anything took."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import contenders as contenders_module
from benchmarks import memory, suite
from benchmarks import run as run_module
from benchmarks import table as table_module
from benchmarks.cases import CASES, Case, find
from benchmarks.check import errors, tolerance, truth
from benchmarks.contenders import COMPILED, EAGER, FLOOR, IN_PLACE, OURS, WARM_FLOOR, Contender, NotComparable, make
from benchmarks.losses import LOSSES
from benchmarks.machine import describe, without_paths
from benchmarks.measure import quartiles, ratio
from torch import Tensor
from torch.nn import functional as F

# Large enough that one target in thirty is positive somewhere.
SMALL = {loss: (3, 4, 10, 20) if loss == "ignore_index" else (30, 40) for loss in LOSSES}
FAST = [EAGER, OURS, FLOOR, WARM_FLOOR]  # torch.compile takes seconds, and has a test of its own


def small(loss: str, dtype: torch.dtype = torch.float32) -> Case:
    return Case(loss, SMALL[loss], "a test", dtype)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """A whole result, of two small cases."""
    cases = [suite.run_case(small(loss), rounds=2, memory=False, wanted=FAST) for loss in ("cross_entropy", "bce")]
    protocol = {"rounds": 2, "seed": 0, "least_sample_ms": 2.0, "quick": True}
    return {"machine": describe(), "protocol": protocol, "cases": cases}


def test_every_loss_has_a_case_and_no_name_comes_twice() -> None:
    assert {case.loss for case in CASES} == set(LOSSES)
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.reason for case in CASES)


@pytest.mark.parametrize(("loss", "dtype"), dict.fromkeys((case.loss, case.dtype) for case in CASES), ids=str)
def test_contenders_agree(loss: str, dtype: torch.dtype) -> None:
    case = small(loss, dtype)
    logits, rest = case.tensors(seed=1)
    assert logits.shape == case.shape
    assert logits.dtype == dtype
    known = truth(case, logits, rest)
    assert known.gradient.dtype == torch.float64
    for name in (EAGER, OURS):
        found = errors(make(name, case, logits, rest), logits, rest, known)
        assert found.within(tolerance(name, dtype)), (name, found)


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_targets", "bce"])
@pytest.mark.parametrize("name", [FLOOR, WARM_FLOOR])
def test_floors_move_every_byte(name: str, loss: str) -> None:
    shape = (1024, 1025)  # 4 MiB and a little: over the size from which pages are huge
    case = Case(loss, shape, "a test")
    logits, rest = case.tensors(seed=0)
    expected = logits if loss == "cross_entropy" else logits + rest[0]
    copy = make(name, case, logits, rest).run(logits, *rest)
    assert torch.equal(copy, expected)
    assert copy.data_ptr() != logits.data_ptr()
    assert case.floor_bytes == (2 if loss == "cross_entropy" else 3) * 4 * 1024 * 1025


def _line(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return F.cross_entropy(z, y, w)


WRONG = {
    "loss": lambda z, y, w: _line(z, y, w) + 1e-3,
    "gradient": lambda z, y, w: _line(z, y, w) + 1e-3 * (z - z.detach()).sum(),
    "one element": lambda z, y, w: _line(z, y, w) + 1e-3 * (z - z.detach()).flatten()[0],
    "NaN": lambda z, y, w: _line(z, y, w) * float("nan"),
    "dtype": lambda z, y, w: _line(z.double(), y, w.double()).float().reshape(1),
    "raises": lambda z, y, w: z.no_such_method(),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_contender_is_refused_and_not_timed(how: str) -> None:
    case = small("cross_entropy")
    found = suite.run_case(
        case, rounds=2, memory=False, wanted=[EAGER], extra=[Contender("wrong", WRONG[how])]
    )["contenders"]  # fmt: skip
    assert "times" in found[EAGER]
    assert "times" not in found["wrong"]
    assert ("AttributeError" if how == "raises" else "wrong by") in found["wrong"]["refused"]
    json.dumps(found, allow_nan=False)


def test_small_elements_wrong_together_are_refused() -> None:
    """Probabilities near 1/C hide below the largest element, at the label; their sum does not."""
    case = Case("cross_entropy", (4, 5000), "a test")
    logits, rest = case.tensors(seed=0)

    def halved(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
        flat = torch.full_like(z, 0.2 / z.shape[1])
        return _line(z, y, w) + 1e-2 * ((z - z.detach()) * flat).sum() / z.shape[0]

    found = errors(Contender("wrong", halved), logits, rest, truth(case, logits, rest))
    assert found.gradient_largest < 1e-4 < found.gradient_total
    assert not found.within(tolerance("wrong", torch.float32))


def test_one_wrong_element_among_many_is_refused() -> None:
    """It disappears in a sum over all of them."""
    case = Case("cross_entropy", (512, 64), "a test")
    logits, rest = case.tensors(seed=0)
    known = truth(case, logits, rest)
    wrong = float(known.gradient.abs().max()) * 3e-3

    def line(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return _line(z, y, w) + wrong * (z - z.detach()).flatten()[0]

    found = errors(Contender("wrong", line), logits, rest, known)
    assert found.gradient_total < 1e-4 < found.gradient_largest
    assert not found.within(tolerance("wrong", torch.float32))


def test_the_compiled_line_shows_its_one_graph() -> None:
    case = small("cross_entropy")
    found = suite.run_case(case, rounds=2, memory=False, wanted=[EAGER, COMPILED], backend="aot_eager")
    assert found["contenders"][COMPILED]["graphs"] == 1
    assert "times" in found["contenders"][COMPILED]


def test_a_compiled_line_without_a_graph_is_refused() -> None:
    """It would be eager under another name, as it is where the compiler is switched off."""
    case = small("cross_entropy")
    logits, rest = case.tensors(seed=0)
    with torch.compiler.set_stance("force_eager"), pytest.raises(NotComparable, match="captured 0 graphs"):
        contenders_module._compiled(_line, logits, rest, "eager")


class _Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, w: Tensor) -> Tensor:
        assert not z.is_leaf
        ctx.save_for_backward(z)
        with torch.enable_grad():
            copy = z.detach().clone().requires_grad_()
            loss = _line(copy, y, w)
            (gradient,) = torch.autograd.grad(loss, copy)
        z.detach().set_(z.untyped_storage(), 0, z.shape).copy_(gradient)  # as a kernel: autograd does not see it
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0], None, None


def _in_place(z: Tensor, y: Tensor, weight: Tensor, *, inplace_gradient: bool = False) -> Tensor:
    return _Overwriting.apply(z, y, weight) if inplace_gradient else _line(z, y, weight)


def test_in_place_takes_part_where_the_function_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets new logits for every pass, or it would be timed on its own gradients."""
    case = small("cross_entropy")
    loss = dataclasses.replace(case.definition, ours=_in_place, function=_line)
    monkeypatch.setitem(LOSSES, "cross_entropy", loss)
    assert IN_PLACE not in contenders_module.names(case)
    monkeypatch.setitem(LOSSES, "cross_entropy", dataclasses.replace(loss, function=_in_place))
    assert IN_PLACE in contenders_module.names(case)

    seen: list[Tensor] = []
    keywords: list[dict[str, Any]] = []

    def watched(z: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        seen.append(z.detach().clone())
        keywords.append(options)
        return _in_place(z, *rest, **options)

    monkeypatch.setitem(LOSSES, "cross_entropy", dataclasses.replace(loss, ours=watched, function=_in_place))
    monkeypatch.setattr("benchmarks.measure.LEAST_SAMPLE", 1e-5)
    found = suite.run_case(case, rounds=2, memory=False, wanted=[EAGER, OURS, IN_PLACE])
    assert "times" in found["contenders"][IN_PLACE]
    assert set(found["ratios"]) == {f"{EAGER} / {OURS}", f"{EAGER} / {IN_PLACE}"}
    logits, _ = case.tensors(seed=0)
    assert len(seen) > 10
    assert {} in keywords
    assert {"inplace_gradient": True} in keywords
    assert all(torch.equal(z, logits) for z in seen)


def test_keywords_are_found_among_the_options_too() -> None:
    focal, plain = LOSSES["focal"].function, LOSSES["cross_entropy"].function
    assert contenders_module._takes(focal, "gamma")
    assert contenders_module._takes(focal, "sample_weight")
    assert contenders_module._takes(plain, "sample_weight")
    assert not contenders_module._takes(focal, "no_such_keyword")
    assert not contenders_module._takes(plain, "no_such_keyword")


def test_ratios_are_of_the_same_round() -> None:
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0}
    # A machine that slows down tenfold half-way changes the times, not the ratio.
    assert ratio([2.0, 20.0], [1.0, 10.0]) == {"median": 2.0, "q1": 2.0, "q3": 2.0}


def test_results_survive_json_and_become_tables(result: dict[str, Any]) -> None:
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == result
    text = table_module.tables("test.json", again)
    assert text == table_module.tables("test.json", result)
    assert "| cross entropy, class weights | (30, 40) |" in text
    assert f"| {EAGER} |" in text
    assert "a quick run: not to be quoted" in text
    times = again["cases"][0]["contenders"][EAGER]["times"]
    assert set(times) == {"forward", "backward", "both"}
    assert all(len(t["samples"]) == 2 for t in times.values())


def test_a_loss_of_ours_is_published(result: dict[str, Any]) -> None:
    slow = json.loads(json.dumps(result))
    pair = f"{EAGER} / {OURS}"
    slow["cases"][0]["ratios"][pair]["both"] = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    slow["cases"][1]["ratios"][pair]["both"] = {"median": 2.0, "q1": 1.9, "q3": 2.1}
    slow["cases"][1]["contenders"][OURS] = {"refused": "wrong by all"}
    text = table_module.tables("test.json", slow)
    assert "0.5× (0.4–0.6), slower" in text
    assert "2× (1.9–2.1) |" in text
    assert f"Slower than {EAGER} at 1 of 2: cross entropy, class weights (30, 40)." in text
    assert "- BCE with logits, positive weight, (30, 40), steelyard: wrong by all" in text


def test_results_name_no_machine_and_no_path(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
    if len(platform.node()) > 3:
        assert platform.node() not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text
    assert without_paths("No module at /home/someone/x/y.py, line 3") == "No module at …, line 3"
    assert without_paths("captured 1/2 graphs; a / b") == "captured 1/2 graphs; a / b"


def test_the_page_is_what_the_committed_results_say() -> None:
    """Without committed results the page says so, and this still holds."""
    text = table_module.PAGE.read_text(encoding="utf-8")
    results = table_module.load()
    assert text == table_module.page(text, results), "run python -m benchmarks.table"
    assert results or table_module.NONE in text
    for name, found in results:
        assert not found["protocol"]["quick"], name
        assert [case["name"] for case in found["cases"]] == [case.name for case in CASES], name


def test_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="must hold its markers once; got 0"):
        table_module.page("no markers", [])


def test_memory_is_left_out_where_pages_are_too_coarse() -> None:
    assert memory.peak_extra(small("cross_entropy"), EAGER) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's to tell")
def test_peak_memory_holds_at_least_the_gradient() -> None:
    case = next(case for case in find("cross_entropy-4096x1000"))
    found = memory.peak_extra(case, EAGER)
    assert found is not None
    assert 2 * case.logit_bytes < found < 6 * case.logit_bytes, "eager keeps log-probabilities beside the gradient"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's to tell")
def test_an_earlier_peak_does_not_count() -> None:
    """Compiling takes far more memory than running."""
    case = Case("cross_entropy", (1024, 512), "a test")
    logits, rest = case.tensors(seed=0)
    torch.ones(2**26).sum()
    found = memory._measure(make(EAGER, case, logits, rest), logits, rest)
    assert found < 2**26, "256 MiB had been there and gone"


def test_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, words in {
        ("--cases", "nothing_like_it"): "'--cases' must be part of a case's name; got 'nothing_like_it'",
        ("--rounds", "1"): "'--rounds' must be 2 or more",
        ("--quick", "--cases", "16777216"): "none is left",
        ("--output", str(tmp_path)): "'--output' must be a file; got the folder",
    }.items():
        assert run_module.main(arguments) == 2
        assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert {case.loss for case in find("bce-*x80")} == {"bce"}


def test_a_run_writes_its_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "find", lambda pattern: (small("bce"),))
    monkeypatch.setattr(suite, "names", lambda case: FAST)
    output = tmp_path / "new/results.json"
    assert run_module.main(["--quick", "--rounds", "2", "--output", str(output)]) == 0
    found = json.loads(output.read_text(encoding="utf-8"))
    assert [case["name"] for case in found["cases"]] == ["bce-30x40"]
    assert found["protocol"]["quick"]
    assert "eager / steelyard" in capsys.readouterr().out.replace("\n", " ")
