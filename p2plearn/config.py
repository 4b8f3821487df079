"""Where things are kept, every setting, every limit: each in one place, with its reason.

Settings come from four sources, the later one wins: the default here, ``config.toml`` in the home, the environment
(``storage.quota`` is ``P2PLEARN_STORAGE_QUOTA``), a flag. A value always knows which one it came from. A key that is
not in the table is an error, because a misspelt limit that is silently ignored is no limit.

Imports only ``errors`` and the standard library; ``platformdirs`` and ``tomllib`` late, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from p2plearn.errors import Refused, UsageProblem

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

Kind: TypeAlias = Literal["flag", "count", "size", "seconds", "text", "texts"]
Value: TypeAlias = bool | int | float | str | tuple[str, ...] | None
"""flag: bool; count and size: int (size in bytes, None where "none" is allowed); seconds: float; texts: tuple."""

# ---------------------------------------------------------------------------------------------------------------------
# Limits that are part of how nodes and programs talk: not settings, because both ends count on them.

API_HEADER_BYTES: Final = 16 * KIB
"""Request line and headers of one local API call. Ours need 200 bytes, a browser with cookies a few KiB."""

API_BODY_BYTES: Final = MIB
"""Body of one local API call. The largest is a ``get`` with a long list of patterns; a mebibyte is thousands."""

API_HEADER_SECONDS: Final = 10.0
"""From the first byte to the end of the headers. Local programs send at once; a stuck one gives its place up."""

API_BODY_SECONDS: Final = 10.0
"""From the end of the headers to the end of the body."""

API_IDLE_SECONDS: Final = 30.0
"""A connection kept open with no request on it."""

API_WRITE_SECONDS: Final = 30.0
"""One write to a caller that doesn't read: long enough for a terminal stopped with Ctrl-S for a moment."""

API_CONNECTIONS: Final = 64
"""Open local connections at once. One person has a handful; a script gone wild must not eat the node's descriptors."""

METRICS_CONNECTIONS: Final = 8
"""Open connections at once to the port of ``metrics.listen``: a Prometheus has one, two of them two."""

PROGRESS_SECONDS: Final = 0.1
"""Between two progress events of one operation: smooth for an eye, next to nothing for the node."""

LOG_BYTES: Final = 5 * MIB
"""Size at which a background node's log is set aside (one old one is kept): a month of a busy node."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. ``least`` and ``most`` bound numbers; ``choices`` bounds texts; ``none`` allows the word "none"."""

    name: str
    kind: Kind
    default: Value
    unit: str
    reason: str
    least: float = 0
    most: float = float(2**62)
    choices: tuple[str, ...] = ()
    none: bool = False


SETTINGS: Final[tuple[Row, ...]] = (
    Row(
        "storage.quota", "size", None, "bytes", none=True,
        reason="Most that fetched and published courses may take together. None by default: on a learner's own "
        "disk the courses they ask for are limited by storage.min_free alone.",
    ),
    Row(
        "storage.min_free", "size", 512 * MIB, "bytes",
        reason="Free space always left on the disk: a full disk breaks other programs, and the catalogue with them.",
    ),
    Row(
        "storage.give", "size", 5 * GIB, "bytes",
        reason="Room given to courses of others, so that they outlive their authors' laptops; a part of storage.quota "
        "where that is set. Never exceeded; 0: keep only your own.",
    ),
    Row(
        "custody.grace", "seconds", 12 * 3600.0, "seconds", least=0.1, most=90 * 86400,
        reason="Silence after which a keeper's copies no longer count and others make new ones. Half a day: a lid "
        "closed overnight moves nothing. Shorter: more traffic; longer: more may go before somebody acts.",
    ),
    Row(
        "custody.heartbeat", "seconds", 10.0, "seconds", least=0.1, most=3600,
        reason="Between two signs of life to each node that keeps the same courses. More often where custody.grace is "
        "short: eight to a grace, two a second at most.",
    ),
    Row(
        "node.on_stop", "text", "stop", "", choices=("stop", "leave"),
        reason="stop is quick and loses nothing, since what is kept is still there at the next start; leave hands "
        "it over first.",
    ),
    Row(
        "node.nice", "count", 0, "", least=0, most=19,
        reason="Niceness of the whole node; Linux derives the disk's priority from it. 0: a get is what its person "
        "waits for. The service of systemd has 5; on battery it is 10 at least.",
    ),
    Row(
        "dht.repeat", "seconds", 12 * 3600.0, "seconds", least=0.1, most=24 * 3600,
        reason="After which the network is told again of each course that is here. Others forget it after 25 hours, so "
        "a half of that outlives a night asleep. Shorter: more traffic.",
    ),
    Row(
        "network.listen", "texts", ("/ip4/0.0.0.0/tcp/4017", "/ip6/::/tcp/4017"), "multiaddrs",
        reason="A fixed port survives restarts, so that addresses others remember stay true. When another home's "
        "node has it and nothing else was asked for, any free port is taken.",
    ),
    Row(
        "network.announce", "texts", (), "multiaddrs",
        reason="Told to others as addresses of this node besides those that it finds out itself: that of a web server "
        "before it (/dns4/NAME/tcp/443/wss), or of a port that somebody forwards by hand.",
    ),
    Row(
        "network.mdns", "flag", True, "",
        reason="Nodes on the same LAN find each other with no configuration and no internet.",
    ),
    Row(
        "network.bootstrap", "texts", (), "multiaddrs with /p2p/",
        reason="Nodes to join through, besides bootstrap_nodes.toml (the shipped one and the home's own).",
    ),
    Row(
        "network.max_connections", "count", 192, "connections", least=4, most=10_000,
        reason="Each costs about 100 KiB and a descriptor; a DHT of thousands of nodes needs some tens.",
    ),
    Row(
        "network.map_port", "flag", True, "",
        reason="Ask the home router (NAT-PMP, UPnP) to let calls through to this node; taken back when it stops.",
    ),
    Row(
        "relay.use", "flag", True, "",
        reason="Behind a router, be called by way of nodes that others can call. Off: only nodes that this one calls "
        "reach it.",
    ),
    Row(
        "relay.serve", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether nodes behind routers are called by way of this one, within the limits below; auto: when "
        "others can call this node. It is what lets two homes talk at all.",
    ),
    Row(
        "relay.places", "count", 128, "nodes", least=0, most=10_000,
        reason="Nodes that can be called by way of this one: each keeps one connection open, which costs 100 KiB.",
    ),
    Row(
        "relay.calls", "count", 32, "calls", least=0, most=1000,
        reason="Relayed calls at once. Each holds up to 64 KiB on its way.",
    ),
    Row(
        "relay.call_seconds", "seconds", 600.0, "seconds", least=10, most=86_400,
        reason="How long a relayed call may last: two nodes find a direct way in seconds, or there is none.",
    ),
    Row(
        "relay.call_bytes", "size", 4 * MIB, "bytes", least=64 * KIB,
        reason="Most that a relayed call may move each way: ratings, posts and a small course, no videos.",
    ),
    Row(
        "relay.rate", "size", 256 * KIB, "bytes a second", least=16 * KIB,
        reason="Most that all relayed calls move together: not to be felt on a home line.",
    ),
    Row(
        "transfer.serve_streams", "count", 32, "streams", least=1, most=1024,
        reason="Courses served at once. More than that and each gets too little to be of use: say busy instead.",
    ),
    Row(
        "transfer.serve_streams_per_peer", "count", 4, "streams", least=1, most=256,
        reason="So that one peer can't take all of transfer.serve_streams.",
    ),
    Row(
        "transfer.peers", "count", 8, "peers", least=1, most=128,
        reason="Peers one get fetches from at once. A few fill any home line; each costs memory in flight.",
    ),
    Row(
        "transfer.memory", "size", 8 * MIB, "bytes", least=1 * MIB,
        reason="Received and not yet written, a get: what the disk may lag behind the network. Caps memory whatever "
        "the course's size.",
    ),
    Row(
        "transfer.stall", "seconds", 10.0, "seconds", least=1, most=3600,
        reason="With no byte for this long a peer's chunks are asked of others. Slow radio links pause for seconds.",
    ),
    Row(
        "transfer.upload_limit", "size", None, "bytes a second", none=True, least=16 * KIB,
        reason="Most that is given to peers beyond the LAN, together: video calls suffer first from a full uplink. "
        "Below 16 KiB a second a chunk takes longer than peers wait.",
    ),
    Row(
        "transfer.download_limit", "size", None, "bytes a second", none=True, least=16 * KIB,
        reason="Most that all gets together ask of peers beyond the LAN.",
    ),
    Row(
        "transfer.limit_lan", "flag", False, "",
        reason="Whether limits and cap hold on the LAN too. It costs no internet line, and is where classes fetch.",
    ),
    Row(
        "transfer.monthly_cap", "size", None, "bytes", none=True,
        reason="Most that is sent and received beyond the LAN in a month, together, as providers count. When it is "
        "used up only the LAN goes on.",
    ),
    Row(
        "transfer.cap_day", "count", 1, "day of the month", least=1, most=31,
        reason="When the month of transfer.monthly_cap begins: the day on the provider's bill.",
    ),
    Row(
        "transfer.battery_upload", "size", 512 * KIB, "bytes a second", none=True, least=16 * KIB,
        reason="transfer.upload_limit while the machine runs on battery, if lower: radio and CPU drain it.",
    ),
    Row(
        "transfer.on_battery", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether the machine runs on battery; auto asks the system (Linux), and takes no answer for no.",
    ),
    Row(
        "transfer.metered", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether the line is paid by volume: then peers beyond the LAN are not served. auto asks "
        "NetworkManager, and takes no answer for no.",
    ),
    Row(
        "log.level", "text", "info", "", choices=("debug", "info", "warning", "error"),
        reason="info is a few lines an hour: starts, stops, courses, what went wrong.",
    ),
    Row(
        "log.format", "text", "text", "", choices=("text", "json"),
        reason="text is for people; json is one object a line, for programs that collect logs.",
    ),
    Row(
        "metrics.listen", "text", "off", "port, or address:port",
        reason="Where Prometheus reads /metrics over TCP; a port alone is this machine's loopback. Off: only the local "
        "API has them.",
    ),
)  # fmt: skip

_BY_NAME: Final[Mapping[str, Row]] = {row.name: row for row in SETTINGS}


# ---------------------------------------------------------------------------------------------------------------------
# Reading values.

_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": 1024 * GIB, "tib": 1024 * GIB, "tb": 1000**4,
}  # fmt: skip
_TIME_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})\s*", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of ``"5 GiB"``, ``"500MB"``, ``"4096"``; raises ValueError with what is wrong."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is no size; write it like 512 MiB, 5 GiB or 4096")
    unit = _SIZE_UNITS[match[2].lower()]
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def parse_seconds(text: str) -> float:
    """Seconds of ``"30s"``, ``"5 min"``, ``"1.5"``; raises ValueError with what is wrong."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].lower() not in _TIME_UNITS:
        raise ValueError(f"{text!r} is no length of time; write it like 30s, 5 min, 2h or 1.5")
    return float(match[1]) * _TIME_UNITS[match[2].lower()]


_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def _parse(row: Row, raw: object) -> Value:
    """``raw`` (TOML's types, or a text of the environment) as the row's kind; raises ValueError."""
    if row.none and (raw is None or (isinstance(raw, str) and raw.strip().lower() in {"none", ""})):
        return None
    if row.kind == "flag":
        if isinstance(raw, bool):
            return raw
        word = raw.strip().lower() if isinstance(raw, str) else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError(f"{raw!r} is neither true nor false")
    if row.kind == "texts":
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{raw!r} is no list of texts")
        return tuple(item for item in items if item)
    if row.kind == "text":
        if not isinstance(raw, str) or (row.choices and raw not in row.choices):
            raise ValueError(f"{raw!r} is none of {', '.join(row.choices)}" if row.choices else f"{raw!r} is no text")
        return raw
    return _parse_number(row, raw)


def _parse_number(row: Row, raw: object) -> int | float:
    number: int | float
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError(f"{raw!r} is no number")  # noqa: TRY004 - one kind of error for whatever is off
    if isinstance(raw, str):
        if row.kind == "count":
            if not re.fullmatch(r"\s*[0-9]{1,18}\s*", raw, re.ASCII):
                raise ValueError(f"{raw!r} is no whole number")
            number = int(raw)
        else:
            number = parse_size(raw) if row.kind == "size" else parse_seconds(raw)
    elif row.kind == "seconds":
        number = float(raw)
    elif isinstance(raw, float):
        raise ValueError(f"{raw!r} is no whole number")
    else:
        number = raw
    if not row.least <= number <= row.most:  # NaN fails here too
        raise ValueError(f"{number} is out of range: {row.least:g} to {row.most:g} {row.unit}".rstrip())
    return number


def environment_name(name: str) -> str:
    """The environment variable of a setting: ``P2PLEARN_STORAGE_QUOTA`` for ``storage.quota``."""
    return "P2PLEARN_" + name.replace(".", "_").upper()


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from: ``default``, the path of the file, ``P2PLEARN_…``, or ``--flag``."""

    row: Row
    value: Value
    source: str


class Settings:
    """All settings of one node, fixed once read."""

    def __init__(self, values: Mapping[str, Setting] | None = None) -> None:
        self._values = {row.name: Setting(row, row.default, "default") for row in SETTINGS} | dict(values or {})

    def __iter__(self) -> Iterator[Setting]:
        """Every setting, in the order of the table."""
        return iter(self._values.values())

    def setting(self, name: str) -> Setting:
        """One setting with its source; an unknown name is a bug of ours (KeyError)."""
        return self._values[name]

    def is_default(self, name: str) -> bool:
        """Whether nobody asked for this value: such a value may give way (a taken port, say)."""
        return self._values[name].source == "default"

    def flag(self, name: str) -> bool:
        """A true-or-false setting."""
        value = self._values[name].value
        assert isinstance(value, bool), name  # noqa: S101 - the table is ours
        return value

    def count(self, name: str) -> int:
        """A whole number, or a size in bytes that always has a value."""
        value = self._values[name].value
        assert isinstance(value, int), name  # noqa: S101
        return value

    def size(self, name: str) -> int | None:
        """A size in bytes; None where the setting is "none"."""
        value = self._values[name].value
        assert value is None or isinstance(value, int), name  # noqa: S101
        return value

    def seconds(self, name: str) -> float:
        """A length of time in seconds."""
        value = self._values[name].value
        assert isinstance(value, float), name  # noqa: S101
        return value

    def text(self, name: str) -> str:
        """A text."""
        value = self._values[name].value
        assert isinstance(value, str), name  # noqa: S101
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._values[name].value
        assert isinstance(value, tuple), name  # noqa: S101
        return value

    @classmethod
    def load(
        cls,
        home: Path,
        flags: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read every source; ``flags`` maps setting names to values given on the command line.

        Raises UsageProblem naming the file or variable, the key and, for an unknown key, the nearest known one.
        """
        values: dict[str, Setting] = {}

        def take(name: str, raw: object, source: str) -> None:
            row = _BY_NAME[name]
            try:
                values[name] = Setting(row, _parse(row, raw), source)
            except ValueError as problem:
                raise UsageProblem(f"{name} in {source}: {problem}.") from None

        file = Home(home).config
        for name, raw in _read_toml(file).items():
            if name not in _BY_NAME:
                raise UsageProblem(f"{file} has a setting {name!r} that doesn't exist.", _nearest(name))
            take(name, raw, str(file))
        environment = os.environ if environment is None else environment
        _refuse_unknown(environment)
        for row in SETTINGS:
            variable = environment_name(row.name)
            if variable in environment:
                take(row.name, environment[variable], variable)
        for name, raw in (flags or {}).items():
            take(name, raw, "the command line")
        return cls(values)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """A misspelt variable is told, as a misspelt key in the file is: silence would mean the default."""
    known = {environment_name(row.name): row.name for row in SETTINGS}
    rooms = tuple({environment_name(row.name.partition(".")[0]) + "_" for row in SETTINGS})
    for variable in environment:
        if variable not in known and variable.startswith(rooms):
            name = variable.removeprefix("P2PLEARN_").lower().replace("_", ".", 1)
            raise UsageProblem(f"The environment variable {variable} sets nothing.", _nearest(name))


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.0)
    return f"Did you mean {near[0]!r}? `p2plearn config show` lists them all."


def _read_toml(file: Path) -> dict[str, object]:
    """The file as dotted names; empty when there is none. Raises UsageProblem."""
    import tomllib

    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageProblem(f"{file} is not valid TOML: {problem}.") from None
    except OSError as problem:
        raise UsageProblem(f"{file} can't be read: {problem.strerror}.") from None
    flat: dict[str, object] = {}
    pending: list[tuple[str, Mapping[str, object]]] = [("", tree)]
    while pending:
        prefix, table = pending.pop()
        for key, value in table.items():
            if isinstance(value, dict) and prefix + key not in _BY_NAME:
                pending.append((f"{prefix}{key}.", value))
            else:
                flat[prefix + key] = value
    return flat


# ---------------------------------------------------------------------------------------------------------------------
# The home.


@dataclass(frozen=True, slots=True)
class Home:
    """Where each thing of one node is kept. Making one touches nothing; ``prepare`` does."""

    path: Path

    @property
    def config(self) -> Path:
        """The user's settings; ours to read only."""
        return self.path / "config.toml"

    @property
    def bootstrap(self) -> Path:
        """The user's own bootstrap nodes; ours to read only."""
        return self.path / "bootstrap_nodes.toml"

    @property
    def keys(self) -> Path:
        """The folder of the keys, 0700."""
        return self.path / "keys"

    @property
    def peer_key(self) -> Path:
        """What this node is known by on the network."""
        return self.keys / "peer.key"

    @property
    def author_key(self) -> Path:
        """What this person signs courses with; worth a backup."""
        return self.keys / "author.key"

    @property
    def network_key(self) -> Path:
        """The invite of the closed group that this home is in; none in the open network."""
        return self.keys / "network.key"

    @property
    def network_tag(self) -> Path:
        """Which group it is, so that a lost key doesn't make an open node of it."""
        return self.path / "network"

    @property
    def lock(self) -> Path:
        """Held while a node runs; names its process."""
        return self.path / "node.lock"

    @property
    def socket(self) -> Path:
        """The local API."""
        return self.path / "api.sock"

    @property
    def log(self) -> Path:
        """What a background node has to say."""
        return self.path / "node.log"

    @property
    def peers(self) -> Path:
        """Good peers, remembered across restarts."""
        return self.path / "peers.json"

    @property
    def traffic(self) -> Path:
        """How much was moved, by day, and whether the node is paused."""
        return self.path / "traffic.json"

    @property
    def absences(self) -> Path:
        """Who that keeps copies has been away for how long, and what was lost."""
        return self.path / "absences.json"

    @property
    def store(self) -> Path:
        """Courses: their bytes and the catalogue."""
        return self.path / "store"

    @property
    def rebuilding(self) -> Path:
        """There while the store's catalogue is built anew, which takes as long as reading every course."""
        return self.store / "catalogue.sqlite.p2plearn-new"

    @property
    def people(self) -> Path:
        """What people said: catalogue, ratings, discussions."""
        return self.path / "people.sqlite"

    def named(self) -> dict[str, Path]:
        """Every path under the name ``p2plearn paths`` gives it."""
        return {
            "home": self.path, "config": self.config, "bootstrap": self.bootstrap, "peer_key": self.peer_key,
            "author_key": self.author_key, "network_key": self.network_key, "store": self.store,
            "people": self.people, "peers": self.peers, "traffic": self.traffic,
            "absences": self.absences,
            "socket": self.socket, "lock": self.lock, "log": self.log,
        }  # fmt: skip

    def _is_ours(self) -> bool:
        """Whether the folder is empty, or a home already (or prepared to be one: its settings are there)."""
        names = set(os.listdir(self.path))
        return not names or bool(names & {"keys", "store", "node.lock", "config.toml", "bootstrap_nodes.toml"})

    def prepare(self) -> None:
        """Make the home, readable by its owner alone; raises Refused when it can't be made private.

        An existing folder of ours is tightened to 0700: it is about to hold keys. Somebody else's folder, a shared
        one like /tmp, and the user's whole home directory are refused instead.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.path.stat()
        except FileExistsError:
            raise Refused(f"{self.path} is a file, not a folder.", "Choose another home with --home DIR.") from None
        except OSError as problem:
            raise Refused(
                f"The home {self.path} can't be made: {problem.strerror}.", "Choose another with --home DIR."
            ) from None
        mode = stat.S_IMODE(facts.st_mode)
        if facts.st_uid != os.getuid() or mode & stat.S_ISVTX or self.path.resolve() == Path.home().resolve():
            raise Refused(
                f"{self.path} can't be a home of p2plearn: it is not a folder of its own of this user.",
                "Choose another with --home DIR.",
            )
        if mode & 0o077 and not self._is_ours():
            raise Refused(
                f"{self.path} has other things in it and is open to others; a home is private to its node.",
                "Choose a folder of its own with --home DIR.",
            )
        if mode & 0o077:
            self.path.chmod(0o700)


def choose_home(flag: str | os.PathLike[str] | None, environment: Mapping[str, str] | None = None) -> tuple[Path, str]:
    """The home as an absolute path and where it came from: ``--home``, ``P2PLEARN_HOME``, else the usual place."""
    environment = os.environ if environment is None else environment
    if flag:
        return Path(os.path.abspath(os.path.expanduser(flag))), "--home"  # as written: symlinks stay
    if environment.get("P2PLEARN_HOME"):
        return Path(os.path.abspath(os.path.expanduser(environment["P2PLEARN_HOME"]))), "P2PLEARN_HOME"
    import platformdirs

    return Path(platformdirs.user_data_dir("p2plearn", appauthor=False)), "default"


def spell(value: Value, kind: Kind) -> str:
    """A value as a person would write it in ``config.toml``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value) if value else "(empty)"
    if kind == "size" and isinstance(value, int):
        for unit, factor in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
            if value and value % factor == 0:
                return f"{value // factor} {unit}"
        return f"{value} B"
    if kind == "seconds":
        return f"{value:g} s"
    return str(value)
