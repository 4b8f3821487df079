"""How considerate a node is of its line, its battery and its person, decided. ⊙

In: what the person set, the time, how much was moved, whether the machine runs on battery or on a metered line, and
whether a peer is on the LAN. Out: how long to wait before sending, how much may be asked for, whether a peer may be
served or fetched from at all, and why not, in words.

Rates are held by token buckets that may go into debt: whoever finds tokens takes all it needs, the next one waits
until the debt is paid. So a chunk larger than the bucket still passes, and over any span of time no more passes than
the rate allows plus one bucket and one chunk.

Imports nothing that does I/O.
"""

from __future__ import annotations

import calendar
import datetime
import math
from dataclasses import dataclass
from typing import Final

from p2plearn.config import KIB, spell

BUCKET_SECONDS: Final = 0.25
"""What a bucket holds, in seconds of its rate: so short that a phone call on the same line stands it."""

SLICE_SECONDS: Final = 0.1
LEAST_SLICE: Final = 4 * KIB
MOST_SLICE: Final = 256 * KIB
"""A limited sender sends a tenth of a second's worth at a time, within these bounds."""

STREAM_RATE: Final = 32 * KIB
"""Bytes a second that a limited stream should have at least: the largest chunk then takes half a minute."""

BUSY_SECONDS: Final = 30.0
"""After how long a peer that is not served now should ask again."""

FOREVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """What the person set. Rates in bytes a second, None for no limit; ``monthly_cap`` in bytes a month.

    ``cap_day`` is the day of the month (1 to 31) on which counting begins anew.
    """

    upload: int | None = None
    download: int | None = None
    limit_lan: bool = False
    monthly_cap: int | None = None
    cap_day: int = 1
    battery_upload: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a peer is not served or not fetched from now: words for a person, and after how many seconds to ask again."""

    words: str
    seconds: float = BUSY_SECONDS


class Bucket:
    """A token bucket of ``rate`` bytes a second. ``now`` is in seconds on a clock that never goes back."""

    def __init__(self, rate: float, now: float) -> None:
        if rate <= 0:
            raise ValueError("a rate is positive")
        self.rate = rate
        self._level = self.size
        self._at = now

    @property
    def size(self) -> float:
        """Most tokens it holds."""
        return self.rate * BUCKET_SECONDS

    def level(self, now: float) -> float:
        """Tokens at ``now``, in bytes; negative: a debt."""
        self._level = min(self.size, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level

    def wait(self, now: float) -> float:
        """Seconds until something may be taken; 0 when it may be now."""
        level = self.level(now)
        return 0.0 if level > -1.0 else -level / self.rate  # less than a byte of debt is rounding

    def take(self, size: int, now: float) -> None:
        """Take ``size`` tokens, whether they are there or not."""
        self._level = self.level(now) - size

    def set_rate(self, rate: float, now: float) -> None:
        """Go on at another rate; a debt stays as many seconds long as it was, so that no stream hangs."""
        level = self.level(now)
        self._level = min(level, rate * BUCKET_SECONDS) if level > 0 else level * rate / self.rate
        self.rate = rate


def month_of(today: datetime.date, cap_day: int) -> tuple[datetime.date, datetime.date]:
    """First day of the month of counting that ``today`` is in, and of the next one.

    In a month that has no ``cap_day`` (31 in November) it begins on the last day.
    """
    start = _begin(today.year, today.month, cap_day)
    if today < start:
        return _begin_of(today.year, today.month - 1, cap_day), start
    return start, _begin_of(today.year, today.month + 1, cap_day)


def _begin(year: int, month: int, cap_day: int) -> datetime.date:
    return datetime.date(year, month, min(cap_day, calendar.monthrange(year, month)[1]))


def _begin_of(year: int, month: int, cap_day: int) -> datetime.date:
    """The same for months 0 and 13; a clock at either end of time gets the day that there is."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    if year < datetime.MINYEAR:
        return datetime.date.min
    return datetime.date.max if year > datetime.MAXYEAR else _begin(year, month, cap_day)


class Manners:
    """Rules and circumstances, and what follows from them. ``now`` is monotonic, ``wall`` seconds since 1970."""

    def __init__(self, rules: Rules, now: float, *, paused_until: float = 0.0) -> None:
        self.rules = rules
        self.paused_until = paused_until
        """Wall clock; FOREVER until resumed, in the past: not paused."""
        self.on_battery: bool | None = None
        self.metered: bool | None = None
        """None: the system doesn't tell, which counts as no."""
        self.upload: Bucket | None = None
        self.download = None if rules.download is None else Bucket(rules.download, now)
        self.circumstances(now, on_battery=None, metered=None)

    def circumstances(self, now: float, *, on_battery: bool | None, metered: bool | None) -> None:
        """What the machine runs on has been looked at."""
        self.on_battery, self.metered = on_battery, metered
        rates = [self.rules.upload, self.rules.battery_upload if on_battery else None]
        rate = min((each for each in rates if each is not None), default=None)
        if rate is None:
            self.upload = None
        elif self.upload is None:
            self.upload = Bucket(rate, now)
        elif self.upload.rate != rate:
            self.upload.set_rate(rate, now)

    # -- what holds for whom -------------------------------------------------------------------------------------

    def exempt(self, *, lan: bool) -> bool:
        """Whether limits and cap leave a peer alone."""
        return lan and not self.rules.limit_lan

    def paused(self, wall: float) -> bool:
        """Whether nothing is to be moved at all."""
        return wall < self.paused_until

    def concerns(self, *, lan: bool, wall: float) -> bool:
        """Whether there is anything to mind with such a peer just now; if not, nobody asks the methods below."""
        if self.paused(wall):
            return True
        if self.exempt(lan=lan):
            return False
        limited = self.upload is not None or self.download is not None
        return limited or self.rules.monthly_cap is not None or self.metered is True

    def counted(self, *, lan: int, wan: int) -> int:
        """Bytes of a month that count against the cap."""
        return wan + lan if self.rules.limit_lan else wan

    # -- decisions -----------------------------------------------------------------------------------------------

    def why_not_serve(self, *, lan: bool, wall: float, counted: int, others: int) -> Refusal | None:
        """Why a peer gets nothing now; None: it is served. ``others``: limited streams that are served already."""
        if self.paused(wall):
            return Refusal("paused", min(max(1.0, self.paused_until - wall), BUSY_SECONDS))
        if self.exempt(lan=lan):
            return None
        if self.cap_reached(counted):
            return Refusal("the monthly data cap is used up")
        if self.metered:
            return Refusal("the line is metered")
        if self.upload is not None and others >= max(1, int(self.upload.rate // STREAM_RATE)):
            return Refusal("the upload limit is shared by enough peers", 5.0)
        return None

    def why_not_fetch(self, *, lan: bool, counted: int, for_others: bool = False) -> Refusal | None:
        """Why nothing may be fetched from a peer; a pause is no reason, that is waited for.

        ``for_others``: nobody here asked for it, so it should cost nothing.
        """
        if self.exempt(lan=lan):
            return None
        if self.cap_reached(counted):
            return Refusal(f"the monthly data cap of {spell(self.rules.monthly_cap, 'size')} is used up")
        return Refusal("the line is metered") if for_others and self.metered else None

    def cap_reached(self, counted: int) -> bool:
        """Whether the month's bytes are used up."""
        return self.rules.monthly_cap is not None and counted >= self.rules.monthly_cap

    def slice(self, *, lan: bool) -> int:
        """Bytes to send at a time, 0 for no limit."""
        if self.upload is None or self.exempt(lan=lan):
            return 0
        return max(LEAST_SLICE, min(int(self.upload.rate * SLICE_SECONDS), MOST_SLICE))

    def may_ask(self, now: float, *, lan: bool, committed: int) -> tuple[float, float]:
        """Bytes that may be asked for now (infinity: any), and if none, the seconds after which to look again.

        ``committed``: what counts against the cap, and what was asked for and hasn't come.
        """
        room = math.inf
        if self.exempt(lan=lan):
            return room, 0.0
        if self.rules.monthly_cap is not None:
            room = self.rules.monthly_cap - committed
            if room <= 0:
                return 0.0, BUCKET_SECONDS
        if self.download is not None:
            wait = self.download.wait(now)
            if wait:
                return 0.0, wait
            room = min(room, max(1.0, self.download.level(now)))
        return room, 0.0

    def asked(self, size: int, now: float, *, lan: bool) -> None:
        """``size`` bytes are on their way here, or came."""
        if self.download is not None and not self.exempt(lan=lan):
            self.download.take(size, now)
