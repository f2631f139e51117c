"""What a test switches in the whole process, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Without a GPU, Triton's interpreter runs its kernels on the CPU. Triton looks once, when any test imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from steelyard.ops import cpu


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """One implementation of the operators on the CPU."""
    with cpu.using(request.param):
        yield request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads as it was, after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a generator is the same in every run."""
    torch.manual_seed(0)
