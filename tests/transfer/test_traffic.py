"""The book of what was moved: what comes back after a restart, and what a broken file costs."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.transfer.traffic import MAX_DAYS, MAX_FILE, Moved, TrafficBook

DAY = datetime.date(2026, 11, 21)
ENTRIES = st.lists(
    st.tuples(
        st.dates(DAY - datetime.timedelta(40), DAY), st.booleans(), st.integers(0, 1 << 40), st.integers(0, 1 << 40)
    ),
    max_size=60,
)


def always(book: TrafficBook) -> Moved:
    return book.between(datetime.date.min, datetime.date.max)


@given(ENTRIES, st.sampled_from([0.0, 1.8e9, math.inf]))
def test_what_was_written_comes_back(tmp_path_factory, entries, until: float) -> None:
    path = tmp_path_factory.mktemp("book") / "traffic.json"
    book = TrafficBook.load(path)
    for day, lan, sent, received in entries:
        book.add(day, lan=lan, sent=sent, received=received)
    book.paused_until = until
    assert book.changed
    book.write(book.encode())
    assert not book.changed
    again = TrafficBook.load(path)
    assert again.paused_until == until
    for first, end in ((DAY, DAY + datetime.timedelta(1)), (DAY - datetime.timedelta(20), DAY)):
        inside = [entry for entry in entries if first <= entry[0] < end]
        moved = again.between(first, end)
        assert moved.lan == sum(sent + received for _, lan, sent, received in inside if lan)
        assert moved.wan == sum(sent + received for _, lan, sent, received in inside if not lan)
    assert path.stat().st_mode & 0o777 == 0o600


def test_old_days_make_room_also_after_a_clock_that_was_years_ahead(tmp_path: Path) -> None:
    book = TrafficBook(tmp_path / "traffic.json")
    for at in range(MAX_DAYS):
        book.add(DAY + datetime.timedelta(3650 + at), lan=False, sent=1, received=0)
    for at in range(31):
        book.add(DAY + datetime.timedelta(at), lan=False, sent=1, received=0)
    assert book.between(DAY, DAY + datetime.timedelta(31)).wan == 31
    for at in range(1000):
        book.add(DAY + datetime.timedelta(at), lan=False, sent=1, received=0)
    assert len(book.encode()) < MAX_FILE
    assert always(book).wan <= 2 * MAX_DAYS


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": 2, "days": {}, "paused_until": 0}',
        b'{"format": 1, "days": {"yesterday": {}}, "paused_until": 0}',
        b'{"format": 1, "days": {}, "paused_until": "never"}',
        b'{"format": 1, "days": {}, "paused_until": NaN}',
        b'{"format": 1, "days": {"2026-11-21": {"lan_sent": -1, "lan_received": 0, "wan_sent": 0, "wan_received": 0}},'
        b' "paused_until": 0}',
        b'{"format": 1, "days": {}, "paused_until": 1' + b"0" * 400 + b"}",
        b"[" * 50_000,
        b" " * (MAX_FILE + 1),
        b"\xff\xfe",
    ],
)
def test_a_file_that_makes_no_sense_is_put_aside(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "traffic.json"
    path.write_bytes(raw)
    book = TrafficBook.load(path)
    assert always(book) == Moved()
    assert book.paused_until == 0
    assert path.with_name("traffic.json.bad").read_bytes() == raw
    book.write(book.encode())
    assert always(TrafficBook.load(path)) == Moved()


def test_what_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    book = TrafficBook(tmp_path / "nowhere" / "traffic.json")
    book.add(DAY, lan=True, sent=1, received=2)
    with pytest.raises(FileNotFoundError):
        book.write(book.encode())
    assert book.changed
