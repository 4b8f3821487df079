"""Which nodes to call first: read from files and flags, every mistake named with its place.

``bootstrap_nodes.toml`` (the shipped one and the user's own in the home) holds any number, also none, of::

    [[node]]
    address = "/dns4/node.example.org/tcp/4017/p2p/12D3KooW…"
    name = "a word for people"     # optional
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from p2plearn.errors import UsageProblem
from p2plearn.net.addresses import read_peer

SHIPPED = next((f for each in Path(__file__).parents[1:3] if (f := each / "bootstrap_nodes.toml").is_file()), None)
"""The list that comes with p2plearn: in the package once installed, at the top of a source tree."""

MAX_NODES = 256
"""Entries read from one file: nobody writes more by hand, and each is dialled."""

_HINT = 'An entry is: [[node]] / address = "/ip4/192.0.2.7/tcp/4017/p2p/12D3KooW…" / name = "optional".'


@dataclass(frozen=True, slots=True)
class BootstrapNode:
    """One node to call first, and where it was named (for messages)."""

    peer: PeerInfo
    name: str
    source: str


def lists(own: Path) -> list[Path]:
    """The shipped list, if there is one, and a home's ``own``."""
    return [own] if SHIPPED is None else [SHIPPED, own]


def read_file(path: Path) -> list[BootstrapNode]:
    """The nodes of one file, empty if it doesn't exist; raises UsageProblem naming file, entry and what is wrong."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageProblem(f"{path} can't be read: {error}.", "") from None
    return decode(raw, path)


def decode(raw: bytes, path: Path) -> list[BootstrapNode]:
    """The nodes that the bytes of a file name, which came from ``path``; raises UsageProblem as ``read_file`` does."""
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} can't be read: {error}.", "") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the second: [[[[…
        raise UsageProblem(f"{path} is no valid TOML: {error}.", _HINT) from None
    unknown = sorted(set(document) - {"node"})
    if unknown:
        raise UsageProblem(f"{path} has “{unknown[0]}”, which means nothing here.", _HINT)
    entries = document.get("node", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageProblem(f"{path}: “node” must be a list of tables, written [[node]].", _HINT)
    if len(entries) > MAX_NODES:
        raise UsageProblem(f"{path} names {len(entries)} nodes; {MAX_NODES} are the most.", "")
    return [_read_entry(entry, f"{path}, node {number}", path) for number, entry in enumerate(entries, 1)]


def _read_entry(entry: dict[str, Any], where: str, path: Path) -> BootstrapNode:
    unknown = sorted(set(entry) - {"address", "name"})
    if unknown:
        raise UsageProblem(f"{where} has “{unknown[0]}”, which means nothing here.", _HINT)
    address = entry.get("address")
    if not isinstance(address, str) or not address:
        raise UsageProblem(f"{where} has no address.", _HINT)
    name = entry.get("name", "")
    if not isinstance(name, str):
        raise UsageProblem(f"{where}: its name is no text.", _HINT)
    return BootstrapNode(read_peer(address, where), name, str(path))


def read_addresses(addresses: Iterable[str], source: str) -> list[BootstrapNode]:
    """The nodes of a flag or a setting (``source`` names it); raises UsageProblem."""
    return [BootstrapNode(read_peer(address, source), "", source) for address in addresses]


def gather(files: Sequence[Path], addresses: Iterable[str] = (), source: str = "--bootstrap") -> list[BootstrapNode]:
    """All nodes of ``files`` and ``addresses``, one for each peer with all of its addresses, flags first.

    Raises UsageProblem for the first mistake.
    """
    found: dict[ID, BootstrapNode] = {}
    for node in [*read_addresses(addresses, source), *(n for path in files for n in read_file(path))]:
        known = found.get(node.peer.peer_id)
        if known is None:
            found[node.peer.peer_id] = node
            continue
        merged = list(dict.fromkeys([*known.peer.addrs, *node.peer.addrs]))
        found[node.peer.peer_id] = BootstrapNode(
            PeerInfo(node.peer.peer_id, merged), known.name or node.name, known.source
        )
    return list(found.values())
