"""Where the extension was not built, every loss works all the same; where it is broken, that is said."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from kernel_cases import KERNELS, same_bits
from loss_examples import example, examples

from steelyard.ops import cpu

WITHOUT = "import sys; sys.modules['steelyard._kernels'] = None"  # what `import` finds where there is no such file


def _python(first: str, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != cpu.VARIABLE}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{first}\n{textwrap.dedent(code)}", *arguments],
        env={**plain, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


ALL_LOSSES = """
    import torch
    sys.path.insert(0, sys.argv[1])
    from loss_examples import example, examples
    from steelyard.ops import cpu
    assert cpu.available() == ("reference",), cpu.available()
    assert cpu.selected() == "reference" and not cpu.ready() and cpu.kernels is None and cpu.details() == {}
    cases = [case.values for case in examples()]
    torch.save([example(entry, targets, rich=rich).gradient() for entry, targets, rich in cases], sys.argv[2])
"""


@pytest.mark.parametrize("environment", [{}, {cpu.VARIABLE: "reference"}, {cpu.VARIABLE: ""}], ids=str)
def test_every_loss_is_the_references(environment: dict[str, str], tmp_path: Path) -> None:
    done = _python(WITHOUT, ALL_LOSSES, str(Path(__file__).parent.parent), str(tmp_path / "found"), **environment)
    assert done.returncode == 0, done.stderr
    cases = [case.values for case in examples()]
    with cpu.using("reference"):
        expected = [example(entry, targets, rich=rich).gradient() for entry, targets, rich in cases]
    for ours, theirs in zip(torch.load(tmp_path / "found"), expected, strict=True):
        same_bits(ours, theirs)


def test_the_public_operators_and_show_config_are_there() -> None:
    done = _python(
        WITHOUT,
        """
        import torch, steelyard
        logits, target = torch.randn(5, 7, requires_grad=True), torch.arange(5)
        loss = torch.compile(steelyard.functional.focal_loss, backend="eager", fullgraph=True)(logits, target)
        loss.backward()
        assert logits.grad.isfinite().all()
        torch.ops.steelyard.sigmoid_loss(torch.randn(3), torch.rand(3), None, None, 1.0, 0.0, 0.0, 0.0, None)
        told = steelyard.show_config("dicts")
        assert told["cpu available"] == ["reference"], told
        steelyard.show_config()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout


@pytest.mark.parametrize("word", ["avx2", "baseline"])
def test_asking_for_kernels_that_are_not_there_is_an_error(word: str) -> None:
    done = _python(WITHOUT, "import steelyard", **{cpu.VARIABLE: word})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: {cpu.VARIABLE}")
    assert repr(word) in last
    assert "reference" in last


BROKEN = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "steelyard._kernels":
            raise ERROR
sys.meta_path.insert(0, Broken())
"""


@pytest.mark.parametrize(
    "error",
    [
        "ImportError('undefined symbol: memcpy', name='steelyard._kernels')",
        "ModuleNotFoundError('no module of another name', name='other')",
    ],
)
def test_an_extension_that_fails_to_load_is_not_passed_over(error: str) -> None:
    done = _python(BROKEN.replace("ERROR", error), "import steelyard")
    assert done.returncode != 0
    assert error.split("'")[1] in done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(not KERNELS, reason="no kernels were built here")
def test_with_the_extension_there_is_more_than_the_reference() -> None:
    done = _python("", "from steelyard.ops import cpu; print(*cpu.available())")
    assert done.stdout.split() == ["reference", *KERNELS], done.stderr
