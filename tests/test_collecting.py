"""When garbage is looked for; each case in a process of its own, for that can't be taken back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MADE_BEFORE_AND_AFTER = """
import gc, json, weakref
from p2plearn import collecting

class Knot:
    def __init__(self):
        self.me = self

def knot():
    made = Knot()
    return weakref.ref(made)

collecting.put_off()
off = gc.isenabled()
before = knot()
collecting.begin(tidy={tidy})
after = knot()
on = gc.isenabled()
gc.collect()
print(json.dumps([off, on, before() is None, after() is None, gc.get_freeze_count() > 1000]))
"""

A_COMMAND = """
import gc, json, sys
from p2plearn.commands import assembly, scope
seen = []
real = scope.click.Command.invoke
def invoke(self, ctx):
    seen.append([gc.isenabled(), gc.get_freeze_count() > 1000])
    return real(self, ctx)
scope.click.Command.invoke = invoke
sys.argv = ["p2plearn", "config", "show"]
from p2plearn.__main__ import start
start()
print(json.dumps(seen[-1]), file=sys.stderr)
"""


def said(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)


@pytest.mark.parametrize("tidy", [False, True])
def test_what_is_here_is_left_alone_and_what_comes_is_looked_through(tidy: bool) -> None:
    off, on, before_gone, after_gone, frozen = json.loads(said(MADE_BEFORE_AND_AFTER.format(tidy=tidy)).stdout)
    assert not off
    assert on
    assert before_gone is tidy
    assert after_gone
    assert frozen


def test_a_command_runs_with_the_collector_on_and_its_modules_out_of_its_sight() -> None:
    on, frozen = json.loads(said(A_COMMAND).stderr.splitlines()[-1])
    assert on
    assert frozen
