"""The command ``steelyard``: parse → call a public function → print.

Exit code 0: done. 1: failed part-way or interrupted. 2: wrong usage, or data that cannot be used.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; says what to install where the extra ``cli`` is missing."""
    try:
        from steelyard.cli.app import app
    except ImportError as error:
        print(f"steelyard: {error}. The command needs: pip install 'steelyard[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    app()


if __name__ == "__main__":
    main()
