"""The book of good peers: what gets in, what comes back, what a damaged file does."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2plearn.net import peers
from p2plearn.net.peers import AddressBook

A = Multiaddr("/ip4/192.0.2.1/tcp/4001")
B = Multiaddr("/ip4/192.168.1.7/tcp/4001")
DAY = 86400.0


def new_id() -> ID:
    return ID.from_pubkey(create_new_key_pair().public_key)


def test_it_comes_back_as_it_was_written_and_only_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    book = AddressBook(path)
    first, second = new_id(), new_id()
    book.worked(first, A, 100.0)
    book.worked(first, B, 200.0)
    book.worked(second, B, 150.0)
    book.save()
    assert not book.changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["peers.json"]
    again = AddressBook.load(path, 300.0)
    assert [(p.peer_id, p.addrs) for p in again.best(9)] == [(first, [B, A]), (second, [B])]


def test_what_a_connected_peer_says_of_itself_comes_behind_what_is_proven(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    caller, proven = new_id(), new_id()
    book.heard(caller, [A, Multiaddr("/ip4/169.254.3.4/tcp/4001")], 900.0)
    book.heard(new_id(), [Multiaddr("/ip6/fe80::1/tcp/4001")], 900.0)
    book.worked(proven, A, 100.0)
    book.heard(proven, [B], 800.0)  # it has moved, and called here
    book.save()
    again = AddressBook.load(tmp_path / "peers.json", 1000.0)
    assert [(p.peer_id, p.addrs) for p in again.best(9)] == [(proven, [A, B]), (caller, [A])]
    book.heard(caller, [B], 950.0)  # nothing was proven of the old one
    assert book.best(9)[1].addrs == [B]
    assert book.changed
    book.save()
    book.heard(caller, [B], 960.0)
    assert not book.changed  # no news: nothing to write
    book.worked(caller, B, 1000.0)
    assert [p.peer_id for p in book.best(9)] == [caller, proven]


def test_strangers_that_come_in_numbers_do_not_fill_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_HEARD", 3)
    monkeypatch.setattr(peers, "MAX_PEERS", 5)
    book = AddressBook(tmp_path / "peers.json")
    good = [new_id() for _ in range(4)]
    for peer in good:
        book.worked(peer, A, 0.0)
    strangers = [new_id() for _ in range(20)]
    for number, peer in enumerate(strangers):
        book.heard(peer, [B], 1000.0 + number)
    assert len(book) == 5
    assert {p.peer_id for p in book.best(9)} == {*good, strangers[-1]}


def test_old_ones_and_addresses_that_mean_nothing_later_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    book = AddressBook(path)
    book.worked(new_id(), A, 0.0)
    book.worked(new_id(), Multiaddr("/ip4/169.254.3.4/tcp/4001"), 0.0)
    assert len(book) == 1
    book.save()
    assert len(AddressBook.load(path, 10 * DAY)) == 1
    assert len(AddressBook.load(path, 100 * DAY)) == 0


def test_a_date_in_the_future_counts_as_now(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    book = AddressBook(path)
    book.worked(new_id(), A, 1e10)
    book.save()
    assert AddressBook.load(path, 5.0)._entries.popitem()[1].last_seen == 5.0


def test_it_is_bounded_and_the_worst_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_PEERS", 3)
    book = AddressBook(tmp_path / "peers.json")
    ids = [new_id() for _ in range(4)]
    for number, peer in enumerate(ids[:3]):
        book.worked(peer, A, float(number))
    book.failed(ids[2])
    book.worked(ids[3], A, 9.0)
    assert {p.peer_id for p in book.best(9)} == {ids[0], ids[1], ids[3]}


def test_one_that_fails_again_and_again_is_dropped(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    peer = new_id()
    book.worked(peer, A, 0.0)
    for _ in range(7):
        book.failed(peer)
    assert len(book) == 1
    book.failed(peer)
    assert len(book) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": 2, "peers": []}',
        b'{"format": 1, "peers": [{}]}',
        b'{"format": 1, "peers": 7}',
        b'{"format": 1, "peers": [{"peer": "x", "addresses": ["/ip4/1.2.3.4/tcp/1"], "last_seen": 1, "successes": 1}]}',
        b'{"format": 1, "peers": [{"peer": 1, "addresses": ["nonsense"], "last_seen": "x"}]}',
        b"\xff\xfe\x00" * 10,
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_put_aside_and_the_node_starts_with_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    assert len(AddressBook.load(path, 10.0)) == 0
    assert (tmp_path / "peers.json.bad").read_bytes() == content
    assert not path.exists()


def test_who_was_never_seen_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    book = AddressBook(path)
    book.worked(new_id(), A, 100.0)
    book.save()
    path.write_bytes(path.read_bytes().replace(b'"last_seen": 100', b'"last_seen": NaN'))
    again = AddressBook.load(path, 10.0)
    assert len(again) == 0
    again.save()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "peers.json"
    book = AddressBook(path)
    book.worked(new_id(), A, 1.0)
    book.save()
    before = path.read_bytes()

    def no_space(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    book.worked(new_id(), A, 2.0)
    with pytest.raises(OSError, match="No space"):
        book.save()
    assert book.changed
    assert path.read_bytes() == before
    assert json.loads(before)["format"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["peers.json"]
