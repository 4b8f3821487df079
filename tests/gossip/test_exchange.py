"""Two records over the wire format: equal at the end, whatever each had; and peers that don't play by the rules."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.errors import PeerFault
from p2plearn.gossip import envelope as env
from p2plearn.gossip import turns
from p2plearn.gossip.envelope import CATALOGUE, Envelope
from p2plearn.gossip.exchange import IDLE_ENVELOPES, Exchange
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.turns import Turn, decode, encode
from tests.gossip.people import COURSE, NOW, person, question, reply

FEEDS = (CATALOGUE, COURSE)
Make = Callable[[], Feed]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    opened: list[Feed] = []

    def open_one() -> Feed:
        opened.append(Feed(tmp_path / f"feed-{len(opened)}.sqlite"))
        return opened[-1]

    yield open_one
    for feed in opened:
        feed.close()


def end(feed: Feed, follows: tuple[bytes, ...] = FEEDS) -> Exchange:
    return Exchange(feed, follows, lambda: NOW + 100, lambda _: False)


def converse(one: Exchange, other: Exchange, first: Turn) -> tuple[int, int]:
    """Turns and bytes until both are silent, over the real encoding."""
    turn, count, size = first, 0, 0
    while True:
        more = False
        for side in (other, one):
            raw = encode(turn)
            count, size = count + 1, size + len(raw)
            more = turn.more
            turn = side.take(decode(raw[4:]))
            assert count < 5_000
        if turn.empty and not more:
            return count, size


def fill(feed: Feed, said: list[Envelope]) -> None:
    taken = feed.take([one.raw for one in said], FEEDS, NOW + 100)
    assert not taken.faults


def conversation(seed: int, number: int) -> list[Envelope]:
    """Everything that people do, replaced and withdrawn things included."""
    rng = random.Random(seed)
    said: list[Envelope] = []
    for n in range(number):
        who = person(f"{rng.randrange(6)}")
        time = NOW + rng.randrange(50)
        posts = [one for one in said if isinstance(one.content.body, env.Post)]
        choice = rng.randrange(9)
        if choice < 3 or not posts:
            said.append(who.says(question(f"question {n}"), time=time))
        elif choice < 5:
            said.append(who.says(reply(rng.choice(posts), f"reply {n}"), time=time))
        elif choice == 5:
            said.append(who.says(env.Rating("", rng.randrange(6)), time=time))
        else:
            to = rng.choice(posts)
            author = next(p for p in map(person, map(str, range(6))) if p.key == to.content.author)
            body = env.Withdraw(to.id, None) if choice == 6 else env.Edit(to.id, f"edit {n}")
            said.append(
                author.says(body, time=time) if choice < 8 else who.says(env.Profile("", f"name {n}"), time=time)
            )
    return said


@pytest.mark.parametrize("seed", range(8))
def test_both_end_with_the_same_whatever_came_to_whom_in_which_order(make: Make, seed: int) -> None:
    rng = random.Random(seed)
    said = conversation(seed, 120)
    records = [make(), make(), make()]
    for record in records:
        part = [one for one in said if rng.random() < 0.6]
        rng.shuffle(part)
        fill(record, part + part[:20])  # some of it twice
    for _ in range(3):  # replaced ones that came late may need another round
        for one, other in ((0, 1), (1, 2), (2, 0)):
            mine = end(records[one])
            converse(mine, end(records[other]), mine.begin(FEEDS))
    digests = {tuple(record.digest(feed) for feed in FEEDS) for record in records}
    assert len(digests) == 1
    last = end(records[0])
    count, _ = converse(last, end(records[1]), last.begin(FEEDS))
    assert count == 2  # nothing left to say


def test_a_month_of_posts_in_one_exchange(make: Make) -> None:
    full, empty = make(), make()
    fill(full, [person(f"{n % 7}").says(question(f"q{n} " + "x" * 400), time=NOW - n) for n in range(1_500)])
    newcomer = end(empty)
    converse(newcomer, end(full), newcomer.begin(FEEDS))
    assert empty.digest(COURSE) == full.digest(COURSE)
    assert len(newcomer.counts.new) == 1_500
    assert newcomer.counts.dropped["known"] == 0


def test_a_hint_brings_what_is_new_and_nothing_else(make: Make) -> None:
    one, other = make(), make()
    fresh = [person("ada").says(question(f"{n}"), time=NOW + n) for n in range(5)]
    fill(one, fresh)
    fill(other, fresh[:2])
    mine, theirs = end(one), end(other)
    converse(mine, theirs, mine.hint({COURSE: [each.id for each in fresh]}))
    assert one.digest(COURSE) == other.digest(COURSE)
    assert mine.counts.sent == 3


def test_a_feed_that_is_not_followed_is_neither_told_nor_taken(make: Make) -> None:
    one, other = make(), make()
    fill(one, [person("ada").says(question()), person("ada").says(env.Rating("", 4))])
    mine, theirs = end(one), end(other, (CATALOGUE,))
    converse(mine, theirs, mine.begin(FEEDS))
    assert other.digest(COURSE)[0] == 0
    assert other.digest(CATALOGUE)[0] == 1
    mine = end(one, (CATALOGUE,))
    (post,) = (key[8:] for key in one.keys(COURSE))
    assert mine.take(Turn(want=[post])).envelopes == []


def test_what_is_asked_for_and_is_not_here_ends_the_exchange_all_the_same(make: Make) -> None:
    mine = end(make())
    assert mine.take(Turn(want=[hashlib.sha256(b"%d" % n).digest() for n in range(2048)])).empty
    theirs = end(make())
    told = Turn(have={COURSE: [hashlib.sha256(b"x").digest()]})
    assert theirs.take(told).want
    assert theirs.take(told).empty  # asked once, not each time


def test_a_bad_envelope_is_the_peers_fault_and_good_ones_beside_it_are_kept(make: Make) -> None:
    record = make()
    good = person("ada").says(question())
    unsigned = bytes(64) + person("ada").says(question("other")).raw[64:]
    with pytest.raises(PeerFault, match="signature"):
        end(record).take(Turn(envelopes=[unsigned, good.raw]))
    assert record.digest(COURSE)[0] == 1


def test_replaying_is_the_peers_fault_in_the_end(make: Make) -> None:
    record, good = make(), person("ada").says(question())
    mine = end(record)

    def replay() -> None:
        for _ in range(IDLE_ENVELOPES // 500 + 2):
            mine.take(Turn(envelopes=[good.raw] * 500))

    with pytest.raises(PeerFault, match="no use"):
        replay()
    assert record.digest(COURSE)[0] == 1


@settings(max_examples=300)
@given(st.binary(max_size=500))
def test_any_bytes_are_a_turn_or_the_peers_fault(raw: bytes) -> None:
    try:
        turn = decode(raw)
    except PeerFault:
        return
    assert decode(encode(turn)[4:]) == turn


def test_limits_of_a_turn() -> None:
    ids = [hashlib.sha256(b"%d" % n).digest() for n in range(turns.MAX_IDS)]
    assert decode(encode(Turn(want=ids))[4:]).want == ids
    for off in (Turn(want=[*ids, ids[0]]), Turn(want=[b"x"]), Turn(have={b"feed": ids[:1]})):
        with pytest.raises(PeerFault):
            decode(encode(off)[4:])
