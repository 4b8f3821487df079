"""The home: one folder with everything of one node.

Imports ``errors``; ``platformdirs`` late.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2plearn.errors import Refused


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
    def providers(self) -> Path:
        """Who provides what, as others told this node: kept across restarts."""
        return self.path / "providers.json"

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
            "absences": self.absences, "providers": self.providers,
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
