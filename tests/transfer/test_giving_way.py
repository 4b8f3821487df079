"""When every place is taken, who moves nothing gives way to who comes; who reads, however slowly, stays."""

from __future__ import annotations

from typing import Any

import trio
from courses import MemoryShelf, make_course

from p2plearn.transfer.protocol import Busy, Open
from p2plearn.transfer.serve import GIVE_WAY_SECONDS, ChunkService

COURSE = make_course(4, 100)


class Sitter:
    """A channel whose peer says OPEN and then nothing; ``sent_at`` moves on while it reads."""

    remote = rules = None

    def __init__(self) -> None:
        self.sent, self.sent_at = 0, -1.0
        self.busy = self.was_reset = self.opened = False

    async def receive(self) -> list[Any]:
        if not self.opened:
            self.opened = True
            return [Open(COURSE.hash, False)]
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, *messages: Any) -> None:
        self.busy = self.busy or any(isinstance(message, Busy) for message in messages)

    async def send_pieces(self, *_pieces: Any) -> None:
        """Nothing is sent here."""

    async def close(self) -> None:
        """Nothing to close."""

    async def reset(self) -> None:
        self.was_reset = True


async def test_the_stillest_gives_way(autojump_clock: trio.abc.Clock) -> None:
    async def find(_course: bytes) -> MemoryShelf:
        return MemoryShelf.full(COURSE)

    service = ChunkService(find, max_streams=2)
    sitter, reader, early, late, last = (Sitter() for _ in range(5))

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            while True:
                await trio.sleep(1.0)
                reader.sent_at = trio.current_time()

        nursery.start_soon(read)
        for channel in (sitter, reader):
            nursery.start_soon(service.serve, channel)
        await trio.sleep(GIVE_WAY_SECONDS / 2)
        await service.serve(early)
        assert early.busy
        assert not sitter.was_reset
        await trio.sleep(GIVE_WAY_SECONDS)
        nursery.start_soon(service.serve, late)
        await trio.sleep(0.1)
        assert sitter.was_reset
        assert not late.busy
        await service.serve(last)  # both have moved, or come, lately
        assert last.busy
        assert not reader.was_reset
        assert service.upload.streams == 2
        nursery.cancel_scope.cancel()


async def test_what_moved_long_ago_keeps_nobody_out(autojump_clock: trio.abc.Clock) -> None:
    """The first who comes gets a place at once: how long nothing has moved is known without an earlier look."""

    async def find(_course: bytes) -> MemoryShelf:
        return MemoryShelf.full(COURSE)

    service = ChunkService(find, max_streams=1)
    sitter, honest = Sitter(), Sitter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.serve, sitter)
        await trio.sleep(1.0)
        sitter.sent_at = trio.current_time()
        await trio.sleep(GIVE_WAY_SECONDS)
        nursery.start_soon(service.serve, honest)
        await trio.sleep(0.1)
        assert sitter.was_reset
        assert not honest.busy
        nursery.cancel_scope.cancel()
