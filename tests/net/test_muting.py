"""libp2p's log lines stay out of a terminal; ours, and everybody else's, do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys
from p2plearn.net.muting import mute_libp2p
mute_libp2p(debug={debug})
mute_libp2p(debug={debug})
from libp2p.network.connection import swarm_connection
swarm_connection.logging.warning("nobody listens yet")
assert not logging.getLogger().handlers
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="- %(message)s")
swarm_connection.logging.warning("through the root")
logging.getLogger("libp2p.network.swarm").error("seven lines")
logging.getLogger("libp2p.network.auto_connector").warning("state")
logging.getLogger("p2plearn.net").warning("ours")
"""


@pytest.mark.parametrize("debug", [False, True])
def test_libp2p_is_heard_only_when_debugging_and_we_always(debug: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(debug=debug)], capture_output=True, text=True, timeout=30, check=True
    )
    libp2p = ["through the root", "seven lines", "state"] if debug else []
    # All of it by the one formatter: what isn't JSON among JSON, or what isn't escaped, would be somebody else's line.
    assert done.stderr.split("\n")[:-1] == [f"- {line}" for line in (*libp2p, "ours")]
