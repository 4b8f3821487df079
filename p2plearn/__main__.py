"""Where ``p2plearn`` and ``python -m p2plearn`` begin: nothing is imported before Ctrl-C has an answer."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; returns its exit code."""
    try:
        from p2plearn import collecting

        collecting.put_off()  # a command begins again once its modules are loaded
        from p2plearn.cli import main

        return main()
    except KeyboardInterrupt:
        print("p2plearn: Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(start())
