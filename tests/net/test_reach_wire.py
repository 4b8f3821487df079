"""The messages of AutoNAT, circuit relay and DCUtR: what libp2p reads and writes, and nothing but PeerFault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.host.autonat.pb import autonat_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2

from p2plearn.errors import PeerFault
from p2plearn.net.reach import wire
from p2plearn.net.reach.wire import Autonat, AutonatKind, Hop, HopKind, Punch, PunchKind, Stop, StopKind

ids = st.binary(min_size=1, max_size=42)
addresses = st.lists(st.binary(min_size=1, max_size=40), max_size=wire.MAX_ADDRESSES).map(tuple)
small = st.integers(0, 2**31 - 1)
moments = st.integers(1, 2**60)

hops = st.one_of(
    st.builds(Hop, st.just(HopKind.RESERVE)),
    st.builds(Hop, st.just(HopKind.CONNECT), ids),
    st.builds(Hop, st.just(HopKind.STATUS), st.just(b""), st.just(100), moments, addresses, small, small),
)
stops = st.builds(Stop, st.sampled_from(StopKind), st.one_of(st.just(b""), ids), st.sampled_from([0, 100, 203]), small)
punches = st.builds(Punch, st.sampled_from(PunchKind), addresses)
autonats = st.one_of(
    st.builds(Autonat, st.just(AutonatKind.DIAL), ids, addresses),
    st.builds(
        Autonat, st.just(AutonatKind.RESPONSE), st.just(b""), st.just(()), st.sampled_from([0, 100, 300]),
        st.text(max_size=20), st.binary(max_size=40),
    ),
)  # fmt: skip


@given(hops, stops, punches, autonats)
def test_what_is_written_is_read(hop: Hop, stop: Stop, punch: Punch, autonat: Autonat) -> None:
    assert wire.decode_hop(wire.encode_hop(hop)) == hop
    assert wire.decode_stop(wire.encode_stop(stop)) == stop
    assert wire.decode_punch(wire.encode_punch(punch)) == punch
    assert wire.decode_autonat(wire.encode_autonat(autonat)) == autonat


@given(hops, stops, punches)
def test_libp2p_reads_the_same_and_writes_what_we_read(hop: Hop, stop: Stop, punch: Punch) -> None:
    theirs = circuit_pb2.HopMessage()
    theirs.ParseFromString(wire.encode_hop(hop))
    assert (theirs.type, theirs.reservation.expire) == (hop.kind, hop.expire)
    assert tuple(theirs.reservation.addrs) == hop.addresses
    assert (theirs.limit.duration, theirs.limit.data) == (hop.seconds, hop.data)
    assert wire.decode_hop(theirs.SerializeToString()).addresses == hop.addresses
    their_stop = circuit_pb2.StopMessage()
    their_stop.ParseFromString(wire.encode_stop(stop))
    assert (their_stop.type, their_stop.limit.duration) == (stop.kind, stop.seconds)
    their_punch = dcutr_pb2.HolePunch()
    their_punch.ParseFromString(wire.encode_punch(punch))
    assert (their_punch.type, tuple(their_punch.ObsAddrs)) == (punch.kind, punch.addresses)
    assert wire.decode_punch(their_punch.SerializeToString()) == punch


@given(autonats)
def test_libp2p_reads_our_autonat(autonat: Autonat) -> None:
    theirs = autonat_pb2.Message()
    theirs.ParseFromString(wire.encode_autonat(autonat))
    assert theirs.type == autonat.kind


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_peers_fault(raw: bytes) -> None:
    for decode in (wire.decode_hop, wire.decode_stop, wire.decode_punch, wire.decode_autonat):
        try:
            decode(raw)
        except PeerFault:
            continue


@pytest.mark.parametrize("raw", [b"\x08", b"\x12\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 11, b"\x00\x01", b"\x0b"])
def test_bombs_and_stumps_are_refused(raw: bytes) -> None:
    for decode in (wire.decode_hop, wire.decode_stop, wire.decode_punch, wire.decode_autonat):
        with pytest.raises(PeerFault):
            decode(raw)
    with pytest.raises(PeerFault):
        wire.decode_hop(bytes(wire.MAX_MESSAGE + 1))
