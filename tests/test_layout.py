"""Imports point one way, and the core stands on torch and numpy alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src/steelyard"
# Each room may use those before it.
ORDER = ["_version", "_errors", "_values", "_kernels", "ops", "config", "information", "counts", "weights",
         "samplers", "functional", "nn", "registry", "distributed", "posterior", "explain", "trainers",
         "compare", "cli"]  # fmt: skip
# Kernels, which Triton has to be there for: loaded when the first tensor on a GPU comes, and by each other alone.
_LAUNCHED = ("functions", "labels", "sigmoid", "sigmoid_launch", "softmax", "softmax_launch", "softmax_parts")
KERNELS = {f"steelyard.ops.gpu.{name}" for name in _LAUNCHED}
CORE = ORDER[: ORDER.index("trainers")]


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path, *, at_load: bool) -> set[str]:
    """Modules that a file imports; those of its functions and of type checkers only where ``at_load`` is False."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if at_load:
        for node in ast.walk(tree):
            checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if checking or isinstance(node, ast.FunctionDef):
                skipped.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative path"
            found.add(node.module)
            if node.module == "steelyard":
                found.update(f"steelyard.{alias.name}" for alias in node.names)
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_uses_only_those_below_it(path: Path) -> None:
    own = ORDER.index(_room(path))
    for module in _imports(path, at_load=False):
        if module.startswith("steelyard."):
            used = module.split(".")[1]
            assert ORDER.index(used) <= own, f"{_room(path)} imports {used}"


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) in CORE], ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_core_loads_torch_and_numpy_only(path: Path) -> None:
    allowed, loaded = {"torch", "numpy", "steelyard", *sys.stdlib_module_names}, _imports(path, at_load=True)
    if ".".join(("steelyard", *path.relative_to(SOURCE).with_suffix("").parts)) in KERNELS:
        allowed.add("triton")
    else:
        assert not loaded & KERNELS
    assert {module.split(".")[0] for module in loaded} <= allowed
