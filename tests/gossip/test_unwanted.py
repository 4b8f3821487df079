"""What is not asked for: for good, or until its time; never more of it than is said."""

from __future__ import annotations

import pytest

from p2plearn.gossip import unwanted
from p2plearn.gossip.unwanted import Unwanted


def test_what_waits_is_wanted_again_in_time_and_what_was_let_go_is_not():
    ids = Unwanted()
    ids.wait(b"later", 20.0)
    ids.wait(b"soon", 10.0)
    ids.forget(b"gone")
    assert b"other" not in ids
    ids.ripen(9.0)
    assert [name in ids for name in (b"soon", b"later", b"gone")] == [True, True, True]
    ids.ripen(10.0)
    assert [name in ids for name in (b"soon", b"later", b"gone")] == [False, True, True]
    ids.ripen(1e9)
    assert [name in ids for name in (b"soon", b"later", b"gone")] == [False, False, True]


def test_both_tables_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unwanted, "MAX_FORGOTTEN", 3)
    monkeypatch.setattr(unwanted, "MAX_LATER", 3)
    ids = Unwanted()
    for number in range(5):
        ids.forget(b"gone %d" % number)
        ids.wait(b"later %d" % number, 10.0)
    assert [b"gone %d" % number in ids for number in range(5)] == [False, False, True, True, True]
    assert [b"later %d" % number in ids for number in range(5)] == [True, True, True, False, False]
