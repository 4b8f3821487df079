"""Commands for closed groups: ``invite`` makes one and asks people in, ``join`` sets a home up to be in one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from p2plearn.commands.scope import Command, Scope, pass_scope
from p2plearn.errors import NoNode, UsageProblem

if TYPE_CHECKING:
    from p2plearn.invite import Invite

OWN_ADDRESSES: Final = 3
"""Addresses of this node that go into an invite, the farthest-reaching ones."""
_LOOPBACK: Final = ("/ip4/127.", "/ip6/::1/")
_LINK: Final = ("/ip4/169.254.", "/ip6/fe80:")


@click.command(cls=Command)
@click.option("--new", "name", default=None, metavar="NAME", help="Make a group of that name, with this home in it.")
@click.option("--address", "addresses", multiple=True, metavar="MULTIADDR",
              help="Join through this node, too (again for more).")  # fmt: skip
@click.option("--qr", is_flag=True, help="Draw it as a QR code as well.")
@click.option("--replace", is_flag=True, help="With --new: even if this home belongs to another network already.")
@pass_scope
def invite(scope: Scope, *, name: str | None, addresses: tuple[str, ...], qr: bool, replace: bool) -> None:
    """Print what others need to join this home's closed group: one text, a secret of the group."""
    from p2plearn import membership, terminal
    from p2plearn.invite import Invite, format_invite, parse_invite

    if name is not None:
        membership.join(scope.home, membership.new_group(name), replace=replace)
    group = membership.group_of(scope.home)
    if group is None:
        raise UsageProblem(
            "This home is in the open network, which needs no invite.",
            "`p2plearn invite --new NAME` makes a closed group; in a home of its own: p2plearn --home DIR invite …",
        )
    own, ours, nowhere = _own_addresses(scope, group)
    text = format_invite(Invite(group.name, group.key, (*addresses, *own, *group.addresses)))
    inside = parse_invite(text)
    if left := [address for address in addresses if address not in inside.addresses]:
        raise UsageProblem(
            f"{left[0]!r} can't go into an invite.", "An address looks like /ip4/192.0.2.7/tcp/4017/p2p/12D3KooW…"
        )
    doubt = scope.said(doubtful(inside.addresses, nowhere=nowhere))
    if scope.as_json:
        facts = {"invite": text, "group": group.name, "tag": group.tag, "addresses": list(inside.addresses)}
        scope.emit({**facts, "warnings": [doubt] if doubt else []})
    else:
        click.echo(text)
    if qr:
        _draw(text, to_stderr=scope.as_json)
    terminal.note(
        f"Whoever has this text is in the group {terminal.plain(group.name)!r}: hand it on as you would a key."
    )
    terminal.note("Elsewhere: p2plearn join TEXT")
    if not inside.addresses:
        terminal.note(
            scope.said(
                "It names no node to join through: members find each other on one LAN only. Start a node here "
                "(p2plearn node start --detach) and ask for the invite again, or say --address."
            )
        )
    elif doubt:
        terminal.note(f"Warning: {doubt}")
    elif not ours and not addresses:
        terminal.note("No node runs here, so this one's address isn't in it.")


def doubtful(addresses: Sequence[str], *, nowhere: bool = False) -> str:
    """Why hardly anybody could join through these addresses, and what to do; empty if somebody can, or there are none.

    ``nowhere``: this machine has no network now.
    """
    if not addresses or not all(address.startswith((*_LOOPBACK, *_LINK)) for address in addresses):
        return ""
    if nowhere:
        return (
            "This machine has no network now, so nobody else can join by this invite. Plug in a cable, or join the "
            "Wi-Fi, and ask for it again."
        )
    if any(not address.startswith(_LOOPBACK) for address in addresses):
        return (
            "Its addresses are of the cable or Wi-Fi that this machine is on, without a router: only machines on that "
            "very one can join by it. For others say --address, or ask again on another network."
        )
    return (
        "Its addresses are of this machine alone: only programs on it can join by this invite. Have the node listen on "
        "the network (p2plearn node stop, then p2plearn node start --listen /ip4/0.0.0.0/tcp/4017, or network.listen "
        "in config.toml) and ask for it again; or say --address."
    )


def _own_addresses(scope: Scope, group: Invite) -> tuple[tuple[str, ...], bool, bool]:
    """Where this node can be reached, if it runs; whether it does, and is on no network."""
    try:
        status = scope.client().status()
    except NoNode:
        return (), False, False
    if status.get("group_tag") != group.tag:
        raise UsageProblem("The node that runs here isn't in this group yet.", "Start it anew: p2plearn node stop")
    found = [str(address) for address in status.get("addresses", ())]
    outward = [address for address in found if not address.startswith(_LOOPBACK)]
    reach = status.get("reach")
    nowhere = isinstance(reach, dict) and reach.get("standing") == "no-network"
    return tuple((outward or found)[:OWN_ADDRESSES]), True, nowhere


def _draw(text: str, *, to_stderr: bool) -> None:
    import segno

    segno.make(text, error="l", micro=False).terminal(out=sys.stderr if to_stderr else sys.stdout, compact=True)


@click.command(cls=Command)
@click.argument("text", required=False, default="-", metavar="[TEXT]")
@click.option("--replace", is_flag=True, help="Even if this home belongs to another network already.")
@pass_scope
def join(scope: Scope, *, text: str, replace: bool) -> None:
    """Set this home up to be in a closed group, by the text that `p2plearn invite` printed there.

    Without TEXT it is asked for, or read from standard input: then it isn't in the shell's history.
    """
    import getpass

    from p2plearn import membership, terminal
    from p2plearn.client import start_command
    from p2plearn.config import choose_home
    from p2plearn.invite import MAX_TEXT, parse_invite

    if text == "-":
        text = getpass.getpass("Invite: ") if sys.stdin.isatty() else sys.stdin.read(MAX_TEXT + 1)
    group = parse_invite(text)
    new = membership.join(scope.home, group, replace=replace)
    path, source = choose_home(scope.home_option)
    facts = {"group": group.name, "tag": group.tag, "addresses": list(group.addresses), "home": str(path), "new": new}
    if scope.as_json:
        scope.emit(facts)
    else:
        name = terminal.plain(group.name)
        click.echo(f"This home is in the group {name!r}." if new else f"This home was in the group {name!r} already.")
        terminal.note(f"Start its node: {start_command(path, named=source == '--home')}")
