"""The example that is launched with torchrun: as it stands, saved, resumed on another number of ranks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "extreme_classification.py"


def launch(ranks: int, *arguments: str) -> tuple[dict[int, float], str]:
    """Losses by step, and all that was said."""
    small = ("--classes", "301", "--rows", "2000", "--width", "16", "--batch", "48", "--chunk-bytes", "4000")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(EXAMPLE),
         *small, *arguments],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^step (\d+): loss (\d+\.\d+)$", done.stdout, re.MULTILINE)
    return {int(number): float(loss) for number, loss in found}, done.stdout


def test_a_run_goes_on_as_if_it_had_not_been_stopped_on_other_numbers_of_ranks(tmp_path: Path) -> None:
    alone, said = launch(1, "--steps", "45")  # 41 steps are an epoch
    assert list(alone) == list(range(1, 46))
    assert alone[45] < 0.9 * alone[1], "it learns"
    assert "301 of 301 classes on rank 0 of 1" in said
    state = str(tmp_path / "run")
    before, said = launch(2, "--steps", "20", "--checkpoint", state)
    assert "151 of 301 classes on rank 0 of 2" in said
    (tmp_path / "run" / "step-30").mkdir()  # broken off while it was written
    after, said = launch(3, "--steps", "45", "--checkpoint", state)
    assert said.startswith("resumed after step 20\n")
    assert "101 of 301 classes on rank 0 of 3" in said
    assert list(before) + list(after) == list(alone)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "step-45").iterdir()}
    again, said = launch(1, "--steps", "45", "--checkpoint", state)
    assert not again
    assert "nothing is left to do: 45 steps are done" in said
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "step-45").iterdir()}
    assert before | after == pytest.approx(alone, abs=2e-5)  # float32, and sums over other shards
