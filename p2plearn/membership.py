"""Which network a home belongs to: the open one, or a closed group whose key it has.

``keys/network.key`` (0600) holds the invite that the home was set up with. ``network`` holds the group's tag: a home
whose key is lost doesn't fall back into the open network with the group's courses, and one that was in the open network
doesn't slip into a group because somebody put a key there. Changing over has to be asked for.

Imports ``config``, ``errors``, ``invite``, ``lock``, ``private_files``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from typing import Final

from p2plearn.config import Home
from p2plearn.errors import P2plearnError, Refused, UsageProblem
from p2plearn.invite import KEY_BYTES, MAX_TEXT, Invite, format_invite, parse_invite, tidy_name
from p2plearn.lock import holder
from p2plearn.private_files import create_private, make_private_folder, read_private

_MOST_TAG_BYTES: Final = 64


def group_of(home: Home) -> Invite | None:
    """The group that a home is in; None for the open network. Raises Refused and P2plearnError with what to do."""
    try:
        return _group_of(home)
    except OSError as problem:
        raise P2plearnError(f"The key {home.network_key} can't be used: {problem.strerror}.") from None


def _group_of(home: Home) -> Invite | None:
    invite, tag = _kept(home), _tag(home)
    if invite is None:
        if tag is None:
            return None
        raise Refused(
            f"This home belongs to a closed group, but its key {home.network_key} is gone.",
            f"Put it back, or join again: p2plearn --home {shlex.quote(str(home.path))} join INVITE",
        )
    if tag is None and not _is_used(home):
        create_private(home.network_tag, f"{invite.tag}\n".encode())  # a key that was put there by hand
    elif tag != invite.tag:
        which = "the open network" if tag is None else "another group"
        raise Refused(
            f"This home belongs to {which}, but {home.network_key} is the key of the group {invite.name!r}.",
            "Use another home for it (--home DIR), or change over: p2plearn join INVITE --replace",
        )
    return invite


def join(home: Home, invite: Invite, *, replace: bool) -> bool:
    """Set a home up to be in a group; whether it was not in it before. The node must not be running.

    Raises Refused while the node runs, or when the home belongs to another network, unless ``replace``.
    """
    home.prepare()
    pid = holder(home.lock)
    if pid is not None:
        raise Refused(
            f"The node of {home.path} is running{f' (process {pid})' if pid else ''}: its group is changed while it is "
            "stopped.",
            f"Stop it, then say this again: p2plearn --home {shlex.quote(str(home.path))} node stop",
        )
    try:
        return _join(home, invite, replace)
    except OSError as problem:
        raise P2plearnError(f"The key {home.network_key} can't be written: {problem.strerror}.") from None


def _join(home: Home, invite: Invite, replace: bool) -> bool:
    known, tag = _kept(home), _tag(home)
    unused = tag is None and not _is_used(home)
    same = (known is None or known.key == invite.key) and (unused or tag == invite.tag)
    if not same and not replace:
        which = f"the group {known.name!r}" if known else "a closed group"
        if tag is None and _is_used(home):
            which = "the open network"
        raise Refused(
            f"The home {home.path} belongs to {which} already.",
            "Use another home for this one: p2plearn --home DIR join INVITE. With --replace this home changes over; "
            "what it keeps, courses and what was said, then comes along into the other network. Copies that it keeps "
            "for others are missing there then, until new ones are made: to hand them over first, start its node and "
            "say p2plearn node leave.",
        )
    make_private_folder(home.keys)
    if not same:
        # Whom it knew there is not called from here.
        with contextlib.suppress(FileNotFoundError):
            os.replace(home.peers, home.peers.with_name(home.peers.name + ".before"))
        # Nor is anybody told here what they have.
        home.providers.unlink(missing_ok=True)
    create_private(home.network_key, f"{format_invite(invite)}\n".encode(), replace=True)
    create_private(home.network_tag, f"{invite.tag}\n".encode(), replace=True)
    return known is None or known.key != invite.key


def new_group(name: str) -> Invite:
    """A group that nobody is in yet; raises UsageProblem for a name that is none."""
    return Invite(tidy_name(name), secrets.token_bytes(KEY_BYTES))


def _kept(home: Home) -> Invite | None:
    raw = read_private(home.network_key, MAX_TEXT)
    if raw is None:
        return None
    try:
        return parse_invite(raw.decode("ascii", "replace"))
    except UsageProblem as problem:
        raise P2plearnError(
            f"The key {home.network_key} is damaged: {problem.message}",
            "Join again with the group's invite: p2plearn join INVITE",
        ) from None


def _tag(home: Home) -> str | None:
    raw = read_private(home.network_tag, _MOST_TAG_BYTES)
    return None if raw is None else raw.decode("ascii", "replace").strip()


def _is_used(home: Home) -> bool:
    """Whether a node ran here before."""
    return home.store.exists()
