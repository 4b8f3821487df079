"""Modules that libp2p imports and a node never uses are loaded when somebody does use them.

libp2p imports two HTTP clients, for its certificate service, at its own import: 11 MiB and 0.2 s of every node's start.
A stand-in takes the place of each that becomes the real module, whole, at the first look at anything of it. (The
standard library's lazy loader does so at a mere second ``import``, before Python 3.12.)

Imports the standard library only; to be called before libp2p is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

UNUSED: Final = ("requests", "httpx")


class _Late(ModuleType):
    """A module that isn't loaded yet."""

    def __getattr__(self, name: str) -> Any:
        """Load it; called only for what a module doesn't have before it is."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)


def load_late(names: Iterable[str] = UNUSED) -> None:
    """Have modules loaded at their first use; those that are loaded already, or not installed, are left alone."""
    for name in names:
        if name in sys.modules:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        module = _Late(name)
        module.__spec__ = spec
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
