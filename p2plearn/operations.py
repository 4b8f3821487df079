"""The words that pass between a node and whoever asks it for something.

Plain values: they cross the local API as JSON (``as_json`` / ``from_json``), so nothing here may hold a live
object. ``NodeOperations`` is the whole of what the local API asks of a node.

Imports only ``errors``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from p2plearn.people import PeopleOperations

SCHEMA = 1
"""Version of every JSON object that leaves a node or the command line; grows only when a field changes meaning."""


class Wire:
    """Dataclasses to JSON objects and back; unknown fields are ignored, so that versions can meet."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """This value as a JSON object, its ``schema`` first."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """The value of a JSON object; raises TypeError when a required field is missing."""
        values = {f.name: raw[f.name] for f in dataclasses.fields(cls) if f.name in raw}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


MOST_PAUSE_SECONDS = 10 * 366 * 86400
"""Ten years; longer than that is a slip of the keyboard."""


@dataclass(frozen=True, slots=True)
class PublishRequest(Wire):
    """Publish ``path`` (absolute) and have ``copies`` kept, this node's included.

    Empty ``title`` and ``language`` mean: find a sensible one in the folder; other empty fields: as in the version
    before. So does 0 for ``copies``; of a course that is new it means 3. ``private`` leaves it out of the catalogue,
    ``public`` puts it in; neither: as the version before, and a new course is put in.
    """

    path: str
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    language: str = ""
    license: str = ""
    chunker: str = ""
    follow_symlinks: bool = False
    skip_special: bool = False
    no_copy: bool = False
    copies: int = 0
    private: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class PublishResult(Wire):
    """What was published. ``new`` is false when the very same course was here already.

    ``copies``: verified ones that are there now, this node's included, of the ``copies_wanted``; ``copies_away`` more
    are on nodes that are away. ``paused``: this node is, so that no copies are made. ``private``: the catalogue was not
    told of it. ``copied_bytes`` of it came into the store now; the rest is repeated, was there, or stays in your files.
    """

    course: str
    ipfs: str
    title: str
    bytes: int
    files: int
    chunks: int
    copies: int
    new: bool
    version: int
    seconds: float
    link: str
    warnings: tuple[str, ...] = ()
    copies_wanted: int = 1
    copies_away: int = 0
    paused: bool = False
    private: bool = False
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GetRequest(Wire):
    """Fetch ``course`` (64 hex digits) into ``dest`` (absolute; empty: keep it in the store only).

    ``providers`` are multiaddrs with ``/p2p/``, tried first; ``only`` are file patterns (empty: everything);
    ``timeout`` is in seconds, 0 for none. ``in_order``: each file appears at ``dest`` once it and those before it are
    here, while the rest comes. ``no_copy``: afterwards the files at ``dest`` are what this node keeps.
    """

    course: str
    dest: str = ""
    providers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    timeout: float = 0.0
    in_order: bool = False
    no_copy: bool = False


@dataclass(frozen=True, slots=True)
class GetResult(Wire):
    """What was fetched. ``fetched_bytes`` came over the network in this run, ``bytes`` is the size of the files.

    ``found_bytes`` of what the store lacked lay in the destination already, right by their hashes.
    """

    course: str
    title: str
    path: str
    bytes: int
    files: int
    fetched_bytes: int
    seconds: float
    providers: int
    written_files: int
    replaced: tuple[str, ...] = ()
    replaced_into: str = ""
    complete: bool = True
    warnings: tuple[dict[str, Any], ...] = ()
    found_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Progress(Wire):
    """Where a long operation stands. ``waiting_for`` says in words what holds it up, empty while bytes flow.

    ``rate`` is in bytes a second, ``eta`` in seconds (negative: unknown). ``files_there``: how many of the files can be
    opened at the destination already (of a get with ``in_order``).
    """

    stage: str
    bytes: int = 0
    bytes_total: int = 0
    files: int = 0
    files_total: int = 0
    rate: float = 0.0
    peers: int = 0
    eta: float = -1.0
    waiting_for: str = ""
    title: str = ""
    files_there: int = 0


Report = Callable[[Progress], None]
"""Called with the newest progress, as often as one likes; never blocks."""


@dataclass(frozen=True, slots=True)
class VerifyRequest(Wire):
    """Check ``course`` (64 hex digits), or every course when it is empty; with ``repair`` mend what is damaged.

    ``providers`` are multiaddrs with ``/p2p/`` to ask first; ``timeout`` is for mending, in seconds, 0 for none.
    """

    course: str = ""
    repair: bool = False
    providers: tuple[str, ...] = ()
    timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class VerifyResult(Wire):
    """``damaged``: one object a finding, with ``course``, ``title``, ``path`` (of the file) and ``what``.

    When it was to mend: ``repaired``, one object a course, with ``bytes``, ``providers``, ``found_bytes`` (that lay
    right in folders made from it) and ``checkouts`` (those folders, which stay as they are); ``left``, the findings
    that still hold, with ``why``.
    """

    courses: int
    bytes: int
    seconds: float
    damaged: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    repaired: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    left: tuple[dict[str, Any], ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class LeaveRequest(Wire):
    """Hand over everything that this node keeps, within ``deadline`` seconds."""

    deadline: float = 600.0


@dataclass(frozen=True, slots=True)
class LeaveResult(Wire):
    """What became of the ``units`` (courses, or 256 MiB segments of large ones) that were kept here.

    ``placed``: ``course``, ``segment``, ``title``, ``receipts`` (``peer_id`` and the signed ``receipt`` in hex);
    ``unplaced``: ``course``, ``segment``, ``title``, ``copies`` elsewhere, ``copies_away`` (more, on nodes that are
    away), ``copies_wanted``. The others had enough copies elsewhere.
    """

    units: int
    bytes: int
    seconds: float
    placed: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    unplaced: tuple[dict[str, Any], ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class ExportRequest(Wire):
    """Write ``courses`` (64 hex digits each), or ``everything`` that is complete here, into one CAR file.

    ``path`` (absolute) is the file, or a pipe that is being read. ``versions``: with all complete versions of each
    course's series; ``people``: what was said, "all" (the whole catalogue and the courses' discussions), "courses"
    (only what is about these) or "none"; ``replace``: a file that is there already.
    """

    path: str
    courses: tuple[str, ...] = ()
    everything: bool = False
    versions: bool = True
    people: str = "all"
    replace: bool = False


@dataclass(frozen=True, slots=True)
class ExportResult(Wire):
    """What was written: ``courses`` with ``course``, ``title``, ``version``, ``bytes`` and ``ipfs``; ``size`` of the
    file, ``kept`` bytes of it from an earlier run; ``people``: how many envelopes.
    """

    path: str
    size: int
    kept: int
    blocks: int
    people: int
    seconds: float
    courses: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportRequest(Wire):
    """Take in the CAR file, or the pipe, at ``path`` (absolute)."""

    path: str


@dataclass(frozen=True, slots=True)
class ImportResult(Wire):
    """What came of it. ``courses``: ``course``, ``title``, ``version``, ``state`` (complete, incomplete, refused,
    no-room, absent), ``bytes``, ``have_bytes``, ``stored`` (bytes, in this run), ``was_here`` (complete before it),
    ``missing`` (files, the first few), ``missing_files``, ``problem``, ``folder`` (the user's own that it was served
    from already and is, uncopied).

    ``problem`` says why the file could not be read to its end, ``damaged`` counts its damaged blocks; ``people_…``
    count envelopes, and ``people_whole`` is false if what people said may be missing in part.
    """

    path: str
    read: int
    damaged: int
    problem: str
    people_new: int
    people_known: int
    people_refused: int
    people_whole: bool
    seconds: float
    courses: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    warnings: tuple[str, ...] = ()


class ArchiveOperations(Protocol):
    """What is asked of a node about files that carry courses."""

    async def export(self, request: ExportRequest, report: Report) -> ExportResult:
        """Write courses, and what was said, into a CAR file."""
        ...

    async def take_in(self, request: ImportRequest, report: Report) -> ImportResult:
        """Take in what such a file holds; all that was right is kept, however it ends."""
        ...


class NodeOperations(Protocol):
    """What the local API asks of a node. Every call may raise a ``P2plearnError``; all can be cancelled.

    Results that are plain dictionaries are JSON-ready and documented in the API's description.
    """

    async def status(self) -> dict[str, Any]:
        """Peer id, addresses, peers, courses, uptime, storage, DHT."""
        ...

    async def peers(self) -> list[dict[str, Any]]:
        """One object a connected peer: id, addresses, direction, agent, seconds connected, how it was found."""
        ...

    async def publish(self, request: PublishRequest, report: Report) -> PublishResult:
        """Publish a folder or a file; durable when it returns."""
        ...

    async def get(self, request: GetRequest, report: Report) -> GetResult:
        """Fetch a course and check it out."""
        ...

    async def contents(self, request: GetRequest, report: Report) -> dict[str, Any]:
        """Fetch manifest and index only: what is inside, without the bytes (``get --manifest-only``)."""
        ...

    async def courses(self) -> list[dict[str, Any]]:
        """Every course kept here: course, title, bytes, complete, why, …"""
        ...

    async def info(self, course: str) -> dict[str, Any]:
        """All that is known here of one course, its files included."""
        ...

    async def verify(self, request: VerifyRequest, report: Report) -> VerifyResult:
        """Hash what is stored of one course (all courses when empty), name what is damaged, mend it if asked to."""
        ...

    async def remove(self, course: str, *, last_copy: bool) -> dict[str, Any]:
        """Forget a course and free its bytes: ``course``, ``title``, ``freed``; ``left``: what couldn't be, and why.

        Unless ``last_copy`` raises LastCopy when no other node shows, asked now, that it has it.
        """
        ...

    async def pause(self, seconds: float) -> dict[str, Any]:
        """Move no bytes of courses for so long (0: until resumed), across restarts: ``paused``, ``paused_until``."""
        ...

    async def resume(self) -> dict[str, Any]:
        """End a pause: ``paused``, ``paused_until``."""
        ...

    @property
    def people(self) -> PeopleOperations:
        """What is asked about people and what they say."""
        ...

    @property
    def archives(self) -> ArchiveOperations:
        """What is asked about files that carry courses."""
        ...

    async def gc(self, dry_run: bool) -> dict[str, Any]:
        """Free what nobody needs any more: ``courses`` kept for nobody, ``freed`` bytes; or say what would go.

        ``left``: what couldn't be freed, and why.
        """
        ...

    async def leave(self, request: LeaveRequest, report: Report) -> LeaveResult:
        """Hand over what is kept here to other nodes; the node serves on until it is told to stop."""
        ...

    async def stop(self) -> dict[str, Any]:
        """Ask the node to stop; returns before it does. ``fewer_copies``: courses with fewer copies than asked for.

        ``unconfirmed``: peer ids of nodes that may have copies of these, and didn't answer within a second.
        """
        ...
