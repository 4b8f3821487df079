"""Our yamux, frame by frame: what it lets a peer do, and what it does not."""

from __future__ import annotations

import contextlib
import random
import sys

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)
from wires import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    MemorySession,
    Speaker,
    muxed,
    read_all,
    running,
    secured,
    spoken_to,
)

from p2plearn.net import rates, yamux
from p2plearn.net.yamux import MAX_CONTROL, MAX_STREAMS, YamuxConn
from p2plearn.net.yamux_stream import INITIAL_WINDOW, MAX_WINDOW


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"", version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream_id, length) + payload


async def ended(conn: YamuxConn) -> None:
    with trio.fail_after(5):
        while not conn.is_closed:
            await trio.sleep(0.01)


# -- what streams do -------------------------------------------------------------------------------------------------


async def test_words_both_ways_half_close_and_the_end():
    async with muxed() as (a, b):
        out = await a.open_stream()
        await out.write(b"question")
        into = await b.accept_stream()
        assert await into.read(4) == b"ques"
        assert await into.read(100) == b"tion"
        await out.close()
        with pytest.raises(MuxedStreamEOF):
            await into.read(1)
        with pytest.raises(MuxedStreamClosed):
            await out.write(b"more")
        await into.write(b"answer")
        await into.close()
        assert await read_all(out) == b"answer"
        assert out.is_closed
        assert into.is_closed
        await trio.testing.wait_all_tasks_blocked()
        assert not a._streams
        assert not b._streams


async def test_reset_wakes_reader_and_writer_at_both_ends():
    async with muxed() as (a, b):
        out = await a.open_stream()
        woken = []

        async def write() -> None:
            with pytest.raises(MuxedStreamReset):
                await out.write(bytes(INITIAL_WINDOW + 1))
            woken.append("writer")

        async def read() -> None:
            with pytest.raises(MuxedStreamReset):
                await out.read(1)
            woken.append("reader")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)
            into = await b.accept_stream()
            await trio.testing.wait_all_tasks_blocked(0.05)
            await into.reset()
        assert sorted(woken) == ["reader", "writer"]
        with pytest.raises(MuxedStreamReset):
            await into.read(1)
        assert not a._streams
        assert not b._streams


async def test_64_mib_each_way_at_once():
    size = 64 << 20
    block = random.Random(1).randbytes(1 << 20)

    async def send(stream) -> None:
        for _ in range(size >> 20):
            await stream.send((block[:300_000], memoryview(block)[300_000:]))
        await stream.close()

    async def receive(stream) -> None:
        got = at = 0
        while view := await stream.receive():
            end = min(len(view), len(block) - at)
            assert view[:end] == block[at : at + end]
            assert view[end:] == block[: len(view) - end]
            at = (at + len(view)) % len(block)
            got += len(view)
        assert got == size

    async with muxed() as (a, b):
        out = await a.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, out)
            nursery.start_soon(receive, out)
            into = await b.accept_stream()
            nursery.start_soon(send, into)
            nursery.start_soon(receive, into)


async def test_a_reader_that_never_reads_holds_up_its_own_stream_only():
    async with muxed() as (a, b):
        stuck = await a.open_stream()
        with trio.move_on_after(0.3):
            await stuck.write(bytes(4 << 20))
        lazy = await b.accept_stream()
        assert lazy._unread == INITIAL_WINDOW

        other = await a.open_stream()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await other.write(bytes(3 << 20))
                await other.close()

            nursery.start_soon(send)
            assert len(await read_all(await b.accept_stream())) == 3 << 20
        assert lazy._unread == INITIAL_WINDOW


@pytest.mark.parametrize("crumb", [1, 13, 4000])
async def test_unread_crumbs_take_memory_in_proportion(crumb, monkeypatch):
    monkeypatch.setattr(rates, "FRAMES_BURST", 10**9)
    async with spoken_to() as (conn, peer):
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        crumbs = 40_000 // crumb
        # Each crumb comes in a batch of its own, with a frame that nobody keeps behind it.
        for _ in range(crumbs):
            await peer.shout(frame(DATA, 0, 1, crumb, bytes(crumb)) + frame(PING, ACK, 0, 7) * 20)
        stream = await conn.accept_stream()
        with trio.fail_after(5):
            while stream._unread < crumbs * crumb:
                await trio.sleep(0.01)
        kept = list(stream._inbox)
        buffers = {id(memoryview(piece).obj): memoryview(piece).obj for piece in kept}
        assert sum(map(sys.getsizeof, kept)) + sum(map(len, buffers.values())) < 5 * crumbs * crumb
        got = 0
        while got < crumbs * crumb:
            got += len(await stream.receive())


async def test_reading_byte_by_byte_gives_all_bytes_in_order_and_no_credit_twice():
    async with spoken_to() as (conn, peer):
        payload = random.Random(3).randbytes(150_000)
        await peer.say(DATA, SYN, 1, len(payload), payload)
        stream = await conn.accept_stream()
        got = b"".join([await stream.read(1) for _ in range(1000)])
        while len(got) < len(payload):
            got += await stream.read(7000)
        assert got == payload
        assert stream._credit_given + stream._unread <= stream._window


async def test_credit_comes_back_at_half_a_window_and_the_window_grows_while_it_is_read():
    async with spoken_to(we_dialled=True) as (conn, peer):
        stream = await conn.open_stream()
        credit, updates, sent = INITIAL_WINDOW, 0, 0
        assert await peer.hear_until(WINDOW_UPDATE, SYN)
        with trio.fail_after(10):
            while sent < 24 << 20:
                size = min(credit, 64 * 1024)
                await peer.say(DATA, 0, 1, size, bytes(size))
                credit, sent = credit - size, sent + size
                await stream.receive()
                while not credit:
                    update = await peer.hear_until(WINDOW_UPDATE)
                    assert update is not None
                    credit, updates = credit + update[3], updates + 1
                    assert credit <= MAX_WINDOW
        assert stream._window == MAX_WINDOW
        assert updates < 60


# -- what a peer may not do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        frame(DATA, 0, 1, 0, version=1),
        frame(4, 0, 1, 0),
        frame(255, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        frame(DATA, SYN, 2, 0),  # our side's number
        frame(DATA, SYN, 0, 0),
        frame(DATA, SYN, 1, 0) + frame(DATA, SYN, 1, 0),  # opened twice
        frame(DATA, SYN, 1, INITIAL_WINDOW + 1),
        frame(DATA, SYN, 1, INITIAL_WINDOW, bytes(INITIAL_WINDOW)) + frame(DATA, 0, 1, 1, b"x"),
        frame(DATA, 0, 77, 0xFFFFFFFF),  # nobody's, and larger than any window
        frame(WINDOW_UPDATE, SYN, 1, 0xFFFFFFFF),  # credit beyond counting
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=str,
)
async def test_a_peer_that_breaks_the_protocol_loses_its_connection(wire):
    async with spoken_to() as (conn, peer):
        await peer.shout(wire)
        goodbye = await peer.hear_until(GO_AWAY)
        assert goodbye is None or goodbye[3] == 1
        await ended(conn)
        assert await peer.hear_until(GO_AWAY) is None
        with pytest.raises(MuxedConnUnavailable):
            await conn.open_stream()


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=10))
@settings(max_examples=150, deadline=None)
def test_garbage_ends_the_connection_or_is_borne(garbage, cuts):
    async def main() -> None:
        with trio.fail_after(30):
            async with spoken_to() as (conn, peer):
                rest = garbage
                with contextlib.suppress(trio.BrokenResourceError):  # it may end before all of it was said
                    for cut in cuts:
                        await peer.shout(rest[:cut])
                        rest = rest[cut:]
                    await peer.shout(rest)
                await trio.testing.wait_all_tasks_blocked()
                assert sum(stream._unread for stream in conn._streams.values()) <= len(garbage)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.lists(st.integers(1, 2000), max_size=60), st.integers(0, 1 << 20))
@settings(max_examples=40, deadline=None)
def test_frames_mean_the_same_however_they_are_cut(cuts, seed):
    dice = random.Random(seed)
    expected = {1: b"", 3: b"", 5: b""}
    wire = b"".join(frame(WINDOW_UPDATE, SYN, number, 0) for number in expected)
    for _ in range(20):
        number, piece = dice.choice([1, 3, 5]), dice.randbytes(dice.randrange(3000))
        expected[number] += piece
        wire += frame(DATA, 0, number, len(piece), piece) + frame(PING, SYN, 0, 5)
    wire += b"".join(frame(WINDOW_UPDATE, FIN, number, 0) for number in expected)

    async def main() -> None:
        async with spoken_to() as (conn, peer), trio.open_nursery() as nursery:
            nursery.start_soon(peer.hear_until, GO_AWAY)
            rest = wire
            for cut in cuts:
                await peer.shout(rest[:cut])
                await trio.testing.wait_all_tasks_blocked()
                rest = rest[cut:]
            await peer.shout(rest)
            for number, content in expected.items():
                stream = await conn.accept_stream()
                assert stream.stream_id == number
                assert await read_all(stream) == content
            nursery.cancel_scope.cancel()

    trio.run(main)


async def test_streams_beyond_the_cap_are_reset_and_the_others_live_on():
    async with spoken_to() as (conn, peer):
        for at in range(MAX_STREAMS + 3):
            await peer.say(WINDOW_UPDATE, SYN, 2 * at + 1, 0)
        answers = [await peer.hear() for _ in range(MAX_STREAMS + 3)]
        assert [answer[1] for answer in answers if answer] == [ACK] * MAX_STREAMS + [RST] * 3
        first = await conn.accept_stream()
        await peer.say(DATA, 0, 1, 5, b"hello")
        assert await first.read(5) == b"hello"
        await first.reset()
        await peer.say(WINDOW_UPDATE, SYN, 9999, 0)  # one place is free again
        assert (await peer.hear_until(WINDOW_UPDATE, ACK) or ())[2] == 9999


async def test_our_own_streams_are_capped_too():
    async with spoken_to(we_dialled=True) as (conn, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.hear_until, GO_AWAY)
        streams = [await conn.open_stream() for _ in range(MAX_STREAMS)]
        with pytest.raises(MuxedConnUnavailable):
            await conn.open_stream()
        await streams[7].reset()
        await conn.open_stream()
        nursery.cancel_scope.cancel()


async def test_data_for_a_stream_that_was_reset_is_dropped_but_not_without_end(monkeypatch):
    monkeypatch.setattr(yamux, "MAX_STRAY", 300_000)
    async with spoken_to() as (conn, peer):
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        await (await conn.accept_stream()).reset()
        for _ in range(2):
            await peer.say(DATA, 0, 1, 100_000, bytes(100_000))
        await peer.say(PING, SYN, 0, 42)
        assert (await peer.hear_until(PING, ACK) or ())[3] == 42
        for _ in range(2):
            await peer.say(DATA, 0, 1, 100_000, bytes(100_000))
        assert (await peer.hear_until(GO_AWAY) or ())[3] == 1
        await ended(conn)


async def test_a_number_used_again_after_its_stream_is_over_is_a_new_stream():
    async with spoken_to() as (conn, peer):
        for word in (b"one", b"two"):
            await peer.say(DATA, SYN | FIN, 1, 3, word)
            stream = await conn.accept_stream()
            assert await read_all(stream) == word
            await stream.close()


async def test_flags_may_come_all_at_once():
    async with spoken_to() as (conn, peer):
        await peer.say(DATA, SYN | FIN, 1, 4, b"word")
        assert await read_all(await conn.accept_stream()) == b"word"
        await peer.say(DATA, SYN | RST, 3, 0)
        await peer.say(DATA, SYN, 5, 0)
        assert (await conn.accept_stream()).stream_id == 5  # nobody is bothered with one that is over


async def test_pings_are_answered_and_who_pings_without_reading_is_cut():
    async with spoken_to() as (conn, peer):
        await peer.say(PING, SYN, 0, 4711)
        assert (await peer.hear_until(PING, ACK) or ())[3] == 4711
    ours, theirs = trio.testing.lockstep_stream_pair()  # holds nothing: a write waits for its reader
    conn = YamuxConn(MemorySession(ours, is_initiator=False), ID(b"peer"))  # type: ignore[arg-type]
    async with running(conn):
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await theirs.send_all(frame(PING, SYN, 0, 1) * 1000)
        assert conn.is_closed
        assert len(conn._control) <= MAX_CONTROL + 12


async def test_a_goodbye_is_answered_by_hanging_up_and_blames_nobody():
    async with spoken_to() as (conn, peer):
        await peer.say(DATA, SYN | FIN, 1, 5, b"words")
        await peer.say(GO_AWAY, 0, 0, 0)
        await ended(conn)
        assert await peer.hear_until(GO_AWAY) is None
        # What was said before the goodbye is still there.
        assert await read_all(await conn.accept_stream()) == b"words"
        with pytest.raises(MuxedConnUnavailable):
            await conn.accept_stream()


# -- endings and cuts ------------------------------------------------------------------------------------------------


async def test_what_was_sent_before_the_end_of_stream_and_connection_can_be_read():
    async with muxed() as (a, b):
        out = await a.open_stream()
        await out.write(bytes(200_000))
        await out.close()
        into = await b.accept_stream()
        await a.close()
        await ended(b)
        assert len(await read_all(into)) == 200_000


async def test_an_abrupt_end_of_the_socket_resets_every_stream():
    async with muxed() as (a, b):
        out = await a.open_stream()
        await out.write(b"x")
        into = await b.accept_stream()
        assert await into.read(1) == b"x"
        a.secured_conn.conn.stream.stream.socket.close()
        with pytest.raises(MuxedStreamReset), trio.fail_after(5):
            await into.read(1)
        with pytest.raises(MuxedConnUnavailable):
            await b.accept_stream()
        with pytest.raises(MuxedStreamReset):
            await out.write(b"y")


async def test_a_write_cut_in_the_middle_leaves_the_connection_whole():
    """The socket takes part of a frame, the writer is cancelled: TLS keeps the rest and sends it first."""
    async with secured() as (out, into), running(YamuxConn(out, out.get_remote_peer())) as a:
        doomed = [await a.open_stream() for _ in range(60)]
        with trio.move_on_after(0.5) as scope:  # nobody reads at the other end: the socket fills up
            async with trio.open_nursery() as nursery:
                for stream in doomed:
                    nursery.start_soon(stream.write, bytes(INITIAL_WINDOW))
        assert scope.cancelled_caught
        assert a._unfinished or out._pipe._unsent
        for stream in doomed:
            await stream.reset()
        fresh = await a.open_stream()
        async with running(YamuxConn(into, into.get_remote_peer())) as b, trio.open_nursery() as nursery:
            nursery.start_soon(fresh.write, b"all is well")
            with trio.fail_after(5):
                while True:
                    stream = await b.accept_stream()
                    if stream.stream_id == fresh.stream_id:
                        break
                assert await stream.read(11) == b"all is well"
            assert not a.is_closed
            assert not b.is_closed


async def test_a_cut_write_over_noise_ends_the_connection_rather_than_garbling_it():
    async with secured("noise", "noise") as (out, _), running(YamuxConn(out, out.get_remote_peer())) as a:
        streams = [await a.open_stream() for _ in range(60)]
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(stream.write, bytes(INITIAL_WINDOW))
        assert a.is_closed


async def test_no_data_follows_a_reset():
    ours, theirs = trio.testing.lockstep_stream_pair()
    conn = YamuxConn(MemorySession(ours, is_initiator=True), ID(b"peer"))  # type: ignore[arg-type]
    peer = Speaker(theirs)
    async with running(conn), trio.open_nursery() as nursery:
        first, second = await conn.open_stream(), await conn.open_stream()

        async def write_in_vain() -> None:
            with pytest.raises(MuxedStreamReset):
                await second.write(b"too late")

        nursery.start_soon(first.write, bytes(1000))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write_in_vain)  # waits for its turn behind the first
        await trio.testing.wait_all_tasks_blocked()
        await second.reset()
        with trio.move_on_after(0.2):
            while (said := await peer.hear()) is not None:
                assert not (said[0] == DATA and said[2] == second.stream_id)
        nursery.cancel_scope.cancel()


async def test_closing_while_the_peer_does_not_read_takes_a_moment_only(autojump_clock):
    ours, _theirs = trio.testing.lockstep_stream_pair()
    conn = YamuxConn(MemorySession(ours, is_initiator=True), ID(b"peer"))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conn.start)
        await conn.open_stream()
        with trio.fail_after(5):
            await conn.close()


async def test_a_peer_that_is_silent_is_cut_and_one_that_says_anything_is_not(autojump_clock):
    async with spoken_to() as (conn, peer):
        for _ in range(10):  # never answers a ping, on a line so slow that something else is always before it
            await trio.sleep(yamux.KEEPALIVE_SECONDS * 0.9)
            await peer.say(WINDOW_UPDATE, 0, 99, 0)
            assert not conn.is_closed
        await trio.sleep(yamux.KEEPALIVE_SECONDS * 2.1)
        assert conn.is_closed


async def test_a_peer_that_answers_pings_stays_and_tells_the_round_trip(autojump_clock):
    async with spoken_to() as (conn, peer):
        for _ in range(5):
            ping = await peer.hear_until(PING, SYN)
            assert ping is not None
            await trio.sleep(0.3)
            await peer.say(PING, ACK, 0, ping[3])
        await trio.sleep(1)
        assert not conn.is_closed
        assert conn.rtt == pytest.approx(0.3)


async def test_a_stream_that_only_we_closed_is_reset_in_the_end(autojump_clock):
    async with spoken_to(we_dialled=True) as (conn, peer):
        stream = await conn.open_stream()
        await stream.close()
        assert await peer.hear_until(WINDOW_UPDATE, FIN)
        while (said := await peer.hear()) is not None and not said[1] & RST:
            if said[0] == PING:
                await peer.say(PING, ACK, 0, said[3])
        assert said is not None
        assert not conn._streams


async def test_a_deadline_bounds_reading(autojump_clock):
    async with spoken_to() as (conn, peer):
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        stream = await conn.accept_stream()
        stream.set_deadline(3)
        with pytest.raises(trio.TooSlowError):
            await stream.read(1)
        with pytest.raises(ValueError, match="future"):
            stream.set_deadline(-1)
