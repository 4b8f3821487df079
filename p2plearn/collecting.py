"""When Python looks for garbage: not among what is loaded once and stays.

Whatever a module makes when it is imported lives as long as the process. Looked through again and again with what came
after, it took 9 % of the CPU of five nodes that fetched a course together (a node holds some hundred thousand such
objects), 0.2 of the 1.5 s in which a node loads its modules, and a fifteenth of what `p2plearn list` takes.

Imports only the standard library, and of that only what Python has loaded anyway.
"""

from __future__ import annotations

import gc


def put_off() -> None:
    """Don't look for garbage while much is loaded that stays; until ``begin``."""
    gc.disable()


def begin(*, tidy: bool = False) -> None:
    """Look for garbage from now on, but never again among what is here; ``tidy``: after one last look at all of it."""
    if tidy:
        gc.collect()
    gc.freeze()
    gc.enable()
