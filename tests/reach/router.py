"""A home router in user space: translates addresses between two TUN devices, for kernels that can't.

    python router.py --inside nat0 --outside out1 --outside-namespace NAME --address 7.7.1.1 [--kind symmetric]

Run in the router's namespace. What comes in by the inside device leaves by the outside one under ``--address`` and a
port of its own; only those who were called from inside get an answer through. ``cone`` gives an inside port one
outside port whoever is called, ``symmetric`` one for each other end. Ends when its stdin does.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys

_TUNSETIFF = 0x400454CA
_TUN_NO_PI = 0x0001 | 0x1000
_NEWNET = 0x40000000
TCP, UDP = 6, 17


def open_tun(name: str) -> int:
    """The descriptor of the TUN device ``name`` of this process's namespace."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_NO_PI))
    return descriptor


def enter(namespace: str) -> None:
    """Move this process into a named namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Translation:
    """Which outside port stands for which inside one, and who may answer there."""

    def __init__(self, address: str, *, symmetric: bool) -> None:
        self.address = socket.inet_aton(address)
        self.symmetric = symmetric
        self._next = 20_000
        self._outside: dict[tuple[object, ...], int] = {}
        self._inside: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._called: dict[tuple[int, int], set[tuple[bytes, int]]] = {}
        self._forwarded: set[tuple[int, int]] = set()

    def forward(self, protocol: int, outside: int, inside: tuple[bytes, int]) -> None:
        """Let everybody through to ``inside``, as a port mapping does."""
        self._forwarded.add((protocol, outside))
        self._inside[protocol, outside] = inside
        self._outside[protocol, *inside] = outside

    def unforward(self, protocol: int, outside: int) -> None:
        """Take a mapping back."""
        self._forwarded.discard((protocol, outside))
        inside = self._inside.pop((protocol, outside), None)
        if inside is not None:
            self._outside.pop((protocol, *inside), None)

    def outward(self, packet: bytearray) -> bytearray | None:
        """A packet from inside as it goes on; None for one that doesn't."""
        found = _ends(packet)
        if found is None:
            return None
        protocol, source, target = found
        key: tuple[object, ...] = (protocol, *source, *target) if self.symmetric else (protocol, *source)
        port = self._outside.get(key)
        if port is None:
            port, self._next = self._next, self._next + 1
            self._outside[key] = port
            self._inside[protocol, port] = source
        self._called.setdefault((protocol, port), set()).add(target)
        return _rewrite(packet, at=12, port_at=0, address=self.address, port=port)

    def inward(self, packet: bytearray) -> bytearray | None:
        """A packet from outside as it goes on; None for one that nobody inside asked for."""
        found = _ends(packet)
        if found is None:
            return None
        protocol, source, (_, port) = found
        inside = self._inside.get((protocol, port))
        known = (protocol, port) in self._forwarded or source in self._called.get((protocol, port), ())
        if inside is None or not known:
            return None
        return _rewrite(packet, at=16, port_at=2, address=inside[0], port=inside[1])


def _ends(packet: bytearray) -> tuple[int, tuple[bytes, int], tuple[bytes, int]] | None:
    """Protocol, source and target of an IPv4 packet with TCP or UDP in it."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP):
        return None
    head = (packet[0] & 15) * 4
    source, target = struct.unpack_from("!HH", packet, head)
    return packet[9], (bytes(packet[12:16]), source), (bytes(packet[16:20]), target)


def _rewrite(packet: bytearray, *, at: int, port_at: int, address: bytes, port: int) -> bytearray:
    """Put another address at ``at`` and another port in, and mend both checksums (RFC 1624)."""
    head = (packet[0] & 15) * 4
    old = bytes(packet[at : at + 4]), bytes(packet[head + port_at : head + port_at + 2])
    new = address, struct.pack("!H", port)
    packet[at : at + 4] = address
    packet[head + port_at : head + port_at + 2] = new[1]
    _mend(packet, 10, old[0], new[0])
    _mend(packet, head + (16 if packet[9] == TCP else 6), old[0] + old[1], new[0] + new[1])
    return packet


def _mend(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    (checksum,) = struct.unpack_from("!H", packet, at)
    total = ~checksum & 0xFFFF
    for was, now in zip(
        struct.unpack(f"!{len(old) // 2}H", old), struct.unpack(f"!{len(new) // 2}H", new), strict=True
    ):
        total += (~was & 0xFFFF) + now
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", packet, at, ~total & 0xFFFF)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--inside", "--outside", "--outside-namespace", "--address"):
        parser.add_argument(name, required=True)
    parser.add_argument("--kind", choices=("cone", "symmetric"), default="cone")
    wanted = parser.parse_args()
    inside = open_tun(wanted.inside)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(wanted.outside_namespace)
    outside = open_tun(wanted.outside)
    if ctypes.CDLL(None, use_errno=True).setns(here, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(here)
    translation = Translation(wanted.address, symmetric=wanted.kind == "symmetric")
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([inside, outside, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        for source, sink, turn in ((inside, outside, translation.outward), (outside, inside, translation.inward)):
            if source in readable:
                packet = turn(bytearray(os.read(source, 65536)))
                if packet is not None:
                    os.write(sink, packet)


if __name__ == "__main__":
    main()
