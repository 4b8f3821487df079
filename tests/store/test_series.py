"""One series, published from more than one home: a new laptop, a restored backup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stores import copy, publish, sign, write_tree

from p2plearn.course.manifest import sign_manifest
from p2plearn.store.publish import PublishMeta
from p2plearn.store.store import Store


def test_what_was_fetched_goes_on_where_its_author_stopped(
    store: Store, other: Store, folder: Path, tmp_path: Path
) -> None:
    said = PublishMeta("A course", "About it", ("tag",), "en", "CC0-1.0")
    publish(store, folder, title="A course")
    author = publish(store, folder).manifest.author
    second = store.publish(folder, said, sign=sign, author=author, now=5, chunker="fixed")
    copy(store, other, second.course)
    other.checkout(second.course, tmp_path / "out")
    again = publish(other, tmp_path / "out", now=7, chunker="")
    assert (again.course, again.new) == (second.course, False)
    row = other.course(second.course)
    assert row is not None
    assert row.why == "published"
    (tmp_path / "out" / "more").write_bytes(b"more")
    third = publish(other, tmp_path / "out", now=9, chunker="")
    assert (third.manifest.series.seq, third.manifest.series.prev) == (3, second.course)
    assert (third.manifest.description, third.manifest.tags) == ("About it", ("tag",))
    assert third.manifest.chunker.startswith("fixed")
    assert third.warnings == ()


def test_a_restored_home_goes_on_from_what_others_have_of_it(
    store: Store, other: Store, folder: Path, tmp_path: Path
) -> None:
    versions = [publish(store, folder)]
    assert publish(other, folder).course == versions[0].course
    for word in (b"two", b"three"):
        (folder / "README.md").write_bytes(word)
        versions.append(publish(store, folder))
    newest = versions[-1].signed
    again = publish(other, folder, seen=lambda _: newest)
    assert (again.course, again.new, again.warnings) == (newest.course, False, ())
    (folder / "README.md").write_bytes(b"four")
    assert publish(other, folder, seen=lambda _: versions[1].signed).manifest.series.seq == 4
    # Another home that has nothing of it says from what it goes on.
    write_tree(tmp_path / "edited", {"f": b"1"})
    other.remove(newest.course)
    fourth = publish(other, tmp_path / "edited")
    assert (fourth.manifest.series.seq, fourth.warnings) == (5, ())  # it published that


def test_a_version_that_is_nowhere_here_is_named(store: Store, other: Store, folder: Path) -> None:
    first = publish(store, folder)
    (folder / "README.md").write_bytes(b"other")
    second = publish(other, folder, seen=lambda title: first.signed if title == "A course" else None)
    assert (second.manifest.series.seq, second.manifest.series.prev) == (2, first.course)
    (words,) = second.warnings
    assert "Version 1" in words
    assert first.course.hex() in words


def test_anothers_course_or_series_doesnt_count(opened: Callable[..., Store], folder: Path) -> None:
    stranger = Ed25519PrivateKey.generate()
    store, fresh = opened("a"), opened("b")
    mine = publish(store, folder)
    forged = mine.manifest.__class__(
        **{name: getattr(mine.manifest, name) for name in mine.manifest.__dataclass_fields__}
        | {"author": stranger.public_key().public_bytes_raw()}
    )
    theirs = sign_manifest(forged, stranger.sign)
    fresh.put_manifest(theirs)
    other_series = publish(store, folder, title="Another").signed
    for seen in (theirs, other_series):
        (folder / "README.md").write_bytes(seen.course)
        published = publish(opened(seen.course.hex()), folder, seen=lambda _, seen=seen: seen)
        assert (published.manifest.series.seq, published.manifest.series.prev) == (1, None)
    assert publish(fresh, folder).manifest.series.seq == 1


def test_of_two_with_one_number_everybody_goes_on_from_the_same(opened: Callable[..., Store], folder: Path) -> None:
    stores = [opened(name) for name in "abc"]
    forks = []
    for number, store in enumerate(stores):
        (folder / "README.md").write_bytes(b"%d" % number)
        forks.append(publish(store, folder, now=1_700_000_000 + (number > 0)).signed)
    later = max(forks[1:], key=lambda fork: fork.course)
    (folder / "README.md").write_bytes(b"next")
    for store in stores:
        for fork in forks:
            store.put_manifest(fork)
        published = publish(store, folder).manifest.series
        assert (published.seq, published.prev) == (2, later.course)
