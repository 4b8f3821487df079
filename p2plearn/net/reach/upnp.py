"""⊙ UPnP's Internet Gateway Device, as much of it as forwarding a port takes. Sans-IO: texts in, texts out.

In: what a router says of itself (SSDP answers, its description, SOAP answers). Out: what to ask it, and PeerFault for
what is no answer. The XML is not parsed as XML: the five tags that matter are looked for in at most ``MAX_PAGE``
bytes, so that no entity, no nesting and no namespace of a router's firmware can do anything. Anybody on the LAN may
answer a search: looking takes time in proportion to the page, whatever is in it.

Specifications: UPnP Device Architecture 1.1; WANIPConnection 1. Imports ``errors``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape

from p2plearn.errors import PeerFault

GROUP: Final = ("239.255.255.250", 1900)
"""Where routers listen for a search (UDP multicast)."""

MAX_PAGE: Final = 64 * 1024
"""Bytes of a description or an answer; real ones have some five thousand."""

MAX_SERVICES: Final = 64
"""Services of a description that are looked at; real ones have fewer than ten."""

SERVICES: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""What a router that forwards ports offers, the best first."""


@dataclass(frozen=True, slots=True)
class Control:
    """Where and as what to ask a router."""

    host: str
    port: int
    path: str
    service: str


def search() -> bytes:
    """A search for routers, to be sent to ``GROUP``."""
    lines = ["M-SEARCH * HTTP/1.1", f"HOST: {GROUP[0]}:{GROUP[1]}", 'MAN: "ssdp:discover"', "MX: 2"]
    lines.append("ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1")
    return "\r\n".join([*lines, "", ""]).encode()


def read_location(raw: bytes, sender: str) -> str:
    """The address of the description in an answer to a search; raises PeerFault.

    It must be on the machine that answered: else anybody here could have us fetch pages anywhere.
    """
    text = raw[:2048].decode("latin-1")
    found = re.search(r"^location:[ \t]*(\S+)[ \t]*\r?$", text, re.IGNORECASE | re.MULTILINE)
    if not text.startswith("HTTP/1.1 200") or found is None:
        raise PeerFault("no answer to a search")
    host, _, _ = split(found[1])
    if host != sender:
        raise PeerFault("an answer that leads elsewhere")
    return found[1]


def split(url: str) -> tuple[str, int, str]:
    """IP address, port and path of a plain URL; raises PeerFault."""
    try:
        parts = urlsplit(url)
        host = str(ipaddress.IPv4Address(parts.hostname or ""))
        port = parts.port or 80
    except ValueError as error:
        raise PeerFault("a URL that is none of a router's") from error
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "http" or not re.fullmatch(r"[\x21-\x7e]+", path):
        raise PeerFault("a URL that is none of a router's")
    return host, port, path


def read_description(page: bytes, location: str) -> Control:
    """Where to ask for forwarding, of a router's description at ``location``; raises PeerFault."""
    text = page[:MAX_PAGE].decode("utf-8", "replace")
    base = _tag(text, "URLBase") or location
    offered = {}
    for piece in text.split("<service>")[1 : 1 + MAX_SERVICES]:
        block, closed, _ = piece.partition("</service>")
        if closed:
            offered[_tag(block, "serviceType")] = _tag(block, "controlURL")
    for service in SERVICES:
        if offered.get(service):
            host, port, path = split(_joined(base, offered[service]))
            if host != split(location)[0]:
                raise PeerFault("a description that leads elsewhere")
            return Control(host, port, path, service)
    raise PeerFault("a router that forwards no ports")


def call(control: Control, action: str, **arguments: object) -> bytes:
    """An HTTP request that asks for ``action``."""
    inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in arguments.items())
    envelope = "http://schemas.xmlsoap.org/soap/"
    body = (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="{envelope}envelope/" s:encodingStyle="{envelope}encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{control.service}">{inner}</u:{action}></s:Body></s:Envelope>'
    ).encode()
    head = [
        f"POST {control.path} HTTP/1.1",
        f"Host: {control.host}:{control.port}",
        'Content-Type: text/xml; charset="utf-8"',
        f"Content-Length: {len(body)}",
        f'SOAPAction: "{control.service}#{action}"',
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def fetch(host: str, port: int, path: str) -> bytes:
    """An HTTP request for a page."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()


def read_page(raw: bytes) -> bytes:
    """The body of an HTTP answer that went well; raises PeerFault with the router's words for one that did not."""
    head, separator, body = raw[: 2 * MAX_PAGE].partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
    if not separator or status is None:
        raise PeerFault("no HTTP answer")
    if status[1] != b"200":
        text = body.decode("utf-8", "replace")
        words = " ".join(filter(None, (_tag(text, "errorCode"), _tag(text, "errorDescription"))))
        raise PeerFault(f"the router refused: {words[:100] or status[1].decode()}")
    return body


def read_outside(page: bytes) -> str:
    """The outside address in the answer to GetExternalIPAddress; raises PeerFault."""
    try:
        return str(ipaddress.IPv4Address(_tag(page[:MAX_PAGE].decode("utf-8", "replace"), "NewExternalIPAddress")))
    except ValueError as error:
        raise PeerFault("the router tells no outside address") from error


def _tag(text: str, name: str) -> str:
    # Each piece of the pattern ends before the next "<": what is tried in vain is not gone over again.
    for opened in re.finditer(rf"<(?:\w+:)?{name}(?:\s[^<>]*)?>", text):
        end = text.find("<", opened.end())
        if end < 0:
            break
        if text.startswith("</", end):
            return text[opened.end() : end].strip()
    return ""


def _joined(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError as error:
        raise PeerFault("a URL that is none of a router's") from error
