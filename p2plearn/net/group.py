"""A closed group's door: who hasn't the group's key gets no further than the first bytes of a connection.

Before anything of libp2p's is said, on any transport, both ends prove that they have the key, the caller first:

    caller    nonce (32), HMAC(gate, "1", nonce)             ->
    called    <- nonce (32), HMAC(gate, "2", both nonces)         only to a caller that had the key once
    caller    HMAC(gate, "3", both nonces)                   ->   only now the called end says who it is

What goes over the wire looks like random bytes, and who doesn't know the key gets none. Then libp2p's handshake runs as
in the open network (TLS 1.3), and inside it both ends prove the key again, bound to both peers' identities: so who sits
in between, lets two members prove the key to each other and then takes the connection over, is found out.

    caller    HMAC(bind, "caller", both nonces, both peer ids)   ->
    called    <- HMAC(bind, "called", both nonces, both peer ids)

``gate`` and ``bind`` are derived from the group's key. HMAC is HMAC-SHA256. Once the connection stands nothing of this
costs anything.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

import trio
from libp2p.abc import IRawConnection, ISecureConn
from libp2p.custom_types import TMuxerOptions, TSecurityOptions
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader

NONCE_BYTES: Final = 32
MAC_BYTES: Final = 32
DOOR_SECONDS: Final = 10.0
"""For all of the first three messages, and for the last two: a bad line needs two seconds."""

_LIBP2P_SAYS: Final = b"\x13/multistream/"
"""How a node of the open network begins: no reason to wait for the rest."""

_BROKEN: Final = (IOException, RawConnError, OSError, trio.TooSlowError, trio.BrokenResourceError, EOFError)


class NotInGroup(SecurityUpgradeFailure):
    """The other end doesn't have this group's key, or the connection was taken over by one that hasn't."""


class Door:
    """The keys derived from a group's key (32 bytes). Shows none of them."""

    __slots__ = ("_bind", "_gate")

    def __init__(self, key: bytes) -> None:
        self._gate = hmac.digest(key, b"p2plearn group gate v1", "sha256")
        self._bind = hmac.digest(key, b"p2plearn group bind v1", "sha256")

    def __repr__(self) -> str:
        """Nothing of the keys."""
        return "Door()"

    async def knock(self, conn: IRawConnection) -> bytes:
        """The caller's side: prove the key, and see it proven. Returns both nonces; raises NotInGroup."""
        mine = os.urandom(NONCE_BYTES)
        await conn.write(mine + self._mac(b"1", mine))
        answer = await _exactly(conn, NONCE_BYTES + MAC_BYTES)
        nonces = mine + answer[:NONCE_BYTES]
        if not hmac.compare_digest(answer[NONCE_BYTES:], self._mac(b"2", nonces)):
            raise NotInGroup("the other end has another group's key")
        await conn.write(self._mac(b"3", nonces))
        return nonces

    async def answer(self, conn: IRawConnection) -> bytes:
        """The called end's side; says nothing to who hasn't the key. Returns both nonces; raises NotInGroup."""
        hello = await _exactly(conn, NONCE_BYTES + MAC_BYTES)
        theirs = hello[:NONCE_BYTES]
        if not hmac.compare_digest(hello[NONCE_BYTES:], self._mac(b"1", theirs)):
            raise NotInGroup("a caller without the group's key")
        mine = os.urandom(NONCE_BYTES)
        nonces = theirs + mine
        await conn.write(mine + self._mac(b"2", nonces))
        if not hmac.compare_digest(await _exactly(conn, MAC_BYTES), self._mac(b"3", nonces)):
            raise NotInGroup("a caller that repeats what it overheard")  # a nonce of ours was never answered before
        return nonces

    async def bind(self, conn: ISecureConn, nonces: bytes, caller: ID, *, called: ID, am_caller: bool) -> None:
        """Inside the secured connection: prove the key for exactly these two peers. Raises NotInGroup."""
        about = nonces + b"".join(len(raw).to_bytes(2, "big") + raw for raw in (caller.to_bytes(), called.to_bytes()))
        by_caller = hmac.digest(self._bind, b"caller" + about, "sha256")
        by_called = hmac.digest(self._bind, b"called" + about, "sha256")
        mine, theirs = (by_caller, by_called) if am_caller else (by_called, by_caller)
        if am_caller:
            await conn.write(mine)
        if not hmac.compare_digest(await _exactly(conn, MAC_BYTES), theirs):
            raise NotInGroup("somebody in between took the connection over")
        if not am_caller:
            await conn.write(mine)

    def _mac(self, step: bytes, nonces: bytes) -> bytes:
        return hmac.digest(self._gate, step + nonces, "sha256")


async def _exactly(conn: IRawConnection | ISecureConn, count: int) -> bytes:
    """The next ``count`` bytes; raises NotInGroup for what can only be somebody else."""
    got = b""
    while len(got) < count:
        more = await conn.read(count - len(got))
        if not more:
            raise NotInGroup("the other end hung up: it is not in this group")
        got += more
        if got[: len(_LIBP2P_SAYS)] == _LIBP2P_SAYS:
            raise NotInGroup("the other end is in the open network")
    return got


class GroupUpgrader(TransportUpgrader):
    """libp2p's upgrader behind the door: every connection passes here, over whatever transport it came."""

    def __init__(
        self, door: Door, local: ID, security: TSecurityOptions, muxers: TMuxerOptions, negotiate_timeout: int
    ) -> None:
        super().__init__(security, muxers, negotiate_timeout)
        self._door = door
        self._local = local

    async def upgrade_security(
        self, raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None
    ) -> ISecureConn:
        """As the stock one, between two proofs of the group's key. Raises SecurityUpgradeFailure."""
        try:
            with trio.fail_after(DOOR_SECONDS):
                nonces = await (self._door.knock(raw_conn) if is_initiator else self._door.answer(raw_conn))
        except _BROKEN as error:
            raise NotInGroup(_words(error)) from error
        secured = await super().upgrade_security(raw_conn, is_initiator, peer_id)
        remote = secured.get_remote_peer()
        caller, called = (self._local, remote) if is_initiator else (remote, self._local)
        try:
            with trio.fail_after(DOOR_SECONDS):
                await self._door.bind(secured, nonces, caller, called=called, am_caller=is_initiator)
        except _BROKEN as error:
            await secured.close()
            raise NotInGroup(_words(error)) from error
        except NotInGroup:
            await secured.close()
            raise
        return secured


def _words(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return "the other end is silent: it is not in this group, or the line is bad"
    return "the other end hung up: it is not in this group"
