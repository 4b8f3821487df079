"""What is loaded late is whole when it is used, and a node's start doesn't use it."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_module_is_loaded_at_its_first_use_and_then_whole() -> None:
    code = """
import sys
from p2plearn.late import load_late
load_late(["dns.asyncresolver", "wave", "there.is.none", "none"])
assert "dns.message" not in sys.modules
import dns.asyncresolver, wave
print(dns.asyncresolver.Resolver.__name__, wave.open.__name__, "dns.message" in sys.modules)
"""
    assert run(code) == "Resolver open True"


def test_a_node_imports_them_without_using_them() -> None:
    code = """
import sys
from p2plearn.late import UNUSED, load_late
load_late()
import p2plearn.node
print([name for name in ("requests.sessions", "httpx._client") if name in sys.modules])
import requests, httpx
print(requests.Session.__name__, httpx.Client.__name__)
"""
    assert run(code).splitlines() == ["[]", "Session Client"]
