"""⊙ A node's status as families of Prometheus: stable names, base units (seconds, bytes), the prefix ``p2plearn_``.

Numbers only: no title, peer, address or hash is among the labels, so that whoever reads them learns nothing of what is
kept here. What a status doesn't have (another version's) gives no sample, never a made-up nought.

Imports ``exposition``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from p2plearn.monitoring.exposition import Family, Kind, Sample


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What the kernel says of a process: bytes, seconds, counts. None: it can't be told on this system."""

    cpu_seconds: float
    resident_bytes: int | None = None
    virtual_bytes: int | None = None
    open_files: int | None = None
    most_files: int | None = None
    started: float | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One family of one sample: ``path`` is where its number is in the status; ``of`` makes it of what is there."""

    name: str
    kind: Kind
    help: str
    path: str
    of: Callable[[Any], float] | None = None


def _missing_copies(rows: Iterable[Mapping[str, Any]]) -> int:
    return sum(max(0, int(row["copies_wanted"]) - int(row["copies"])) for row in rows)


ROWS: Final[tuple[_Row, ...]] = (
    _Row("p2plearn_peers", "gauge", "Peers that this node is connected to.", "peers"),
    _Row("p2plearn_known_peers", "gauge", "Peers in the routing table of the DHT.", "dht.peers"),
    _Row("p2plearn_lan_peers", "gauge", "Peers heard by multicast on the local network.", "lan.heard"),
    _Row("p2plearn_unreachable_peers", "gauge", "Peers whose last call failed.", "unreachable", len),
    _Row("p2plearn_banned_peers", "gauge", "Peers that are banned at this moment.", "banned", len),
    _Row("p2plearn_peer_faults_total", "counter", "Faults counted against peers.", "faults"),
    _Row("p2plearn_courses", "gauge", "Courses kept here, whole or in part.", "courses"),
    _Row("p2plearn_courses_below_target", "gauge", "Courses that have fewer verified copies than asked for.",
         "custody.under_replicated", len),
    _Row("p2plearn_copies_below_target", "gauge", "Copies that are missing of all those courses together.",
         "custody.under_replicated", _missing_copies),
    _Row("p2plearn_courses_lost", "gauge", "Courses published here of which bytes are missing here.",
         "custody.lost", len),
    _Row("p2plearn_custody_units", "gauge", "Courses, or segments of large ones, that this node keeps with others.",
         "custody.units"),
    _Row("p2plearn_repairs_running", "gauge", "Copies being made at this moment.", "custody.repairing"),
    _Row("p2plearn_given_bytes", "gauge", "Room taken by courses of others.", "custody.given"),
    _Row("p2plearn_give_limit_bytes", "gauge", "Room given to courses of others at most.", "custody.give"),
    _Row("p2plearn_store_bytes", "gauge", "Bytes of courses in the store.", "storage.bytes"),
    _Row("p2plearn_store_quota_bytes", "gauge", "Bytes the store may hold at most, where a quota is set.",
         "storage.quota"),
    _Row("p2plearn_disk_free_bytes", "gauge", "Free bytes on the disk of the store.", "storage.free_disk"),
    _Row("p2plearn_disk_min_free_bytes", "gauge", "Free bytes that are always left on that disk.", "storage.min_free"),
    _Row("p2plearn_provide_announced_courses", "gauge", "Courses that peers confirmed to name this node for.",
         "dht.announced"),
    _Row("p2plearn_provide_waiting_courses", "gauge", "Courses that no peer has confirmed yet.", "dht.waiting"),
    _Row("p2plearn_provide_late_courses", "gauge", "Courses that should have been told again minutes ago.",
         "dht.late"),
    _Row("p2plearn_provide_lateness_seconds", "gauge", "How long the most overdue course is overdue to be told.",
         "dht.lateness"),
    _Row("p2plearn_provide_tellings_total", "counter", "Times a course was told to peers that took it.",
         "dht.tellings"),
    _Row("p2plearn_sync_lag_seconds", "gauge",
         "Since what people say was last compared with a peer to the end; since the start before the first time.",
         "people.lag"),
    _Row("p2plearn_sync_exchanges_total", "counter", "Exchanges of what people say.", "people.exchanges"),
    _Row("p2plearn_sync_records_received_total", "counter", "Records that were new here.", "people.received"),
    _Row("p2plearn_sync_records_sent_total", "counter", "Records given to peers.", "people.sent"),
    _Row("p2plearn_catalogue_entries", "gauge", "Entries of the catalogue that is searched.", "people.catalogue"),
    _Row("p2plearn_serving_streams", "gauge", "Courses being served at this moment.", "serving.streams"),
    _Row("p2plearn_chunks_served_total", "counter", "Chunks given to peers.", "serving.chunks"),
    _Row("p2plearn_served_bytes_total", "counter", "Bytes of chunks given to peers.", "serving.sent"),
    _Row("p2plearn_gets_running", "gauge", "Courses being fetched at this moment.", "fetching", len),
    _Row("p2plearn_paused", "gauge", "1 while nothing is served or fetched, by the user's wish.", "paused"),
    _Row("p2plearn_metered", "gauge", "1 on a line that is paid by volume.", "power.metered"),
    _Row("p2plearn_on_battery", "gauge", "1 while the machine runs on battery.", "power.on_battery"),
    _Row("p2plearn_relayed_bytes_total", "counter",
         "Bytes moved beyond the LAN since the start for nodes that this one relays for, in and out.",
         "moved.wan_relayed"),
    _Row("p2plearn_cap_left_bytes", "gauge", "What is left of the monthly cap, where one is set.", "limits.cap_left"),
)  # fmt: skip
"""Every family of one sample. Names and meanings stay; what goes out of use is left out, not given another meaning."""


def families(status: Mapping[str, Any], process: ProcessFacts, version: str) -> list[Family]:
    """All families of a node whose ``NodeOperations.status`` is ``status``."""
    found = [Family("p2plearn_build_info", "gauge", "1, with the version.", (Sample(1, {"version": version}),))]
    for row in ROWS:
        value = _at(status, row.path)
        samples = () if value is None else (Sample(row.of(value) if row.of else value),)
        found.append(Family(row.name, row.kind, row.help, samples))
    found.append(
        Family(
            "p2plearn_course_bytes_total", "counter",
            "Bytes moved as courses since the start, by direction and network (lan: this machine and its networks).",
            tuple(
                Sample(value, {"network": network, "direction": direction})
                for network in ("lan", "wan")
                for direction in ("sent", "received")
                if (value := _at(status, f"moved.{network}_{direction}")) is not None
            ),
        )
    )  # fmt: skip
    found.append(
        Family(
            "p2plearn_sync_bytes_total", "counter", "Bytes of exchanges of what people say, by direction.",
            tuple(
                Sample(value, {"direction": direction})
                for name, direction in (("bytes_out", "sent"), ("bytes_in", "received"))
                if (value := _at(status, f"people.{name}")) is not None
            ),
        )
    )  # fmt: skip
    dropped = _at(status, "people.dropped") or {}
    found.append(
        Family(
            "p2plearn_sync_records_dropped_total", "counter", "Records of peers that were not taken, by reason.",
            tuple(Sample(value, {"reason": reason}) for reason, value in dropped.items()),
        )
    )  # fmt: skip
    return found + _process(process)


def _at(status: Mapping[str, Any], path: str) -> Any:
    """What is at ``a.b`` of the status; None where there is nothing."""
    value: Any = status
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _process(facts: ProcessFacts) -> list[Family]:
    """The families that every Prometheus client library has of its process, under the same names."""
    rows: tuple[tuple[str, Kind, str, float | None], ...] = (
        ("process_cpu_seconds_total", "counter", "CPU time, user and system.", facts.cpu_seconds),
        ("process_resident_memory_bytes", "gauge", "Memory held.", facts.resident_bytes),
        ("process_virtual_memory_bytes", "gauge", "Address space.", facts.virtual_bytes),
        ("process_open_fds", "gauge", "Open file descriptors.", facts.open_files),
        ("process_max_fds", "gauge", "File descriptors that may be open.", facts.most_files),
        ("process_start_time_seconds", "gauge", "When the process was started, since 1970.", facts.started),
    )
    return [Family(name, kind, words, () if value is None else (Sample(value),)) for name, kind, words, value in rows]
