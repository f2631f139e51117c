"""Run ``kernels.py`` on a module built with sanitizers, and fail if anything at all is found.

    python tests/sanitize/run.py build/sanitize

``make sanitize`` builds the module first. The one that is installed is not touched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = re.compile(r"ERROR: \w*Sanitizer|runtime error:|CHECK failed")


def sanitized(directory: Path) -> Path:
    """The only module in a directory, if it is one that sanitizers watch."""
    found = sorted(directory.glob("_kernels*.so"))
    if len(found) != 1:
        sys.exit(f"{directory} must hold one _kernels*.so; it holds {[path.name for path in found]}")
    code = found[0].read_bytes()
    for mark in (b"__asan_report_load", b"__asan_report_store", b"__ubsan_handle"):
        if mark not in code:
            sys.exit(f"{found[0]} was built without sanitizers: nothing in it calls {mark.decode()}")
    return found[0].resolve()


def runtimes() -> str:
    """AddressSanitizer's library, which must come first in a process; and C++'s, whose `throw` it wants to find."""
    compiler = os.environ.get("CXX", "c++")
    paths = []
    for name in ("libasan.so", "libstdc++.so"):
        told = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        path = told.stdout.strip()
        if not Path(path).is_absolute():
            sys.exit(f"{compiler} has no {name}; sanitizers need GCC on Linux")
        paths.append(path)
    return ":".join(paths)


def main(directory: str) -> None:
    """Run, show, judge."""
    module = sanitized(Path(directory))
    with tempfile.NamedTemporaryFile(prefix="steelyard-sanitize-") as diary:
        environment = {
            **os.environ,
            "LD_PRELOAD": runtimes(),
            # Leaks are not looked for: Python and PyTorch hold memory to the end of the process on purpose, and by the
            # hundreds; what the kernels allocate is in two places (on_threads, ClassValues), each owned by a variable.
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "OMP_NUM_THREADS": "1",  # PyTorch's; the kernels are told a number of their own
        }
        done = subprocess.run(
            [sys.executable, str(HERE / "kernels.py"), str(module), diary.name],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        doing = diary.read().decode(errors="replace").strip()
    print(done.stdout, end="")
    finished = done.stdout.splitlines()[-1:]
    if done.returncode or REPORTS.search(done.stdout) or not (finished and finished[0].startswith("done: ")):
        sys.exit(f"FAILED (exit status {done.returncode}) at: {doing or 'the start'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
