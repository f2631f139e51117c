"""What the objects of the kernels show to the linker.

A function that two objects define weakly is kept once. Were the one that is kept compiled for AVX-512, a processor
without that would meet its instructions from wherever else the function is called: in the baseline kernels, in the
binding. So the object of each instruction set shows one thing, its table, and asks for C's memory functions only.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_cases import KERNELS

BUILDS = Path(__file__).parent.parent.parent / "build"
# Of an editable install, which keeps its build; sanitizers bring symbols of their own.
OBJECTS = {
    path.relative_to(BUILDS).parts[2].removeprefix("kernels_").removesuffix(".dir"): path
    for path in BUILDS.glob("cp*/CMakeFiles/kernels_*.dir/**/kernels.cpp.o")
}
NM = shutil.which("nm")

# The linker's own tables, and what compilers make of loops and assignments.
MAY_ASK_FOR = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def _symbols(path: Path) -> list[tuple[str, str]]:
    """Kind and name of each symbol that is not local to the object."""
    assert NM is not None
    done = subprocess.run([NM, "--extern-only", "--portability", path], capture_output=True, text=True, check=True)
    return [(line.split()[1], line.split()[0]) for line in done.stdout.splitlines()]


@pytest.mark.skipif(NM is None, reason="no nm on this system")
@pytest.mark.skipif(not OBJECTS, reason="the package was not installed from here as editable")
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_shows_its_table_and_nothing_else(name: str) -> None:
    symbols = _symbols(OBJECTS[name])
    asked = {symbol for kind, symbol in symbols if kind in "Uw"}
    shown = [(kind, symbol) for kind, symbol in symbols if kind not in "Uw"]
    assert len(shown) == 1, f"{name} shows {shown}"
    kind, symbol = shown[0]
    assert kind in "DR", "weak symbols are merged with those of other instruction sets"
    assert f"steelyard{len(name)}{name}7kernels" in symbol
    assert asked <= MAY_ASK_FOR


@pytest.mark.skipif(not OBJECTS, reason="the package was not installed from here as editable")
def test_every_kernel_here_has_an_object() -> None:
    assert set(KERNELS) <= set(OBJECTS)
