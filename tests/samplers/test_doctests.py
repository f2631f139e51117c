"""The examples in the docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import steelyard.samplers
from steelyard import samplers

MODULES = [module.name for module in pkgutil.iter_modules(steelyard.samplers.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"steelyard.samplers.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", [name for name in samplers.__all__ if name != "Expected"])
def test_every_sampler_has_an_example_with_a_result(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(getattr(samplers, name).__doc__ or "")
    assert any(example.want for example in examples)
