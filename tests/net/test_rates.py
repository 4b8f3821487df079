"""Token buckets and the floor: what is taken is bounded whatever is asked, and what is forgotten doesn't matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from p2plearn.dht.line import Line
from p2plearn.dht.messages import BEATS, Beat
from p2plearn.dht.messages import encode as encode_beat
from p2plearn.gossip.framing import read_exactly
from p2plearn.net.limits import BYTES_A_FRAME, FLOOR_BYTES, FLOOR_SECONDS, FRAMES_BURST, FRAMES_PER_SECOND
from p2plearn.net.paced import Paced
from p2plearn.net.rates import Floor, FrameAllowance, Rates
from p2plearn.transfer.channel import Channel
from p2plearn.transfer.protocol import FROM_FETCHER, Want
from p2plearn.transfer.protocol import encode as encode_message

steps = st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abc")), max_size=200)


@given(steps, st.floats(1, 20), st.floats(0.1, 10))
def test_no_more_is_taken_than_the_burst_and_the_rate_allow(asked: list[Any], burst: float, rate: float) -> None:
    rates, now = Rates(burst, rate), 0.0
    taken = dict.fromkeys("abc", 0)
    for pause, name in asked:
        now += pause
        taken[name] += rates.take(name, now)
        assert taken[name] <= burst + rate * now + 1e-6


def test_a_full_table_forgets_the_quiet_first_and_never_grows() -> None:
    rates = Rates(2, 1, capacity=3)
    assert rates.take("loud", 0.0, 2)
    assert rates.take("b", 0.0)
    assert rates.take("c", 0.0)
    assert rates.take("d", 1.5)  # b and c are quiet by now
    assert len(rates) == 2
    assert not rates.take("loud", 1.5, 2)
    for number in range(100):
        rates.take(str(number), 1.5)
    assert len(rates) <= 3


def test_booking_waits_for_its_turn() -> None:
    rates = Rates(2, 0.5)
    assert [rates.book("x", 0.0) for _ in range(4)] == [0.0, 0.0, 2.0, 4.0]
    assert rates.book("y", 0.0) == 0.0


def test_frames_are_allowed_by_burst_by_time_and_by_what_they_carry() -> None:
    allowance = FrameAllowance(0.0)
    allowance.frames = FRAMES_BURST
    assert allowance.settle(0.0)
    allowance.frames = int(FRAMES_PER_SECOND)
    assert allowance.settle(1.0)
    allowance.frames, allowance.bytes = 1000, 1000 * BYTES_A_FRAME
    assert allowance.settle(1.0)
    allowance.frames, allowance.bytes = 1001, 1000 * BYTES_A_FRAME
    assert not allowance.settle(1.0)
    assert allowance.settle(1000.0)
    allowance.frames = FRAMES_BURST + 1  # nobody saves more than the burst
    assert not allowance.settle(1000.0)


def test_the_floor() -> None:
    floor = Floor(0.0)
    floor.came(FLOOR_BYTES - 1, 5.0)
    assert floor.deadline == FLOOR_SECONDS
    floor.came(1, 6.0)
    assert floor.deadline == 6.0 + FLOOR_SECONDS


class Slow:
    """A stream of which a byte comes every five seconds."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, _n: int | None = None) -> bytes:
        await trio.sleep(5.0)
        first, self.data = self.data[:1], self.data[1:]
        return first


BEAT = encode_beat(Beat(1, 2, 3, False, bytes(16)))
WANT = encode_message(Want(((0, 1), (5, 9))))

READERS: dict[str, Callable[[], Any]] = {
    "sync": lambda: read_exactly(Slow(bytes(1000)), 1000),
    "heartbeat": lambda: Line(Slow(BEAT), BEATS).receive(60.0),
    "chunk": lambda: Channel(Slow(WANT), FROM_FETCHER).receive(),
    "kad": lambda: _all(Paced(Slow(bytes(1000)))),
}


async def _all(stream: Paced) -> None:
    while True:
        await stream.read(100)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
async def test_a_message_in_drops_is_too_slow_wherever_it_comes(
    reader: Callable[[], Any], autojump_clock: trio.abc.Clock
) -> None:
    with pytest.raises(trio.TooSlowError):
        await reader()
    assert trio.current_time() <= 5.0 + FLOOR_SECONDS


async def test_a_slow_line_is_no_offence(autojump_clock: trio.abc.Clock) -> None:
    near, far = memory_stream_pair()

    async def send() -> None:
        for _ in range(20):
            await near.send_all(bytes(FLOOR_BYTES))
            await trio.sleep(FLOOR_SECONDS - 1)

    class Stream:
        async def read(self, n: int) -> bytes:
            return bytes(await far.receive_some(n))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert len(await read_exactly(Stream(), 20 * FLOOR_BYTES)) == 20 * FLOOR_BYTES
