"""What routers say about forwarded ports: taken when it is what was asked, refused with words when it is not."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.errors import PeerFault
from p2plearn.net.reach import natpmp, portmap, upnp

HERE = "http://192.168.1.1:49152/root.xml"
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"


def described(url: str, service: str = WAN) -> bytes:
    inner = f"<service><serviceType>{service}</serviceType><controlURL>{url}</controlURL></service>"
    other = "<service><serviceType>urn:x:Layer3Forwarding:1</serviceType><controlURL>/no</controlURL></service>"
    return f"<root><serviceList>{other}{inner}</serviceList></root>".encode()


def test_natpmp_as_the_rfc_has_it() -> None:
    assert natpmp.ask_mapping(4017, 4017, 3600).hex() == "000200000fb10fb100000e10"
    assert natpmp.read_address(bytes.fromhex("008000000000000107070101")) == "7.7.1.1"
    raw = struct.pack("!BBHIHHI", 0, 130, 0, 1, 4017, 40000, 1800)
    assert natpmp.read_mapping(raw, 4017) == natpmp.Granted(40000, 1800)
    with pytest.raises(PeerFault, match="another port"):
        natpmp.read_mapping(raw, 4018)
    with pytest.raises(PeerFault, match="owner does not allow it"):
        natpmp.read_mapping(struct.pack("!BBHIHHI", 0, 130, 2, 1, 4017, 0, 0), 4017)


def test_upnp_finds_the_service_and_asks_for_a_port() -> None:
    answer = f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {HERE}\r\n\r\n".encode()
    assert upnp.read_location(answer, "192.168.1.1") == HERE
    control = upnp.read_description(described("/control?a=1"), HERE)
    assert control == upnp.Control("192.168.1.1", 49152, "/control?a=1", WAN)
    head, _, body = upnp.call(control, "AddPortMapping", NewExternalPort=1, NewPortMappingDescription="a<b").partition(
        b"\r\n\r\n"
    )
    assert f'SOAPAction: "{WAN}#AddPortMapping"'.encode() in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"<NewExternalPort>1</NewExternalPort><NewPortMappingDescription>a&lt;b</" in body
    page = upnp.read_page(b"HTTP/1.1 200 OK\r\n\r\n<x:NewExternalIPAddress> 7.7.1.1 </x:NewExternalIPAddress>")
    assert upnp.read_outside(page) == "7.7.1.1"


@pytest.mark.parametrize(
    "url", ["http://9.9.9.9/control", "https://192.168.1.1/c", "http://localhost/c", "http://192.168.1.1/\r\nX: y"]
)
def test_upnp_leads_nowhere_but_to_the_router(url: str) -> None:
    with pytest.raises(PeerFault):
        upnp.read_description(described(url), HERE)
    with pytest.raises(PeerFault):
        upnp.read_location(f"HTTP/1.1 200 OK\r\nLocation: {url}\r\n\r\n".encode(), "192.168.1.9")


def test_what_a_router_refuses_is_told_in_its_words() -> None:
    raw = b"HTTP/1.1 500 E\r\n\r\n<errorCode>718</errorCode><errorDescription>Conflict</errorDescription>"
    with pytest.raises(PeerFault, match="718 Conflict"):
        upnp.read_page(raw)


@pytest.mark.parametrize("unit", [b" ", b"<service>", b"<URLBase ", b"<URLBase>", b"<a:", b"</service>"])
def test_no_page_takes_longer_than_its_length(unit: bytes) -> None:
    """Each of these took seconds; 64 KiB of blanks, days. The test's own time limit is what fails here."""
    page = (b"<URLBase>" + unit * upnp.MAX_PAGE)[: upnp.MAX_PAGE]
    with pytest.raises(PeerFault, match="forwards no ports"):
        upnp.read_description(page, HERE)
    with pytest.raises(PeerFault, match="no outside address"):
        upnp.read_outside(page.replace(b"URLBase", b"NewExternalIPAddress"))
    with pytest.raises(PeerFault, match="the router refused: 500"):
        upnp.read_page(b"HTTP/1.1 500 E\r\n\r\n" + 2 * page.replace(b"URLBase", b"errorCode"))


@pytest.mark.parametrize("base", ["http://[", "http://[::1", "http://192.168.1.1:99999/"])
def test_a_base_that_is_no_url_is_the_routers_fault(base: str) -> None:
    with pytest.raises(PeerFault):
        upnp.read_description(f"<URLBase>{base}</URLBase>".encode() + described("control"), HERE)


@given(st.binary(max_size=300), st.text(max_size=300))
def test_any_answer_is_taken_or_a_peers_fault(raw: bytes, text: str) -> None:
    for read in (
        natpmp.read_address,
        lambda r: natpmp.read_mapping(r, 1),
        lambda r: upnp.read_location(b"HTTP/1.1 200 OK\r\nlocation: " + r, "1.1.1.1"),
        lambda r: upnp.read_description(r, HERE),
        upnp.read_page,
        upnp.read_outside,
        lambda r: upnp.read_description(described(r.decode("latin-1")), HERE),
    ):
        for data in (raw, text.encode()):
            try:
                read(data)
            except PeerFault:
                continue


async def test_a_router_that_hangs_up_on_a_question_is_the_routers_fault() -> None:
    """It ended the network part: what sending raises was not expected."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def hang_up(stream: trio.SocketStream) -> None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        with pytest.raises(PeerFault, match="hung up"):
            # More than the buffers between the two hold, so that it is still being sent.
            await portmap._page("127.0.0.1", listener.socket.getsockname()[1], bytes(64 << 20))
        nursery.cancel_scope.cancel()
