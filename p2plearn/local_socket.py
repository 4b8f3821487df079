"""Reaching a Unix socket however long its path is.

The kernel's address of a Unix socket holds 107 bytes (103 on macOS); a home may be deeper. Then the address goes
through an open descriptor of its folder (Linux), or is relative to that folder for an instant (elsewhere).

Imports only the standard library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_ADDRESS = 103

_changing_folder = threading.Lock()


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address of the socket ``path`` for ``bind`` or ``connect``, good inside the ``with`` only.

    Raises OSError when the folder can't be opened. Don't wait for anything inside: elsewhere than on Linux the
    working folder of the whole process is another one meanwhile.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.isdir(f"/proc/self/fd/{folder}"):
            yield f"/proc/self/fd/{folder}/{path.name}"
            return
        with _changing_folder:
            before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fchdir(folder)
                yield path.name
            finally:
                os.fchdir(before)
                os.close(before)
    finally:
        os.close(folder)
