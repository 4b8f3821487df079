"""Hostile people by name: what they say to a record, and what it comes to for one honest reader.

Each function plays one adversary against ``Stage`` and returns figures; tests hold them against the bounds that the
README states, ``benchmarks/adversaries.py`` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from p2plearn.course.manifest import SignedManifest
from p2plearn.course.text import tidy_text
from p2plearn.gossip import envelope as env
from p2plearn.gossip import figures
from p2plearn.gossip.envelope import CATALOGUE, Envelope
from p2plearn.gossip.feed import Feed
from p2plearn.gossip.ratings import sway
from p2plearn.gossip.reading import Reading, fingerprint
from p2plearn.people import SearchRequest
from tests.gossip.people import NOW, person


@dataclass
class Stage:
    """A reader who trusts a friend, and two courses of which the friend likes one."""

    folder: Path
    feed: Feed = field(init=False)
    reading: Reading = field(init=False)
    good: SignedManifest = field(init=False)
    bad: SignedManifest = field(init=False)

    def __enter__(self) -> Stage:
        self.feed = Feed(self.folder / "people.sqlite")
        self.reading = Reading(self.feed, person("me").key, lambda _: None)
        ada, friend = person("ada"), person("friend")
        self.good, self.bad = ada.course("Good loops"), ada.course("Bad loops")
        self.hear(
            ada.announces(self.good), ada.announces(self.bad), friend.says(env.Rating("", 5), self.good.course),
            friend.says(env.Rating("", 1), self.bad.course), friend.says(env.Profile("", "Ada Lovelace")),
        )  # fmt: skip
        with self.feed.writing() as db:
            db.execute("INSERT INTO trusted VALUES (?, 0, 0)", (friend.key,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.feed.close()

    def hear(self, *said: Envelope) -> None:
        taken = self.feed.take([one.raw for one in said], (CATALOGUE,), NOW + 1000)
        assert not taken.faults

    def worth(self, course: SignedManifest) -> tuple[dict[str, Any], dict[str, Any], float]:
        """Trusted figure, everyone's, and the score that orders search results."""
        weights = self.reading.weights()
        with self.feed.reading() as db:
            trusted, everyone, score = figures.scored(db, [course.course], weights)
        return figures.figure_json(trusted), figures.figure_json(everyone), score

    def order(self) -> list[str]:
        return [row["title"] for row in self.reading.search(SearchRequest("loops", order="rating"))]


def the_sybil_crowd(stage: Stage, number: int) -> dict[str, Any]:
    """``number`` identities nobody knows rate the bad course up and the good one down."""
    before = stage.worth(stage.good), stage.worth(stage.bad)
    order = stage.order()
    crowd = [person(f"sybil {n}") for n in range(number)]
    stage.hear(*(one.says(env.Rating("", 5), stage.bad.course) for one in crowd))
    stage.hear(*(one.says(env.Rating("", 1), stage.good.course) for one in crowd))
    after = stage.worth(stage.good), stage.worth(stage.bad)
    return {
        "identities": number,
        "trusted_moved": sum(old[0] != new[0] for old, new in zip(before, after, strict=True)),
        "everyone_counts": after[1][1]["count"],
        "order_moved_by": max(abs(old[2] - new[2]) for old, new in zip(before, after, strict=True)),
        "bound": sway(),
        "same_order": stage.order() == order,
    }


def the_duped_friend(stage: Stage, number: int) -> dict[str, Any]:
    """The trusted friend is talked into vouching for ``number`` identities of one adversary."""
    friend, crowd = person("friend"), [person(f"dupe {n}") for n in range(number)]
    stage.hear(*(friend.says(env.Trust(one.key, True)) for one in crowd))
    weights = stage.reading.weights()
    return {
        "identities": number,
        "weight_of_all": sum(weights.get(one.key, 0.0) for one in crowd),
        "of_the_friend": 1.0,
    }


LOOKALIKES = (
    "ＡＤＡ  lovelace", "Ada Lovelacé", "Adа Lovelаcе", "Αda Lovelace", "Ada\u200bLovelace", "ada-lovelace",
    "\U0001d400da Lovelace", "Ada Lovelace (FINGERPRINT)", "Ada Lovelace [the real one]",
)  # fmt: skip
"""The trusted name in full width, with an accent, Cyrillic letters, a Greek one, an invisible one, a hyphen, a bold
capital of mathematics, with the trusted key's own fingerprint, with words in brackets."""


def the_impostor(stage: Stage) -> dict[str, Any]:
    """Somebody takes the name of a trusted person, in letters that look the same."""
    eves = [person(f"eve {n}") for n in range(len(LOOKALIKES))]
    for eve, name in zip(eves, LOOKALIKES, strict=True):
        written = name.replace("FINGERPRINT", fingerprint(person("friend").key))
        stage.hear(eve.says(env.Profile("", tidy_text(written))))
    honest = person("another ada")
    stage.hear(honest.says(env.Profile("", "Ada Byron")))
    shown = stage.reading.people([*(eve.key for eve in eves), honest.key, person("friend").key])
    return {
        "names": len(LOOKALIKES),
        "marked": sum(shown[eve.key]["impostor"] for eve in eves),
        "honest_marked": int(shown[honest.key]["impostor"]) + int(shown[person("friend").key]["impostor"]),
    }
