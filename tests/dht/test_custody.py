"""Who keeps what: the same nodes give the same custodians, and one node's going moves only what it kept."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from p2plearn.dht.custody import (
    SEGMENT,
    Unit,
    custodians,
    distance,
    leads_repair,
    node_of,
    peer_id_of,
    ranked,
    releases,
    segments,
    slots_of,
    units_of,
)

NODES = [hashlib.sha256(b"node %d" % n).digest() for n in range(40)]
UNITS = st.builds(Unit, st.binary(min_size=32, max_size=32), st.integers(0, 9))
SOME = st.sets(st.sampled_from(NODES), min_size=1)


def test_a_node_is_named_by_the_key_in_its_peer_id() -> None:
    key = create_new_key_pair(bytes(32)).public_key
    peer = ID.from_pubkey(key)
    assert peer_id_of(key.to_bytes()) == peer.to_bytes()
    assert node_of(peer.to_bytes()) == key.to_bytes()
    assert node_of(b"\x12\x20" + bytes(32)) is None


@given(UNITS, SOME, st.integers(1, 8))
def test_custodians_are_the_nearest_and_going_moves_only_what_the_leaver_kept(
    unit: Unit, nodes: set[bytes], copies: int
) -> None:
    keepers = custodians(unit, nodes, copies)
    assert len(keepers) == min(copies, len(nodes)) == len(set(keepers))
    farthest = max(distance(unit, node) for node in keepers)
    assert all(distance(unit, node) >= farthest for node in nodes - set(keepers))
    for leaver in nodes:
        after = set(custodians(unit, nodes - {leaver}, copies))
        assert len(set(keepers) - {leaver} - after) == 0
        if leaver not in keepers:
            assert after == set(keepers)


@given(UNITS, SOME)
def test_one_leads_and_one_may_go(unit: Unit, nodes: set[bytes]) -> None:
    leaders = [node for node in nodes if leads_repair(unit, node, nodes, 0.0, 10.0)]
    assert leaders == ranked(unit, nodes)[:1]
    assert all(leads_repair(unit, node, nodes, 10.0 * len(nodes), 10.0) for node in nodes)
    copies = max(len(nodes) - 1, 1)
    assert sum(releases(unit, node, nodes, copies, too_many_for=0.0, patience=1.0) for node in nodes) == (
        len(nodes) > copies
    )
    assert sum(releases(unit, node, nodes, copies, too_many_for=1.0, patience=1.0) for node in nodes) == 2 * (
        len(nodes) > copies
    )
    assert not any(releases(unit, node, nodes, len(nodes), too_many_for=99.0, patience=1.0) for node in nodes)


@given(st.lists(st.integers(1, 1 << 20), max_size=60), st.integers(0, 3))
def test_segments_part_the_slots(lengths: list[int], scale: int) -> None:
    lengths = [length << (4 * scale) for length in lengths]
    at = 0
    for segment in range(segments(sum(lengths))):
        first, count, size = slots_of(segment, lengths)
        assert (first, size) == (at if count else 0, sum(lengths[first : first + count]))
        at += count
    assert at == len(lengths)
    assert segments(0) == segments(SEGMENT) == 1
    assert segments(SEGMENT + 1) == 2
    assert units_of(b"c", SEGMENT + 1) == [Unit(b"c", 0), Unit(b"c", 1)]
