"""With whom an exchange is begun, and when."""

from __future__ import annotations

from p2plearn.gossip.meetings import AGAIN_SECONDS, BUSY_SECONDS, CATCH_UP_SECONDS, COURTESY_SECONDS, Meetings


def meetings() -> Meetings[str]:
    return Meetings(lambda peer: peer > "m")


def test_of_two_that_meet_one_begins_and_the_other_only_if_that_does_not():
    ours = meetings()
    assert ours.due({"a", "z"}, 0.0) == ["z"]
    assert ours.due({"a", "z"}, COURTESY_SECONDS - 1) == []
    assert ours.due({"a", "z"}, COURTESY_SECONDS) == ["a"]
    assert ours.due({"a", "z"}, 1e6) == []
    theirs = meetings()
    assert theirs.due({"a"}, 0.0) == []
    theirs.met("a")
    assert theirs.due({"a"}, 1e6) == []


def test_while_courses_are_given_or_fetched_it_waits_but_not_for_ever():
    ours = meetings()
    assert ours.due({"a", "z"}, 0.0, busy=True) == []
    assert ours.due({"a", "z"}, BUSY_SECONDS - 1, busy=True) == []
    assert ours.due({"a", "z"}, BUSY_SECONDS, busy=True) == ["z"]
    assert ours.due({"a", "z"}, BUSY_SECONDS + 1, busy=False) == ["a"]
    idle = meetings()
    assert idle.due({"z"}, 0.0, busy=True) == []
    assert idle.due({"z"}, 1.0) == ["z"]


def test_who_went_away_is_met_anew():
    ours = meetings()
    assert ours.due({"z"}, 0.0) == ["z"]
    assert ours.due(set(), 1.0) == []
    assert ours.due({"z"}, 2.0) == ["z"]
    assert ours.due({"a"}, 3.0) == []
    assert ours.due(set(), 4.0) == []  # before its turn
    assert ours.due({"a"}, 3.0 + COURTESY_SECONDS) == []


def test_where_it_fails_it_is_tried_ever_more_rarely_but_always_again():
    ours, now, waits = meetings(), 0.0, []
    assert ours.due({"z"}, now) == ["z"]
    for _ in range(12):
        ours.failed("z", now)
        begun = now
        while not ours.due({"z"}, now):
            now += 1.0
        waits.append(now - begun)
    assert waits == [min(2.0**failures, AGAIN_SECONDS) for failures in range(1, 13)]
    ours.worked("z")
    ours.failed("z", now)
    assert ours.due({"z"}, now + 2.0) == ["z"]


def test_what_a_peer_may_not_bring_is_fetched():
    ours = meetings()
    ours.met("a")
    ours.catch_up("a", 10.0)
    assert ours.due({"a"}, 10.0) == []
    assert ours.due({"a"}, 10.0 + CATCH_UP_SECONDS) == ["a"]
