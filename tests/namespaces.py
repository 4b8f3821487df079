"""Network namespaces that a test makes for itself: nothing but what it puts into them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest


def ip(*words: str) -> None:
    """Run ``ip``; raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def namespaces(*ends: str) -> Iterator[tuple[str, ...]]:
    """Fresh namespaces with loopback up, one an end, deleted afterwards; skips the test where they can't be made."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("needs Linux and iproute2 to make network namespaces")
    tag = uuid.uuid4().hex[:6]
    made: list[str] = []
    try:
        try:
            for end in ends:
                name = f"p2pl-{tag}-{end}"
                ip("netns", "add", name)
                made.append(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"may not make network namespaces: {error.stderr.decode().strip()}")
        for name in made:
            ip("-n", name, "link", "set", "lo", "up")
        yield tuple(made)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def join(one: str, one_address: str, other: str, other_address: str, *, bare: bool = False) -> tuple[str, str]:
    """A cable between two namespaces, with an address at each end ("" for none); the names of its ends.

    ``bare``: with no addresses but those given (otherwise link-local IPv6 ones come by themselves).
    """
    tag = uuid.uuid4().hex[:8]
    near, far = f"v{tag}a", f"v{tag}b"
    ip("link", "add", near, "netns", one, "type", "veth", "peer", "name", far, "netns", other)
    for name, end, address in ((one, near, one_address), (other, far, other_address)):
        if bare:
            ip("-n", name, "link", "set", end, "addrgenmode", "none")
        if address:
            ip("-n", name, "addr", "add", address, "dev", end, *(["nodad"] if ":" in address else []))
        ip("-n", name, "link", "set", end, "up")
    return near, far
