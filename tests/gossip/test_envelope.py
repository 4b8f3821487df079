"""Envelopes: what was said is what comes back, and nothing but what was rightly said and signed comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course.text import tidy_text
from p2plearn.errors import PeerFault, UsageProblem
from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import CATALOGUE, SIGNED_PREFIX, Content, open_envelope, seal
from tests.gossip.people import COURSE, NOW, Person, person

ids = st.binary(min_size=32, max_size=32).filter(any)
texts = st.text(min_size=1, max_size=300).map(tidy_text).filter(bool)
bodies = st.one_of(
    st.builds(env.Rating, review=texts, stars=st.integers(1, 5)),
    st.just(env.Rating("", 0)),
    st.builds(env.Post, path=st.sampled_from(["", "a/b.md", "课程/一"]), reply=ids, role=st.just("answer"), text=texts),
    st.builds(env.Post, path=st.just(""), reply=st.none(), role=st.just("question"), text=texts),
    st.builds(env.Edit, post=ids, text=texts),
    st.builds(env.Withdraw, post=ids, reply=st.none() | ids),
    st.builds(env.Accept, answer=st.none() | ids, question=ids),
    st.builds(env.Moderate, action=st.sampled_from(env.ACTIONS), post=ids, reason=st.just("off topic")),
    st.builds(env.Profile, about=st.just(""), name=st.sampled_from(["Ada", "王芳"])),
    st.builds(env.Trust, subject=ids, trusted=st.booleans()),
    st.builds(
        env.Label, label=st.sampled_from(env.LABELS), reason=st.just(""), subject=ids,
        target=st.sampled_from(env.TARGETS),
    ),
)  # fmt: skip


@given(body=bodies, seq=st.integers(1, env.MAX_SEQ), time=st.integers(env.EARLIEST, NOW))
def test_what_was_said_comes_back(body: env.Body, seq: int, time: int) -> None:
    sent = person("ada").says(body, time=time, seq=seq)
    back = open_envelope(sent.raw)
    assert back == sent
    assert back.id == hashlib.sha256(sent.raw).digest()
    assert back.key == time.to_bytes(8, "big") + back.id


def test_a_catalogue_entry_carries_a_manifest_that_holds() -> None:
    ada, bob = person("ada"), person("bob")
    signed = ada.course("Programming")
    entry = bob.announces(signed)  # whoever has it may announce it
    assert open_envelope(entry.raw) == entry
    with pytest.raises(PeerFault):  # but only as what it is
        open_envelope(ada.says(env.Entry(1, signed.raw, signed.signature), COURSE).raw)
    with pytest.raises(PeerFault):
        open_envelope(ada.says(env.Entry(1, signed.raw, bytes(64)), signed.course).raw)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_an_envelope_or_the_peers_fault(raw: bytes) -> None:
    with pytest.raises(PeerFault):
        open_envelope(raw)


@settings(max_examples=300)
@given(body=bodies, where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(body: env.Body, where: int, bit: int) -> None:
    raw = bytearray(person("ada").says(body).raw)
    raw[where % len(raw)] ^= 1 << bit
    with pytest.raises(PeerFault):
        open_envelope(bytes(raw))


def _signed(person_: Person, content: dict[str, Any]) -> bytes:
    packed = msgpack.packb(content, use_bin_type=True)
    return person_.private.sign(SIGNED_PREFIX + packed) + packed


def _fields(person_: Person, **other: Any) -> dict[str, Any]:
    fields = {
        "author": person_.key, "body": {"review": "", "stars": 5}, "course": COURSE, "kind": "rating", "seq": 1,
        "time": NOW, "v": 1,
    }  # fmt: skip
    return fields | other


@pytest.mark.parametrize(
    "other",
    [
        {"v": 2}, {"v": True}, {"kind": "vote"}, {"kind": 3}, {"seq": 0}, {"seq": True}, {"seq": -1}, {"seq": 2**60},
        {"time": 0}, {"time": 2**50}, {"author": b"x"}, {"course": b""}, {"course": CATALOGUE}, {"body": {}},
        {"body": {"review": "", "stars": 6}}, {"body": {"review": "", "stars": True}},
        {"body": {"review": "x", "stars": 0}}, {"body": {"review": "a\x1b[31m", "stars": 1}},
        {"body": {"review": "e\u0301", "stars": 1}}, {"body": {"review": "x" * 2001, "stars": 1}},
        {"body": {"review": "", "stars": 5, "more": 1}}, {"body": [1]}, {"more": 1},
        {"kind": "post", "body": {"path": "../x", "reply": None, "role": "question", "text": "x"}},
        {"kind": "post", "body": {"path": "", "reply": None, "role": "answer", "text": "x"}},
        {"kind": "post", "body": {"path": "", "reply": bytes(32), "role": "question", "text": "x"}},
        {"kind": "post", "body": {"path": "", "reply": None, "role": "question", "text": " \n"}},
        {"kind": "profile", "body": {"about": "", "name": "x"}},
        {"kind": "profile", "course": CATALOGUE, "body": {"about": "", "name": "a\nb"}},
        {"kind": "moderate", "body": {"action": "delete", "post": bytes(32), "reason": ""}},
    ],
)  # fmt: skip
def test_a_signature_excuses_no_broken_rule(other: dict[str, Any]) -> None:
    ada = person("ada")
    with pytest.raises(PeerFault):
        open_envelope(_signed(ada, _fields(ada, **other)))


def test_the_vectors() -> None:
    told = json.loads((Path(__file__).parents[1] / "vectors" / "envelopes.json").read_text(encoding="utf-8"))
    for each in told["good"]:
        opened = open_envelope(bytes.fromhex(each["bytes"]))
        assert opened.id.hex() == each["id"]
        assert (opened.content.kind, opened.content.time, opened.content.seq) == (
            each["kind"],
            each["time"],
            each["seq"],
        )
        assert (opened.content.author.hex(), opened.content.course.hex()) == (each["author"], each["course"])
        slot = opened.content.slot
        assert (None if slot is None else slot.hex()) == each["slot"]
    assert {each["kind"] for each in told["good"]} == set(env.KINDS)
    for each in told["bad"]:
        with pytest.raises(PeerFault):
            open_envelope(bytes.fromhex(each["bytes"]))


def test_one_spelling_only() -> None:
    ada = person("ada")
    assert open_envelope(_signed(ada, _fields(ada)))
    shuffled = dict(reversed(_fields(ada).items()))
    long_form = msgpack.packb(_fields(ada), use_bin_type=True).replace(b"\xa3seq\x01", b"\xa3seq\xcd\x00\x01")
    for packed in (msgpack.packb(shuffled, use_bin_type=True), long_form):
        with pytest.raises(PeerFault):
            open_envelope(ada.private.sign(SIGNED_PREFIX + packed) + packed)
    with pytest.raises(PeerFault):
        open_envelope(_signed(ada, _fields(ada)) + b"\xc0")


def test_a_signature_for_something_else_is_none_here() -> None:
    ada = person("ada")
    packed = msgpack.packb(_fields(ada), use_bin_type=True)
    for prefix in (b"", b"p2plearn manifest v1\n"):
        with pytest.raises(PeerFault):
            open_envelope(ada.private.sign(prefix + packed) + packed)
    with pytest.raises(PeerFault):  # somebody else's signature
        open_envelope(person("eve").private.sign(SIGNED_PREFIX + packed) + packed)


def test_nobody_vouches_for_themselves() -> None:
    with pytest.raises(UsageProblem):
        person("ada").says(env.Trust(person("ada").key, True))


def test_too_long_is_told_to_who_typed_it() -> None:
    with pytest.raises(UsageProblem, match="8,000"):
        person("ada").says(env.Post("", None, "question", "x" * 8001))
    with pytest.raises(UsageProblem, match="16384"):
        person("ada").says(env.Post("", None, "question", "𒀀" * 8000))


def test_a_key_that_is_not_the_authors_is_our_bug() -> None:
    content = Content(person("ada").key, env.Rating("", 5), COURSE, 1, NOW)
    with pytest.raises(ValueError, match="author"):
        seal(content, person("eve").private.sign)


def test_slots_tell_apart_what_must_not_replace_each_other() -> None:
    ada, bob = person("ada"), person("bob")
    other = hashlib.sha256(b"other").digest()
    said = [
        ada.says(env.Rating("", 5)), bob.says(env.Rating("", 5)), ada.says(env.Rating("", 5), other),
        ada.says(env.Edit(other, "x")), ada.says(env.Withdraw(other, None)), ada.says(env.Moderate("hide", other, "")),
        ada.says(env.Trust(other, True)), ada.says(env.Profile("", "Ada")), ada.says(env.Accept(None, other)),
        ada.says(env.Label("deny", "", other, "course")), ada.says(env.Label("deny", "", other, "author")),
    ]  # fmt: skip
    slots = [envelope.content.slot for envelope in said]
    assert None not in slots
    assert len(set(slots)) == len(slots)
    assert ada.says(env.Rating("", 1)).content.slot == slots[0]


def test_numbers_go_up_whatever_the_clock_does() -> None:
    assert env.next_seq(0, 5_000) == 5_000
    assert env.next_seq(5_000, 4_000) == 5_001


def test_contents_are_values() -> None:
    one = person("ada").says(env.Rating("", 3), seq=4)
    assert dataclasses.replace(one.content, seq=5) != one.content


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("good \x1b[2J\x1b]0;title\x07 course", "good  course"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[1;31mred\x1b[0m\x1b(B\r\nand 好\x1b", "red\nand 好"),
        ("a [31m that was typed", "a [31m that was typed"),
    ],
)
def test_terminal_codes_go_as_a_whole(typed: str, said: str) -> None:
    assert tidy_text(typed) == said
