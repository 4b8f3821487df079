"""A disk with no room: a clean error that says so, nothing acknowledged lost, and the store works again after."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import begin, fetch, noise, parcel, publish, read_tree, write_tree

import p2plearn
from p2plearn.errors import NoSpace, P2plearnError, StoreProblem
from p2plearn.store.space import Budget, StoreLimits, check_disk
from p2plearn.store.store import Store

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "p2plearn-test", str(place)], capture_output=True, check=False
    )
    if not done or done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_publish_that_doesnt_fit(small_disk: Path, tmp_path: Path) -> None:
    store = Store.open(small_disk)
    first = publish(store, write_tree(tmp_path / "s", {"a": noise(MIB)}), title="fits")
    write_tree(tmp_path / "s", {"b": noise(8 * MIB, 2)})
    with pytest.raises(NoSpace):
        publish(store, tmp_path / "s", title="too large")
    assert [row.course for row in store.courses()] == [first.course]
    assert store.verify() == []
    assert len(os.listdir(store._parts.extents)) == 1
    (tmp_path / "s" / "b").unlink()
    write_tree(tmp_path / "s", {"c": noise(1000, 3)})
    assert publish(store, tmp_path / "s").new
    store.close()


def test_a_download_that_doesnt_fit_is_refused_at_once(store: Store, small_disk: Path, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "s", {"a": noise(6 * MIB)})).course
    small = Store.open(small_disk)
    with pytest.raises(NoSpace, match=r"6\.0 MiB on the disk"):
        begin(store, small, course)
    assert small.courses() == []
    small.close()


def test_a_checkout_that_doesnt_fit_is_refused_before_fetching(store: Store, small_disk: Path, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "s", {"a": noise(2 * MIB)})).course
    small = Store.open(small_disk)
    with pytest.raises(NoSpace, match=r"4\.0 MiB on the disk"):
        small.begin_download(*parcel(store, course), checkout=small_disk / "out")
    elsewhere = Store.open(tmp_path / "elsewhere")
    big = publish(store, write_tree(tmp_path / "s2", {"a": noise(5 * MIB, 1)})).course
    with pytest.raises(NoSpace, match="Writing the course to"):
        elsewhere.begin_download(*parcel(store, big), checkout=small_disk / "out")
    small.close()
    elsewhere.close()


def test_the_disk_fills_up_meanwhile(store: Store, small_disk: Path, tmp_path: Path) -> None:
    course = publish(store, write_tree(tmp_path / "s", {"a": noise(2 * MIB + MIB // 2)})).course
    small = Store.open(small_disk)
    download = begin(store, small, course)
    slots = download.missing()
    fetch(store, download, slots[:3])
    download.commit()
    hog = small_disk / "hog"
    with pytest.raises(OSError, match="No space"), hog.open("wb", buffering=0) as file:  # noqa: PT012
        while True:
            file.write(noise(4096))
    with pytest.raises(NoSpace, match="disk is full"):
        fetch(store, download, slots[3:])
    hog.unlink()
    fetch(store, download)
    download.close()
    assert small.verify() == []
    row = small.course(course)
    assert row is not None
    assert row.complete
    small.close()
    again = Store.open(small_disk)
    again.checkout(course, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "s")
    with pytest.raises(NoSpace):
        again.checkout(course, small_disk / "out")
    assert not list(small_disk.glob(".out*"))
    assert again.verify() == []
    again.close()


LIMITED = """
import resource, sys
from pathlib import Path
from p2plearn.errors import NoSpace
from p2plearn.store.store import Store
from stores import begin, copy, fetch, publish
home, source = Path(sys.argv[1]), Path(sys.argv[2])
other = Store.open(home.parent / "elsewhere")
course = publish(other, source).course
store = Store.open(home)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
for attempt in (lambda: publish(store, source), lambda: begin(other, store, course)):
    try:
        attempt()
    except NoSpace as problem:
        assert "size this process may write" in problem.message, problem.message
    else:
        raise SystemExit("no error")
assert store.courses() == []
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
copy(other, store, course)
assert store.verify() == []
store.close()
other.close()
"""


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the size of files is limited here already")
    source = write_tree(tmp_path / "s", {"a": noise(3_000_000)})
    paths = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(p2plearn.__file__).parent.parent)])
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "home"), str(source)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_figures_in_the_refusal(tmp_path: Path) -> None:
    budget = Budget(StoreLimits(quota=10 * MIB), tmp_path)
    budget.check("x", held=4 * MIB, more=6 * MIB, what="It")
    with pytest.raises(NoSpace) as caught:
        budget.check("x", held=4 * MIB, more=6 * MIB + 1, what="It")
    assert "10.0 MiB" in caught.value.message and "6.0 MiB left" in caught.value.message
    budget.promise("y", counted=MIB, disk=MIB)
    with pytest.raises(NoSpace, match=r"5\.0 MiB left"):
        budget.check("x", held=4 * MIB, more=6 * MIB, what="It")
    budget.check("y", held=4 * MIB, more=6 * MIB, what="It")
    budget.release("y")
    budget.check("x", held=4 * MIB, more=6 * MIB, what="It")
    check_disk(tmp_path, 0, 1 << 62, "Nothing")
    with pytest.raises(NoSpace, match="reserved or to be left free"):
        check_disk(tmp_path, 1, 1 << 62, "It")


def test_errors_of_the_catalogue_have_words(store: Store) -> None:
    with pytest.raises(StoreProblem, match="no such table"), store._parts.catalogue.writing() as db:
        db.execute("INSERT INTO nowhere VALUES (1)")
    with pytest.raises(P2plearnError), store._parts.catalogue.writing():
        raise NoSpace("x")
    assert store.courses() == []


def test_the_floor_holds_for_all_that_takes_room(store: Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {"a": noise(MIB)})
    course = publish(store, source).course
    floor = shutil.disk_usage(tmp_path).free + 1024 * MIB
    full = Store.open(tmp_path / "full", StoreLimits(min_free=floor))
    with pytest.raises(NoSpace, match="to be left free"):
        publish(full, source)
    for why in ("fetched", "custody"):
        with pytest.raises(NoSpace, match="to be left free"):
            full.begin_download(*parcel(store, course), None, why)
    assert full.courses() == []
    assert os.listdir(full._parts.extents) == []
    full.close()


def test_descriptors_are_bounded_however_many_files_a_course_is_served_from(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no way to count descriptors here")
    store = Store.open(tmp_path / "home")
    source = write_tree(tmp_path / "s", {f"{n:03}": noise(100, n) for n in range(400)})
    before = len(os.listdir("/proc/self/fd"))
    course = publish(store, source, no_copy=True).course
    holding = store.holding(course)
    assert holding is not None
    assert None not in holding.read_many(range(holding.slots))
    assert store.verify() == []
    assert len(os.listdir("/proc/self/fd")) - before <= 128 + 2
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before
