"""The tests of the kernels skip where there are none; this one says so where there should be some."""

from __future__ import annotations

import platform

import pytest

from steelyard.ops import cpu


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"), reason="no kernels for this processor"
)
def test_the_extension_was_built() -> None:
    assert "baseline" in cpu.available()
