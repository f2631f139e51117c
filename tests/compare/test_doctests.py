"""The examples in the docstrings of the comparison run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import steelyard.compare

MODULES = [m.name for m in pkgutil.iter_modules(steelyard.compare.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"steelyard.compare.{name}")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [finder.find(importlib.import_module(f"steelyard.compare.{name}")) for name in MODULES]
    assert sum(bool(test.examples) for tests in found for test in tests) >= 3
