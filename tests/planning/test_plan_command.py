"""`p2plearn plan` as people type it: words, JSON, and mistakes answered in words. No node runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2plearn.cli import main
from p2plearn.commands.plan import percent


class Plan:
    """Runs `plan` for a home of its own."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys

    def __call__(self, words: str) -> tuple[int, str, str]:
        code = main(["--home", str(self.home), "plan", *words.split()])
        out, err = self.capsys.readouterr()
        return code, out, err

    def facts(self, words: str) -> dict[str, Any]:
        code, out, err = self(words + " --json")
        assert code == 0, err
        return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    return Plan(tmp_path / "home", capsys)


def test_it_says_what_to_expect_and_what_to_ask_for_and_makes_no_home(plan: Plan) -> None:
    code, out, err = plan("--nodes 20 --leave-rate 5%/day --copies 3")
    assert (code, err) == (0, "")
    assert "with a chance of 3.19 %" in out
    assert "Ask for 5 copies" in out
    assert "10.5 %" in out  # half vanish at once
    assert not plan.home.exists()


def test_json_has_the_same_in_figures(plan: Plan) -> None:
    facts = plan.facts("--nodes 20 --leave-rate 0.05 --copies 3 --courses 100 --period 30d --goal 1%")
    assert facts["schema"] == 1
    assert facts["question"]["window"] == 12 * 3600 + 30 + 600
    assert facts["asked"]["copies"] == 3
    assert facts["asked"]["expected_lost"] == pytest.approx(100 * facts["asked"]["loss"])
    assert facts["enough"] == 3
    assert [row["copies"] for row in facts["rows"]] == list(range(1, 9))
    assert facts["rows"][2] == facts["asked"]
    assert facts["nodes_at_end"] == 20


def test_a_bare_number_above_one_is_most_likely_percent_and_is_asked_about(plan: Plan) -> None:
    code, out, err = plan("--nodes 9 --leave-rate 5")
    assert (code, out) == (2, "")
    assert "Did you mean '5%/day'?" in err
    assert plan("--nodes 9 --leave-rate 5/year")[0] == 0  # a node that lasts ten weeks


@pytest.mark.parametrize("rate", ["7%/week", "1%/day", "0.01", "0.01 a day", "365%/year", "0.07 per week", "1 % / d"])
def test_rates_are_written_in_many_ways(plan: Plan, rate: str) -> None:
    code = main(["--home", str(plan.home), "plan", "--json", "--nodes", "9", "--leave-rate", rate])
    facts = json.loads(plan.capsys.readouterr().out)
    assert code == 0
    assert facts["question"]["leave_rate"] == pytest.approx(0.01 / 86400)


def test_each_option_has_its_effect(plan: Plan) -> None:
    base = plan.facts("--nodes 50 --leave-rate 2%/day")
    for words in (
        "--graceful 50%", "--grace 1h", "--period 8weeks", "--copies 4", "--repair-time 1s"
    ):  # fmt: skip
        assert plan.facts(f"--nodes 50 --leave-rate 2%/day {words}")["asked"]["loss"] < base["asked"]["loss"], words
    asleep = plan.facts("--nodes 50 --leave-rate 2%/day --online 1/3".replace("1/3", "0.333"))
    assert asleep["asked"]["loss"] > base["asked"]["loss"]
    assert asleep["asked"]["reachable"] < 1.0
    assert plan.facts("--nodes 50 --leave-rate 2%/day --mass-loss 10%")["asked"]["mass_loss"] < 0.002
    assert (
        plan.facts("--nodes 50 --leave-rate 2%/day --course-size 1GiB --courses 100")["asked"]["disk_bytes"] == 6 << 30
    )
    (plan.home).mkdir()
    (plan.home / "config.toml").write_text('[custody]\ngrace = "1h"\n')
    assert plan.facts("--nodes 50 --leave-rate 2%/day")["question"]["grace"] == 3600


def test_a_network_that_shrinks_or_cannot_be_helped_is_said_to(plan: Plan) -> None:
    _, out, _ = plan("--nodes 50 --leave-rate 2%/day --join-rate 0")
    assert "More leave than come: no nodes are left" in out
    assert "with a chance of 100 %" in out
    assert "Ask for" not in out
    _, out, _ = plan("--nodes 4 --leave-rate 50%/day")
    assert "No number of copies" in out
    _, out, _ = plan("--nodes 4 --leave-rate 0 --goal 0")
    assert "none of them ever leaving" in out
    assert "No course is expected to be lost within" in out
    assert "meets the goal" in out
    assert "(0)" not in out
    _, out, _ = plan("--nodes 10000000 --leave-rate 1%/year --copies 32")
    assert "32 copies" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nodes 20", "--leave-rate is missing"),
        ("--nodes 0 --leave-rate 1%", "a whole number from 1 to 10,000,000"),
        ("--nodes many --leave-rate 1%", "--nodes takes a whole number"),
        ("--nodes 20 --leave-rate quickly", "'quickly' is no rate"),
        ("--nodes 20 --leave-rate -1%", "no rate"),
        ("--nodes 20 --leave-rate 1%/fortnight", "'fortnight' is no span of time"),
        ("--nodes 2 --leave-rate 1% --copies 3", "2 nodes can't keep 3 copies"),
        ("--nodes 99 --leave-rate 1% --copies 33", "a whole number from 1 to 32"),
        ("--nodes 9 --leave-rate 1% --online 0", "'0' is too little"),
        ("--nodes 9 --leave-rate 1% --graceful 150%", "'150%' is no share"),
        ("--nodes 9 --leave-rate 1% --graceful nan", "'nan' is no share"),
        ("--nodes 9 --leave-rate 1% --period 1.2.3y", "'1.2.3y' is no length of time"),
        ("--nodes 9 --leave-rate 1% --grace soon", "'soon' is no length of time"),
        ("--nodes 9 --leave-rate 1% --course-size big", "'big' is no size"),
        ("--nodes 9 --leave-rate 1% --courses 0", "--courses takes a whole number"),
    ],
)
def test_mistakes_are_refused_in_words(plan: Plan, words: str, said: str) -> None:
    code, out, err = plan(words)
    assert (code, out) == (2, "")
    assert said in err
    code, out, _ = plan(words + " --json")
    assert code == 2
    assert json.loads(out)["event"] == "error"


def test_of_one_node_no_more_is_asked_than_it_can_keep(plan: Plan) -> None:
    assert plan.facts("--nodes 1 --leave-rate 1%/day")["question"]["copies"] == 1
    assert "1 node can't keep 3 copies" in plan("--nodes 1 --leave-rate 1%/day --copies 3")[2]


def test_an_only_copy_that_is_gone_is_not_copied_again(plan: Plan) -> None:
    only, two = plan.facts("--nodes 20 --leave-rate 5%/day")["rows"][:2]
    assert only["repair_bytes_per_day"] == 0.0
    assert two["repair_bytes_per_day"] > 0.0
    only, two = plan.facts("--nodes 20 --leave-rate 5%/day --graceful 50%")["rows"][:2]
    # Half of those that leave hand it over; of two copies the other is there to copy from.
    assert only["repair_bytes_per_day"] == pytest.approx(two["repair_bytes_per_day"] / 4)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "0"), (1.0, "100 %"), (0.99999, "100 %"), (0.1053, "10.5 %"), (0.00036, "0.036 %"),
        (1 / 34_567, "1 in 35,000"), (1e-5, "1 in 100,000"), (1e-30, "under 1 in 10^15"),
    ],
)  # fmt: skip
def test_chances_in_words(share: float, words: str) -> None:
    assert percent(share) == words
