"""The command ``steelyard``: parse → call a public function → print.

Exit code 0: done. 1: failed part-way or interrupted. 2: wrong usage, or data that cannot be used.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


INTERRUPTED = "steelyard: interrupted; nothing was written."


def main() -> None:
    """Run the command; says what to install where the extra ``cli`` is missing."""
    try:
        try:
            from steelyard.cli.app import app
        except ImportError as error:
            print(f"steelyard: {error}. The command needs: pip install 'steelyard[cli]'", file=sys.stderr)
            raise SystemExit(2) from None
        app()
    except KeyboardInterrupt:  # while the libraries load, which takes seconds
        print(INTERRUPTED, file=sys.stderr)
        raise SystemExit(1) from None
    except SystemExit as done:
        if done.code == 130:  # Typer's silent answer to an interrupt while it reads the command line
            print(INTERRUPTED, file=sys.stderr)
            raise SystemExit(1) from None
        raise


if __name__ == "__main__":
    main()
