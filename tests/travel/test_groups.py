"""Closed groups of real nodes: a course travels inside, and nothing in or out."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from tests.nodes import LOOPBACK, RealNode, run_command
from tests.travel.course_folders import assert_same, odd_folder


def test_a_course_travels_in_a_group_and_nobody_else_learns_of_it(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "course")
    home = tmp_path / "a"
    made = run_command("invite", "--new", "Dorfschule Süd", "--json", home=home)
    assert made.code == 0, made.stderr
    assert made.last["group"] == "Dorfschule Süd"
    with RealNode(home) as a:
        ran = run_command("invite", "--qr", home=home)
        assert "█" in ran.stdout or "▄" in ran.stdout
        invite = ran.stdout.splitlines()[0]
        assert a.run("invite")["addresses"] == [a.address]
        (tmp_path / "said").write_text(invite.lower(), "utf-8")
        with (tmp_path / "said").open("rb") as said:
            joined = run_command("join", "--json", home=tmp_path / "b", stdin=said.fileno())
        assert joined.code == 0, joined.stderr
        with (
            RealNode(tmp_path / "b") as b,
            RealNode(tmp_path / "outside", bootstrap=[a.address]) as outside,
        ):
            course = a.run("publish", folder, "--title", "Odd", "--copies", 1)["course"]
            b.run("get", course, "-o", tmp_path / "out", timeout=120)  # through the invite's address alone
            assert_same(folder, tmp_path / "out")
            assert b.run("node", "status")["group"] == "Dorfschule Süd"
            assert outside.run("node", "status")["group"] == ""

            refused = outside.run("get", course, "--from", a.address, code=4, timeout=180)
            assert "1 unreachable" in refused["message"] or "reach" in refused["message"]
            a.run("get", "00" * 32, "--from", outside.address, code=4, timeout=180)
            assert outside.run("search", "Odd")["courses"] == []
            assert {peer["peer_id"] for peer in a.run("node", "peers")["peers"]} == {b.peer_id}
            assert outside.run("node", "peers")["peers"] == []

            # A key of another group is no better than none.
            run_command("invite", "--new", "Dorfschule Süd", home=tmp_path / "c")
            with RealNode(tmp_path / "c", bootstrap=[a.address]) as c:
                c.run("get", course, "--from", a.address, code=4, timeout=180)
                assert c.run("node", "peers")["peers"] == []
                assert c.run("node", "status")["group_tag"] != a.run("node", "status")["group_tag"]

            with socket.create_connection(("127.0.0.1", int(a.address.split("/")[4])), timeout=60) as knock:
                knock.sendall(b"\x13/multistream/1.0.0\n")
                assert _all_of(knock) == b""
            key = invite.removeprefix("P2PLEARN-GROUP-")[:30]
            assert key not in a.log + b.log + str(a.run("node", "status"))
            assert stat.S_IMODE((home / "keys" / "network.key").stat().st_mode) == 0o600


def test_a_home_stays_in_its_network_unless_told_to_change(tmp_path: Path) -> None:
    school, club = (
        run_command("invite", "--new", name, "--json", home=tmp_path / name).last["invite"] for name in ("s", "c")
    )
    home = tmp_path / "home"
    with RealNode(home) as node:
        assert run_command("join", school, "--json", home=home).code == 8  # the node runs
        node.run("node", "status")
    refused = run_command("join", school, "--json", home=home)
    assert refused.code == 8
    assert "open network" in refused.last["message"]
    assert run_command("invite", "--new", "x", "--json", home=home).code == 8
    assert run_command("invite", "--json", home=home).code == 2
    assert run_command("join", school, "--replace", home=home).code == 0
    assert run_command("join", school, "--json", home=home).last["new"] is False
    assert run_command("join", club, "--json", home=home).code == 8

    start = ("node", "start", "--json", "--no-mdns", "--listen", LOOPBACK)
    key = home / "keys" / "network.key"
    key.chmod(0o644)
    opened = run_command(*start, home=home)
    assert opened.code == 8
    assert "chmod 600" in opened.last["hint"]
    key.chmod(0o600)
    raw = key.read_bytes()
    key.unlink()
    lost = run_command(*start, home=home)
    assert lost.code == 8
    assert "is gone" in lost.last["message"]
    key.write_bytes(raw[:-9] + b"\n")
    key.chmod(0o600)
    assert run_command(*start, home=home).code == 1
    key.write_bytes(f"{club}\n".encode())
    other = run_command(*start, home=home)
    assert other.code == 8
    assert "another group" in other.last["message"]
    for text, words in (("p2plearn:" + "0" * 64, "course's link"), (school[:-1], "slip"), ("", "no invite")):
        bad = run_command("join", text, "--json", home=tmp_path / "fresh")
        assert bad.code == 2
        assert words in bad.last["message"]
    assert not (tmp_path / "fresh" / "keys").exists()


def _all_of(connection: socket.socket) -> bytes:
    heard = b""
    try:
        while more := connection.recv(4096):
            heard += more
    except ConnectionResetError:
        pass
    return heard
