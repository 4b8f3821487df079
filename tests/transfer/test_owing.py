"""For how long a peer has owed its answer, or a part of the index."""

from __future__ import annotations

import pytest

from p2plearn.transfer.owing import PROGRESS_BYTES, PROGRESS_RATE, Owing


def test_who_was_asked_nothing_owes_nothing():
    owing = Owing()
    assert owing.waited(100.0, 10**6) == 0.0
    owing.over(101.0, 10**6)
    assert owing.waited(102.0, None) == 0.0


def test_who_was_asked_owes_until_it_answers():
    owing = Owing()
    owing.asked(10.0, 0)
    assert owing.waited(14.0, 0) == 4.0
    owing.answered()
    assert owing.waited(15.0, 0) == 0.0


def test_who_sends_all_the_time_is_not_late():
    owing = Owing()
    owing.asked(0.0, 500)
    late = [owing.waited(second / 4, 500 + int(3000 * second / 4)) for second in range(400)]
    assert max(late) <= PROGRESS_BYTES / 3000 + 0.25
    assert owing.asked_at == 0.0


@pytest.mark.parametrize(("rate", "waited"), [(2 * PROGRESS_RATE, 0.0), (PROGRESS_RATE / 2, 6.0)])
def test_what_came_since_the_last_look_counts_at_the_end(rate: float, waited: float):
    owing = Owing()
    owing.asked(0.0, 0)
    owing.over(5.0, int(5.0 * rate))
    assert owing.waited(6.0, None) == waited


def test_a_byte_now_and_then_is_nothing():
    owing = Owing()
    owing.asked(0.0, 0)
    assert owing.waited(60.0, 60) == 60.0
