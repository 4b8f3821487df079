"""Who can call this node, judged from what happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.net.reach.judge import ASK_AGAIN, ASK_RARELY, ASK_SOON, MAX_PEERS, VERDICT_SECONDS, Judge, Standing

HOME = ["192.168.1.2"]


def test_nobody_beyond_is_the_lan_alone() -> None:
    judge = Judge(0.0)
    assert judge.standing(HOME, 0.0) is Standing.LAN_ONLY
    judge.beyond({"a"}, 1.0)
    assert judge.standing(HOME, 1.0) is Standing.UNKNOWN
    judge.beyond(set(), 2.0)
    assert judge.standing(HOME, 2.0) is Standing.LAN_ONLY


def test_seen_under_another_address_is_behind_a_router_even_before_anybody_called_back() -> None:
    judge = Judge(0.0)
    judge.beyond({"a"}, 1.0)
    judge.seen_as("a", "7.7.7.7")
    assert judge.standing(HOME, 1.0) is Standing.BEHIND_ROUTER
    assert judge.standing(["7.7.7.7"], 1.0) is Standing.UNKNOWN
    assert "7.7.7.7" in judge.words(HOME, 1.0)
    assert judge.outside_addresses(HOME) == ["7.7.7.7"]


def test_being_reached_is_proof_and_a_failure_may_be_the_callers_own() -> None:
    judge = Judge(0.0)
    judge.beyond({"a", "b", "c"}, 0.0)
    judge.called_back("a", "", 1.0)
    assert judge.standing(HOME, 1.0) is Standing.BEHIND_ROUTER
    assert "firewall" in judge.words(HOME, 1.0)
    judge.called_back("b", "/ip4/7.7.7.7/tcp/1", 2.0)
    assert judge.standing(HOME, 2.0) is Standing.PUBLIC
    assert judge.reached_at(2.0) == ["/ip4/7.7.7.7/tcp/1"]
    judge.called_back("c", "", 3.0)
    assert judge.standing(HOME, 3.0) is Standing.BEHIND_ROUTER
    judge.called_back("a", "/ip4/7.7.7.7/tcp/1", 4.0)
    assert judge.standing(HOME, 4.0) is Standing.PUBLIC
    assert judge.words(HOME, 4.0).startswith("2 of 3 peers")


def test_a_verdict_is_good_for_an_hour_and_none_outlives_a_change_of_network() -> None:
    judge = Judge(0.0)
    judge.beyond({"a"}, 0.0)
    judge.called_back("a", "/ip4/7.7.7.7/tcp/1", 0.0)
    assert judge.standing(HOME, VERDICT_SECONDS - 1) is Standing.PUBLIC
    assert judge.standing(HOME, VERDICT_SECONDS + 1) is Standing.UNKNOWN
    judge.called_back("a", "/ip4/7.7.7.7/tcp/1", 10.0)
    judge.network_changed(11.0)
    assert judge.standing(HOME, 11.0) is Standing.UNKNOWN
    assert judge.ask(["a"], 11.0) is None
    assert judge.ask(["a"], 11.0 + ASK_SOON) == "a"


def test_those_asked_least_lately_are_asked_first_and_rarely_once_it_is_known() -> None:
    judge = Judge(0.0)
    judge.beyond({"a", "b"}, 0.0)
    now = ASK_SOON
    assert judge.ask(["a", "b"], now) == "a"
    judge.called_back("a", "x", now)
    assert judge.ask(["a", "b"], now + ASK_AGAIN - 1) is None
    now += ASK_AGAIN
    assert judge.ask(["a", "b"], now) == "b"
    judge.called_back("b", "x", now)
    now = judge.next_ask()
    assert judge.ask(["a", "b"], now) == "a"
    assert judge.next_ask() == now + ASK_RARELY


def test_a_single_peer_that_could_not_is_asked_again_before_it_is_believed_for_long() -> None:
    judge = Judge(0.0)
    judge.beyond({"a"}, 0.0)
    waits = []
    for _ in range(4):
        now = judge.next_ask()
        assert judge.ask(["a"], now) == "a"
        judge.called_back("a", "", now)
        waits.append(judge.next_ask() - now)
    assert waits == [ASK_AGAIN, ASK_AGAIN, ASK_AGAIN, ASK_RARELY]
    judge.look_again(now)
    assert judge.next_ask() == now + ASK_SOON
    assert judge.ask(["a"], now + ASK_SOON) == "a"
    assert judge.next_ask() == now + ASK_SOON + ASK_AGAIN


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["", "x"]), st.floats(0, 1e6)), max_size=200))
def test_what_is_kept_is_bounded_and_every_standing_has_words(events: list[tuple[str, str, float]]) -> None:
    judge = Judge(0.0)
    for peer, address, now in events:
        judge.beyond({peer}, now)
        judge.seen_as(peer, "7.7.7.7")
        judge.called_back(peer, address, now)
        judge.ask([peer], now)
        assert judge.words(HOME, now)
        assert len(judge.reached_at(now)) <= MAX_PEERS
