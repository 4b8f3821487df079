"""Records of who provides what, over a restart: what comes back, for how long, and what a damaged file does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hosts import eventually, make_host, running_node
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht import providers, remembered
from p2plearn.dht.kademlia import course_of, key_of
from p2plearn.dht.providers import TTL, CourseProviderStore
from p2plearn.dht.remembered import RememberedRecords
from p2plearn.net.addresses import read_peer
from p2plearn.net.dial import connect
from tests.nodes import RealNode

HERE = Multiaddr("/ip4/192.0.2.1/tcp/1")


def somebody(*addresses: Multiaddr) -> PeerInfo:
    return PeerInfo(ID.from_pubkey(create_new_key_pair().public_key), list(addresses or (HERE,)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_790_000_000.0]
    monkeypatch.setattr(providers.time, "time", lambda: now[0])  # one module of all
    return now


def fresh() -> CourseProviderStore:
    return CourseProviderStore(make_host(), None)


def names(records: CourseProviderStore, key: bytes) -> list[ID]:
    return [provider.peer_id for provider in records.get_providers(key)]


async def restarted(records: CourseProviderStore, path: Path) -> CourseProviderStore:
    await RememberedRecords(path, records).save()
    return loaded(path)


def loaded(path: Path) -> CourseProviderStore:
    again = fresh()
    RememberedRecords(path, again).load()
    return again


async def test_what_was_told_before_a_restart_counts_after_it_for_the_rest_of_its_time(
    tmp_path: Path, clock: list[float]
) -> None:
    records, key, other = fresh(), key_of(os.urandom(32)), key_of(os.urandom(32))
    first, second = somebody(), somebody(HERE, Multiaddr("/ip6/fe80::1/tcp/1"))
    records.add_provider(key, first)
    records.add_provider(other, first)
    clock[0] += 3600.0
    records.add_provider(key, second)
    again = await restarted(records, tmp_path / "records")
    assert [(p.peer_id, p.addrs) for p in again.get_providers(key)] == [
        (second.peer_id, [HERE]),  # link-local ones mean something else elsewhere
        (first.peer_id, [HERE]),
    ]
    assert names(again, other) == [first.peer_id]
    assert not again.changed
    clock[0] += TTL - 3000.0
    assert names(again, key) == [second.peer_id]
    assert names(loaded(tmp_path / "records"), key) == [second.peer_id]
    clock[0] += 3600.0
    assert not loaded(tmp_path / "records").providers


async def test_a_clock_that_was_ahead_makes_no_record_live_longer(tmp_path: Path, clock: list[float]) -> None:
    records, key = fresh(), key_of(os.urandom(32))
    clock[0] += 10 * TTL
    records.add_provider(key, somebody())
    clock[0] -= 10 * TTL
    again = await restarted(records, tmp_path / "records")
    assert len(names(again, key)) == 1
    clock[0] += TTL + 1
    assert not names(again, key)


def test_a_course_is_read_out_of_its_key_and_out_of_no_other() -> None:
    course = os.urandom(32)
    assert course_of(key_of(course)) == course
    others = [b"", course, key_of(course)[:-1], key_of(course) + b"x", b"\x13" + key_of(course)[1:]]
    assert [course_of(key) for key in others] == [None] * 5


async def test_the_newest_are_written_and_nothing_is_while_nothing_changes(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "KEPT", 3)
    records, keys, path = fresh(), [key_of(os.urandom(32)) for _ in range(5)], tmp_path / "records"
    for key in keys:
        clock[0] += 1.0
        records.add_provider(key, somebody())
    records.add_provider(b"of somebody else's network", somebody())
    file = RememberedRecords(path, records)
    await file.save()
    assert set(loaded(path).providers) == set(keys[-2:])  # the newest of all is of no course
    path.unlink()
    await file.save()
    assert not path.exists()
    records.forget(keys[-1], str(records.providers[keys[-1]].popitem()[0]))
    records.add_provider(keys[0], somebody())
    await file.save()
    assert keys[0] in loaded(path).providers


async def test_a_disk_without_room_leaves_the_old_file_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, path = fresh(), tmp_path / "records"
    file = RememberedRecords(path, records)
    records.add_provider(key_of(os.urandom(32)), somebody())
    await file.save()
    before = path.read_bytes()
    records.add_provider(key_of(os.urandom(32)), somebody())

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(remembered, "write_atomic", no_space)
        await file.save()
    assert path.read_bytes() == before
    await file.save()
    assert len(loaded(path).providers) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"format": 2, "peers": []}', '{"format": 1, "peers": [{}]}', '{"format": 1, "peers": 1}',
        '{"format": 1, "peers": [{"peer": "x", "addresses": ["y"], "courses": {"z": 1}}]}',
        '{"format": 1, "peers": [{"peer": "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC", "addresses": [],'
        ' "courses": {"00": 1e400}}, {"peer": "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC", "addresses": [],'
        f' "courses": {{"{"00" * 32}": 1{"0" * 400}}}}}]}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "records").write_text(text, "utf-8")
    assert not loaded(tmp_path / "records").providers


async def test_a_bootstrap_node_that_restarts_alone_still_knows_who_has_what(tmp_path: Path) -> None:
    """The provider is gone by then, so that it can't have told again: it is the record that a newcomer hears of."""
    course = os.urandom(32)
    with RealNode(tmp_path / "b") as bootstrap:
        async with running_node() as provider:
            await connect(provider.host, read_peer(bootstrap.address), 60.0)
            provider.directory.announce(course)
            await eventually(lambda: provider.directory.announced(course), 60.0)
        await trio.to_thread.run_sync(bootstrap.stop)
        assert bootstrap.home.providers.stat().st_mode & 0o077 == 0
        await trio.to_thread.run_sync(bootstrap.start)
        async with running_node() as newcomer:
            await connect(newcomer.host, read_peer(bootstrap.address), 60.0)
            found = await newcomer.directory.find(course, limit=1, deadline=60.0)
            assert [info.peer_id for info in found] == [provider.peer]
