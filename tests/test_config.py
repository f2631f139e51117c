"""What show_config says is what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import steelyard
from steelyard.ops import cpu


def _printed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert steelyard.show_config() is None
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() for line in lines)
    return {line[:14].strip(): line[14:] for line in lines}


def test_the_dictionary_is_what_runs() -> None:
    found = steelyard.show_config(mode="dicts")
    assert (found["steelyard"], found["torch"]) == (steelyard.__version__, torch.__version__)
    assert (found["cpu"], tuple(found["cpu available"])) == (cpu.selected(), cpu.available())
    assert found["threads"] == torch.get_num_threads()
    assert found["other devices"] == "reference"
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["STEELYARD_CPU"] == os.environ.get("STEELYARD_CPU")
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", cpu.available())
def test_what_is_printed_names_the_implementation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with cpu.using(name):
        assert steelyard.show_config("dicts")["cpu"] == name
        shown = _printed(capsys)
    assert shown["steelyard"] == steelyard.__version__
    assert shown["torch"] == torch.__version__
    assert shown["CPU tensors"].startswith(f"{name}, ")
    assert ("C++" in shown["CPU tensors"]) == (name != "reference")
    rest = shown["CPU tensors"].partition("runs here too: ")[2]
    assert set(rest.split(", ")) - {""} == set(cpu.available()) - {name}
    assert shown["other devices"].startswith("reference")
    assert ("sees no GPU" in shown["CUDA tensors"]) == (torch.cuda.device_count() == 0)


def test_threads_and_pages_are_the_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _printed(capsys)
    if cpu.kernels is None:
        assert "GCC or Clang" in shown["kernels"]
    else:
        assert shown["threads"] == f"{torch.get_num_threads()} at most, {cpu.details()['threads']}"
        assert shown["huge pages"] == cpu.details()["huge pages"]


def test_without_kernels_it_says_what_they_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with cpu.using("reference"), monkeypatch.context() as without:
        without.setattr(cpu, "kernels", None)
        found = steelyard.show_config("dicts")
        assert (found["cpu"], found["cpu available"], found["huge pages"]) == ("reference", ["reference"], None)
        shown = _printed(capsys)
    assert shown["CPU tensors"] == "reference, the formulas in plain PyTorch"
    assert "GCC or Clang" in shown["kernels"]
    assert "threads" not in shown


def test_the_variable_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("STEELYARD_CPU", raising=False)
    assert _printed(capsys)["STEELYARD_CPU"] == "not set"
    monkeypatch.setenv("STEELYARD_CPU", "reference")
    assert _printed(capsys)["STEELYARD_CPU"] == "'reference'"


@pytest.mark.parametrize(("mode", "error"), [("json", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)])
def test_another_mode_is_refused(mode: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^show_config: 'mode' must be one of 'print', 'dicts'; got .+\.$"):
        steelyard.show_config(mode)


# --------------------------------------------------- STEELYARD_CPU; tests/ops/test_kernel_processes.py has its values


def _run(value: str | None, program: str) -> subprocess.CompletedProcess[str]:
    given = {key: held for key, held in os.environ.items() if key != "STEELYARD_CPU"}
    given |= {} if value is None else {"STEELYARD_CPU": value}
    return subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("value", [None, ""], ids=["not set", "empty"])
def test_the_fastest_is_chosen_by_itself(value: str | None) -> None:
    done = _run(value, "import steelyard; print(steelyard.show_config('dicts')['cpu'])")
    assert (done.stdout.strip(), done.stderr) == (cpu.available()[-1], "")


def test_another_value_is_refused_in_one_sentence() -> None:
    done = _run("nonsense", "import steelyard")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Traceback")
    last = done.stderr.splitlines()[-1]  # nothing after it: no complaint of the extension as it goes
    assert last.startswith("ValueError: STEELYARD_CPU: 'value' must be one of 'reference'")
    assert "; got 'nonsense'." in last
