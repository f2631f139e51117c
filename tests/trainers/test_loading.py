"""Frameworks load when they are asked for, and where one is missing the message names the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = ["transformers", "accelerate", "lightning", "pytorch_lightning"]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_steelyard_loads_no_trainer() -> None:
    code = f"import sys, steelyard, steelyard.trainers; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize(
    ("module", "missing", "package"),
    [
        ("hugging_face", ["transformers"], "pip install 'transformers[torch]'"),
        ("hugging_face", ["accelerate"], "pip install 'transformers[torch]'"),
        ("lightning", ["lightning", "pytorch_lightning"], "pip install lightning"),
    ],
)
def test_a_missing_framework_is_named(module: str, missing: list[str], package: str) -> None:
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in missing)
    code = f"""
import sys; {hidden}
try:
    import steelyard.trainers.{module}
except ImportError as error:
    print(error)
"""
    assert run(code).startswith(f"steelyard.trainers.{module} needs ")
    assert run(code).endswith(package)


def test_pytorch_lightning_alone_will_do() -> None:
    code = """
import sys; sys.modules["lightning"] = None
from steelyard.trainers.lightning import ExactMean
print(ExactMean.__mro__[1].__module__)
"""
    assert run(code) == "pytorch_lightning.callbacks.callback"
