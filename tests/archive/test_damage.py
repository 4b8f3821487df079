"""A CAR file that is damaged in one place: what that costs is the block that stands there, and nothing else."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn.archive import blocks as blocks_room
from p2plearn.archive import car
from p2plearn.archive.arrivals import House
from p2plearn.archive.blocks import Blocks
from p2plearn.archive.car import Decoder, Head
from p2plearn.archive.intake import Intake
from p2plearn.archive.sources import Source
from p2plearn.errors import UsageProblem
from p2plearn.gossip.envelope import CATALOGUE
from tests.archive.test_carrying import Home, home, states
from tests.gossip.people import NOW, person, question
from tests.stores import noise, publish, write_tree


def frame(body: bytes) -> bytes:
    cid = car.raw_cid(hashlib.sha256(body).digest())
    return car.encode_head(cid, len(body)) + body


def frames_of(raw: bytes) -> list[tuple[int, Head]]:
    """Where each block's frame begins, and its head."""
    decoder = Decoder()
    decoder.feed(raw)
    decoder.head()
    found = []
    while (head := decoder.head()) is not None:
        assert isinstance(head, Head)
        found.append((decoder.start, head))
        decoder.skip()
    return found


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Home]:
    with home(tmp_path / "a") as made:
        yield made


@pytest.fixture
def course(tmp_path: Path, a: Home) -> bytes:
    files = {"big.bin": noise(2_500_000), "a.txt": b"a", "d/b.txt": b"b" * 500}
    made = publish(a.store, write_tree(tmp_path / "course", files)).course
    a.says(*(person(f"p{n}").says(question(str(n)), made) for n in range(5)))
    a.export(tmp_path / "whole.car")
    return made


def places(raw: bytes) -> dict[str, list[tuple[int, Head]]]:
    """The frames by what is in them; of what is there more than once, all."""
    frames = frames_of(raw)
    pages = [at for at, (_, head) in enumerate(frames) if head.codec == car.DAG_CBOR]
    names = [head.cid for _, head in frames]
    again = names.index(names[0], 1)
    return {
        "bundle": [frames[0]],
        "manifest": [frames[1]],
        "index": [frames[2]],
        "tree": [one for one in frames if one[1].codec == car.DAG_PB][:1],
        "chunk": [one for one in frames if one[1].length > 100_000][1:2],
        "bundle again": [frames[again]],
        "page": [frames[pages[-1]]],
        "envelope": [frames[pages[-1] + 2]],
        "last": [frames[-1]],
    }


KINDS = ("bundle", "manifest", "index", "tree", "chunk", "bundle again", "page", "envelope", "last")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_costs_no_more_than_the_block_it_is_in(tmp_path: Path, a: Home, course: bytes, kind: str) -> None:
    raw = (tmp_path / "whole.car").read_bytes()
    ((begin, head),) = places(raw)[kind]
    length_bytes = raw.index(head.cid, begin) - begin
    body = begin + length_bytes + len(head.cid)
    spoilt = {
        "shorter": (begin, bytes((raw[begin] ^ 1,))),
        "much longer": (begin, b"\xff\xff\x7f"),
        "beyond the end": (begin, b"\x80\x80\x80\x01"),
        "another kind": (begin + length_bytes, b"\x00"),
        "another name": (begin + length_bytes + 10, bytes((raw[begin + length_bytes + 10] ^ 4,))),
        "another body": (body, bytes((raw[body] ^ 128,))),
        "zeros": (begin, bytes(512)),
    }
    for name, (at, bytes_) in spoilt.items():
        (tmp_path / "x.car").write_bytes(raw[:at] + bytes_ + raw[at + len(bytes_) :])
        with home(tmp_path / f"b {name}") as b:
            arrived = b.take_in(tmp_path / "x.car")
            assert arrived.problem or arrived.damaged or arrived.cut, name
            # However often the file has to be read, what was said is counted once.
            assert arrived.people_new + arrived.people_known + arrived.people_refused <= 5, name
            row = b.store.course(course)
            assert row is not None, name
            # 512 zeros may reach into neighbours, which are as small as that.
            lost = head.length if kind == "chunk" else 600 if name == "zeros" else 0
            assert row.bytes - row.have_bytes <= lost, name
            heard = b.feed.digest(course)[0]
            assert heard >= (5 if kind not in {"envelope", "last", "page"} else 2 if name == "zeros" else 4), name
            assert b.store.verify() == []


@pytest.mark.parametrize(("at", "bit"), [(0, 0), (1, 3), (5, 1), (20, 6), (-20, 0), (-36, 0), (-35, 1), (-9, 5)])
def test_a_damaged_header_costs_nothing(tmp_path: Path, a: Home, course: bytes, at: int, bit: int) -> None:
    raw = bytearray((tmp_path / "whole.car").read_bytes())
    end, _ = frames_of(bytes(raw))[0]
    raw[at if at >= 0 else end + at] ^= 1 << bit
    (tmp_path / "x.car").write_bytes(raw)
    with home(tmp_path / "b") as b:
        assert states(b.take_in(tmp_path / "x.car")) == ["done"]
        assert b.feed.digest(course)[0] == 5


SPARE = (bytes(1000), b"x", b"\x80", b"\xff" * 40, b"\x05hello", noise(5_000), frame(b"another")[:-1])


@pytest.mark.parametrize("spare", SPARE, ids=lambda spare: spare[:4].hex())
@pytest.mark.parametrize("piped", [False, True])
def test_bytes_behind_the_end_cost_nothing(tmp_path: Path, a: Home, course: bytes, spare: bytes, piped: bool) -> None:
    raw = (tmp_path / "whole.car").read_bytes()
    (tmp_path / "x.car").write_bytes(raw + spare)
    path = tmp_path / "x.car"
    with home(tmp_path / "b") as b:
        if piped:
            path = tmp_path / "pipe"
            os.mkfifo(path)
            writer = threading.Thread(target=path.write_bytes, args=(raw + spare,))
            writer.start()
            with path.open("rb"):
                intake = read_in(b, path)
                writer.join()
        else:
            intake = read_in(b, path)
        assert states(intake.result) == ["done"]
        assert intake.nothing_lacks
        assert len(raw) <= intake.result.beyond <= len(raw) + 40  # of a block that was begun, behind its head
        assert b.feed.digest(course)[0] == 5
        # The same once more, with all of it here already.
        assert piped or read_in(b, path).nothing_lacks


@pytest.mark.parametrize("kind", ["manifest", "chunk", "bundle again", "page", "envelope", "last"])
def test_a_file_that_lacks_something_is_not_whole_for_what_stands_behind_it(
    tmp_path: Path, a: Home, course: bytes, kind: str
) -> None:
    """Cut before, in and behind the head of each kind of block, with bytes after it or without; damaged likewise."""
    raw = (tmp_path / "whole.car").read_bytes()
    ((begin, head),) = places(raw)[kind]
    body = raw.index(head.cid, begin) + len(head.cid)
    spoilt = [raw[:cut] + spare for cut in (begin + 1, body, body + head.length - 1) for spare in (b"", bytes(1000))]
    spoilt += [raw[:begin] + spare for spare in (b"", bytes(1000))]
    spoilt += [raw[:begin] + bytes(body - begin) + raw[body:] + spare for spare in (b"", bytes(1000))]
    with home(tmp_path / "b") as b:
        # At first where all of it is here, and much is passed over unread; then where nothing is.
        for here in (a, b):
            for number, wrong in enumerate(spoilt):
                (tmp_path / "x.car").write_bytes(wrong)
                assert not read_in(here, tmp_path / "x.car").nothing_lacks, (number, here is a)
    (tmp_path / "x.car").write_bytes(raw[:body] + bytes((raw[body] ^ 1,)) + raw[body + 1 :] + bytes(1000))
    with home(tmp_path / "c") as c:
        assert not read_in(c, tmp_path / "x.car").nothing_lacks


def read_in(reader: Home, path: Path) -> Intake:
    """An import, to be asked how the file was."""
    house = House(
        refusal=lambda *_: "",
        follows=lambda: {CATALOGUE, *(row.course for row in reader.store.courses())},
        refuses=lambda _: False,
        clock=lambda: NOW,
        began=lambda _: None,
    )
    with Source(path, lambda: False) as source:
        intake = Intake(reader.store, reader.feed, house, source, lambda *_: None)
        intake.run()
        return intake


def test_a_pipe_goes_on_behind_damage_too(tmp_path: Path, a: Home, course: bytes) -> None:
    raw = bytearray((tmp_path / "whole.car").read_bytes())
    ((begin, head),) = places(bytes(raw))["chunk"]
    raw[begin : begin + 3] = b"\xff\xff\x7f"
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(raw,))
    writer.start()
    with (tmp_path / "pipe").open("rb"), home(tmp_path / "b") as b:  # the import opens it with its writer there
        arrived = b.take_in(tmp_path / "pipe")
        writer.join()
        row = b.store.course(course)
        assert row is not None
        assert row.bytes - row.have_bytes == head.length
        assert b.feed.digest(course)[0] == 5
    assert arrived.problem.startswith("damaged at byte")


def test_what_is_no_car_is_not_searched_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with home(tmp_path / "b") as b, pytest.raises(UsageProblem, match="no CAR file"):
        b.take_in(tmp_path / "x")


def test_a_file_of_lies_is_read_a_few_times_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right block of no bytes, then one that says it is long and isn't, over and over: each lie sends us back."""
    monkeypatch.setattr(blocks_room, "GO_BACK", 1 << 20)
    monkeypatch.setattr(car, "MAX_IN_VAIN", 1 << 20)
    lie = car.encode_head(car.raw_cid(bytes(32)), 100_000)
    path = tmp_path / "x.car"
    path.write_bytes(car.encode_header([car.raw_cid(bytes(32))]) + (frame(b"") + lie) * 3_000)
    given = 0
    with Source(path, lambda: False) as source:
        read = source.read

        def counted() -> bytes:
            nonlocal given
            data = read()
            given += len(data)
            return data

        monkeypatch.setattr(source, "read", counted)
        blocks = Blocks(source)
        while (head := blocks.head()) is not None:
            if isinstance(head, Head):
                blocks.skip()
    assert given < 20 * path.stat().st_size


BODIES = [noise(size, size) for size in (0, 1, 90, 127, 5_000, 70_000)]


@given(st.lists(st.integers(0, 200_000), max_size=12), st.binary(max_size=200), st.integers(0, 5))
def test_a_search_finds_the_next_right_block_however_it_is_fed(cuts: list[int], rubbish: bytes, first: int) -> None:
    wrong = bytearray(frame(BODIES[first]))
    wrong[4] ^= 1
    raw = rubbish + bytes(wrong) + b"\x01\x55\x12\x20" + rubbish + b"".join(map(frame, BODIES))
    decoder, found = Decoder(), []
    decoder.search(7)
    at = 0
    for end in [*sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]:
        decoder.feed(raw[at:end])
        if end == len(raw):
            decoder.end()
        at = end
        while (head := decoder.head()) is not None:
            assert isinstance(head, Head)
            if (body := decoder.body()) is None:
                break
            assert hashlib.sha256(body).digest() == head.digest
            found.append((decoder.start - 7, body))
    assert [body for _, body in found] == BODIES
    assert all(raw[start:].startswith(frame(body)) for start, body in found)
    assert decoder.whole
