"""One heap for every thread, in a process of its own: what the C library is told can't be taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, json, sys, threading
from p2plearn import memory
took = memory.keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
places = []
thread = threading.Thread(target=lambda: places.append(libc.malloc(1 << 20)))
thread.start()
thread.join()
memory.give_back()
heap = [line.split()[0].split("-") for line in open("/proc/self/maps") if line.endswith("[heap]\\n")]
print(json.dumps([took, any(int(a, 16) <= places[0] < int(b, 16) for a, b in heap)]))
"""


def said(**more: str) -> list[bool]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | more
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, stdout=subprocess.PIPE, check=True, text=True)
    answer: list[bool] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells where the heap is")
def test_a_buffer_that_a_thread_makes_lies_in_the_one_heap() -> None:
    took, inside = said()
    if not took:
        pytest.skip("this C library has no such settings")
    assert inside


def test_what_the_environment_says_stays() -> None:
    assert said(MALLOC_ARENA_MAX="4")[0] is False
