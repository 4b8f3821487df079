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
import re
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


class Nothing:
    """A router that forwards nothing for anybody."""

    def __init__(self, translation: Translation, at: str) -> None:
        self.sockets: list[socket.socket] = []

    def serve(self, sock: socket.socket) -> None:
        """Never called."""


class PmpServer:
    """NAT-PMP (RFC 6886) at the router's inside address."""

    def __init__(self, translation: Translation, at: str) -> None:
        self.translation = translation
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.sockets[0].bind((at, 5351))

    def serve(self, sock: socket.socket) -> None:
        """Answer one question."""
        question, asker = sock.recvfrom(64)
        if question[:2] == b"\0\0":
            sock.sendto(struct.pack("!BBHI", 0, 128, 0, 1) + self.translation.address, asker)
        elif question[:2] == b"\0\2":
            _, inside, outside, seconds = struct.unpack("!HHHI", question[2:12])
            outside = change(self.translation, asker[0], inside, outside or inside, seconds)
            sock.sendto(struct.pack("!BBHIHHI", 0, 130, 0, 1, inside, outside, seconds), asker)


class UpnpServer:
    """UPnP's Internet Gateway Device, as much of it as forwarding takes; permanent leases only, as many have it."""

    def __init__(self, translation: Translation, at: str) -> None:
        self.translation = translation
        self.at = at
        search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        search.bind(("", 1900))
        member = socket.inet_aton("239.255.255.250") + socket.inet_aton(at)
        search.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        pages = socket.create_server((at, 49152))
        self.sockets = [search, pages]

    def serve(self, sock: socket.socket) -> None:
        """Answer one search, or one request for a page."""
        if sock is self.sockets[0]:
            question, asker = sock.recvfrom(2048)
            if question.startswith(b"M-SEARCH"):
                answer = f"HTTP/1.1 200 OK\r\nST: igd\r\nLocation: http://{self.at}:49152/root.xml\r\n\r\n"
                sock.sendto(answer.encode(), asker)
            return
        connection, (caller, _) = sock.accept()
        with connection:
            connection.settimeout(5)
            status, body = self._page(_read_request(connection), caller)
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body.encode())

    def _page(self, request: str, caller: str) -> tuple[str, str]:
        service = "urn:schemas-upnp-org:service:WANIPConnection:1"
        if request.startswith("GET /root.xml "):
            where = f"<serviceType>{service}</serviceType><controlURL>/control</controlURL>"
            return "200 OK", f"<?xml version='1.0'?><root><device><service>{where}</service></device></root>"
        if not request.startswith("POST /control "):
            return "404 Not Found", ""
        asked = dict(re.findall(r"<(New\w+)>([^<]*)</", request))
        if "#GetExternalIPAddress" in request:
            inner = f"<NewExternalIPAddress>{socket.inet_ntoa(self.translation.address)}</NewExternalIPAddress>"
            return "200 OK", f"<s:Envelope><s:Body><u:R>{inner}</u:R></s:Body></s:Envelope>"
        outside = int(asked["NewExternalPort"])
        if "#DeletePortMapping" in request:
            change(self.translation, caller, outside, outside, 0)
        elif asked["NewLeaseDuration"] != "0":
            return (
                "500 Error",
                "<errorCode>725</errorCode><errorDescription>OnlyPermanentLeasesSupported</errorDescription>",
            )
        else:
            change(self.translation, asked["NewInternalClient"], int(asked["NewInternalPort"]), outside, 1)
        return "200 OK", "<s:Envelope/>"


def _read_request(connection: socket.socket) -> str:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(4096) or b"\r\n\r\n"
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *([0-9]+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        body += connection.recv(4096)
    return (head + b"\r\n\r\n" + body).decode()


def change(translation: Translation, client: str, inside: int, outside: int, seconds: int) -> int:
    """Forward a TCP port, or no longer (0 seconds), and say so on stdout."""
    if seconds:
        translation.forward(TCP, outside, (socket.inet_aton(client), inside))
    else:
        translation.unforward(TCP, outside)
    print(f"{'forward' if seconds else 'unforward'} {outside} {client} {inside}", flush=True)
    return outside


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--inside", "--outside", "--outside-namespace", "--address"):
        parser.add_argument(name, required=True)
    parser.add_argument("--kind", choices=("cone", "symmetric"), default="cone")
    parser.add_argument("--serve", choices=("pmp", "upnp"))
    parser.add_argument("--inside-address", default="192.168.1.1")
    wanted = parser.parse_args()
    inside = open_tun(wanted.inside)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(wanted.outside_namespace)
    outside = open_tun(wanted.outside)
    if ctypes.CDLL(None, use_errno=True).setns(here, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(here)
    translation = Translation(wanted.address, symmetric=wanted.kind == "symmetric")
    server = {"pmp": PmpServer, "upnp": UpnpServer}.get(wanted.serve, Nothing)(translation, wanted.inside_address)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([inside, outside, sys.stdin, *server.sockets], [], [])
        if sys.stdin in readable:
            return
        for sock in server.sockets:
            if sock in readable:
                server.serve(sock)
        for source, sink, turn in ((inside, outside, translation.outward), (outside, inside, translation.inward)):
            if source in readable:
                packet = turn(bytearray(os.read(source, 65536)))
                if packet is not None:
                    os.write(sink, packet)


if __name__ == "__main__":
    main()
