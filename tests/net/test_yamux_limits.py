"""What a connection costs at most: frames that carry nothing, frames in drops, windows that a peer would grow."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from wires import ACK, DATA, HEADER, PING, RST, SYN, WINDOW_UPDATE, spoken_to

from p2plearn.net.yamux import YamuxConn
from p2plearn.net.yamux_stream import INITIAL_WINDOW


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(0, kind, flags, stream_id, length) + payload


async def ended(conn: YamuxConn) -> None:
    with trio.fail_after(20):
        while not conn.is_closed:
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("said", "times"),
    [
        (frame(PING, ACK, 0, 7) * 500, 50),
        (frame(WINDOW_UPDATE, 0, 1, 1) * 500, 50),
        (frame(DATA, 0, 1, 0) * 500, 50),
        (b"".join(frame(WINDOW_UPDATE, SYN, n, 0) + frame(WINDOW_UPDATE, RST, n, 0) for n in range(3, 203, 2)), 12),
    ],
    ids=["pings", "updates", "empty", "rapid resets"],
)
async def test_frames_that_carry_nothing_are_cut_and_told_on(said, times, autojump_clock):
    async with spoken_to() as (conn, peer):
        told: list[Exception] = []
        conn.on_fault = told.append
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        with suppress(trio.BrokenResourceError):
            for _ in range(times):
                await peer.shout(said)
        await ended(conn)
        assert "frames without end" in str(told[0])


async def test_streams_that_are_reset_before_anybody_looks_are_passed_over(autojump_clock):
    async with spoken_to() as (conn, peer):
        for number in range(1, 100, 2):
            await peer.shout(frame(WINDOW_UPDATE, SYN, number, 0) + frame(WINDOW_UPDATE, RST, number, 0))
        await peer.say(WINDOW_UPDATE, SYN, 101, 0)
        with trio.fail_after(20):
            await peer.hear_until(WINDOW_UPDATE)
            while 101 not in conn._streams:
                await trio.sleep(0.01)
            assert (await conn.accept_stream()).stream_id == 101


async def test_a_peer_that_brings_something_may_send_many_frames(autojump_clock):
    async with spoken_to() as (conn, peer):
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        stream = await conn.accept_stream()
        for _ in range(300):
            await peer.shout(frame(DATA, 0, 1, 128, bytes(128)) * 100)
            got = 0
            while got < 12_800:
                got += len(await stream.receive())
        assert not conn.is_closed


async def test_a_frame_in_drops_is_cut_and_an_idle_connection_is_not(autojump_clock):
    async with spoken_to() as (conn, peer):
        told: list[Exception] = []
        conn.on_fault = told.append
        await trio.sleep(25)  # nothing has begun
        assert not conn.is_closed
        began = trio.current_time()
        await peer.shout(frame(DATA, SYN, 1, 1000)[:5])
        with suppress(trio.BrokenResourceError):
            while not conn.is_closed:
                await trio.sleep(5)
                await peer.shout(b"\0")
        assert trio.current_time() - began <= 15
        assert isinstance(told[0], trio.TooSlowError)


async def test_a_slow_line_is_no_offence(autojump_clock):
    async with spoken_to() as (conn, peer):
        await peer.say(DATA, SYN, 1, 60_000)
        for _ in range(100):  # 600 bytes in 8 seconds
            await peer.shout(bytes(600))
            await trio.sleep(8)
        assert (await conn.accept_stream())._unread == 60_000
        assert not conn.is_closed


async def test_the_window_of_a_stream_that_a_peer_opened_does_not_grow(autojump_clock):
    async with spoken_to() as (conn, peer):
        await peer.say(WINDOW_UPDATE, SYN, 1, 0)
        stream = await conn.accept_stream()
        for _ in range(40):
            await peer.say(DATA, 0, 1, 100_000, bytes(100_000))
            await stream.receive()
            await peer.hear_until(WINDOW_UPDATE) if stream._consumed == 0 else None
        assert stream._window == INITIAL_WINDOW
