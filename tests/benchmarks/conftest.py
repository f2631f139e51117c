"""The benchmarks are no part of the installed library; they are found from the root of the repository."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent))
