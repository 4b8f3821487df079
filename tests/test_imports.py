"""Imports run one way, outside in, late ones included; pure rooms stay pure.

Read from the source with ``ast``, so that nothing has to be imported and an import inside a function counts too.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SPEC = importlib.util.find_spec("p2plearn")
assert SPEC is not None
assert SPEC.origin is not None
ROOT = Path(SPEC.origin).parent

BASE = frozenset(
    {
        "errors",
        "operations",
        "config",
        "identity",
        "lock",
        "local_socket",
        "log",
        "named_file",
        "private_files",
        "state_file",
    }
)
"""Small modules that everyone may use; among them as the table says."""

MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "operations": frozenset({"errors"}),
    "local_socket": frozenset(),
    "named_file": frozenset(),
    "local_http": frozenset({"local_socket"}),
    "config": frozenset({"errors"}),
    "identity": frozenset({"errors", "private_files"}),
    "private_files": frozenset({"errors", "named_file"}),
    "state_file": frozenset(),
    "invite": frozenset({"errors"}),
    "membership": frozenset({"config", "errors", "invite", "lock", "private_files"}),
    "units": frozenset(),
    "clock": frozenset(),
    "processes": frozenset(),
    # Looks at this machine and knocks at others' doors; the node itself never needs it.
    "doctor": BASE | {"client", "clock", "membership", "net", "processes", "units"},
    "lock": frozenset({"errors", "named_file"}),
    "late": frozenset(),
    "leftovers": frozenset({"config"}),
    "log": frozenset({"config", "errors"}),
    "database": frozenset({"errors"}),
    "course": frozenset({"errors"}),
    "store": BASE | {"course", "database"},
    "net": BASE | {"course"},
    "transfer": BASE | {"course", "store", "net"},
    "dht": BASE | {"course", "store", "net", "transfer"},
    "gossip": BASE | {"clock", "course", "database", "store", "net", "transfer", "people"},
    "people": frozenset(),
    "planning": frozenset({"config"}),
    "archive": BASE | {"course", "store", "gossip"},
    "archive_service": BASE | {"archive", "course", "store", "gossip", "telling"},
    "web": BASE | {"course", "store", "transfer", "people", "monitoring"},
    # Figures and signs of life: what is measured is handed in.
    "monitoring": frozenset(),
    "progress": frozenset(),
    "telling": frozenset({"operations", "progress"}),
    "network": BASE | {"net", "transfer", "dht"},
    "replication": frozenset({"dht", "net", "store"}),
    "custody_service": BASE | {"store", "net", "dht", "replication"},
    "supervision": frozenset(),
    "listening": BASE | {"net", "web"},
    "home_watch": frozenset({"errors", "lock"}),
    "mending": BASE | {"course", "store", "transfer"},
    "memory": frozenset(),
    "collecting": frozenset(),
    "getting": BASE
    | {"memory", "course", "store", "transfer", "network", "progress", "telling", "gossip", "custody_service"},
    "service": BASE
    | {
        "clock",
        "getting",
        "archive_service",
        "invite",
        "supervision",
        "mending",
        "course",
        "store",
        "transfer",
        "network",
        "progress",
        "telling",
        "gossip",
        "custody_service",
    },
    "node": BASE
    | {
        "memory",
        "collecting",
        "invite",
        "leftovers",
        "membership",
        "supervision",
        "custody_service",
        "replication",
        "course",
        "store",
        "net",
        "transfer",
        "dht",
        "gossip",
        "web",
        "network",
        "service",
        "monitoring",
        "listening",
        "home_watch",
    },
    "terminal": frozenset({"operations", "errors"}),
    "views": frozenset({"operations", "terminal"}),
    "status_words": frozenset({"terminal", "views"}),
    # Commands by subject, assembled by cli. They start a node in `node start`, and read course names with the room
    # that knows them.
    "commands": BASE - {"identity"}
    | {
        "client",
        "clock",
        "doctor",
        "background",
        "late",
        "collecting",
        "terminal",
        "status_words",
        "views",
        "demo",
        "course",
        "node",
        "listening",
        "people",
        "planning",
        "units",
        "invite",
        "membership",
    },
    "client": BASE - {"identity", "log"} | {"local_http", "processes"},
    "background": BASE - {"identity", "log"} | {"client", "processes"},
    "demo": frozenset({"background", "client", "terminal", "errors", "operations", "config"}),
    "cli": frozenset({"commands", "errors", "operations", "terminal"}),
    "__main__": frozenset({"cli", "collecting"}),
    "": frozenset(),
}
"""What each room (a folder, or a module at the top) may import of the others; its own modules always."""

PURE = (
    "course/*.py",
    "archive/car.py",
    "archive/dagcbor.py",
    "archive/layout.py",
    "dht/schedule.py",
    "dht/region.py",
    "dht/custody.py",
    "dht/duty.py",
    "dht/liveness.py",
    "dht/handoff.py",
    "dht/ledger.py",
    "dht/standing.py",
    "dht/watch.py",
    "dht/messages.py",
    "dht/receipts.py",
    "gossip/admission.py",
    "gossip/allowance.py",
    "gossip/bodies.py",
    "gossip/envelope.py",
    "gossip/likeness.py",
    "gossip/meetings.py",
    "gossip/ratings.py",
    "gossip/renewal.py",
    "gossip/discussion.py",
    "gossip/reconcile.py",
    "gossip/turns.py",
    "gossip/unwanted.py",
    "gossip/words.py",
    "transfer/owing.py",
    "transfer/patience.py",
    "transfer/places.py",
    "transfer/reliance.py",
    "doctor/facts.py",
    "doctor/judge.py",
    "doctor/reach.py",
    "doctor/redact.py",
    "monitoring/exposition.py",
    "monitoring/metrics.py",
    "net/candidates.py",
    "net/limits.py",
    "net/rates.py",
    "net/standing.py",
    "net/threshold.py",
    "planning/*.py",
    "net/reach/judge.py",
    "net/reach/lending.py",
    "net/reach/natpmp.py",
    "net/reach/upnp.py",
    "net/reach/wire.py",
    "transfer/protocol.py",
    "progress.py",
    "units.py",
    "transfer/manners.py",
    "transfer/order.py",
    "transfer/scheduler.py",
    "transfer/tally.py",
    "web/answers.py",
    "web/openapi.py",
    "web/schema.py",
)
IMPURE = frozenset(
    {"trio", "libp2p", "sqlite3", "os", "time", "random", "socket", "subprocess", "threading", "secrets"}
)
"""What a sans-IO module must not import: it gets its clock and its random numbers handed in."""

LIBP2P_ROOMS = frozenset({"net", "dht", "gossip", "transfer", "network", "node"})
QUICK = BASE - {"identity"} | {
    "cli", "client", "background", "terminal", "views", "status_words", "demo", "commands", "people", "units",
    "invite", "membership", "__main__", "collecting",
}  # fmt: skip
HEAVY = frozenset({"trio", "libp2p", "cryptography", "h11", "multiaddr", "sqlite3", "msgpack", "rich"})


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def room(module: Path) -> str:
    """The folder of a module, or its own name at the top ("" for the package itself)."""
    return module.parts[0] if len(module.parts) > 1 else module.stem.replace("__init__", "")


@cache
def imports(module: Path) -> list[tuple[str, bool]]:
    """Full names that a module imports, and whether at import time; those for type checkers alone don't count."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return list(_imports(tree, top=True))


def _imports(node: ast.AST, *, top: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            # `from p2plearn import config` and `from p2plearn.web import schema` name modules, too.
            yield from ((f"{child.module}.{alias.name}", top) for alias in child.names)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, top=top and not inside)


def rooms_imported(module: Path) -> set[str]:
    names = (name.split(".") for name, _ in imports(module))
    found = {parts[1] for parts in names if parts[0] == "p2plearn" and len(parts) > 1}
    return {name for name in found if not name.startswith("__")}  # p2plearn.__version__


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_run_outside_in(module: Path) -> None:
    mine = room(module)
    assert mine in MAY_IMPORT, f"the room {mine!r} has no row in MAY_IMPORT"
    assert rooms_imported(module) - {mine} <= MAY_IMPORT[mine]


def test_no_circle_can_be_made_of_what_is_allowed() -> None:
    left = dict(MAY_IMPORT)
    while left:
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_no_circle_between_modules() -> None:
    edges: dict[str, set[str]] = {}
    names = {".".join(("p2plearn", *module.with_suffix("").parts)).removesuffix(".__init__") for module in modules()}
    for module in modules():
        mine = ".".join(("p2plearn", *module.with_suffix("").parts)).removesuffix(".__init__")
        reached = {name for name, top in imports(module) if top}
        edges[mine] = {n for n in ({r if r in names else r.rpartition(".")[0] for r in reached}) if n in names} - {mine}
        edges[mine] -= {"p2plearn"}
    while edges:
        free = {name for name, needs in edges.items() if not needs & set(edges)}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: needs for name, needs in edges.items() if name not in free}


@pytest.mark.parametrize("module", sorted({p for pattern in PURE for p in ROOT.glob(pattern)}), ids=lambda p: p.name)
def test_pure_rooms_do_no_io(module: Path) -> None:
    tops = {name.partition(".")[0] for name, _ in imports(module.relative_to(ROOT))}
    assert not tops & IMPURE


@pytest.mark.parametrize("module", modules(), ids=str)
def test_libp2p_stays_in_its_rooms_and_the_command_line_stays_light(module: Path) -> None:
    tops = {name.partition(".")[0] for name, _ in imports(module)}
    if "libp2p" in tops:
        assert room(module) in LIBP2P_ROOMS
    if room(module) in QUICK:
        assert not {name.partition(".")[0] for name, top in imports(module) if top} & HEAVY
        assert not tops & (HEAVY - {"rich"})
