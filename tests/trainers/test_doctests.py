"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import warnings
from typing import Any

import pytest

from steelyard.trainers import hugging_face, lightning


@pytest.mark.parametrize("module", [hugging_face, lightning], ids=lambda module: module.__name__)
def test_examples(module: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on devices
        result = doctest.testmod(module)
    assert result.attempted > 1
    assert result.failed == 0
