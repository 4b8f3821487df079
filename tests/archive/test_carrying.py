"""Courses and what people said, from one store to another by a file: whole, cut, damaged, hostile."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2plearn.archive import car
from p2plearn.archive.arrivals import Arrival, Arrived, House
from p2plearn.archive.car import Decoder, Header
from p2plearn.archive.export import Export, Exported, choose
from p2plearn.archive.intake import Intake
from p2plearn.archive.layout import Packed, block_cid, encode_bundle
from p2plearn.archive.sinks import PART, FileSink
from p2plearn.archive.sources import Source
from p2plearn.errors import IntegrityProblem, Interrupted, NoSpace, P2plearnError, Refused, UsageProblem
from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import CATALOGUE
from p2plearn.gossip.feed import Feed
from p2plearn.operations import ImportResult
from p2plearn.store.space import StoreLimits
from p2plearn.store.store import Store
from p2plearn.views import imported
from tests.gossip.people import NOW, person, question, reply
from tests.stores import AUTHOR, noise, publish, read_tree, write_tree


def told(arrived: Arrival) -> ImportResult:
    """As the node tells it of a course that is complete."""
    facts = {
        "course": arrived.packed.course.hex(), "title": "A", "version": 1, "state": "complete",
        "stored": arrived.stored, "folder": arrived.folder,
    }  # fmt: skip
    return ImportResult(**dict.fromkeys(ImportResult.__dataclass_fields__, 0) | {"courses": (facts,)})


def nothing(*_: int) -> None:
    """A report that nobody reads."""


@dataclass
class Home:
    """A store and a record, as a node has them, without the node."""

    store: Store
    feed: Feed
    blocked: dict[bytes, str] = field(default_factory=dict)
    began: list[bytes] = field(default_factory=list)

    def export(
        self, path: Path, *courses: bytes, versions: bool = True, replace: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[Exported, int]:  # fmt: skip
        rows, _ = choose(self.store, courses, everything=not courses, versions=versions)
        export = Export(self.store, self.feed, rows, "all", report=nothing, cancelled=cancelled)
        with FileSink(path, replace=replace) as sink:
            sink.expect(export.measure())
            export.write(sink)
            return export.result, sink.kept

    def take_in(self, path: Path, cancelled: Callable[[], bool] = lambda: False) -> Arrived:
        house = House(
            refusal=lambda course, author: self.blocked.get(course, self.blocked.get(author or b"", "")),
            follows=lambda: {CATALOGUE, *(row.course for row in self.store.courses())},
            refuses=lambda content: content.author in self.blocked,
            clock=lambda: NOW,
            began=self.began.append,
        )
        with Source(path, cancelled) as source:
            return Intake(self.store, self.feed, house, source, nothing).run()

    def says(self, *envelopes: env.Envelope) -> None:
        taken = self.feed.take([one.raw for one in envelopes], {CATALOGUE, *(e.content.feed for e in envelopes)}, NOW)
        assert len(taken.new) == len(envelopes)

    def digests(self, *courses: bytes) -> list[tuple[int, bytes]]:
        return [self.feed.digest(feed) for feed in (CATALOGUE, *courses)]


@contextlib.contextmanager
def home(folder: Path, quota: int | None = None) -> Iterator[Home]:
    folder.mkdir(parents=True, exist_ok=True)
    store = Store.open(folder, StoreLimits(quota=quota))
    try:
        with contextlib.closing(Feed(folder / "people.sqlite")) as feed:
            yield Home(store, feed)
    finally:
        store.close()


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Home]:
    with home(tmp_path / "a") as made:
        yield made


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Home]:
    with home(tmp_path / "b") as made:
        yield made


FILES = {"big.bin": noise(3_000_000), "again/big.bin": noise(3_000_000), "a.txt": b"a", "empty": b"", "ünï/x": b"x" * 9}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "course", FILES, ("nothing inside",))


def blocks_of(path: Path) -> tuple[Header, list[tuple[bytes, bytes]]]:
    decoder = Decoder()
    decoder.feed(path.read_bytes())
    header, blocks = decoder.head(), []
    assert isinstance(header, Header)
    while (head := decoder.head()) is not None:
        assert isinstance(head, car.Head)
        body = decoder.body()
        assert body is not None
        blocks.append((head.cid, body))
    return header, blocks


def write_car(path: Path, roots: tuple[bytes, ...], blocks: list[tuple[bytes, bytes]]) -> Path:
    path.write_bytes(
        car.encode_header(roots) + b"".join(car.encode_head(cid, len(body)) + body for cid, body in blocks)
    )
    return path


def states(arrived: Arrived) -> list[str]:
    return [one.state for one in arrived.courses]


# -- the way it should go ---------------------------------------------------------------------------------------------


def test_all_versions_and_all_that_was_said_arrive(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    first = publish(a.store, folder).course
    (folder / "new.txt").write_bytes(b"new")
    second = publish(a.store, folder, now=1_700_000_100).course
    asked = person("learner").says(question(), second)
    a.says(asked, person("tutor").says(reply(asked), second), person("learner").says(env.Rating("good", 5), second))
    exported, _ = a.export(tmp_path / "x.car", second)
    assert [row.course for row in exported.rows] == [first, second]
    assert (tmp_path / "x.car").stat().st_size < 3_100_000  # big.bin is in both versions twice, and once in the file
    arrived = b.take_in(tmp_path / "x.car")
    assert states(arrived) == ["done", "done"]
    assert (arrived.damaged, arrived.cut, arrived.problem, arrived.people_new) == (0, False, "", 3)
    assert b.digests(first, second) == a.digests(first, second)
    out = b.store.checkout(second, tmp_path / "out").path
    assert read_tree(out) == read_tree(folder)
    assert b.store.verify() == []
    assert b.began == [first, second]


def test_two_that_never_met_end_with_the_same_record(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    course = publish(a.store, folder).course
    a.says(person("one").says(question("A?"), course), person("one").says(env.Rating("", 4), course))
    a.export(tmp_path / "there.car", course)
    b.take_in(tmp_path / "there.car")
    asked = person("two").says(question("B?"), course)
    b.says(asked, person("two").says(env.Rating("", 2), course), person("two").says(env.Profile("", "Two")))
    a.says(person("one").says(question("C?"), course))  # people go on talking at both ends
    b.export(tmp_path / "back.car", course)
    a.take_in(tmp_path / "back.car")
    a.export(tmp_path / "there.car", course, replace=True)
    b.take_in(tmp_path / "there.car")
    assert a.digests(course) == b.digests(course)
    assert a.feed.digest(course)[0] == 3
    assert a.feed.digest(CATALOGUE)[0] == 3


def test_what_was_withdrawn_goes_there_too(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    course = publish(a.store, folder).course
    said = person("one").says(question("A?"), course)
    a.says(said)
    a.export(tmp_path / "x.car", course)
    b.take_in(tmp_path / "x.car")
    a.says(person("one").says(env.Withdraw(said.id, None), course))
    a.export(tmp_path / "y.car", course)
    b.take_in(tmp_path / "y.car")
    b.take_in(tmp_path / "x.car")  # an old stick brings nothing back
    assert a.digests(course) == b.digests(course)
    assert b.feed.digest(course)[0] == 1


def test_a_course_of_many_small_files_and_one_of_one_chunk(tmp_path: Path, a: Home, b: Home) -> None:
    many = write_tree(tmp_path / "many", {f"{n:04}.txt": str(n).encode() for n in range(1500)} | {"d/e": b""})
    (tmp_path / "one.txt").write_bytes(b"one")
    courses = [publish(a.store, many).course, publish(a.store, tmp_path / "one.txt", "One").course]
    a.export(tmp_path / "x.car")
    assert states(b.take_in(tmp_path / "x.car")) == ["done", "done"]
    assert read_tree(b.store.checkout(courses[0], tmp_path / "out").path) == read_tree(many)


def test_what_is_here_already_is_not_read_again(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    publish(a.store, folder)
    a.export(tmp_path / "x.car")
    b.take_in(tmp_path / "x.car")
    again = b.take_in(tmp_path / "x.car")
    assert states(again) == ["done"]
    assert (again.courses[0].stored, again.courses[0].was_here) == (0, True)
    assert not again.unknown


def test_what_is_served_from_the_users_folder_is_left_there_and_said_so(
    tmp_path: Path, folder: Path, a: Home, b: Home
) -> None:
    course = publish(a.store, folder).course
    a.export(tmp_path / "x.car")
    publish(b.store, folder, no_copy=True)
    arrived = b.take_in(tmp_path / "x.car").courses[0]
    assert (arrived.state, arrived.stored, arrived.folder) == ("done", 0, str(folder))
    assert b.store.usage().bytes == 0
    words = imported(told(arrived))
    assert str(folder) in words
    assert f"p2plearn get {course.hex()}" in words
    # What was changed since isn't here, whatever the catalogue says; then the node has a copy of its own.
    (folder / "a.txt").write_bytes(b"changed")
    arrived = b.take_in(tmp_path / "x.car").courses[0]
    assert (arrived.state, arrived.folder) == ("done", "")
    assert arrived.stored
    assert "was here already" not in imported(told(arrived))
    for file in folder.rglob("*"):
        if file.is_file():
            file.unlink()
    assert b.store.verify() == []
    arrived = b.take_in(tmp_path / "x.car").courses[0]
    assert (arrived.state, arrived.folder, arrived.stored) == ("done", "", 0)


def test_a_course_of_one_file_is_served_from_that_file(tmp_path: Path, a: Home) -> None:
    file = tmp_path / "lecture.bin"
    file.write_bytes(noise(300_000, 1))
    course = publish(a.store, file, no_copy=True).course
    holding = a.store.holding(course)
    assert holding is not None
    with holding:
        assert a.store.folder_of(holding) == str(file)


def test_a_course_whose_chunks_another_had_is_new_here_all_the_same(tmp_path: Path, a: Home, b: Home) -> None:
    files = {"a.bin": noise(400_000, 1), "b.bin": noise(300_000, 2)}
    part = publish(a.store, write_tree(tmp_path / "part", {"a.bin": files["a.bin"]}), "Part").course
    publish(b.store, write_tree(tmp_path / "whole", files), "Whole")
    a.export(tmp_path / "x.car", part)
    (arrival,) = b.take_in(tmp_path / "x.car").courses
    assert (arrival.state, arrival.stored, arrival.was_here) == ("done", 0, False)
    (arrival,) = b.take_in(tmp_path / "x.car").courses
    assert (arrival.state, arrival.stored, arrival.was_here) == ("done", 0, True)


# -- interrupted ------------------------------------------------------------------------------------------------------


def test_an_export_that_was_cut_anywhere_goes_on(tmp_path: Path, folder: Path, a: Home) -> None:
    publish(a.store, folder)
    a.export(tmp_path / "whole.car")
    raw = (tmp_path / "whole.car").read_bytes()
    rng = random.Random(1)
    for cut in [0, 1, 30, 200, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(6))]:
        path = tmp_path / f"{cut}.car"
        path.with_name(path.name + PART).write_bytes(raw[:cut])
        _, kept = a.export(path)
        assert path.read_bytes() == raw
        assert cut - 1_100_000 < kept <= cut
        assert not path.with_name(path.name + PART).exists()


def test_a_part_that_a_power_cut_spoiled_is_not_believed(tmp_path: Path, folder: Path, a: Home) -> None:
    publish(a.store, folder)
    a.export(tmp_path / "whole.car")
    raw = (tmp_path / "whole.car").read_bytes()
    spoiled = bytearray(raw)
    spoiled[1_500_000:1_500_100] = bytes(100)
    (tmp_path / ("x.car" + PART)).write_bytes(spoiled + b"more than there was")
    _, kept = a.export(tmp_path / "x.car")
    assert kept < 1_500_100
    assert (tmp_path / "x.car").read_bytes() == raw


def test_a_stopped_export_leaves_the_old_file_and_goes_on(tmp_path: Path, folder: Path, a: Home) -> None:
    publish(a.store, folder)
    path = tmp_path / "x.car"
    path.write_bytes(b"what was there")
    asked = 0

    def enough() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(Interrupted):
        a.export(path, replace=True, cancelled=enough)
    assert path.read_bytes() == b"what was there"
    _, kept = a.export(path, replace=True)
    assert kept > 0
    assert blocks_of(path)[0].roots


def test_a_copy_that_is_cut_anywhere_gives_what_is_in_it(tmp_path: Path, folder: Path, a: Home) -> None:
    course = publish(a.store, folder).course
    a.says(person("one").says(question("A?"), course))
    a.export(tmp_path / "whole.car")
    raw = (tmp_path / "whole.car").read_bytes()
    rng = random.Random(2)
    for cut in [1000, 2000, len(raw) - 1, *(rng.randrange(1000, len(raw)) for _ in range(4))]:
        (tmp_path / "cut.car").write_bytes(raw[:cut])
        with home(tmp_path / f"b{cut}") as other:
            arrived = other.take_in(tmp_path / "cut.car")
            assert arrived.cut
            row = other.store.course(course)
            if row is not None:
                assert row.have_bytes <= row.bytes
                assert other.store.verify() == []
            stored = arrived.courses[0].stored
            arrived = other.take_in(tmp_path / "whole.car")
            assert states(arrived) == ["done"]
            assert stored + arrived.courses[0].stored == 3_000_010
            assert other.digests(course) == a.digests(course)


def test_a_stopped_import_keeps_what_came(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    publish(a.store, folder)
    a.export(tmp_path / "x.car")
    asked = 0

    def enough() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(Interrupted):
        b.take_in(tmp_path / "x.car", cancelled=enough)
    (row,) = b.store.courses()
    assert 0 < row.have_bytes < row.bytes
    assert states(b.take_in(tmp_path / "x.car")) == ["done"]


# -- damaged and hostile files ----------------------------------------------------------------------------------------


def test_damage_anywhere_shows_no_wrong_byte(tmp_path: Path, folder: Path, a: Home) -> None:
    course = publish(a.store, folder).course
    a.says(*(person(f"p{n}").says(question(str(n)), course) for n in range(5)))
    a.export(tmp_path / "whole.car")
    raw = (tmp_path / "whole.car").read_bytes()
    rng = random.Random(3)
    places = [rng.randrange(len(raw)) for _ in range(6)] + [rng.randrange(3000) for _ in range(8)]
    for number, place in enumerate(places):
        spoiled = bytearray(raw)
        spoiled[place] ^= 1 << rng.randrange(8)
        (tmp_path / "spoiled.car").write_bytes(spoiled)
        with home(tmp_path / f"b{number}") as other:
            with contextlib.suppress(P2plearnError):
                other.take_in(tmp_path / "spoiled.car")
            assert other.store.verify() == []
            row = other.store.course(course)
            if row is not None and row.complete:
                out = other.store.checkout(course, tmp_path / f"out{number}").path
                assert read_tree(out) == read_tree(folder)
            assert set(other.feed.keys(course)) <= set(a.feed.keys(course))


def test_a_wrong_block_that_nobody_here_needs_is_named(tmp_path: Path, folder: Path, a: Home) -> None:
    """IPFS programs read the nodes of the tree, and whoever passes the file on should know."""
    publish(a.store, folder)
    a.export(tmp_path / "x.car")
    header, blocks = blocks_of(tmp_path / "x.car")
    spare = [at for at, (cid, _) in enumerate(blocks) if cid[1] == car.DAG_PB]
    assert len(spare) > 2
    for at in (spare[0], spare[-1]):
        cid, body = blocks[at]
        spoiled = [*blocks[:at], (cid, body[:-1] + bytes([body[-1] ^ 1])), *blocks[at + 1 :]]
        with home(tmp_path / f"b{at}") as other:
            arrived = other.take_in(write_car(tmp_path / "y.car", header.roots, spoiled))
        assert (states(arrived), arrived.damaged) == (["done"], 1)


def test_blocks_in_any_order_arrive_from_a_file(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    publish(a.store, folder)
    (folder / "new.bin").write_bytes(noise(600_000, 9))
    publish(a.store, folder, now=1_700_000_100)
    a.export(tmp_path / "x.car")
    header, blocks = blocks_of(tmp_path / "x.car")
    random.Random(4).shuffle(blocks)
    assert states(b.take_in(write_car(tmp_path / "y.car", header.roots, blocks))) == ["done", "done"]
    assert b.store.verify() == []


def test_a_manifest_under_another_signature_is_refused(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    course = publish(a.store, folder).course
    a.export(tmp_path / "x.car")
    header, blocks = blocks_of(tmp_path / "x.car")
    signed = a.store.signed_manifest(course)
    assert signed is not None
    parts = tuple(part.digest for part in signed.manifest.index)
    for forged in (
        Packed(course, bytes(64), parts, signed.manifest.root),
        Packed(course, signed.signature, (bytes(32),), signed.manifest.root),
    ):
        bundle = encode_bundle([forged])
        roots = (header.roots[0], block_cid(bundle))
        arrived = b.take_in(write_car(tmp_path / "y.car", roots, [(block_cid(bundle), bundle), *blocks[1:]]))
        assert states(arrived) == ["refused"]
        assert b.store.courses() == []


def test_what_is_blocked_stays_out(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    course = publish(a.store, folder).course
    said, other = person("rude").says(question("A?"), course), person("kind").says(env.Profile("", "Kind"))
    a.says(said, other)
    a.export(tmp_path / "x.car")
    for blocked in (course, AUTHOR):
        b.blocked = {blocked: "blocked here"}
        arrived = b.take_in(tmp_path / "x.car")
        assert states(arrived) == ["refused"]
        assert b.store.courses() == []
        assert b.feed.digest(course)[0] == 0
    assert b.feed.digest(CATALOGUE)[0] == 1
    b.blocked = {said.content.author: "blocked here"}
    assert states(b.take_in(tmp_path / "x.car")) == ["done"]
    assert b.feed.digest(course)[0] == 0


def test_what_is_blocked_is_not_handed_on(tmp_path: Path, folder: Path, a: Home) -> None:
    course = publish(a.store, folder).course
    other = publish(a.store, folder, "Another").course

    def refusal(one: bytes, _author: bytes | None) -> str:
        return "blocked here" if one == course else ""

    rows, _ = choose(a.store, [], everything=True, versions=True, refusal=refusal)
    assert [row.course for row in rows] == [other]
    with pytest.raises(Refused, match="blocked here"):
        choose(a.store, [course], everything=False, versions=True, refusal=refusal)


def test_a_course_without_room_is_left_out_and_the_rest_comes(tmp_path: Path, folder: Path, a: Home) -> None:
    large = publish(a.store, folder).course
    (tmp_path / "small.txt").write_bytes(b"small")
    small = publish(a.store, tmp_path / "small.txt", "Small").course
    a.says(person("one").says(question("A?"), small), person("one").says(env.Rating("", 4), large))
    a.export(tmp_path / "x.car")
    with home(tmp_path / "tight", quota=1_000_000) as tight:
        arrived = tight.take_in(tmp_path / "x.car")
        assert sorted(states(arrived)) == ["done", "no-room"]
        (large_one,) = [each for each in arrived.courses if each.state == "no-room"]
        assert "its quota of" in large_one.problem
        assert "raise storage.quota" in large_one.problem
        assert [row.course for row in tight.store.courses()] == [small]
        assert tight.digests(small) == a.digests(small)


@pytest.mark.parametrize("raw", [b"", b"\x3a", b"hello, world", b"PK\x03\x04" + bytes(100), os.urandom(5000)])
def test_what_is_no_car_is_refused_in_words(tmp_path: Path, b: Home, raw: bytes) -> None:
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(UsageProblem, match="no CAR file"):
        b.take_in(tmp_path / "x")


def test_other_peoples_car_files_are_refused_in_words(tmp_path: Path, b: Home) -> None:
    root = car.raw_cid(bytes(32))
    with pytest.raises(UsageProblem, match="no p2plearn course"):
        b.take_in(write_car(tmp_path / "x", (root,), [(root, b"x")]))
    cbor = block_cid(b"\xa0")
    with pytest.raises(UsageProblem, match="No p2plearn wrote"):
        b.take_in(write_car(tmp_path / "y", (cbor,), [(cbor, b"\xa0")]))
    with pytest.raises(IntegrityProblem):
        b.take_in(write_car(tmp_path / "z", (cbor,), []))
    with pytest.raises(UsageProblem, match="neither a file nor a pipe"):
        b.take_in(tmp_path)
    with pytest.raises(UsageProblem, match="There is no"):
        b.take_in(tmp_path / "nowhere")


def test_a_flood_of_tiny_blocks_is_passed_over(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    publish(a.store, folder)
    a.export(tmp_path / "x.car")
    header, blocks = blocks_of(tmp_path / "x.car")
    flood = [(car.raw_cid(n.to_bytes(32, "big")), b"") for n in range(20_000)]
    arrived = b.take_in(write_car(tmp_path / "y.car", header.roots, [blocks[0], *flood, *blocks[1:], *flood]))
    assert states(arrived) == ["done"]
    assert arrived.unknown >= 20_000


# -- the file's place -------------------------------------------------------------------------------------------------


def test_a_file_in_the_way_is_not_touched(tmp_path: Path, folder: Path, a: Home) -> None:
    publish(a.store, folder)
    (tmp_path / "x.car").write_bytes(b"mine")
    with pytest.raises(Refused, match="exists"):
        a.export(tmp_path / "x.car")
    assert (tmp_path / "x.car").read_bytes() == b"mine"
    with pytest.raises(UsageProblem, match="is a folder"):
        a.export(tmp_path)
    with pytest.raises(UsageProblem):
        a.export(tmp_path / "no" / "such" / "x.car")
    for link in (Path.symlink_to, Path.hardlink_to):
        link(tmp_path / ("y.car" + PART), tmp_path / "x.car")
        with pytest.raises(P2plearnError):
            a.export(tmp_path / "y.car")
        (tmp_path / ("y.car" + PART)).unlink()
    assert (tmp_path / "x.car").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, NoSpace, "full"),
        (errno.EDQUOT, NoSpace, "full"),
        (errno.EFBIG, NoSpace, "FAT32"),
        (errno.EROFS, Refused, "can't be written"),
        (errno.ENOENT, UsageProblem, "can't be written"),
        (errno.EIO, P2plearnError, "failed"),
    ],
)
def test_what_a_stick_says_is_put_into_words(
    tmp_path: Path, folder: Path, a: Home, monkeypatch: pytest.MonkeyPatch, number: int, kind: type, words: str
) -> None:
    publish(a.store, folder)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("p2plearn.store.behind.Behind.write", fail)
        with pytest.raises(kind, match=words):
            a.export(tmp_path / "x.car")
    assert not (tmp_path / "x.car").exists()
    a.export(tmp_path / "x.car")


def test_two_exports_do_not_write_one_file(tmp_path: Path, folder: Path, a: Home) -> None:
    publish(a.store, folder)
    with FileSink(tmp_path / "x.car", replace=False), pytest.raises(Refused, match="right now"):
        a.export(tmp_path / "x.car")
    a.export(tmp_path / "x.car")


def test_only_what_is_here_is_exported(tmp_path: Path, folder: Path, a: Home, b: Home) -> None:
    course = publish(a.store, folder).course
    a.export(tmp_path / "x.car")
    raw = (tmp_path / "x.car").read_bytes()
    (tmp_path / "cut.car").write_bytes(raw[: len(raw) // 2])
    b.take_in(tmp_path / "cut.car")
    with pytest.raises(UsageProblem, match="bytes of"):
        b.export(tmp_path / "y.car", course)
    with pytest.raises(UsageProblem, match="isn't kept"):
        b.export(tmp_path / "y.car", bytes(32))
    with pytest.raises(UsageProblem, match="No complete course"):
        b.export(tmp_path / "y.car")


def test_a_disk_without_room_is_told_of_before_a_byte_is_written(
    tmp_path: Path, folder: Path, a: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(a.store, folder)
    monkeypatch.setattr("p2plearn.archive.sinks.free_bytes", lambda _: 1_000_000)
    with pytest.raises(NoSpace, match="free"):
        a.export(tmp_path / "x.car")
    assert not list(tmp_path.glob("x.car*"))
