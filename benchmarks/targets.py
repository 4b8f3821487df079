"""Every target of speed, memory and disk in one table: p2plearn and whatever of its peers is installed, in turn.

    python benchmarks/targets.py [ROW...] [--runs 5] [--work DIR] [--tmpfs DIR] [--share DIR] [--libtorrent PYTHON]
                                 [--gib 1 16] [--scale 1]

file       1 GiB, one provider to one fetcher, beside the peers and beside TLS 1.3 with SHA-256 in this Python
small      10,000 files of 4 KiB, in --work and in --tmpfs; on a disk what runs leave stays until the row is done (2 GB)
publish    1 GiB (of the same runs as "file")
swarm      256 MiB from one provider to four at once: time, and what the provider uploads
providers  256 MiB from a fast one beside a slow, a silent and a lying one
memory     peak of both sides with each of --gib (takes three times the sum on the disk)
idle       a node left alone: memory, CPU, wake-ups
disk       what `get --no-copy` adds to home and folder; and what `get` does in --share, a folder on a file system
           that shares blocks (btrfs, XFS) and that nobody else uses meanwhile
update     1 % of 1 GiB edited at 1, 8, 32 places, other ones in each run: how many bytes move

Bytes are compared in every run; those that travel between p2plearn and its peers alternate as compare.py does. The
table goes to standard output, progress to standard error. A peer that isn't installed, or a row that fails, is "not
measured". ``--scale 0.01`` shrinks all sizes, to see that everything works: such figures say nothing about the targets.
Ends with 1 if a row failed; a target that was missed is no failure.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures
import scale
from ceiling import tls_and_sha256
from compare import Figures, compare, others
from peers import Peer
from peers.ours import InPlace, NoCopy, P2plearn
from peers.syncthing import Syncthing
from peers.torrent import Libtorrent
from update import update
from verdicts import MISSED, NOT_MEASURED, Line, Target, count, judge, not_measured, table
from work import alone, file_system, made_file, made_folder, nodes, progress, room_of, same, size_of

CEILING = "TLS + SHA-256"
PEAK_MIB = 150.0
GROWTH_MIB = PEAK_MIB / 20
"""What passes for the same memory: a node's peak differs by as much from one run to the next."""
WAKE_UPS = 20.0
"""A second; what the timers of a node without anything to do add up to is a fifth of that."""


def words(size: float) -> str:
    """Bytes as a reader wants them."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


class Bench:
    """What rows have in common: where they work, how often, how large, and whom with."""

    def __init__(self, given: argparse.Namespace, room: Path) -> None:
        self.given = given
        self.room = room
        self.runs: int = given.runs
        self.peers: list[type[Peer]] = others()

    def scaled(self, size: int) -> int:
        """A size, or a number of files, in this run."""
        return max(1, int(size * self.given.scale))

    def against(self, target: Target, taken: Figures, ours: type[Peer], figure: str) -> Line:
        """A target that is a ratio to a peer."""
        other = taken.get(target.beside, {}).get(figure, [])
        return judge(target, taken[ours.name][figure], other, missing=f"{target.beside} is not installed")

    @functools.cached_property
    def one_to_one(self) -> tuple[str, Figures, list[float]]:
        """What "file" and "publish" are judged by: the size in words, the figures, the ceiling's MB/s beside them."""
        source = made_file(self.room / "source" / "course.bin", self.scaled(1 << 30))
        ceiling: list[float] = []
        taken = compare(
            [P2plearn, InPlace, NoCopy, *self.peers],
            self.room,
            source,
            1,
            self.runs,
            lambda: ceiling.extend(tls_and_sha256(1)),
        )
        return words(size_of(source)), taken, ceiling

    def file(self) -> list[Line]:
        """One provider, one fetcher."""
        size, taken, ceiling = self.one_to_one
        lines = []
        for kind, how in ((P2plearn, "copied"), (InPlace, "published in place"), (NoCopy, "get --no-copy, too")):
            work, speed = f"{size}, {how}", taken[kind.name]["fetch, MB/s"]
            for peer, bound in ((Syncthing, 1.2), (Libtorrent, 1.5)):
                target = Target(work, "at least", bound, "MB/s", peer.name, digits=0)
                lines.append(self.against(target, taken, kind, "fetch, MB/s"))
            lines.append(judge(Target(work, "at least", 0.65, "MB/s", CEILING, digits=0), speed, ceiling))
        return lines

    def publish(self) -> list[Line]:
        """The same runs' publishing."""
        size, taken, _ = self.one_to_one
        figure = "publish, MB/s"
        return [
            self.against(
                Target(f"publish {size}, --no-copy", "at least", 0.8, "MB/s", Libtorrent.name, digits=0),
                taken,
                InPlace,
                figure,
            ),
            self.against(
                Target(f"publish {size}, copied", "at least", 1.0, "MB/s", Syncthing.name, digits=0),
                taken,
                P2plearn,
                figure,
            ),
        ]

    def small(self) -> list[Line]:
        """Many small files, in memory and on a disk."""
        number = self.scaled(10_000)
        lines = []
        for what, place in (("tmpfs", self.given.tmpfs), ("a disk", self.given.work or Path(tempfile.gettempdir()))):
            work = f"{number:,} files of 4 KiB on {what}"
            if place is None:
                lines.append(not_measured(work, "no --tmpfs was named"))
            elif (kind := file_system(place)) and (kind == "tmpfs") != (what == "tmpfs"):
                lines.append(not_measured(work, f"{place} is on {kind}"))
            else:
                lines += self._small(f"{work} ({kind})" if kind and kind != what else work, number, place)
        return lines

    def _small(self, work: str, number: int, place: Path) -> list[Line]:
        with tempfile.TemporaryDirectory(prefix="p2plearn-targets-", dir=place) as inside:
            room = Path(inside)
            source = made_folder(room / "small" / "course", number, 4096)
            # Whoever makes a file on ext4 without a journal passes over the inodes of files that were deleted in the
            # last minutes, one by one: 10,000 files cost 3 s of CPU then, and 0.15 s else, whoever's run it is.
            aside = room / "done" if file_system(place) != "tmpfs" else None
            taken = compare([P2plearn, *self.peers], room, source, 1, self.runs, aside=aside)
        targets = [
            Target(work, "at most", 0.5, "s", Libtorrent.name),
            Target(work, "under", 1.0, "s", Syncthing.name),
        ]
        return [self.against(target, taken, P2plearn, "fetch, s") for target in targets]

    def swarm(self) -> list[Line]:
        """One provider, four fetchers at once."""
        source = made_file(self.room / "source" / "course.bin", self.scaled(256 << 20))
        taken = compare([P2plearn, NoCopy, *self.peers], self.room, source, 4, self.runs)
        work = f"{words(size_of(source))} to 4 at once"
        upload = taken[P2plearn.name]["provider's upload, x the course"]
        return [
            self.against(Target(work, "at most", 1.2, "s", Libtorrent.name), taken, P2plearn, "fetch, s"),
            self.against(Target(f"{work}, --no-copy", "at most", 1.2, "s", Libtorrent.name), taken, NoCopy, "fetch, s"),
            self.against(Target(work, None, 0.0, "s", Syncthing.name), taken, P2plearn, "fetch, s"),
            judge(Target(f"{work}: the provider uploads", "under", 2.5, "x the course"), upload),
        ]

    def providers(self) -> list[Line]:
        """A fast provider beside others that aren't."""
        import providers  # it takes its slow, silent and lying peers from the tests

        size, kinds = self.scaled(256 << 20), ["slow", "silent", "liar"]
        taken = providers.measure(self.room, size, kinds, self.runs)
        work = f"{words(size)} from a fast one, a slow, a silent and a lying one"
        return [
            judge(Target(work, "at most", 1.1, "s", "the fast one alone"), taken.beside, taken.alone),
            count(f"{work}: the liar is banned and named", taken.named),
        ]

    def memory(self) -> list[Line]:
        """Peaks of both sides, by the size of the course."""
        sides = {"publisher MiB": "provider", "getter MiB": "fetcher"}
        peaks: dict[tuple[int, str], list[float]] = {}
        sizes = {gib: self.scaled(gib << 30) for gib in sorted(self.given.gib)}
        for number in range(self.runs):
            for gib, size in list(sizes.items())[:: 1 if number % 2 == 0 else -1]:
                source = made_file(self.room / str(gib) / "course.bin", size)
                taken = scale.travel(self.room, source, "--no-copy")
                progress(f"{words(size)}: " + ", ".join(f"{sides[side]} {taken[side]:.0f} MiB" for side in sides))
                for side in sides:
                    peaks.setdefault((gib, side), []).append(taken[side])
        lines = [
            judge(
                Target(f"peak memory, {words(sizes[gib])}, {sides[side]}", "at most", PEAK_MIB, "MiB", digits=0), found
            )
            for (gib, side), found in sorted(peaks.items())
        ]
        least, most = min(sizes), max(sizes)
        for side, name in sides.items():
            work = f"{name}: {words(sizes[most])} takes more than {words(sizes[least])} by"
            if least == most:
                lines.append(not_measured(f"{name}'s growth", "--gib names one size"))
                continue
            grown = [more - less for more, less in zip(peaks[most, side], peaks[least, side], strict=True)]
            lines.append(judge(Target(work, "at most", GROWTH_MIB, "MiB", digits=1), grown))
        return lines

    def idle(self) -> list[Line]:
        """A node that is left alone."""
        found = figures.idle(self.room, self.runs)
        return [
            judge(Target("idle node, memory", "at most", 100.0, "MiB", digits=0), found.memory),
            judge(Target("idle node, CPU", "at most", 0.5, "% of a core"), found.load),
            judge(Target("idle node, wake-ups", "under", WAKE_UPS, "a second", digits=1), found.woken),
        ]

    def disk(self) -> list[Line]:
        """What a fetched and checked-out course takes."""
        size, number = self.scaled(1 << 30), self.scaled(10_000)
        big, small = f"{words(size)}", f"{number:,} files of 4 KiB"
        lines = []
        for course in (big, small):
            work = f"disk, {course}, get --no-copy"
            taken = [self._room_taken(course, size, number, None) for _ in range(self.runs)]
            lines.append(judge(Target(work, "at most", 1.05, "x the course"), taken))
        work = f"disk, {big}, get on a file system that shares blocks"
        if self.given.share is None:
            return [*lines, not_measured(work, "no --share was named")]
        taken = [self._room_taken(big, size, number, self.given.share) for _ in range(self.runs)]
        kind = file_system(self.given.share)
        return [*lines, judge(Target(f"{work} ({kind})", "at most", 1.05, "x the course"), taken)]

    def _room_taken(self, course: str, size: int, number: int, share: Path | None) -> float:
        """What a get adds to the home and the folder, in times of the course: counted by file, or on ``share`` by its
        file system."""
        if "files" in course:
            source = made_folder(self.room / "small", number, 4096)
        else:
            source = made_file(self.room / "course.bin", size)
        with tempfile.TemporaryDirectory(prefix="p2plearn-targets-", dir=share or self.room) as inside:
            place = Path(inside)
            out = place / "out"
            with nodes(self.room, 1) as (a,), nodes(place, 1) as (b,):
                published = a.run("publish", source, "--no-copy")["course"]
                os.sync()
                free, empty = shutil.disk_usage(place).free, room_of(b.home)
                b.run("get", published, "--from", a.address, "-o", out, *(() if share else ("--no-copy",)))
                os.sync()
                gone = free - shutil.disk_usage(place).free
                if not same(source, out / source.name if source.is_file() else out):
                    raise RuntimeError("the bytes differ")
                taken = (gone if share else room_of(b.home, out) - empty) / size_of(source)
        progress(f"{course}: {taken:.3f} times")
        return taken

    def update(self) -> list[Line]:
        """A new version of a course."""
        source = made_file(self.room / "course.bin", self.scaled(1 << 30))
        lines = []
        for places in (1, 8, 32):
            moved = []
            for number in range(self.runs):
                share, seconds = update(self.room, source, places, number)
                progress(f"edited at {places}: {share:.2%} moved, {seconds:.2f} s")
                moved.append(share * 100)
            work = f"1 % of {words(size_of(source))} edited at {places} places"
            lines.append(judge(Target(work, "at most", 3.0, "% moved"), moved))
        return lines


def main() -> int:
    """Run what was asked for, and print the table, of what there is if it is cut short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = ("file", "small", "publish", "swarm", "providers", "memory", "idle", "disk", "update")
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*rows, []], default=[])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where everything lies; a disk")
    shm = Path("/dev/shm")
    parser.add_argument("--tmpfs", type=Path, default=shm if file_system(shm) == "tmpfs" else None)
    parser.add_argument("--share", type=Path, metavar="DIR")
    parser.add_argument("--libtorrent", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    Libtorrent.python = given.libtorrent
    lines: list[Line] = []
    failed = False
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="p2plearn-targets-", dir=given.work) as place:
        bench = Bench(given, Path(place) / "row")
        measures: dict[str, Callable[[], list[Line]]] = {row: getattr(bench, row) for row in rows}
        try:
            for row in given.rows or rows:
                progress(f"{row}, {given.runs} runs")
                bench.room.mkdir()
                try:
                    lines += measures[row]()
                except (Exception, SystemExit) as failure:  # hours of other rows aren't lost with one
                    failed = True
                    lines.append(not_measured(row, f"failed: {failure!r}"))
                    progress(f"{row} failed: {failure!r}")
                shutil.rmtree(bench.room)
        finally:
            if given.scale != 1:
                print(f"All sizes x {given.scale:g}: this says nothing about the targets.")
            machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
            loads = f"load {load:.1f} when it began and {os.getloadavg()[0]:.1f} when it ended"
            print(f"Medians of {given.runs} runs (least-most), {machine}, {loads}.\n\n{table(lines)}\n")
            verdicts = [line.verdict for line in lines]
            print(
                f"{len(lines)} figures: {verdicts.count(MISSED)} missed, {verdicts.count(NOT_MEASURED)} not measured.",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    alone()
    sys.exit(main())
