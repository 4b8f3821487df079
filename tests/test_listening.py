"""Addresses among the settings: a wrong one is told with file and key, by who shows them and by who starts a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2plearn.cli import main
from p2plearn.config import Settings
from p2plearn.errors import UsageProblem
from p2plearn.listening import check_addresses


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("P2PLEARN_"):
            monkeypatch.delenv(name)


WRONG = [
    ('network.announce = ["foo"]', "network.announce", "“foo” is no address of a node."),
    ('network.announce = ["/ip4/0.0.0.0/tcp/0"]', "network.announce", "can be dialled over TCP."),
    ('network.listen = ["/dns4/a/tcp/1"]', "network.listen", "“/dns4/a/tcp/1” is no address to listen on."),
    ('network.bootstrap = ["/ip4/192.0.2.7/tcp/4017"]', "network.bootstrap", "does not end with /p2p/ and a peer id."),
    ('metrics.listen = "9417x"', "metrics.listen", "“9417x” is no address and port."),
    ('metrics.listen = "70000"', "metrics.listen", "“70000” is no address and port."),
]


@pytest.mark.parametrize(("toml", "key", "words"), WRONG)
@pytest.mark.parametrize("command", [("config", "show"), ("node", "start")])
def test_a_wrong_address_is_refused_before_a_node_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], toml: str, key: str, words: str
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(toml)
    assert main(["--home", str(home), *command]) == 2
    err = capsys.readouterr().err
    assert f"p2plearn: {key} in {home}/config.toml: " in err
    assert words in err
    assert not (home / "keys").exists()


@pytest.mark.parametrize(
    ("toml", "flags", "variables", "how"),
    [
        ('network.listen = ["x"]', {}, {}, 'listen = ["/ip4/0.0.0.0/tcp/4017"] under [network] ('),
        ("", {"network.listen": ("x",)}, {}, "--listen /ip4/0.0.0.0/tcp/4017 ("),
        ("", {}, {"P2PLEARN_NETWORK_LISTEN": "x"}, "P2PLEARN_NETWORK_LISTEN=/ip4/0.0.0.0/tcp/4017 ("),
    ],
)
def test_an_address_is_asked_for_in_the_form_of_the_place_where_it_stands(
    tmp_path: Path, toml: str, flags: dict[str, object], variables: dict[str, str], how: str
) -> None:
    (tmp_path / "config.toml").write_text(toml)
    with pytest.raises(UsageProblem) as caught:
        check_addresses(Settings.load(tmp_path, flags, variables))
    assert how in caught.value.hint


def test_what_is_right_passes_and_an_option_is_named_as_such(tmp_path: Path) -> None:
    right = {
        "network.announce": ["/dns4/courses.example.org/tcp/443/wss"], "network.listen": ["/ip4/127.0.0.1/tcp/0/ws"],
        "metrics.listen": "[::1]:9417",
    }  # fmt: skip
    check_addresses(Settings.load(tmp_path, right, {}))
    check_addresses(Settings.load(tmp_path, {}, {}))
    with pytest.raises(UsageProblem, match=r"^--listen: “x” is no address"):
        check_addresses(Settings.load(tmp_path, {"network.listen": ("x",)}, {}))
