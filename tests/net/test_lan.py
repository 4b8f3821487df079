"""Finding each other on a network that has nothing: no configuration, no route, no server."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import uuid

import pytest
import trio
from hosts import eventually, running_host
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.net import lan
from p2plearn.net.lan import LanDiscovery, service_type
from tests.namespaces import join, namespaces


async def test_two_nodes_on_one_machine_hear_each_other_and_not_themselves() -> None:
    group = uuid.uuid4().hex  # other test runs on this machine are another group
    async with running_host() as (a, _), running_host() as (b, _), trio.open_nursery() as nursery:
        heard: dict[ID, list[PeerInfo]] = {a.get_id(): [], b.get_id(): []}
        for host in (a, b):
            await nursery.start(LanDiscovery(host, heard[host.get_id()].append, group=group).run)
        await eventually(lambda: all(heard.values()), 10.0)
        nursery.cancel_scope.cancel()
    for host, other in ((a, b), (b, a)):
        assert {p.peer_id for p in heard[host.get_id()]} == {other.get_id()}
        assert heard[host.get_id()][0].addrs[0].value_for_protocol("tcp")
    # What zeroconf started is over. (Trio keeps idle worker threads for a few seconds.)
    with trio.fail_after(5.0):
        while [t for t in threading.enumerate() if "zeroconf" in t.name.lower()]:
            await trio.sleep(0.02)


async def test_no_multicast_does_not_keep_a_node_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(lan, "MDNSDiscovery", refuse)
    async with running_host() as (host, _), trio.open_nursery() as nursery:
        discovery = LanDiscovery(host, lambda _peer: None)
        with trio.fail_after(0.5):
            await nursery.start(discovery.run)
        await eventually(lambda: discovery.problem)
        assert "multicast" in discovery.problem
        nursery.cancel_scope.cancel()


async def test_what_anybody_announces_can_not_make_it_fail() -> None:
    def breaks(_peer: PeerInfo) -> None:
        raise ZeroDivisionError

    async with running_host() as (host, _):
        discovery = LanDiscovery(host, breaks)
        good = Multiaddr("/ip4/192.0.2.1/tcp/1")
        discovery._hear(ID(b"x" * 34), [good])
        discovery._hear(host.get_id(), [good])
        for number in range(lan.MAX_HEARD + 20):
            discovery._hear(ID(b"%034d" % number), [good] * 50)
        assert len(discovery.heard) == lan.MAX_HEARD
        assert host.get_id() not in discovery.heard


def test_a_group_has_a_service_name_of_its_own_that_dns_sd_allows() -> None:
    assert service_type() == "_p2plearn._udp.local."
    assert service_type("one") != service_type("two")
    assert len(service_type("one").split(".")[0]) <= 16


SPEAKER = textwrap.dedent(
    """
    import sys, trio
    from multiaddr import Multiaddr
    from p2plearn.net.dial import connect
    from p2plearn.net.lan import LanDiscovery
    from hosts import make_host, eventually

    async def main():
        host = make_host()
        heard = []
        async with host.run([Multiaddr(f"/ip4/{sys.argv[1]}/tcp/0")]), trio.open_nursery() as nursery:
            await nursery.start(LanDiscovery(host, heard.append).run)
            await eventually(lambda: heard, 60)
            await connect(host, heard[0], 20)
            print("met", heard[0].peer_id, flush=True)
            await trio.sleep(1.5)
            nursery.cancel_scope.cancel()

    trio.run(main)
    """
)


def test_two_namespaces_joined_by_a_cable_and_no_route() -> None:
    speakers: list[subprocess.Popen[str]] = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with namespaces("a", "b") as (left, right):
        join(left, "10.77.0.1/24", right, "10.77.0.2/24")
        try:
            for name, address in ((left, "10.77.0.1"), (right, "10.77.0.2")):
                command = ["ip", "netns", "exec", name, sys.executable, "-c", SPEAKER, address]
                speakers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
            said = [speaker.communicate(timeout=90)[0] for speaker in speakers]
        finally:
            for speaker in speakers:
                with speaker:
                    speaker.kill()
    assert all(words.startswith("met 12D3Koo") for words in said)
