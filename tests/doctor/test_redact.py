"""What a bug report shows: figures; no key, title, name or whole address."""

from __future__ import annotations

import base64
import json
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.config import Home
from p2plearn.doctor.bundle import make_bundle
from p2plearn.doctor.facts import Facts
from p2plearn.doctor.judge import Finding
from p2plearn.doctor.redact import Redactor
from tests.nodes import RealNode, environment

PEER = "12D3KooWMHgdNcNwt3gCbgeRQSArzBWH3rfVYKP57oyEpT5ufQFN"

LOG = """
import logging, pathlib, sys
from p2plearn.log import start_logging

start_logging("info", as_json=sys.argv[2] == "json", file=pathlib.Path(sys.argv[1]))
for number in range(3):
    logging.getLogger("p2plearn.net").info("call %s", number)
logging.shutdown()
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"/ip4/203.0.113.77/tcp/4017/p2p/{PEER}", "/ip4/203.0.x.x/tcp/4017/p2p/peer…fQFN"),
        ("/ip6/2001:db8:aa::7/tcp/1", "/ip6/2001:0db8::x/tcp/1"),
        ("from fe80::1c2d%wlan0 to ::1", "from fe80:0000::x to ::1"),
        ("course " + "ab" * 32, "course ababab…"),
        ("/dns4/ada-laptop.school.example/tcp/1", "/dns4/…/tcp/1"),
        ("/dnsaddr/ada.example/p2p", "/dnsaddr/…/p2p"),
        ("called p2p.schule.example:4017, gone", "called …:4017, gone"),
        ("p2plearn.net: 3 in config.toml at 12:30:05", "p2plearn.net: 3 in config.toml at 12:30:05"),
        ("127.0.0.1 and 0.0.0.0", "127.0.0.1 and 0.0.0.0"),
        ("at 2026-11-21T15:00:01.123Z", "at 2026-11-21T15:00:01.123Z"),
        ("/home/ada/.local/x of ada", "HOME/.local/x of USER"),
    ],
)
def test_what_could_be_looked_for_is_shortened(before: str, after: str) -> None:
    assert Redactor({"/home/ada": "HOME", "ada": "USER"}).text(before) == after


@given(
    st.ip_addresses().filter(lambda ip: not ip.is_loopback and not ip.is_unspecified),
    st.text(string.ascii_letters + " ", max_size=20),
)
def test_no_address_survives_whole(ip: Any, around: str) -> None:
    left = Redactor({}).text(f"{around} {ip} {ip.exploded} {around}").split()
    assert not {str(ip), ip.exploded} & set(left)


def test_of_a_status_only_figures_and_known_words_stay() -> None:
    status = {
        "peer_id": PEER, "peers": 3, "paused": False, "addresses": [f"/ip4/203.0.113.77/tcp/4017/p2p/{PEER}"],
        "custody": {"under_replicated": [{"course": "ab" * 32, "title": "My diary", "copies": 1}]},
        "unreachable": {PEER: "Can't reach it at /ip4/203.0.113.77/tcp/1: refused"},
        "dht": {"last_error": "no answer from 203.0.113.77"},
    }  # fmt: skip
    kept = Redactor({}).figures(status)
    text = json.dumps(kept)
    assert all(word not in text for word in (PEER, "diary", "abab", "113.77"))
    assert kept["peers"] == 3
    assert kept["custody"]["under_replicated"][0]["copies"] == 1
    assert kept["dht"]["last_error"] == "no answer from 203.0.x.x"
    assert list(kept["unreachable"].values()) == ["Can't reach it at /ip4/203.0.x.x/tcp/1: refused"]


def test_log_lines_that_may_name_courses_lose_their_words() -> None:
    lines = [
        "2026-11-21T15:00:01.123Z info    p2plearn.net: calling 203.0.113.77",
        "    Traceback (most recent call last):",
        "2026-11-21T15:00:02.123Z warning p2plearn.custody_service: My diary (abab) has 1 of 3 copies",
        "    a line that goes with it: My diary",
        "something else: My diary",
    ]
    kept = Redactor({}).log(lines)
    assert kept == [
        "2026-11-21T15:00:01.123Z info    p2plearn.net: calling 203.0.x.x",
        "    Traceback (most recent call last):",
        "2026-11-21T15:00:02.123Z warning p2plearn.custody_service: …",
    ]


def test_a_log_in_json_is_kept_as_one_in_text_is() -> None:
    lines = [
        'vel": "info", "logger": "p2plearn.net", "message": "cut in the middle: My diary"}',
        '{"time": "2026-11-21T15:00:01.123Z", "level": "info", "logger": "p2plearn.net", '
        '"message": "calling 203.0.113.77", "fields": {"peer": "203.0.113.78"}, "exception": ["Traceback"]}',
        '{"time": "2026-11-21T15:00:02.123Z", "level": "warning", "logger": "p2plearn.custody_service", '
        '"message": "My diary", "fields": {"title": "My diary"}, "exception": ["My diary"]}',
        '{"level": "info", "message": "My diary"}',
        '{"time": "2026-11-21T15:00:03.123Z", "level": "in',
    ]
    assert Redactor({}).log(lines) == [
        "2026-11-21T15:00:01.123Z info    p2plearn.net: calling 203.0.x.x",
        "    peer=203.0.x.x",
        "    Traceback",
        "2026-11-21T15:00:02.123Z warning p2plearn.custody_service: …",
    ]


@pytest.mark.parametrize("address", ["p2p.geheimeschule.example:4017", "ada-laptop:4017", "/dns4/ada-laptop/tcp/1"])
def test_a_bundle_does_not_name_the_machine_that_was_called(tmp_path: Path, address: str) -> None:
    words = f"{address} can't be looked up"
    step = {"name": "resolve", "fault": "name", "words": words, "seconds": 0.0}
    made = make_bundle(
        Home(tmp_path), Facts(now=0.0, home=""), [Finding("reach", "bad", words)], {"address": address, "steps": [step]}
    )
    text = json.dumps(made, ensure_ascii=False)
    assert "geheimeschule" not in text
    assert "ada-laptop" not in text
    assert "resolve" in text


def test_the_log_of_a_service_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of systemd's own, which has no journal where tests run: says what it was asked, as a node would.
    program = tmp_path / "journalctl"
    program.write_text('#!/bin/sh\necho "2026-11-21T15:00:01.123Z info    p2plearn.net: $*"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    running = make_bundle(Home(tmp_path), Facts(now=0.0, home="", node_pid=4321), [], {})
    assert running["journal"][0].endswith(" _PID=4321")
    ended = make_bundle(Home(tmp_path), Facts(now=0.0, home=""), [], {})
    assert ended["journal"][0].endswith(" _SYSTEMD_USER_UNIT=p2plearn.service + _SYSTEMD_UNIT=p2plearn.service")


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_bundle_has_the_end_of_the_log(tmp_path: Path, form: str) -> None:
    home = Home(tmp_path)
    # In a process of its own, as a node's log is: it changes what all of this one's loggers do.
    subprocess.run([sys.executable, "-c", LOG, str(home.log), form], check=True, timeout=60, env=environment())
    log = make_bundle(home, Facts(now=0.0, home=""), [], {})["log"]
    assert [line.partition(": ")[2] for line in log] == ["call 0", "call 1", "call 2"]


def test_the_bundle_of_a_real_node_has_no_secret_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "Diary of Ada Lovelace"
    folder.mkdir()
    (folder / "love-letters.txt").write_text("secret")
    report = tmp_path / "report.json"
    node = RealNode(tmp_path / "home")
    node.home.prepare()
    node.home.config.write_text("[network]\nmdns = false\n")  # nothing is asked of the network that tests run on
    with node:
        course = node.run("publish", folder, "--title", "Diary of Ada Lovelace", "--tag", "very-private")["course"]
        answer = node.run("doctor", "--bundle", report, code=1)  # it is connected to nobody
        assert answer["bundle"] == str(report)
        assert "peers" in {each["check"] for each in answer["findings"] if each["grade"] == "bad"}
        status = node.run("node", "status")
        # What is there already is never written over.
        assert "exists already" in node.run("doctor", "--bundle", report, code=2)["message"]
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    made = json.loads(text)
    assert made["status"]["courses"] == 1
    assert made["findings"]
    assert made["log"]
    keys = [path.read_bytes() for path in node.home.keys.glob("*.key")]
    assert len(keys) == 2
    secrets = [course, status["peer_id"], status["author"], "Diary", "Lovelace", "love-letters", "very-private"]
    secrets += [str(tmp_path / "home")]
    for raw in keys:
        secrets += [raw.hex(), base64.b64encode(raw).decode().rstrip("="), *raw.decode("ascii", "replace").split()]
    for secret in secrets:
        if len(secret) > 5 and not secret.startswith("---"):
            assert secret not in text, secret
