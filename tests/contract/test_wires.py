"""Our security and muxer against libp2p's own, each way round: what an upgrade of libp2p must not change."""

from __future__ import annotations

import random

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from wires import muxed, read_all, secured

from p2plearn.net.yamux_stream import YamuxStream

STOCK = ("stock", "stock")
OURS = ("ours", "ours")
PAIRS = {
    "we dial stock": (OURS, STOCK),
    "stock dials us": (STOCK, OURS),
    "we dial stock over noise": (("noise", "ours"), ("noise", "stock")),
    "stock dials us over noise": (("noise", "stock"), ("noise", "ours")),
    "our yamux, stock TLS, dialling": (("stock", "ours"), OURS),
    "our yamux, stock TLS, listening": (OURS, ("stock", "ours")),
}

pairs = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


@pytest.mark.parametrize(("dialler", "listener"), [("ours", "stock"), ("stock", "ours"), ("ours", "ours")])
async def test_tls_shakes_hands_and_each_knows_the_other(dialler, listener):
    async with secured(dialler, listener) as (out, into):
        assert out.get_remote_peer() == into.get_local_peer()
        assert into.get_remote_peer() == out.get_local_peer()
        content = random.Random(1).randbytes(300_000)
        for source, sink in ((out, into), (into, out)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.write, content)
                got = b""
                while len(got) < len(content):
                    got += await sink.read(100_000)
            assert got == content


@pairs
async def test_streams_opened_by_either_side_carry_words_both_ways_and_end(pair):
    async with muxed(*pair) as (a, b):
        for opener, taker in ((a, b), (b, a)):
            for at in range(3):
                out = await opener.open_stream()
                await out.write(b"question %d" % at)
                await out.close()  # half: the answer still comes
                into = await taker.accept_stream()
                with trio.fail_after(5):
                    assert await read_all(into) == b"question %d" % at
                    await into.write(b"answer")
                    await into.close()
                    assert await read_all(out) == b"answer"


@pairs
async def test_a_reset_reaches_the_other_side(pair):
    async with muxed(*pair) as (a, b):
        for opener, taker in ((a, b), (b, a)):
            out = await opener.open_stream()
            await out.write(b"x")
            into = await taker.accept_stream()
            assert await into.read(1) == b"x"
            await into.reset()
            # Stock says "end of stream" when it has forgotten the stream by the time that it is read.
            said = MuxedStreamReset if isinstance(out, YamuxStream) else (MuxedStreamReset, MuxedStreamEOF)
            with pytest.raises(said), trio.fail_after(5):
                await out.read(1)
            again = await opener.open_stream()  # the connection is none the worse
            await again.write(b"y")
            assert await (await taker.accept_stream()).read(1) == b"y"


@pytest.mark.parametrize("pair", [PAIRS["we dial stock"], PAIRS["stock dials us"]], ids=["dialling", "listening"])
async def test_megabytes_both_ways_at_once(pair):
    size = 12 << 20
    content = random.Random(2).randbytes(size)

    async def send(stream) -> None:
        for at in range(0, size, 300_000):
            await stream.write(content[at : at + 300_000])
        await stream.close()

    async def receive(stream) -> None:
        assert await read_all(stream) == content

    async with muxed(*pair) as (a, b):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                out = await a.open_stream()
                nursery.start_soon(send, out)
                nursery.start_soon(receive, out)
                into = await b.accept_stream()
                nursery.start_soon(send, into)
                nursery.start_soon(receive, into)
        assert not a.is_closed
        assert not b.is_closed


@pytest.mark.parametrize("pair", [PAIRS["we dial stock"], PAIRS["stock dials us"]], ids=["dialling", "listening"])
async def test_many_streams_at_once(pair):
    async with muxed(*pair) as (a, b), trio.open_nursery() as nursery:

        async def echo() -> None:
            while True:
                nursery.start_soon(answer, await b.accept_stream())

        async def answer(stream) -> None:
            content = await read_all(stream)
            await stream.write(content)
            await stream.close()

        async def ask(at: int) -> None:
            stream = await a.open_stream()
            content = random.Random(at).randbytes(5000)
            await stream.write(content)
            await stream.close()
            assert await read_all(stream) == content

        nursery.start_soon(echo)
        with trio.fail_after(20):
            async with trio.open_nursery() as asking:
                for at in range(60):
                    asking.start_soon(ask, at)
        nursery.cancel_scope.cancel()
