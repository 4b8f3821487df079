"""What reaching leans on in libp2p 0.8.1 (docs/decisions/reaching.md)."""

from __future__ import annotations

import inspect

from libp2p.discovery.mdns import MDNSDiscovery
from libp2p.host.basic_host import BasicHost
from multiaddr import Multiaddr

from p2plearn.net import lan
from tests.hosts import make_host, make_stock_parts_host

RELAY = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"


def test_mdns_makes_its_zeroconf_by_the_name_that_we_replace() -> None:
    assert MDNSDiscovery.__init__.__globals__["Zeroconf"] is lan._open_zeroconf
    assert "Zeroconf()" in inspect.getsource(MDNSDiscovery.__init__)


def test_identify_hands_what_a_peer_sees_of_us_to_the_book_of_observed_addresses() -> None:
    source = inspect.getsource(BasicHost._identify_peer)
    assert "self._observed_addr_manager.record_observation(" in source
    assert make_host()._observed_addr_manager is None  # until Reaching puts its own there


def test_a_relayed_address_of_ours_is_told_whole() -> None:
    """The stock host takes the relay's /p2p/ for its own and cuts off what follows."""
    host = make_host()
    through = Multiaddr(f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit")
    host.announced = lambda: [through]  # type: ignore[attr-defined]
    assert str(host.get_addrs()[0]) == f"{through}/p2p/{host.get_id()}"
    stock = make_stock_parts_host()
    stock._addrs_factory = lambda _listening: [through]
    assert "p2p-circuit" not in str(BasicHost.get_addrs(stock)[0])
