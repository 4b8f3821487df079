"""A checkout into a folder that has files in it: only what differs is written, and nothing of the user's is lost.

Allowed when the folder is on record as a checkout of this course or of another version of it, or holds nothing but
files of the course. Each file is replaced by one rename. What was there in its place, and had bytes of neither version,
is moved to HOME/replaced first, so a crash between the two leaves the user's version there and the place empty, which
the next checkout fills. Files that the new version has no more go if they are as the old one had them, else they stay.

Links, pipes and the like that stand where the course has a file or folder are moved away, never followed.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.course.index import Index
from p2plearn.course.manifest import SignedManifest
from p2plearn.errors import Refused
from p2plearn.store.checkout import CheckedOut, Progress, destination_problem, write_files
from p2plearn.store.durable import sync_file, sync_filesystem
from p2plearn.store.holding import Holding
from p2plearn.store.tree import CREATE, DIRECTORY, READ, Tree, list_tree, part_name, remove_part_files, remove_tree

_STEP = 1024 * 1024


def checkout_over(
    holding: Holding,
    dest: Path,
    files: Sequence[FileEntry],
    folders: Sequence[str],
    step: Progress,
    *,
    ours: bool,
    replaced: Path,
    before: Index | None = None,
    known: Collection[str] = (),
    unfinished: bool = False,
) -> CheckedOut:
    """Make ``files`` in ``dest`` what the course says. ``ours``: it is on record as a checkout of this course.

    What differs is moved below ``replaced``, unless it is as in ``before``, the version that was checked out there.
    Files at the paths ``known`` are left as they are. Unless more follows (``unfinished``), what killed checkouts left
    half written is removed. Raises Refused, NoSpace, StoreProblem.
    """
    old = {} if before is None else {entry.path: entry for entry in before.files}
    try:
        root = os.open(dest, DIRECTORY)
    except OSError as error:
        raise destination_problem(error, dest) from error
    try:
        _lock(root, dest)
        if not ours:
            _refuse_strangers(holding.signed, holding.index, root, dest)
        aside = _Aside(replaced / holding.course.hex()[:12] / time.strftime("%Y-%m-%d-%H%M%S"))
        with Tree(root) as tree:
            written = 0
            swept = None if unfinished or not ours else set[str]()
            for entry in files:
                parent, name = _parent(tree, entry.path, root, aside)
                folder = entry.path.rpartition("/")[0]
                if swept is not None and folder not in swept:
                    swept.add(folder)
                    remove_part_files(parent)
                if (entry.path in known and _is_there(parent, name)) or _is_same(parent, name, holding.index, entry):
                    step.step(entry.size, 1)
                    continue
                part = part_name(name)
                try:
                    write_files(holding, [entry], partial(_create, part, parent), step)
                    was = old.get(entry.path)
                    if before is None or was is None or not _is_same(parent, name, before, was):
                        aside.take(parent, name, entry.path)
                    os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(part, dir_fd=parent)
                    raise
                written += 1
            for path in folders:
                _folder(tree, path.split("/"), root, aside)
        if before is not None and len(files) == len(holding.index.files):
            _remove_dropped(root, before, {entry.path for entry in files})
        sync_filesystem(root)
        return CheckedOut(dest, written, tuple(aside.taken), aside.directory if aside.taken else None)
    except OSError as error:
        raise destination_problem(error, dest) from error
    finally:
        os.close(root)


def _remove_dropped(root: int, before: Index, kept: set[str]) -> None:
    """Delete files that only the version before had, where they are as it had them, and folders that get empty so."""
    with Tree(root) as tree:
        for entry in before.files:
            *folders, name = entry.path.split("/")
            if entry.path in kept:
                continue
            try:
                parent = tree.existing(folders)
            except OSError:
                continue
            if _is_same(parent, name, before, entry):
                os.unlink(name, dir_fd=parent)
                for depth in range(len(folders), 0, -1):
                    with contextlib.suppress(OSError):  # not empty: others are in it
                        os.rmdir(folders[depth - 1], dir_fd=tree.existing(folders[: depth - 1]))


def _lock(root: int, dest: Path) -> None:
    """One checkout to a place at a time, whichever home it is from; a new one holds this lock before it has the name.

    Raises Refused. Where the file system has no locks there is none.
    """
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            f"Another get is writing to {dest} right now.",
            "Run this again when it is done, or choose another place (-o DIR).",
        ) from None
    except OSError:
        return


def check_occupied(signed: SignedManifest, index: Index, dest: Path) -> None:
    """Raise Refused if ``checkout_over`` would refuse ``dest``, a folder that isn't on record as the course's."""
    try:
        root = os.open(dest, DIRECTORY)
    except OSError as error:
        raise destination_problem(error, dest) from error
    try:
        _refuse_strangers(signed, index, root, dest)
    finally:
        os.close(root)


def _create(part: str, parent: int, _entry: FileEntry) -> int:
    return os.open(part, CREATE, 0o644, dir_fd=parent)


def _refuse_strangers(signed: SignedManifest, index: Index, root: int, dest: Path) -> None:
    """Raise Refused unless everything in the folder has a name of the course's.

    For a course of one file it is enough that the file's name is free there, or that it is that file.
    """
    hint = "Choose another place (-o DIR), or move what is there away."
    if signed.manifest.kind == "file":
        entry = index.files[0]
        with contextlib.suppress(FileNotFoundError):
            os.stat(entry.path, dir_fd=root, follow_symlinks=False)
            if not _is_same(root, entry.path, index, entry):
                raise Refused(f"{dest} has another {entry.path} in it.", hint)
        return
    names = {entry.path for entry in index.files} | set(index.folders)
    for path in tuple(names):
        above = path.rpartition("/")[0]
        while above and above not in names:
            names.add(above)
            above = above.rpartition("/")[0]
    strangers, said = (
        [path for path, _ in list_tree(root) if path not in names],
        "files in it that aren't this course's",
    )
    if not strangers:
        strangers, said = _differing(index, root), "other bytes in files that have names of this course's"
    if strangers:
        shown = ", ".join(repr(path) for path in strangers[:3])
        raise Refused(f"{dest} has {said} ({len(strangers)}: {shown}).", hint)


def _differing(index: Index, root: int) -> list[str]:
    """Files that have a name of the course's, but not its bytes: somebody's work on it, or another course."""
    found = []
    with Tree(root) as tree:
        for entry in index.files:
            *folders, name = entry.path.split("/")
            try:
                parent = tree.existing(folders)
                os.stat(name, dir_fd=parent, follow_symlinks=False)
            except OSError:
                continue
            if not _is_same(parent, name, index, entry):
                found.append(entry.path)
    return found


def _parent(tree: Tree, path: str, root: int, aside: _Aside) -> tuple[int, str]:
    *folders, name = path.split("/")
    return _folder(tree, folders, root, aside), name


def _folder(tree: Tree, names: list[str], root: int, aside: _Aside) -> int:
    """A directory of the course; whatever else has its name is moved away."""
    try:
        return tree.folder(names)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    for depth in range(1, len(names) + 1):
        above = tree.folder(names[: depth - 1])
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(names[depth - 1], dir_fd=above, follow_symlinks=False).st_mode):
                aside.take(above, names[depth - 1], "/".join(names[:depth]))
    return tree.folder(names)


def _is_there(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_same(parent: int, name: str, index: Index, entry: FileEntry) -> bool:
    """Whether a file already has the course's bytes; read and hashed, never assumed."""
    try:
        fd = os.open(name, READ, dir_fd=parent)
    except OSError:
        return False
    try:
        facts = os.fstat(fd)
        slots = range(entry.first, entry.first + entry.count)
        return (
            stat.S_ISREG(facts.st_mode)
            and facts.st_size == entry.size
            and all(hashlib.sha256(os.read(fd, index.lengths[slot])).digest() == index.digest(slot) for slot in slots)
        )
    except OSError:
        return False
    finally:
        os.close(fd)


class _Aside:
    """Where the user's own versions go. Made when the first one is moved."""

    def __init__(self, directory: Path) -> None:
        base, number = directory, 1
        while directory.exists():
            number += 1
            directory = base.with_name(f"{base.name}-{number}")
        self.directory = directory
        self.taken: list[str] = []

    def take(self, parent: int, name: str, path: str) -> None:
        """Move what has that name, if anything has, to the same path here."""
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.rename(name, target, src_dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            above = os.open(target.parent, DIRECTORY)
            try:
                _copy(parent, name, above, target.name)
                os.fsync(above)
            finally:
                os.close(above)
            remove_tree(name, parent)
        self.taken.append(path)


def _copy(source: int, name: str, target: int, new_name: str) -> None:
    """Copy a file, link or directory to another file system, following nothing; durable when it returns."""
    mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
    elif stat.S_ISDIR(mode):
        os.mkdir(new_name, 0o700, dir_fd=target)
        inside, copy = os.open(name, DIRECTORY, dir_fd=source), os.open(new_name, DIRECTORY, dir_fd=target)
        try:
            for child in os.listdir(inside):
                _copy(inside, child, copy, child)
            os.fsync(copy)
        finally:
            os.close(inside)
            os.close(copy)
    elif stat.S_ISREG(mode):
        reading = os.open(name, READ, dir_fd=source)
        try:
            writing = os.open(new_name, CREATE, 0o600, dir_fd=target)
            try:
                while block := os.read(reading, _STEP):
                    view = memoryview(block)
                    while view:
                        view = view[os.write(writing, view) :]
                sync_file(writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
    else:
        raise Refused(f"{name} is a pipe, socket or device and stands in the way of the course.", "Move it away.")
