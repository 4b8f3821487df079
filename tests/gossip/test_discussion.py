"""Discussions: who may do what, and the same picture whatever the order in which things were heard."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from p2plearn.gossip import envelope as env
from p2plearn.gossip.discussion import MAX_DEPTH, Item, threads
from p2plearn.gossip.envelope import Envelope
from tests.gossip.people import NOW, person, question, reply

teacher, ada, bob = person("teacher"), person("ada"), person("bob")


def shown(envelopes: list[Envelope], **more: object) -> list[Item]:
    return threads(envelopes, course_author=teacher.key, **more)  # type: ignore[arg-type]


def test_a_question_its_answers_and_the_one_that_helped() -> None:
    asked = ada.says(question("How do loops end?", "lesson/1.md"), time=NOW)
    first, second = bob.says(reply(asked, "No idea"), time=NOW + 1), teacher.says(reply(asked, "break"), time=NOW + 2)
    thanks = ada.says(reply(second, "Thanks", "comment"), time=NOW + 3)
    accepted = ada.says(env.Accept(second.id, asked.id), time=NOW + 4)
    (thread,) = shown([thanks, accepted, second, first, asked])
    assert (thread.text, thread.path) == ("How do loops end?", "lesson/1.md")
    assert [(one.text, one.accepted) for one in thread.replies] == [("break", True), ("No idea", False)]
    assert [one.text for one in thread.replies[0].replies] == ["Thanks"]
    undone = ada.says(env.Accept(None, asked.id), time=NOW + 5)
    (thread,) = shown([asked, first, second, accepted, undone])
    assert not any(one.accepted for one in thread.replies)


def test_only_the_right_person_may() -> None:
    asked, answered = ada.says(question(), time=NOW), None
    answered = bob.says(reply(asked), time=NOW + 1)
    said = [
        asked, answered, bob.says(env.Accept(answered.id, asked.id)), bob.says(env.Edit(asked.id, "mine now")),
        bob.says(env.Withdraw(asked.id, None)), bob.says(env.Moderate("hide", asked.id, "no")),
    ]  # fmt: skip
    (thread,) = shown(said)
    assert (thread.text, thread.edited, thread.hidden, thread.replies[0].accepted) == ("Why?", 0, "", False)


def test_edits_and_withdrawals() -> None:
    asked = ada.says(question("Wy?"), time=NOW)
    answered = bob.says(reply(asked), time=NOW + 1)
    edits = [ada.says(env.Edit(asked.id, "Why??"), time=NOW + 9), ada.says(env.Edit(asked.id, "Why?"), time=NOW + 2)]
    (thread,) = shown([edits[1], asked, edits[0], answered])
    assert (thread.text, thread.edited) == ("Why?", NOW + 2)  # the higher number counts, not the later clock
    withdrawn = ada.says(env.Withdraw(asked.id, None), time=NOW + 10)
    for said in ([asked, *edits, answered, withdrawn], [answered, withdrawn], [withdrawn, edits[0], answered]):
        (thread,) = shown(said)
        assert (thread.text, thread.hidden) == ("", "withdrawn")
        assert [one.text for one in thread.replies] == ["Because."]


def test_the_courses_author_hides_and_pins() -> None:
    posts = [ada.says(question(f"Question {n}"), time=NOW + n) for n in range(3)]
    hide, pin = (
        teacher.says(env.Moderate("hide", posts[2].id, "spam")),
        teacher.says(env.Moderate("pin", posts[0].id, "")),
    )
    got = shown([*posts, hide, pin])
    assert [(one.text, one.pinned, one.hidden) for one in got] == [
        ("Question 0", True, ""), ("Question 2", False, "spam"), ("Question 1", False, ""),
    ]  # fmt: skip
    got = shown([*posts, hide, pin, teacher.says(env.Moderate("clear", posts[2].id, ""))])
    assert {one.hidden for one in got} == {""}


def test_muted_authors_and_the_best_first() -> None:
    quiet, answered, loud = (who.says(question(), time=NOW + n) for n, who in enumerate((ada, bob, teacher)))
    trusted = person("tess").says(reply(quiet), time=NOW)  # lest two be equally new
    got = shown([quiet, answered, loud, trusted], muted=frozenset({bob.key}))
    assert [one.hidden for one in got] == ["", "muted", ""]
    got = shown([quiet, answered, loud, trusted], order="best", trusted={person("tess").key: 1.0})
    assert got[0].id == quiet.id


def test_long_chains_are_shown_beside_each_other() -> None:
    said = [ada.says(question(), time=NOW)]
    for n in range(MAX_DEPTH * 3):
        said.append(bob.says(reply(said[-1], f"{n}", "comment"), time=NOW + n + 1))
    random.Random(5).shuffle(said)
    (thread,) = shown(said)
    seen, depth, pending = 0, 0, [(thread, 0)]
    while pending:
        item, level = pending.pop()
        seen, depth = seen + 1, max(depth, level)
        pending += [(one, level + 1) for one in item.replies]
    assert seen == len(said)
    assert depth <= MAX_DEPTH


@given(st.randoms(), st.integers(0, 30))
def test_the_order_of_arrival_means_nothing(rng: random.Random, number: int) -> None:
    said: list[Envelope] = []
    people = [teacher, ada, bob]
    for n in range(number):
        who, to = rng.choice(people), rng.choice(said) if said else None
        body: env.Body
        choice = rng.randrange(6)
        if to is None or choice == 0:
            body = question(f"{n}")
        elif choice in (1, 2):
            body = reply(to, f"{n}", rng.choice(["answer", "comment"]))
        elif choice == 3:
            body = env.Edit(to.id, f"edit {n}")
        elif choice == 4:
            body = env.Withdraw(to.id, None)
        else:
            body = env.Moderate(rng.choice(env.ACTIONS), to.id, "")
        said.append(who.says(body, time=NOW + rng.randrange(5)))
    expected = shown(said)
    rng.shuffle(said)
    assert shown(said) == expected
