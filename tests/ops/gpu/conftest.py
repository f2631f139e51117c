"""Every test here meets the GPU's kernels: on a GPU where there is one, else under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_cases import interpreted

from steelyard.ops.gpu import _launch


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    with interpreted():
        yield


@pytest.fixture
def grid(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sizes that force one shape of the grid."""
    with _launch.limits(**request.param):
        yield
