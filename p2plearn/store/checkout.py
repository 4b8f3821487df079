"""From the store to a directory of the user's, whole or not at all.

Promises: nothing is written outside the destination, whatever the course is called or others do there meanwhile
(``tree``). What is written has the course's hashes: chunks that this process hasn't hashed yet are hashed on the way.
A new destination appears by one rename, after everything in it is on the disk; a crash leaves a hidden part directory
beside it, which the next checkout to the same place deletes. Files get no x bit and no owner but the user.

An existing destination with files in it is ``reconcile``'s.

Imports ``course``, ``errors`` and siblings.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2plearn.course.file_table import FileEntry
from p2plearn.errors import Interrupted, Refused
from p2plearn.store.alone import hand_over
from p2plearn.store.behind import STRIPE, Behind
from p2plearn.store.catalogue import Catalogue
from p2plearn.store.durable import sync_filesystem, write_all
from p2plearn.store.follow import Following, largest
from p2plearn.store.holding import Holding
from p2plearn.store.parts import StoreParts
from p2plearn.store.problems import disk_problem
from p2plearn.store.share import share_file
from p2plearn.store.tree import FOLDER_MODE, Tree, make_part, remove_stale_parts, remove_tree, sync_tree, umask

_GROUP = 4 * 1024 * 1024
"""Bytes read from the store in one go, for one large file or for many small ones."""
_GROUP_FILES = 512
_FEW = 64
"""So many files are put on the disk one by one. More go with one call for the whole file system, which also waits for
what other programs wrote there: still much quicker than a journal's turn for each of 10,000 files."""

Report = Callable[[int, int, int, int], None]
"""Called with bytes done, bytes in all, files done, files in all."""


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """Where a course now is, how many files were written, and which of the user's were moved where."""

    path: Path
    written_files: int
    replaced: tuple[str, ...] = ()
    replaced_into: Path | None = None
    handed_over: Mapping[str, os.stat_result] = field(default_factory=dict)
    """By path in the course, how those looked that are the store's own files (``alone``)."""


class Progress:
    """Counts, reports, and stops when told to."""

    def __init__(self, files: Sequence[FileEntry], report: Report, cancelled: Callable[[], bool]) -> None:
        self._total = sum(entry.size for entry in files)
        self._files = len(files)
        self._bytes_done = 0
        self._files_done = 0
        self._report = report
        self._cancelled = cancelled

    def step(self, count: int, files: int) -> None:
        """``count`` bytes and ``files`` files more. Raises Interrupted."""
        self._bytes_done += count
        self._files_done += files
        self._report(self._bytes_done, self._total, self._files_done, self._files)
        if self._cancelled():
            raise Interrupted("The checkout was interrupted; the course is in the store.")


def is_large(entry: FileEntry) -> bool:
    """Whether a file is written by itself, and shares blocks with the store where that can be; others are copied."""
    return entry.size > _GROUP


def write_files(
    holding: Holding, files: Sequence[FileEntry], create: Callable[[FileEntry], int], step: Progress
) -> None:
    """Write each file of ``files`` to the descriptor that ``create`` gives for it, and close that."""
    position = 0
    while position < len(files):
        end, size, slots = position, 0, list[int]()
        while end < len(files) and end - position < _GROUP_FILES and size + files[end].size <= _GROUP:
            entry = files[end]
            slots.extend(range(entry.first, entry.first + entry.count))
            size += entry.size
            end += 1
        if end == position:
            _write_large(holding, files[position], create, step)
            position += 1
            continue
        chunks = holding.read_all(slots)
        at = 0
        for entry in files[position:end]:
            fd = create(entry)
            try:
                if entry.count == 1:
                    _write_rest(fd, chunks[at], os.write(fd, chunks[at]))
                elif entry.count:
                    write_all(fd, chunks[at : at + entry.count], 0)
            finally:
                os.close(fd)
            at += entry.count
        step.step(size, end - position)
        position = end


def _write_rest(fd: int, chunk: bytes | memoryview, written: int) -> None:
    if written < len(chunk):
        write_all(fd, [memoryview(chunk)[written:]], written)


def _write_large(holding: Holding, entry: FileEntry, create: Callable[[FileEntry], int], step: Progress) -> None:
    fd = create(entry)
    behind = Behind(keep=2 * STRIPE)
    try:
        offset = 0
        slot, end = entry.first, entry.first + entry.count
        shared = share_file(holding, entry, fd)
        run = next(shared, None)
        while slot < end:
            if run is not None and run.first == slot:
                offset, slot = run.at + run.length, run.stop
                step.step(run.length, 0)
                run = next(shared, None)
                continue
            size, stop, limit = 0, slot, end if run is None else run.first
            while stop < limit and (stop == slot or size + holding.index.lengths[stop] <= _GROUP):
                size += holding.index.lengths[stop]
                stop += 1
            behind.write(fd, holding.read_all(range(slot, stop)), offset)
            offset += size
            slot = stop
            step.step(size, 0)
    finally:
        behind.close()
        os.close(fd)
    step.step(0, 1)


def _fill(holding: Holding, entry: FileEntry, following: Following, fd: int, step: Progress) -> None:
    """Write what of a followed file didn't pass through the download."""
    offset, slot, end = 0, entry.first, entry.first + entry.count
    while slot < end:
        size, stop = 0, slot
        there = following.written(slot)
        while stop < end and size < _GROUP and following.written(stop) is there:
            size += holding.index.lengths[stop]
            stop += 1
        if not there:
            write_all(fd, holding.read_all(range(slot, stop)), offset)
        offset += size
        slot = stop
        step.step(size, 0)
    step.step(0, 1)


def _write_tree(
    holding: Holding, files: Sequence[FileEntry], tree: Tree, following: Following | None, step: Progress
) -> None:
    rest: list[FileEntry] = []
    for entry in files:
        fd = None if following is None else following.fd(entry)
        if following is None or fd is None:
            rest.append(entry)
        else:
            _fill(holding, entry, following, fd, step)
    write_files(holding, rest, lambda entry: tree.create(entry.path), step)


def _hand_over(
    catalogue: Catalogue, holding: Holding, files: Sequence[FileEntry], tree: Tree, step: Progress
) -> dict[str, os.stat_result]:
    """Make the user's what can be without copying it."""
    handed: dict[str, os.stat_result] = {}
    for entry in largest(files):
        facts = hand_over(catalogue, holding, entry, tree)
        if facts is not None:
            handed[entry.path] = facts
            step.step(entry.size, 1)
    return handed


def checkout_fresh(
    holding: Holding,
    dest: Path,
    files: Sequence[FileEntry],
    folders: Sequence[str],
    step: Progress,
    *,
    following: Following | None = None,
    giver: Catalogue | None = None,
) -> CheckedOut:
    """Write a course to a place where nothing (or an empty folder) is. Raises Refused, NoSpace, StoreProblem.

    ``following`` is a part directory for this very place with some of it written already. With ``giver``, which knows
    the extents, files that lie alone in one become the user's.
    """
    handed: dict[str, os.stat_result] = {}
    above = -1
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        above = os.open(dest.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if following is None:
            remove_stale_parts(dest.name, above)
            part, root = make_part(dest.name, above)
        else:
            part, root = following.part, os.dup(following.root)
        try:
            with Tree(root) as tree:
                if giver is not None:
                    handed = _hand_over(giver, holding, files, tree, step)
                _write_tree(holding, [entry for entry in files if entry.path not in handed], tree, following, step)
                for folder in folders:
                    tree.folder(folder.split("/"))
            os.fchmod(root, FOLDER_MODE & ~umask())
            if len(files) + len(folders) <= _FEW:
                sync_tree(root)
            else:
                sync_filesystem(root)
            _move_into_place(part, root, dest, above)
            if following is not None:
                following.done()
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(part, above)
            raise
        finally:
            os.close(root)
        os.fsync(above)
    except FileExistsError as error:
        if (in_the_way := _no_folder_above(dest)) is not None:
            raise in_the_way from error
        raise Refused(
            f"{dest} can't be written: two names of the course are one on that disk ({error.filename}).",
            "Its file system doesn't tell upper and lower case apart; choose another (-o DIR).",
        ) from error
    except OSError as error:
        raise destination_problem(error, dest) from error
    finally:
        if above >= 0:
            os.close(above)
    return CheckedOut(dest, len(files), handed_over=handed)


def destination_problem(error: OSError, dest: Path) -> Exception:
    """What to tell the user when writing to ``dest`` failed."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = os.strerror(error.errno).lower()
        return Refused(f"{dest} can't be written: {reason}.", "Choose another place (-o DIR).")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return Refused(
            f"{dest} can't be written: its disk can't hold a file of that name ({error.filename}).",
            "Choose a place on another disk (-o DIR).",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and (in_the_way := _no_folder_above(dest)) is not None:
        return in_the_way
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
        return Refused(
            f"{dest} was changed by something else while the course was being written ({error.filename}).",
            "Choose another place (-o DIR), or try again when nothing else works there.",
        )
    return disk_problem(error, f"writing to {dest}")


def _no_folder_above(dest: Path) -> Refused | None:
    """What to tell the user when something that ``dest`` is to be in is there and is no folder; None if all is well."""
    for above in dest.parents:
        try:
            facts = os.stat(above)
        except OSError:
            continue  # not there yet, or itself below such a thing
        if stat.S_ISDIR(facts.st_mode):
            return None
        what = "is a file, not a folder" if stat.S_ISREG(facts.st_mode) else "is no folder"
        return Refused(
            f"{dest} can't be written: {above} {what}.", "Choose another place (-o DIR), or move that out of the way."
        )
    return None


def refuse_below_file(dest: Path) -> None:
    """Raise Refused if ``dest`` is to be in something that is there and is no folder: known before anybody is asked."""
    if (in_the_way := _no_folder_above(dest)) is not None:
        raise in_the_way


def _move_into_place(part: str, root: int, dest: Path, above: int) -> None:
    try:
        os.rename(part, dest.name, src_dir_fd=above, dst_dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Refused(f"{dest} appeared while the course was written.", "Choose another place (-o DIR).") from None
        raise
    mine, there = os.fstat(root), os.stat(dest.name, dir_fd=above, follow_symlinks=False)
    if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
        raise Refused(f"{dest} was replaced by something else while the course was being written.")


def record(parts: StoreParts, dest: Path, course: bytes) -> None:
    """Remember that ``dest`` is a checkout of a course."""
    with parts.catalogue.writing() as db:
        db.execute("INSERT OR REPLACE INTO checkouts VALUES (?, ?, ?)", (os.fsencode(dest), course, int(time.time())))


def is_free(dest: Path) -> bool:
    """Whether a course may simply appear at ``dest``: nothing there, or an empty folder that isn't a mount."""
    try:
        facts = os.lstat(dest)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise destination_problem(error, dest) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise Refused(f"{dest} is there already and is no folder.", "Choose another place (-o DIR), or move it away.")
    try:
        with os.scandir(dest) as entries:
            return not any(True for _ in entries) and not os.path.ismount(dest)
    except OSError as error:
        raise destination_problem(error, dest) from error
