"""Where the numbers come from, in words: nothing that names a machine, a person or a path."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import steelyard
from benchmarks.contenders import HUGE_PAGE, fresh_like

__all__ = ["describe", "without_paths"]

ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    """Versions, processor, threads and huge pages."""
    return {
        "date": datetime.date.today().isoformat(),
        "steelyard": f"{steelyard.__version__} ({_said('git', 'describe', '--always', '--dirty') or 'no repository'})",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiler": _said("g++", "-dumpfullversion") and f"g++ {_said('g++', '-dumpfullversion')}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "huge_pages": {
            "system": _huge_page_setting(),
            "asked_for_by_torch": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
            "floor_got_them": _floor_gets_huge_pages(),
        },
    }


def without_paths(text: str) -> str:
    """A message as it may be published."""
    return re.sub(r"(?<![\w.])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@-]+){2,}", "…", text)


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _huge_page_setting() -> str | None:
    """``always``, ``madvise`` or ``never``."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return None
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen.group(1) if chosen else None


def _floor_gets_huge_pages() -> bool | None:
    """Whether advising works here; a setting says what may be, this says what is."""
    before = _huge_bytes()
    if before is None:
        return None
    memory = fresh_like(torch.empty(8 * HUGE_PAGE, dtype=torch.uint8)).zero_()
    after = _huge_bytes()
    return after is not None and after - before >= memory.numel() // 2


def _huge_bytes() -> int | None:
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages:")), None)
