"""What `node status` says to a person: trouble first and in words, nothing that a peer wrote unescaped."""

from __future__ import annotations

from typing import Any

import pytest

from p2plearn.status_words import status

QUIET: dict[str, Any] = {
    "peer_id": "12D3KooWMine", "author": "ab" * 32, "uptime": 3700.0, "pid": 4711, "peers": 2, "courses": 3,
    "addresses": ["/ip4/192.0.2.7/tcp/4017/p2p/12D3KooWMine"],
    "storage": {"bytes": 5 << 20, "quota": None, "free_disk": 9 << 30, "min_free": 1 << 29, "notices": []},
    "custody": {"give": 5 << 30, "given": 1 << 30, "units": 3, "repairing": 0, "leaving": False,
                "under_replicated": [], "lost": []},
    "dht": {"announced": 3, "waiting": 0, "late": 0, "lateness": 0.0},
    "people": {"catalogue": 12, "lag": 4.0, "compared": True, "dropped": {"known": 7, "flood": 0}},
    "reach": {"words": "nodes behind no router can call it", "port_mapping": "", "relaying": {"on": False}},
    "lan": {"on": True, "heard": 1, "problem": ""},
    "month": {"lan_sent": 1 << 20, "lan_received": 0, "wan_sent": 0, "wan_received": 2 << 20},
}  # fmt: skip


def test_a_node_in_order_has_nothing_to_attend_to() -> None:
    shown = status(QUIET)
    assert "!" not in shown
    for words in (
        "12D3KooWMine",
        "for 1 h",
        "3 courses, 5.0 MiB (no quota)",
        "1.0 GiB of 5.0 GiB",
        "2 nodes connected",
    ):
        assert words in shown, words
    assert "Limits" not in shown
    assert "passed over" not in shown


def test_a_get_that_is_paused_waits_for_nothing_else() -> None:
    def fetching(waiting_for: str) -> str:
        row = {"course": "ab" * 32, "title": "T", "waiting_for": waiting_for}
        return next(line for line in status({**QUIET, "fetching": [row]}).splitlines() if line.startswith("Fetching"))

    assert fetching("paused (`p2plearn node resume` goes on)").endswith("abababababab T, paused")
    assert fetching("a provider").endswith("T, waiting for a provider")
    assert fetching("").endswith(" T")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"paused": True}, "! Paused: no course is served or fetched until `p2plearn node resume`."),
        ({"custody": {"lost": [{"course": "cd" * 32, "title": "Gone"}]}}, "    cdcdcdcdcdcd Gone"),
        (
            {"custody": {"under_replicated": [{"course": "ef" * 32, "title": "Few", "copies": 1, "copies_wanted": 3}]}},
            "    efefefefefef Few: 1 of 3 copies",
        ),
        (
            {"custody": {"give": 1 << 20, "given": 5 << 20}},
            "! 5.0 MiB are kept for others, more than the 1.0 MiB that storage.give allows now: nothing new is",
        ),
        (
            {"dht": {"late": 2, "lateness": 7200.0, "peers": 3}},
            "! Telling the network what is here falls behind: 2 courses late",
        ),
        ({"banned": [{"peer": "12D3KooWBad", "last": "poisoned"}]}, "    12D3KooWBad: poisoned"),
        ({"restart_for": ["storage.give"]}, "! Changed in config.toml, in force after a restart: storage.give."),
        ({"storage": {"notices": ["The disk is nearly full."]}}, "! The disk is nearly full."),
        ({"network_restarts": 1, "last_fault": "KeyError"}, "! The network part was restarted 1 time (KeyError)."),
    ],
)
def test_trouble_comes_first_and_in_words(trouble: dict[str, Any], words: str) -> None:
    shown = status(QUIET | trouble)
    assert words in shown
    assert shown.index(words) < shown.index("Node  ")


def test_without_a_network_nobody_is_said_to_be_heard_on_the_lan() -> None:
    words = "this machine has no network: no cable and no Wi-Fi is connected"
    lan = {"on": True, "heard": 2, "problem": "this node has no address on any network"}
    shown = status(QUIET | {"peers": 0, "reach": {"standing": "no-network", "words": words}, "lan": lan})
    assert "! This machine has no network: plug in a cable" in shown
    assert "0 nodes connected; on no LAN now" in shown
    assert "heard" not in shown
    assert "can't be looked for" not in shown


def test_what_is_not_complete_is_told_apart() -> None:
    assert "3 courses (1 of them not complete, with room kept for the rest), 5.0 MiB" in status(QUIET | {"complete": 2})
    assert "not complete" not in status(QUIET | {"complete": 3})


def test_who_never_met_a_peer_is_not_said_to_be_equal_with_one() -> None:
    alone = status(QUIET | {"people": {"catalogue": 0, "lag": 4.0, "compared": False, "ahead": 2}})
    assert "2 that you said dated ahead" in alone
    assert "dated ahead" not in status(QUIET)
    assert "made equal" in status(QUIET)
    assert "made equal" not in alone
    assert "not compared with any peer so far" in alone


def test_who_is_alone_is_not_said_to_watch_together_with_others() -> None:
    alone = status(QUIET | {"custody": {"units": 1, "others": 0}})
    assert "1 course or segment, on no other node so far" in alone
    together = status(QUIET | {"custody": {"units": 3, "others": 2}})
    assert "3 courses and segments, watched together with 2 other nodes" in together


def test_many_are_not_all_named() -> None:
    lost = [{"course": f"{number:064x}", "title": f"Course {number}"} for number in range(100)]
    shown = status(QUIET | {"custody": {"lost": lost}})
    assert "Course 19" in shown
    assert "Course 20" not in shown
    assert "and 80 more: p2plearn node status --json" in shown


def test_titles_cannot_play_with_the_terminal() -> None:
    shown = status(QUIET | {"custody": {"lost": [{"course": "cd" * 32, "title": "\x1b[2Jx\u202ey\n! Paused"}]}})
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\n! Paused" not in shown


def test_what_an_older_node_lacks_is_left_out() -> None:
    assert "Node" in status({"peer_id": "x"})


def test_more_kept_for_others_than_is_given_now_is_said_with_what_to_do() -> None:
    shown = status(QUIET | {"custody": {"given": 5 << 20, "give": 1 << 20}})
    assert "! 5.0 MiB are kept for others, more than the 1.0 MiB" in shown
    assert "p2plearn node leave" in shown
    assert "kept for others, more" not in status(QUIET | {"custody": {"given": 1 << 20, "give": 1 << 20}})


def test_copies_on_nodes_that_are_away_are_told_apart() -> None:
    row = {"course": "ef" * 32, "title": "Few", "copies": 1, "copies_away": 2, "copies_wanted": 3}
    shown = status(QUIET | {"custody": {"under_replicated": [row]}})
    assert "Few: 1 of 3 copies, 2 more on nodes that are away" in shown
