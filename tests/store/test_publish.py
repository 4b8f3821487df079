"""Publish: what is taken, what is refused by name, versions, and what isn't copied."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import AUTHOR, begin, copy, fetch, noise, publish, read_tree, sign, write_tree

from p2plearn.errors import Interrupted, NoSpace, Refused, UsageProblem
from p2plearn.store import ingest as ingest_module
from p2plearn.store.ingest import SourceChanged
from p2plearn.store.placement import bit
from p2plearn.store.problems import ChunkMissing, StoreDamage
from p2plearn.store.publish import PublishMeta
from p2plearn.store.store import Store


def nothing_stored(store: Store) -> bool:
    return os.listdir(store._parts.extents) == [] and store.courses() == [] and store._parts.pins == {}


def test_the_same_folder_again_is_the_same_course(store: Store, folder: Path) -> None:
    first = publish(store, folder, now=1000)
    files = sorted(os.listdir(store._parts.extents))
    second = publish(store, folder, now=2000)
    assert first.new and not second.new
    assert second.course == first.course
    assert sorted(os.listdir(store._parts.extents)) == files
    assert len(store.courses()) == 1


def test_a_change_is_the_next_version(store: Store, folder: Path) -> None:
    first = publish(store, folder)
    original = (folder / "README.md").read_bytes()
    (folder / "README.md").write_bytes(b"changed")
    second = publish(store, folder)
    (folder / "README.md").write_bytes(original)
    third = publish(store, folder)
    assert [one.manifest.series.seq for one in (first, second, third)] == [1, 2, 3]
    assert second.manifest.series.prev == first.course
    assert third.manifest.series.prev == second.course
    assert third.new
    other = publish(store, folder, title="Another title")
    assert other.manifest.series.seq == 1


def test_other_words_are_another_version(store: Store, folder: Path) -> None:
    first = publish(store, folder)
    second = store.publish(folder, PublishMeta(title="A course", tags=("new",)), sign=sign, author=AUTHOR, now=1)
    assert second.new and second.manifest.series.prev == first.course


def test_title_and_language_come_from_the_folder(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "x", {"_config.yml": b"title: Sums for all\nlang: fr\n", "f": b"1"})
    published = store.publish(folder, PublishMeta(), sign=sign, author=AUTHOR, now=1)
    assert (published.manifest.title, published.manifest.language) == ("Sums for all", "fr")
    single = write_tree(tmp_path / "y", {"notes.pdf": b"%PDF"}) / "notes.pdf"
    assert store.publish(single, PublishMeta(), sign=sign, author=AUTHOR, now=1).manifest.title == "notes.pdf"


def test_a_single_file(store: Store, other: Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {"talk.mp4": noise(700_000)}) / "talk.mp4"
    published = publish(store, source)
    assert published.manifest.kind == "file"
    copy(store, other, published.course)
    other.checkout(published.course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == {"talk.mp4": source.read_bytes()}


def test_an_empty_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    published = publish(store, tmp_path / "void")
    assert published.manifest.files == 0
    store.checkout(published.course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == {}


def test_fixed_chunks(store: Store, folder: Path) -> None:
    published = publish(store, folder, chunker="fixed")
    holding = store.holding(published.course)
    assert holding is not None
    assert max(holding.index.lengths) == 262_144
    with pytest.raises(UsageProblem, match="chunker"):
        publish(store, folder, chunker="rabin")


def test_buffers_borders_dont_show(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [1, 65_536, 1 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9_000_001, 3, 0, 12_345_678]
    folder = write_tree(tmp_path / "s", {f"{n}": noise(size, n) for n, size in enumerate(sizes)})
    with_large = publish(store, folder, title="x")
    monkeypatch.setattr(ingest_module, "_BUFFER", 1_234_567)
    with_small = publish(store, folder, title="y")
    assert with_small.manifest.root == with_large.manifest.root
    assert with_small.manifest.index == with_large.manifest.index
    store.checkout(with_large.course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(folder)
    assert store.verify() == []


def test_every_problem_is_named_before_anything_is_stored(store: Store, folder: Path) -> None:
    (folder / "outside").symlink_to("/etc")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))
    (folder / "con.txt").write_bytes(b"")
    os.mkdir(os.fsencode(folder) + b"/\xff\xfe")
    with pytest.raises(Refused) as caught:
        publish(store, folder)
    for part in (
        "outside is a symbolic link",
        "broken is",
        "pipe is a named pipe",
        "socket is a socket",
        "con.txt has a name",
    ):
        assert part in caught.value.message
    assert "\\udcff" in caught.value.message
    assert "--follow-symlinks" in caught.value.hint
    assert nothing_stored(store)
    for n in range(30):
        os.mkfifo(folder / f"pipe{n}")
    with pytest.raises(Refused, match="and 16 more"):
        publish(store, folder)


def test_unreadable_files_are_named(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, and tests may run as root: so the question is answered for it.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("near"))
    with pytest.raises(Refused, match="a/near can't be read"):
        publish(store, folder)
    assert nothing_stored(store)


def test_special_files_can_be_left_out(store: Store, folder: Path) -> None:
    (folder / "link").symlink_to("README.md")
    os.mkfifo(folder / "pipe")
    published = publish(store, folder, skip_special=True)
    assert sorted(published.warnings) == [
        "link was left out: it is a symbolic link",
        "pipe was left out: it is a named pipe",
    ]


def test_links_that_stay_inside_can_be_followed(store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "link.md").symlink_to("README.md")
    (folder / "linked").symlink_to("a")
    published = publish(store, folder, follow_symlinks=True)
    store.checkout(published.course, tmp_path / "out")
    assert (tmp_path / "out" / "linked" / "near").read_bytes() == (folder / "a" / "near").read_bytes()
    assert not (tmp_path / "out" / "link.md").is_symlink()
    (folder / "outside").symlink_to(tmp_path)
    with pytest.raises(Refused, match="leads outside"):
        publish(store, folder, follow_symlinks=True)
    (folder / "outside").unlink()
    (folder / "a" / "loop").symlink_to("..")
    with pytest.raises(Refused, match="a link to a folder that it is in"):
        publish(store, folder, follow_symlinks=True)


def test_names_are_composed_and_clashes_named(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "s", {"e\u0301te\u0301.txt": b"1"})
    published = publish(store, folder)
    holding = store.holding(published.course)
    assert holding is not None
    assert holding.index.files[0].path == "été.txt"
    write_tree(folder, {"été.txt": b"2"})
    with pytest.raises(Refused, match="two spellings"):
        publish(store, folder)


def test_what_isnt_there_is_the_users_mistake(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no such file"):
        publish(store, tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageProblem, match="neither"):
        publish(store, tmp_path / "pipe")
    for own in (tmp_path, tmp_path / "home", tmp_path / "home" / "store" / "extents"):
        with pytest.raises(Refused, match="private keys"):
            publish(store, own)


@pytest.mark.parametrize("change", ["vanish", "shrink", "grow", "rewrite", "replace"])
def test_a_file_that_changes_meanwhile_is_named_and_nothing_stored(store: Store, tmp_path: Path, change: str) -> None:
    folder = write_tree(tmp_path / "s", {f"{n:02}.bin": noise(3_000_000, n) for n in range(12)})
    victim = folder / "11.bin"

    def meddle(done: int, total: int, files: int, all_files: int) -> None:
        if change == "vanish":
            victim.unlink(missing_ok=True)
        elif change == "shrink":
            os.truncate(victim, 1000)
        elif change == "grow":
            with victim.open("ab") as file:
                file.write(b"more")
        elif change == "rewrite":
            victim.write_bytes(noise(3_000_000, 99))
        else:
            shutil.copy(folder / "00.bin", folder / "new")
            os.replace(folder / "new", victim)

    with pytest.raises(SourceChanged, match=r"11\.bin"):
        publish(store, folder, report=meddle)
    assert nothing_stored(store)


def test_it_can_be_stopped(store: Store, folder: Path) -> None:
    with pytest.raises(Interrupted):
        publish(store, folder, cancelled=lambda: True)
    assert nothing_stored(store)


def test_progress_is_told(store: Store, folder: Path) -> None:
    told: list[tuple[int, ...]] = []
    publish(store, folder, report=lambda *figures: told.append(figures))
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert told[-1] == (total, total, 9, 9)
    assert told == sorted(told)


def test_without_room_nothing_is_stored(opened: Callable[..., Store], folder: Path) -> None:
    store = opened("tight", quota=100_000)
    with pytest.raises(NoSpace, match="quota"):
        publish(store, folder)
    assert nothing_stored(store)
    assert publish(store, folder, no_copy=True).new  # what isn't copied takes no room


def test_without_room_for_what_is_new_nothing_new_is_stored(opened: Callable[..., Store], tmp_path: Path) -> None:
    store = opened("tight", quota=2_000_000)
    first = publish(store, write_tree(tmp_path / "s", {"a": noise(1_500_000)}))
    write_tree(tmp_path / "s", {"b": noise(1_500_000, 2)})
    with pytest.raises(NoSpace):
        publish(store, tmp_path / "s")
    assert [row.course for row in store.courses()] == [first.course]
    assert len(os.listdir(store._parts.extents)) == 1
    (tmp_path / "s" / "b").unlink()
    assert not publish(store, tmp_path / "s").new


def test_not_copied_files_are_served_while_they_are_as_they_were(store: Store, other: Store, folder: Path) -> None:
    course = publish(store, folder, no_copy=True).course
    assert store.usage().bytes == 0
    assert os.listdir(store._parts.extents) == []
    copy(store, other, course)
    assert other.verify() == []
    assert store.verify() == []


def test_a_changed_file_of_the_users_is_never_served_wrong(store: Store, folder: Path) -> None:
    course = publish(store, folder, no_copy=True).course
    holding = store.holding(course)
    assert holding is not None
    (entry,) = (entry for entry in holding.index.files if entry.path == "a/near")
    assert holding.read(entry.first) == (folder / "a" / "near").read_bytes()
    (folder / "a" / "near").write_bytes(noise(4096, 77))
    with pytest.raises(StoreDamage, match="changed") as caught:
        holding.read(entry.first)
    assert caught.value.path == "a/near"
    assert not holding.has(entry.first)
    (folder / "README.md").unlink()
    found = {damage.path for damage in store.verify()}
    assert found == {"a/near", "README.md"}
    (gone,) = (damage.what for damage in store.verify() if damage.path == "README.md")
    assert gone == f"the file that is served, {folder / 'README.md'}, is gone or was changed"
    assert {damage.path for damage in store.verify(course)} == found  # still named the second time
    # Same size, same times, other bytes: only the hash can tell.
    facts = os.stat(folder / "a-b" / "near")
    (folder / "a-b" / "near").write_bytes(noise(5000, 78))
    os.utime(folder / "a-b" / "near", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (wrong,) = (damage for damage in store.verify() if damage.path == "a-b/near")
    assert "hash" in wrong.what


def test_a_file_of_the_users_that_was_read_and_then_changed_with_its_times_put_back_is_never_served_wrong(
    store: Store, folder: Path
) -> None:
    course = publish(store, folder, no_copy=True).course
    holding = store.holding(course)
    assert holding is not None
    (entry,) = (entry for entry in holding.index.files if entry.path == "a/near")
    (other,) = (entry for entry in holding.index.files if entry.path == "a-b/near")
    assert all(bit(holding.placement.good, slot) for slot in (entry.first, other.first))  # publish has hashed them
    assert holding.read_many([entry.first, other.first]) == [noise(4096, 3), noise(5000, 2)]
    assert store.verify() == []
    overwrite(folder / "a" / "near", b"other bytes")
    assert holding.read_many([entry.first]) == [None]
    with pytest.raises((StoreDamage, ChunkMissing)):
        holding.read(entry.first)
    assert holding.read(other.first) == noise(5000, 2)


def test_a_file_of_the_users_changed_between_publishing_and_its_first_reading_is_never_served_wrong(
    store: Store, folder: Path
) -> None:
    course = publish(store, folder, no_copy=True).course
    overwrite(folder / "a" / "near", b"other bytes")
    holding = store.holding(course)
    assert holding is not None
    (entry,) = (entry for entry in holding.index.files if entry.path == "a/near")
    assert holding.read_many([entry.first]) == [None]


def overwrite(path: Path, raw: bytes) -> None:
    """Put other bytes into a file, of which then only the time of its last change differs."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # file systems count in ticks of the clock
        with path.open("r+b") as opened:
            opened.write(raw)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def test_a_file_of_the_users_is_hashed_once_while_nobody_touches_it(store: Store, folder: Path) -> None:
    course = publish(store, folder, no_copy=True).course
    holding = store.holding(course)
    assert holding is not None
    slots = list(range(len(holding.index)))
    assert None not in holding.read_many(slots)
    good = bytes(holding.placement.good)
    assert all(bit(good, slot) for slot in slots)
    store._parts.files.close()  # as when more files are read than are kept open
    for slot in slots:
        holding.read(slot)
        assert bytes(holding.placement.good) == good  # not even in doubt


@pytest.mark.parametrize("late", [True, False])
def test_what_publish_hashed_is_hashed_again_only_if_it_may_have_been_written_to(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    began = int(time.time()) + (60 if late else -60)
    course = publish(store, folder, no_copy=True, now=began).course
    doubted: list[int] = []
    doubt = store._parts.files._doubt
    monkeypatch.setattr(store._parts.files, "_doubt", lambda extent: (doubted.append(extent), doubt(extent)))
    holding = store.holding(course)
    assert holding is not None
    (entry,) = (entry for entry in holding.index.files if entry.path == "a/near")
    assert holding.read_many([entry.first]) == [noise(4096, 3)]
    assert bool(doubted) is not late
    doubted.clear()
    overwrite(folder / "a" / "near", b"other bytes")
    assert holding.read_many([entry.first]) == [None]
    assert doubted


def test_what_is_gone_of_a_not_copied_course_is_fetched(
    store: Store, other: Store, folder: Path, tmp_path: Path
) -> None:
    course = publish(store, folder, no_copy=True).course
    copy(store, other, course)
    before = read_tree(folder)
    (folder / "large.bin").unlink()
    (folder / "copy of large.bin").unlink()
    download = begin(other, store, course)
    assert download.missing()
    assert {download.placement.file_of(slot).path for slot in download.missing()} == {"copy of large.bin"}
    fetch(other, download)
    download.close()
    assert store.verify() == []
    store.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == before


def test_publishing_with_copying_what_wasnt_copied_before(store: Store, folder: Path) -> None:
    published = publish(store, folder, no_copy=True)
    assert published.copied == 0
    again = publish(store, folder)
    assert again.course == published.course and not again.new
    holding = store.holding(published.course)
    assert holding is not None
    lengths = {bytes(holding.index.digest(slot)): holding.index.lengths[slot] for slot in range(holding.slots)}
    assert again.copied == sum(lengths.values()) < published.manifest.bytes  # what is there twice is kept once
    assert publish(store, folder).copied == 0
    shutil.rmtree(folder)
    assert store.verify() == []


def test_a_touched_file_is_found_again_by_publishing(store: Store, folder: Path) -> None:
    published = publish(store, folder, no_copy=True)
    os.utime(folder / "large.bin", ns=(1, 1))
    os.utime(folder / "copy of large.bin", ns=(1, 1))
    assert len(store.verify()) >= 1
    assert publish(store, folder, no_copy=True).course == published.course
    assert store.verify() == []


def test_a_sweep_during_a_publish_takes_nothing_it_relies_on(store: Store, folder: Path, tmp_path: Path) -> None:
    first = publish(store, folder)
    more = write_tree(tmp_path / "more", {"large.bin": (folder / "large.bin").read_bytes(), "z": noise(9_000_000, 5)})
    removed = threading.Event()

    def remove(*_: int) -> None:
        if not removed.is_set():
            removed.set()
            store.remove(first.course)

    publish(store, more, report=remove)
    assert removed.is_set()
    assert store.verify() == []
    assert all(row.complete for row in store.courses())
    holding = store.holding(store.courses()[0].course)
    assert holding is not None
    assert holding.complete
