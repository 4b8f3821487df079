"""A CAR file's blocks, one after another, also behind a place where the file is damaged.

Where the framing is lost, a length before may have been wrong: that of the last frame, or of the one before it, if that
one's end fell into a head and made another of it. So reading goes back to just behind the beginning of that one, and
looks from there for the next block that is what its CID says (``car.Decoder.search``).
Going back is bounded: a hostile file makes this read ``GO_BACK`` and as much again as it has, not more.

Blocking. Imports siblings.
"""

from __future__ import annotations

from typing import Final

from p2plearn.archive.car import MAX_BLOCK, MAX_HEADER, BadCar, Decoder, Head, Header, OtherVersion
from p2plearn.archive.sources import READ_BYTES, Source

GO_BACK: Final = 64 * 1024 * 1024
"""Bytes that are read again, besides as many as the file has."""


class Blocks:
    """``head`` says what comes next, ``body`` or ``skip`` deals with it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._decoder = Decoder()
        self._anchor = self._last = -1
        """Where the last frame but one, and the last, began; the header's last byte before there was any."""
        self._gone_back = 0
        self._ended = False
        self._found = False
        """Whether the next head was searched for, and so is a right one."""
        self._suspect: tuple[int, str] | None = None
        self.problem = ""
        """Where the file is damaged first and how; empty while it isn't."""
        self.gaps = 0
        """Places at which blocks are missing."""
        self.cut = False
        """Whether the file ended in a block, or before its header."""
        self._lost = False
        self.beyond = 0
        """Where the framing was lost, if that was once, and no other block came behind it; else 0."""
        self.headless: BadCar | None = None
        """What is wrong with a header that can't be read."""

    @property
    def offset(self) -> int:
        """Bytes dealt with."""
        return self._decoder.offset

    def head(self) -> Header | Head | None:
        """What comes next; None at the end, and where a header can't be read and no block follows. Raises what
        ``Source.read`` does.
        """
        while self.headless is None or self._anchor >= 0 or self._decoder.offset <= MAX_HEADER + MAX_BLOCK:
            try:
                head = self._decoder.head()
            except OtherVersion as other:
                self.headless = other
                break
            except BadCar as wrong:
                if not self._decoder.begun:
                    self.headless = wrong
                self._lose(str(wrong))
                continue
            if isinstance(head, Header):
                self._anchor = self._last = self._decoder.offset - 1
                return head
            if head is not None:
                self._confirm()
                if not self._is_known(head):
                    self.beyond = 0
                    return head
                self.skip()
                continue
            if not self._ended:
                self._more()
            elif self._decoder.whole or self._decoder.searching:
                break
            else:
                self._lose_at_end()
        return None

    def _is_known(self, head: Head) -> bool:
        """Remember where this frame began; whether it was given before."""
        start = self._decoder.start
        if self._found:
            self._found, known = False, start == self._last
            self._anchor = self._last = start
            return known
        if head.digest:
            self._anchor, self._last = self._last, start
        return False

    def body(self) -> bytes | None:
        """The block whose head was given; None when the file ends before it does."""
        while (raw := self._decoder.body()) is None:
            if self._ended:
                self._lose_at_end()
                return None
            self._more()
        return raw

    def skip(self) -> None:
        """Leave that block out."""
        left = self._decoder.skip()
        if left and self._source.seekable and self._decoder.offset + left <= self._source.size:
            self._source.pass_over(left)
            self._decoder.jump()

    def _more(self) -> None:
        data = self._source.read()
        if data:
            self._decoder.feed(data)
        else:
            self._ended = True
            self._decoder.end()

    def _lose_at_end(self) -> None:
        self.cut = True
        if not self._decoder.begun and self.headless is None:
            self.headless = BadCar("it is empty, or cut off in its first bytes")
        self._lose("a block that reaches beyond the end")

    def _lose(self, why: str) -> None:
        """The framing is lost here: search from where a wrong length may have been."""
        where = self._decoder.offset
        if not self._lost:
            self._lost, self.beyond = True, where
        self._suspect = self._suspect or (where, why)
        if not self.cut:
            self._confirm()
        start = self._anchor + 1
        cost = where - start + READ_BYTES  # what is fed already is read again, too
        self._found = True
        if self._gone_back + cost > GO_BACK + where:
            self._decoder.search_on()
            return
        self._gone_back += cost
        self._ended = False
        self._decoder.search(self._source.go_back(start))

    def _confirm(self) -> None:
        """It was damage, and not only the end: the file goes on behind it, or stops making sense before its end."""
        if self._suspect is not None:
            where, why = self._suspect
            self.problem = self.problem or f"damaged at byte {where}: {why}"
            self.gaps += 1
            self._suspect, self.cut = None, False
