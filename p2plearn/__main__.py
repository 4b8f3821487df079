"""``python -m p2plearn``: the same as ``p2plearn``."""

from __future__ import annotations

import sys

from p2plearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
