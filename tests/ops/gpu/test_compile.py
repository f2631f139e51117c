"""Triton's compiler takes the kernels, for a GPU that need not be here, and makes of them what they are meant to be."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.ops import gpu

SCRIPT = Path(__file__).parent / "compile_kernels.py"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    version = tuple(int(part) for part in (gpu.version() or "0.0").split("+")[0].split(".")[:2])
    if version < (3, 6):
        pytest.skip("Triton's own interface to its compiler has changed since")
    folder = Path(importlib.util.find_spec("triton").origin).parent
    if not (folder / "backends/nvidia/bin/cuobjdump").exists():
        pytest.skip("a Triton without the tools for NVIDIA's GPUs")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_is_read_and_written_in_the_widest_words(compiled: dict[str, dict[str, int]]) -> None:
    assert {name: found["ld"] for name, found in compiled.items() if found["ld"] < 128} == {}
    assert {name: found["st"] for name, found in compiled.items() if found["st"] < 128} == {}


def test_registers_suffice(compiled: dict[str, dict[str, int]]) -> None:
    """A row that is kept on chip is not spilled to memory; a few words beside it would do no harm."""
    assert {name: found["stack"] for name, found in compiled.items() if found["stack"] > 64} == {}
