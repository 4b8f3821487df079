"""Whether this machine is on any network: what the kernel says of its interfaces, which a pulled cable changes while
their addresses stay.

Imports the standard library and ifaddr.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from typing import Final

import ifaddr

_GET_FLAGS: Final = 0x8913  # SIOCGIFFLAGS of Linux: a struct ifreq, the name in 16 bytes, then the flags in two
_REQUEST: Final = struct.Struct("16sH22x")
_UP, _RUNNING = 0x1, 0x40


def is_connected(name: str) -> bool | None:
    """Whether the interface ``name`` is switched on and has a cable, or a radio link; None when it can't be told.

    Linux tells it by IFF_RUNNING (netdevice(7)); elsewhere that flag means less.
    """
    if sys.platform != "linux":
        return None
    from fcntl import ioctl  # not on every system

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            told = ioctl(any_socket, _GET_FLAGS, _REQUEST.pack(name.encode()[:15], 0))
    except OSError:  # gone meanwhile, or IPv4 isn't there
        return None
    flags = int(_REQUEST.unpack(told)[1])
    return bool(flags & _UP and flags & _RUNNING)


def on_a_network() -> bool:
    """Whether an interface other than loopback has an address and isn't known to be off; True if it can't be told."""
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return True
    for adapter in adapters:
        texts = [entry.ip if isinstance(entry.ip, str) else entry.ip[0] for entry in adapter.ips]
        outward = any(not ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in texts)
        name = adapter.name if isinstance(adapter.name, str) else adapter.name.decode(errors="replace")
        if outward and is_connected(name) is not False:
            return True
    return False
