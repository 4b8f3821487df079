"""Commands in hints name the home that was given, and only those that are for this machine do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2plearn.commands.doctor import _tell
from p2plearn.commands.pasting import with_home
from p2plearn.commands.scope import Scope
from p2plearn.doctor.judge import Finding

HOME = Path("/srv/my home")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Stop it: p2plearn node stop", "Stop it: p2plearn --home '/srv/my home' node stop"),
        (
            "Make room (p2plearn list, p2plearn remove HASH).",
            "Make room (p2plearn --home '/srv/my home' list, p2plearn --home '/srv/my home' remove HASH).",
        ),
        ("`p2plearn gc --dry-run` says", "`p2plearn --home '/srv/my home' gc --dry-run` says"),
        ("Write:\n  p2plearn get ab", "Write:\n  p2plearn --home '/srv/my home' get ab"),
    ],
)
def test_a_command_for_this_machine_names_the_home(text: str, said: str) -> None:
    assert with_home(text, HOME) == said
    assert with_home(said, HOME) == said
    assert with_home(text, None) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Elsewhere: p2plearn join TEXT",
        "Share it: p2plearn get 'p2plearn:ab'",
        "Try: p2plearn list --help",
        "`p2plearn node status` over there says which.",
        "Over there, `p2plearn node status` shows its addresses of now: copy a fresh one.",
        "Try an address that its `p2plearn node status` shows.",
        "Paste the text that `p2plearn invite` printed.",
        "A file that `p2plearn export` wrote.",
        "Use another home: p2plearn --home DIR join INVITE",
        "p2plearn: some of it is damaged; this p2plearn reads up to 3; see /opt/p2plearn list",
        "`p2plearn plan` and p2plearn demo need no home.",
    ],
)
def test_what_is_for_others_or_names_a_home_or_is_no_command_stays(text: str) -> None:
    assert with_home(text, HOME) == text


@pytest.mark.parametrize("as_json", [True, False])
def test_what_the_doctor_proposes_is_for_the_home_it_looked_at(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    paused = Finding("pause", "note", "The node is paused.", "p2plearn node resume")
    _tell(Scope(home_option=str(HOME), as_json=as_json), [paused], {}, None)
    out = capsys.readouterr().out
    todo = json.loads(out)["findings"][0]["todo"] if as_json else out.splitlines()[-1].strip()
    assert todo == "p2plearn --home '/srv/my home' node resume"
