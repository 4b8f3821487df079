"""What hostile people gain, held against what the README promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2plearn.gossip.ratings import DECAY
from tests.adversary import identities


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[identities.Stage]:
    with identities.Stage(tmp_path) as stage:
        yield stage


def test_a_sybil_crowd_moves_the_trusted_figure_by_nothing(stage: identities.Stage) -> None:
    came = identities.the_sybil_crowd(stage, 1_000)
    assert came["trusted_moved"] == 0
    assert came["everyone_counts"] == 1_001  # the other figure shows them, and says so
    assert 0 < came["order_moved_by"] <= came["bound"] < 0.37
    assert came["same_order"]


def test_a_duped_friend_gives_away_half_a_vote_at_most(stage: identities.Stage) -> None:
    assert identities.the_duped_friend(stage, 1_000)["weight_of_all"] <= DECAY + 1e-9


def test_impostors_of_a_trusted_name_are_marked_and_nobody_else(stage: identities.Stage) -> None:
    came = identities.the_impostor(stage)
    assert came["marked"] == came["names"]
    assert came["honest_marked"] == 0
