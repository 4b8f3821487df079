"""Digests in order and twice: the same as by sorting and counting all of them."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.course.digests import each, in_order, repeated

alike = st.sampled_from([bytes([first, last]).rjust(32, b"\5") for first in (0, 7) for last in range(4)])
some_digests = st.lists(alike | st.binary(min_size=32, max_size=32), max_size=40)


@given(some_digests)
def test_each(digests: list[bytes]) -> None:
    assert list(each(b"".join(digests))) == digests


@given(some_digests, st.data())
def test_in_order(digests: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(digests)
    assert list(in_order(raw)) == sorted((digest, slot) for slot, digest in enumerate(digests))
    slots = data.draw(st.lists(st.sampled_from(range(len(digests))), unique=True)) if digests else []
    assert list(in_order(raw, slots)) == sorted((digests[slot], slot) for slot in slots)


@given(some_digests)
def test_repeated(digests: list[bytes]) -> None:
    expected: dict[bytes, list[int]] = defaultdict(list)
    for slot, digest in enumerate(digests):
        expected[digest].append(slot)
    found = {digests[group[0]]: group for group in repeated(b"".join(digests))}
    assert found == {digest: slots for digest, slots in expected.items() if len(slots) > 1}
