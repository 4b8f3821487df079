"""Who provides what: bounded, and honest about age."""

from __future__ import annotations

import pytest
from hosts import make_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2plearn.dht import providers
from p2plearn.dht.providers import ANSWERED, NEWEST, CourseProviderStore

KEY, OTHER = b"key", b"other"


def somebody() -> PeerInfo:
    return PeerInfo(ID.from_pubkey(create_new_key_pair().public_key), [Multiaddr("/ip4/192.0.2.1/tcp/1")])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(providers.time, "time", lambda: now[0])
    return now


@pytest.fixture
def store() -> CourseProviderStore:
    return CourseProviderStore(make_host(), None)


def test_the_newest_come_first_and_the_old_not_at_all(store: CourseProviderStore, clock: list[float]) -> None:
    first, second = somebody(), somebody()
    store.add_provider(KEY, first)
    clock[0] += 10
    store.add_provider(KEY, second)
    assert [p.peer_id for p in store.get_providers(KEY)] == [second.peer_id, first.peer_id]
    clock[0] += 10
    store.add_provider(KEY, first)
    assert [p.peer_id for p in store.get_providers(KEY)] == [first.peer_id, second.peer_id]
    clock[0] += providers.TTL - 5
    assert [p.peer_id for p in store.get_providers(KEY)] == [first.peer_id]
    store.cleanup_expired()
    assert store.size() == 1
    clock[0] += 100
    store.cleanup_expired()
    assert store.providers == {}
    assert not store._of_peer


def test_a_popular_course_keeps_the_newest(
    store: CourseProviderStore, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "MAX_PER_KEY", 30)
    everybody = [somebody() for _ in range(35)]
    for one in everybody:
        clock[0] += 1
        store.add_provider(KEY, one)
    answered = [p.peer_id for p in store.get_providers(KEY)]
    assert answered[:NEWEST] == [p.peer_id for p in reversed(everybody)][:NEWEST]
    assert len(set(answered)) == ANSWERED
    assert store.size() == 30


def test_many_that_claim_a_course_again_and_again_do_not_hide_one_that_has_it(
    store: CourseProviderStore, clock: list[float]
) -> None:
    honest, claimers = somebody(), [somebody() for _ in range(60)]
    store.add_provider(KEY, honest)
    told = 0
    for _ in range(100):
        for one in claimers:
            clock[0] += 0.01
            store.add_provider(KEY, one)
        told += honest.peer_id in [p.peer_id for p in store.get_providers(KEY)]
    assert told >= 3  # of 20 expected; fewer than once in ten million times


def test_one_peer_has_a_share_and_all_have_a_limit(store: CourseProviderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "MAX_PER_PEER", 5)
    monkeypatch.setattr(providers, "MAX_RECORDS", 8)
    greedy, modest = somebody(), somebody()
    for number in range(50):
        store.add_provider(bytes([number]), greedy)
    assert store.size() == 5
    store.add_provider(KEY, modest)
    assert len(store.get_providers(KEY)) == 1
    for _ in range(10):
        store.add_provider(OTHER, somebody())
    assert store.size() == 8
    store.forget(KEY, str(modest.peer_id))
    assert store.size() == 7
