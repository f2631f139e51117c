"""Docstrings of the public names have their parts, and the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from typing import Any

import pytest
import torch

import steelyard
from steelyard import functional, nn

ROOM = sys.modules["steelyard.explain"]  # the package; the attribute of that name is the function
MODULES = [f"steelyard.explain.{info.name}" for info in pkgutil.iter_modules(ROOM.__path__)]
PARTS = ["Args", "Returns", "Raises", "Example"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_and_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    names: dict[str, Any] = {**vars(functional), **vars(nn), **vars(ROOM), "torch": torch}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in finder.find(module, name, module, globs={**names, **vars(module), "torch": torch}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("function", [steelyard.explain, steelyard.check, ROOM.Explanation.compare])
def test_public_functions_say_everything(function: Any) -> None:
    text = inspect.cleandoc(function.__doc__ or "")
    headings = re.findall(r"^(\w+):", text, flags=re.MULTILINE)
    assert headings == PARTS
    for name in inspect.signature(function).parameters:
        if name != "self":
            assert re.search(rf"\b{name}\b[\w, *]*:", text), name
    assert doctest.DocTestParser().get_examples(text)


def test_the_package_and_its_function_share_a_name() -> None:
    assert callable(steelyard.explain)
    assert ROOM.explain is steelyard.explain
    assert importlib.import_module("steelyard.explain") is ROOM
    assert list(ROOM.__all__) == sorted(ROOM.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(ROOM, name) for name in ROOM.__all__)
