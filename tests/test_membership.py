"""Which network a home belongs to, and that it never slips into another."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from pocket_node import PocketNode, running

from p2plearn import node
from p2plearn.cli import main
from p2plearn.config import Home, Settings
from p2plearn.errors import P2plearnError, Refused
from p2plearn.invite import Invite, format_invite
from p2plearn.lock import NodeLock
from p2plearn.membership import group_of, join, new_group
from p2plearn.net import bootstrap

PEER = "/ip4/192.0.2.7/tcp/4017/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
OTHER = "/ip4/192.0.2.8/tcp/4017/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def use(home: Home) -> None:
    """Leave what a node leaves that ran here."""
    home.prepare()
    home.store.mkdir(exist_ok=True)
    home.peers.write_text("{}", "utf-8")
    home.providers.write_text("{}", "utf-8")


class Grouped(PocketNode):
    """A node of a group, at ``places``."""

    tag = ""
    places: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/4017",)
    standing = "unknown"

    async def status(self) -> dict[str, Any]:
        addresses = [place + PEER[PEER.index("/p2p/") :] for place in self.places]
        reach = {"standing": self.standing}
        return {**await super().status(), "group_tag": self.tag, "addresses": addresses, "reach": reach}


def test_an_invite_that_leads_to_this_machine_alone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    join(Home(tmp_path / "home"), group := new_group("School"), replace=False)
    with running(tmp_path / "home", kind=Grouped) as (pocket, home):
        assert isinstance(pocket, Grouped)
        pocket.tag = group.tag

        def invite(*words: str) -> tuple[str, dict[str, Any]]:
            capsys.readouterr()
            assert main(["--home", str(home.path), "invite", *words]) == 0
            err = capsys.readouterr().err
            assert main(["--home", str(home.path), "invite", "--json", *words]) == 0
            return err, json.loads(capsys.readouterr().out)

        err, facts = invite()
        assert "Warning: Its addresses are of this machine alone: only programs on it can join" in err
        assert "node start --listen /ip4/0.0.0.0/tcp/4017" in err
        assert facts["warnings"][0] in err
        pocket.standing = "no-network"
        assert "This machine has no network now" in invite()[0]
        pocket.standing, pocket.places = "unknown", ("/ip4/169.254.7.7/tcp/4017", "/ip4/127.0.0.1/tcp/4017")
        assert "without a router: only machines on that very one" in invite()[0]
        err, facts = invite("--address", OTHER)
        assert ("Warning" in err, facts["warnings"]) == (False, [])
        pocket.places = ("/ip4/192.168.7.7/tcp/4017", "/ip4/127.0.0.1/tcp/4017")
        assert "Warning" not in invite()[0]


def test_a_group_is_changed_while_the_node_is_stopped(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    with NodeLock(home.lock), pytest.raises(Refused, match="its group is changed while it is stopped") as caught:
        join(home, new_group("x"), replace=True)
    assert f"p2plearn --home {home.path} node stop" in caught.value.hint
    assert group_of(home) is None


def test_a_fresh_home_joins_and_an_invite_renews_its_addresses(home: Home) -> None:
    group = new_group("  Village   school ")
    assert group.name == "Village school"
    assert join(home, group, replace=False)
    assert group_of(home) == group
    use(home)
    renewed = Invite(group.name, group.key, (PEER,))
    assert not join(home, renewed, replace=False)
    assert group_of(home) == renewed
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home.network_key, home.network_tag, home.keys)] == [
        0o600, 0o600, 0o700,
    ]  # fmt: skip
    assert home.peers.exists()


def test_the_open_network_is_left_only_when_asked_for(home: Home) -> None:
    use(home)
    assert group_of(home) is None
    with pytest.raises(Refused, match="open network"):
        join(home, new_group("x"), replace=False)
    assert group_of(home) is None
    assert join(home, new_group("x"), replace=True)
    assert group_of(home) is not None
    assert not home.peers.exists()  # whom it knew there is not called from here
    assert not home.providers.exists()


def test_a_key_put_there_by_hand_holds_in_a_fresh_home_only(home: Home) -> None:
    group = new_group("x")
    home.prepare()
    home.keys.mkdir(mode=0o700)
    home.network_key.touch(0o600)
    home.network_key.write_text(format_invite(group), "ascii")
    used = Home(home.path.with_name("used"))
    use(used)
    used.keys.mkdir(mode=0o700)
    used.network_key.touch(0o600)
    used.network_key.write_text(format_invite(group), "ascii")
    with pytest.raises(Refused, match="open network"):
        group_of(used)
    with pytest.raises(Refused, match="open network"):
        join(used, group, replace=False)
    assert group_of(home) == group
    use(home)
    assert group_of(home) == group


def test_a_lost_key_does_not_make_an_open_node(home: Home) -> None:
    group = new_group("x")
    join(home, group, replace=False)
    use(home)
    home.network_key.unlink()
    with pytest.raises(Refused, match="is gone"):
        group_of(home)
    with pytest.raises(Refused, match="a closed group"):
        join(home, new_group("y"), replace=False)
    assert join(home, group, replace=False)
    assert group_of(home) == group


@pytest.mark.parametrize("raw", [b"", b"x", b"P2PLEARN-GROUP-0", bytes(20_000), b"\xff\xfe"])
def test_a_damaged_key_is_no_key(home: Home, raw: bytes) -> None:
    join(home, new_group("x"), replace=False)
    home.network_key.write_bytes(raw)
    with pytest.raises(P2plearnError, match="damaged"):
        group_of(home)


def test_links_and_open_keys_are_refused(home: Home, tmp_path: Path) -> None:
    join(home, new_group("x"), replace=False)
    home.network_tag.chmod(0o666)
    with pytest.raises(Refused, match="open to others"):
        group_of(home)
    home.network_tag.chmod(0o600)
    home.network_key.rename(tmp_path / "elsewhere")
    home.network_key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(P2plearnError):
        group_of(home)


def test_a_group_never_calls_the_shipped_bootstrap_nodes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.prepare()
    shipped = home.path / "shipped.toml"
    shipped.write_text(f'[[node]]\naddress = "{OTHER}"\n', "utf-8")
    monkeypatch.setattr(bootstrap, "SHIPPED", shipped)
    made = object.__new__(node._Node)
    made._paths, made._settings, made._group = home, Settings(), None
    assert [str(peer.peer_id) for peer in made._bootstrap_nodes()] == [OTHER.rpartition("/")[2]]
    made._group = Invite("x", bytes(32), (PEER,))
    assert [str(peer.peer_id) for peer in made._bootstrap_nodes()] == [PEER.rpartition("/")[2]]
