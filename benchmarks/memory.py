"""Peak extra memory of one forward and backward pass, measured in a process of its own.

Linux keeps the largest resident size that a process has had (``VmHWM``) and sets it back when 5 is written to
``/proc/self/clear_refs``. So: run the pass once, so that what is made only once is there; hand free memory back; set
the peak back; run the pass; read the peak. What it exceeds the size before by is what the pass needs beside logits and
targets: its temporaries, and its gradient.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import Case, find
from benchmarks.contenders import Contender, make

__all__ = ["LEAST", "SEED", "peak_extra"]

LEAST = 1 << 20  # bytes of logits; below, the kernel's count of pages is no finer than what is asked
SEED = 0
ROOT = Path(__file__).parent.parent


def peak_extra(case: Case, contender: str) -> int | None:
    """Bytes, or None where the logits are too small or the system does not say.

    Raises: RuntimeError: the process failed.
    """
    if case.logit_bytes < LEAST or not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, "-m", "benchmarks.memory", case.name, contender]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"measuring memory failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return int(json.loads(done.stdout)["bytes"])


def _measure(contender: Contender, logits: Tensor, rest: tuple[Tensor, ...]) -> int:
    leaf = logits.requires_grad_()

    def one_pass() -> None:
        inputs = [leaf.clone()]
        memory = inputs[0].untyped_storage()  # kept while the tensor is not, as where it is timed
        _hand_back()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        contender.run(inputs.pop(), *rest).backward()
        extra.append(_resident("VmHWM") - before)
        leaf.grad = None
        del memory

    extra: list[int] = []
    one_pass()
    one_pass()
    return max(0, extra[-1])


def _resident(field: str) -> int:
    """Bytes; VmRSS is what is in memory now, VmHWM the most since the peak was set back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _hand_back() -> None:
    """Give free memory back to the system; memory that the allocator kept would hide what the pass needs."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


if __name__ == "__main__":
    (the_case,) = (case for case in find(sys.argv[1]) if case.name == sys.argv[1])
    made = the_case.tensors(SEED)
    found = _measure(make(sys.argv[2], the_case, *made), *made)
    json.dump({"bytes": found, "threads": torch.get_num_threads()}, sys.stdout)
