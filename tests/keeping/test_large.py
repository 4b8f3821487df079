"""A course of three segments: each is a unit of its own, with receipts, repair and a place on the way out.

Moves some gigabytes: only with ``P2PLEARN_LARGE=1``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2plearn.dht.custody import SEGMENT
from p2plearn.dht.receipts import decode_receipt
from tests.keeping.network import eventually, network, row
from tests.travel.course_folders import made_file

SIZE = 2 * SEGMENT + SEGMENT // 3


@pytest.mark.skipif(not os.environ.get("P2PLEARN_LARGE"), reason="moves gigabytes; P2PLEARN_LARGE=1 runs it")
@pytest.mark.timeout(1800)
def test_each_segment_of_a_large_course_is_kept_repaired_and_handed_over(tmp_path: Path) -> None:
    env = {"P2PLEARN_STORAGE_GIVE": "2 GiB", "P2PLEARN_CUSTODY_GRACE": "20"}
    with network(tmp_path, 4, **env) as nodes:
        teacher = nodes[1]
        published = teacher.run("publish", made_file(tmp_path / "large.bin", SIZE), "--copies", "2", timeout=400)
        course = published["course"]
        eventually(lambda: row(teacher, course)["copies"] == 2, nodes, 400)
        held = [row(node, course).get("have_bytes", 0) for node in nodes]
        assert sum(held) >= 2 * SIZE
        for node in nodes:
            assert int(node.run("node", "status")["custody"]["given"]) <= 2 << 30
        # One that keeps some of it goes without a word: the others bring every segment back.
        victim = next(node for node in nodes if node not in nodes[:2] and row(node, course).get("have_bytes"))
        victim.kill()
        eventually(lambda: row(teacher, course)["copies"] == 1, nodes, 120)
        eventually(lambda: row(teacher, course)["copies"] == 2, nodes, 400)
        victim.start()
        left = teacher.run("node", "leave", "--deadline", "500", timeout=600)
        teacher.stop()
        assert left["unplaced"] == []
        assert sorted(each["segment"] for each in left["placed"]) == [0, 1, 2]
        for each in left["placed"]:
            receipts = [decode_receipt(bytes.fromhex(one["receipt"])) for one in each["receipts"]]
            assert len({receipt.node for receipt in receipts}) == 2
            assert all(receipt.holds and receipt.unit.segment == each["segment"] for receipt in receipts)
        others = [node for node in nodes if node is not teacher]
        assert sum(row(node, course).get("have_bytes", 0) for node in others) >= 2 * SIZE
        others[0].run("get", course, "-o", tmp_path / "out", timeout=400)
        assert (tmp_path / "out" / "large.bin").stat().st_size == SIZE
        for node in others:
            assert node.run("verify", course, timeout=400)["damaged"] == []
