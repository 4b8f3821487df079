"""A catalogue that is lost or damaged is built anew from the rest, and nothing acknowledged is lost with it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from stores import AUTHOR, FILES, FOLDERS, begin, copy, fetch, noise, publish, read_tree, write_tree

from p2plearn.store import contents, mirror
from p2plearn.store.store import Store

CATALOGUE = Path("store/catalogue.sqlite")


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0x04
    path.write_bytes(raw)


@dataclass
class Scene:
    """A home with everything in it that a catalogue knows of, where its courses came from, and what they were."""

    root: Path
    home: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("rebuild")
    folder = write_tree(root / "folder", FILES, FOLDERS)
    source = Store.open(root / "elsewhere")
    fetched = publish(source, write_tree(root / "f", {"f": noise(700_000, 9)}), title="fetched").course
    partly = publish(source, write_tree(root / "p", {"p": noise(9_000_000, 10), "q": b"q"}), title="partly").course
    store = Store.open(root / "home")
    first = publish(store, folder, title="kept").course
    (folder / "README.md").write_bytes(b"version 2")
    publish(store, folder, title="kept", now=1_700_000_001)
    removed = publish(store, write_tree(root / "r", {"r": b"r"}), title="removed").course
    store.remove(removed)
    publish(store, write_tree(root / "mine", {"m": noise(400_000, 11), "n": b"short"}), title="no copy", no_copy=True)
    copy(source, store, fetched)
    download = begin(source, store, partly)
    fetch(source, download, download.missing()[:5])
    download.close()
    store.checkout(first, root / "out")
    signed = store.signed_manifest(first)
    assert signed is not None
    store.custody.reserve(signed, 0, 1000, 10**9)
    store.custody.hold(first, 0, 1000, [(b"n" * 32, b"receipt")])
    store.close()
    source.close()
    return Scene(root, root / "home")


@pytest.fixture
def home(scene: Scene, tmp_path: Path) -> Path:
    shutil.copytree(scene.home, tmp_path / "home")
    return tmp_path / "home"


def state(store: Store) -> dict[str, object]:
    """Everything that a person or a peer could notice."""
    db = store._parts.catalogue
    rows = {row.title + str(row.seq): row for row in store.courses()}
    chunks = {}
    for row in rows.values():
        holding = store.holding(row.course)
        assert holding is not None
        chunks[row.course] = [bytes(chunk or b"") for chunk in holding.read_many(range(holding.slots))]
    with db.reading() as connection:
        tables = {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall())
            for name in ("heads", "checkouts", "custody", "receipts")
        }
    return {"courses": rows, "chunks": chunks, "tables": tables, "damage": store.verify()}


def reopened(home: Path) -> tuple[dict[str, object], tuple[str, ...]]:
    store = Store.open(home)
    try:
        return state(store), store.notices
    finally:
        store.close()


def lose(home: Path, how: str) -> None:
    path = home / CATALOGUE
    match how:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut short":
            os.truncate(path, 5000)
        case "overwritten":
            path.write_bytes(noise(path.stat().st_size))
        case "another":
            with sqlite3.connect(path) as db:
                db.execute("UPDATE courses SET title = 'wrong'")
            db.close()
        case "unclean":
            (home / "store" / "unclean").touch()
            with sqlite3.connect(path) as db:
                db.execute("UPDATE courses SET title = 'wrong'")
            db.close()


WAYS = ("deleted", "emptied", "cut short", "overwritten", "another", "unclean")


@pytest.mark.parametrize("how", WAYS)
def test_nothing_is_lost_with_the_catalogue(home: Path, how: str) -> None:
    before, quiet = reopened(home)
    assert quiet == ()
    lose(home, how)
    after, notices = reopened(home)
    assert after == before
    assert "built anew: 5 courses, 4 of them complete" in notices[0]
    aside = list((home / "store").glob("catalogue.sqlite.damaged-*"))
    assert len(aside) == (how != "deleted")
    assert all(str(path) in notices[0] for path in aside)
    # From then on all is as ever.
    assert reopened(home) == (before, ())


def test_any_flipped_bit_of_the_catalogue_is_noticed(home: Path) -> None:
    before, _ = reopened(home)
    size = (home / CATALOGUE).stat().st_size
    roll = random.Random(1)
    for offset in [18, 60, *(roll.randrange(size) for _ in range(6))]:
        flip(home / CATALOGUE, offset)
        after, notices = reopened(home)
        assert after == before
        assert "built anew" in notices[0]


def test_a_download_goes_on_after_it(scene: Scene, home: Path, tmp_path: Path) -> None:
    source = Store.open(scene.root / "elsewhere")
    (home / CATALOGUE).unlink()
    store = Store.open(home)
    (row,) = (row for row in store.courses() if row.title == "partly")
    assert row.have_bytes > 500_000
    download = begin(source, store, row.course)
    assert sum(download.index.lengths[slot] for slot in download.missing()) == row.bytes - row.have_bytes
    fetch(source, download)
    download.close()
    store.checkout(row.course, tmp_path / "partly")
    assert read_tree(tmp_path / "partly") == read_tree(scene.root / "p")
    assert store.verify() == []
    store.close()
    source.close()


def test_a_series_goes_on_after_it(scene: Scene, home: Path, tmp_path: Path) -> None:
    (home / CATALOGUE).unlink()
    store = Store.open(home)
    assert publish(store, scene.root / "folder", title="kept").new is False
    assert publish(store, write_tree(tmp_path / "r", {"r": b"2"}), title="removed").manifest.series.seq == 2
    store.close()


def test_without_notes_too_what_its_person_published_is_known_by_its_signature(scene: Scene, home: Path) -> None:
    lose(home, "deleted")
    (home / "store" / "notes").unlink()
    store = Store.open(home, author=AUTHOR)
    rows = {row.title + str(row.seq): row for row in store.courses()}
    assert {(name, row.why, row.whole) for name, row in rows.items() if row.complete} >= {
        ("kept1", "published", True), ("kept2", "published", True)
    }  # fmt: skip
    assert "it is no longer known here how many copies" in store.notices[0]
    again = publish(store, scene.root / "folder", title="kept")
    assert (again.new, again.course) == (False, rows["kept2"].course)
    store.close()
    # Another's are fetched ones, as ever.
    lose(home, "deleted")
    (home / "store" / "notes").unlink()
    store = Store.open(home, author=b"x" * 32)
    assert {row.why for row in store.courses()} == {"fetched"}
    assert "how many copies" not in store.notices[0]
    store.close()


def test_with_every_other_file_harmed_besides_it_goes_on_with_what_is_left(home: Path, tmp_path: Path) -> None:
    for number, victim in enumerate(sorted((home / "store").rglob("*"))):
        if victim.is_dir() or victim.name in ("FORMAT", "reserve"):
            continue
        copy_of = tmp_path / f"copy-{number}"
        shutil.copytree(home, copy_of)
        (copy_of / CATALOGUE).unlink()
        harmed = copy_of / victim.relative_to(home)
        if harmed.exists():
            flip(harmed, harmed.stat().st_size // 2)
        store = Store.open(copy_of)
        whole = 0
        for row in store.courses():
            holding = store.holding(row.course)
            chunks = [] if holding is None else holding.read_many(range(holding.slots))
            assert holding is None or all(
                chunk is None or hashlib.sha256(chunk).digest() == holding.index.digest(slot)
                for slot, chunk in enumerate(chunks)
            )
            whole += row.complete
        # An extent is in two courses at most, a course's file in one; so is a file of the user's, which the notes name.
        assert whole >= (2 if victim.suffix == ".extent" else 3)
        assert {row.title for row in store.courses()} >= {"kept", "fetched", "no copy", "partly"} - (
            {"partly"} if victim.name == "notes" else set()
        )
        store.close()
        shutil.rmtree(copy_of)


@pytest.mark.parametrize("text", ["p2plearn store 7\n", "p2pleasn store 4\n", ""])
def test_a_harmed_format_file_is_written_anew(home: Path, text: str) -> None:
    before, _ = reopened(home)
    (home / "store" / "FORMAT").write_text(text)
    assert reopened(home) == (before, ())
    assert (home / "store" / "FORMAT").read_text() == "p2plearn store 4\n"


def test_an_extent_without_its_list_is_searched(home: Path) -> None:
    before, _ = reopened(home)
    for extent in (home / "store" / "extents").iterdir():
        with extent.open("r+b") as file:
            listed = contents.read(file.fileno())
            assert listed is not None
            os.truncate(extent, extent.stat().st_size - contents.size_for(len(listed)))
    (home / CATALOGUE).unlink()
    after, _ = reopened(home)
    assert after == before


def test_contents_of_an_extent_that_was_compacted(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "s", {"a": noise(30_000_000, 1), "b": noise(2_000_000, 2)})
    first = publish(store, folder)
    (folder / "a").unlink()
    second = publish(store, folder)
    store.remove(first.course)
    before = state(store)
    store.close()
    (tmp_path / "home" / CATALOGUE).unlink()
    after, _ = reopened(tmp_path / "home")
    assert after == before
    assert second.course in after["chunks"]  # type: ignore[operator]


def test_a_drive_that_is_not_plugged_in(scene: Scene, home: Path) -> None:
    before, _ = reopened(home)
    (scene.root / "mine").rename(scene.root / "unplugged")
    (home / CATALOGUE).unlink()
    while_away, _ = reopened(home)
    assert [damage.path for damage in while_away["damage"]] == ["m", "n"]  # type: ignore[attr-defined]
    (scene.root / "unplugged").rename(scene.root / "mine")
    after, _ = reopened(home)
    assert after["chunks"] == before["chunks"]


def test_damage_met_while_it_is_open_is_mended_at_the_next_opening(home: Path) -> None:
    before, _ = reopened(home)
    store = Store.open(home)
    with pytest.raises(Exception, match="damaged"), store._parts.catalogue.reading():
        _malformed()
    store.close()
    assert (home / "store" / "unclean").exists()
    after, _ = reopened(home)
    assert after == before


def _malformed() -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def test_the_mirror_follows_every_change_and_forgets_what_it_should(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "db", isolation_level=None)
    db.execute("CREATE TABLE t (a INTEGER, b BLOB, c TEXT, PRIMARY KEY (a, b))")
    db.execute("CREATE TABLE secret (a INTEGER PRIMARY KEY, b TEXT)")
    tables = (mirror.Table("t", ("a", "b"), ("a", "b", "c")), mirror.Table("secret", ("a",), ("a", "b"), forget=True))
    path = tmp_path / "notes"
    kept = mirror.Mirror(db, path, tables)
    roll = random.Random(2)
    for step in range(300):
        db.execute("BEGIN")
        for _ in range(roll.randrange(4)):
            a, b = roll.randrange(5), bytes([roll.randrange(3)])
            db.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (a, b, f"{step}"))
            if roll.random() < 0.3:
                db.execute("DELETE FROM t WHERE a = ?", (roll.randrange(5),))
            if roll.random() < 0.3:
                db.execute("UPDATE OR REPLACE t SET c = c || 'x', a = a + 10 WHERE a = ?", (roll.randrange(5),))
        if roll.random() < 0.2:
            db.execute("ROLLBACK")
            continue
        db.execute("COMMIT")
        kept.committed()
        rows, harmed = mirror.read(path)
        assert harmed == 0
        assert sorted(tuple(row.values()) for row in rows.get("t", [])) == sorted(db.execute("SELECT * FROM t"))
    db.execute("INSERT INTO secret VALUES (1, 'to be forgotten')")
    kept.committed()
    assert b"forgotten" in path.read_bytes()
    db.execute("DELETE FROM secret")
    kept.committed()
    assert b"forgotten" not in path.read_bytes()
    # A line that was harmed costs that line.
    before = mirror.read(path)[0]["t"]
    flip(path, 30)
    rows, harmed = mirror.read(path)
    assert (harmed, len(rows["t"])) == (1, len(before) - 1)
    db.close()


def test_an_extents_list_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    entries = [(noise(32, n), n * 10, 10) for n in range(5)]
    path = tmp_path / "extent"
    path.write_bytes(bytes(50))
    fd = os.open(path, os.O_RDWR)
    try:
        assert contents.read(fd) is None
        end = contents.write(fd, entries, 50)
        assert end == 50 + contents.size_for(5)
        assert contents.read(fd) == entries
        whole = path.read_bytes()
        for offset in range(50, len(whole)):
            os.pwrite(fd, bytes([whole[offset] ^ 1]), offset)
            assert contents.read(fd) is None
            os.pwrite(fd, whole[offset : offset + 1], offset)
        for size in range(50, len(whole)):
            os.ftruncate(fd, size)
            assert contents.read(fd) is None
    finally:
        os.close(fd)


def test_what_is_no_extent_is_passed_over(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    course = publish(store, write_tree(tmp_path / "folder", FILES, FOLDERS)).course
    store.close()
    extents = tmp_path / "home" / "store" / "extents"
    write_tree(extents / f"{'0' * 24}.extent", {"mine.txt": b"mine"})
    os.mkfifo(extents / f"{'1' * 24}.extent")
    (extents / f"{'2' * 24}.extent").symlink_to(tmp_path / "nowhere")
    (tmp_path / "home" / CATALOGUE).unlink()
    store = Store.open(tmp_path / "home")
    row = store.course(course)
    assert row is not None
    assert row.complete
    assert store.verify() == []
    store.close()
    assert len(list(extents.iterdir())) == 4
