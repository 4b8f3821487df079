"""⊙ Who can call this node, judged from what happened. Sans-IO: the clock is handed in.

In: what others who were asked to call back say, under which addresses they see us, who is connected, what this
machine's own addresses are. Out: one of these words, and why, in a sentence.

- *public*: somebody beyond this network called us back;
- *behind-router*: those asked could not, or nobody was asked yet, but all of our addresses are private and others see
  us under another one;
- *lan-only*: nobody beyond this network is connected;
- *unknown*: there is somebody, but no word from them yet;
- *no-network*: this machine has none (its driver sees that; what was found out before is kept, for cables come back).

A verdict counts for an hour, the latest of each peer alone, and one success outweighs a failure: being reached is
proof, not being reached may be the caller's trouble. Imports nothing of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

VERDICT_SECONDS: Final = 3600.0
"""For which what a peer found out counts."""

ASK_SOON: Final = 2.0
"""Seconds after somebody new is there, or the network changed, until a peer is asked; identify comes first."""

ASK_AGAIN: Final = 30.0
"""Between two peers asked while fewer than ``ENOUGH`` have answered."""

ASK_RARELY: Final = 900.0
"""Between two peers asked once it is known: routers get restarted, forwarded ports go."""

ENOUGH: Final = 3
"""Peers whose word makes it known: one may be wrong, or untrue."""

MAX_PEERS: Final = 64
"""Verdicts and sightings kept; the oldest make room."""


NOWHERE: Final = "no cable and no Wi-Fi is connected: only what runs on this very machine can reach it"


class Standing(enum.Enum):
    """Who can call this node."""

    PUBLIC = "public"
    BEHIND_ROUTER = "behind-router"
    LAN_ONLY = "lan-only"
    UNKNOWN = "unknown"
    NO_NETWORK = "no-network"


@dataclass(frozen=True, slots=True)
class _Verdict:
    at: float
    address: str  # where we were reached, empty if not


class Judge:
    """See the head of this file. Peers and addresses are any texts that name them."""

    def __init__(self, now: float) -> None:
        self._verdicts: dict[str, _Verdict] = {}
        self._seen_as: dict[str, str] = {}
        self._beyond: set[str] = set()
        self._asked: dict[str, float] = {}
        self._rounds = 0  # questions since something changed
        self._next = now + ASK_SOON

    # -- what happened -------------------------------------------------------------------------------------------------

    def beyond(self, peers: set[str], now: float) -> None:
        """These peers, and no others, are connected directly and are not on this network."""
        if peers - self._beyond and len(self._fresh(now)) < ENOUGH:
            self._next = min(self._next, now + ASK_SOON)
        self._beyond = set(peers)

    def seen_as(self, peer: str, ip: str) -> None:
        """``peer``, from beyond, sees our connection come from ``ip``."""
        self._seen_as.pop(peer, None)
        self._seen_as[peer] = ip
        while len(self._seen_as) > MAX_PEERS:
            del self._seen_as[next(iter(self._seen_as))]

    def called_back(self, peer: str, address: str, now: float) -> None:
        """``peer`` tried to call back, and reached us at ``address`` (empty: it could not)."""
        self._verdicts.pop(peer, None)
        self._verdicts[peer] = _Verdict(now, address)
        while len(self._verdicts) > MAX_PEERS:
            del self._verdicts[next(iter(self._verdicts))]

    def look_again(self, now: float) -> None:
        """Something was done to be reached: what peers found out before may be wrong, so ask again soon."""
        self._asked.clear()
        self._rounds = 0
        self._next = min(self._next, now + ASK_SOON)

    def network_changed(self, now: float) -> None:
        """This machine has other addresses now: what was found out counts no more."""
        self._verdicts.clear()
        self._seen_as.clear()
        self._asked.clear()
        self._rounds = 0
        self._next = now + ASK_SOON

    # -- what to do ----------------------------------------------------------------------------------------------------

    def next_ask(self) -> float:
        """When ``ask`` has somebody, if anybody is there."""
        return self._next

    def ask(self, able: Sequence[str], now: float) -> str | None:
        """Whom of ``able`` to ask for a call back now, if anybody: the one not asked for longest."""
        if now < self._next:
            return None
        choice = min(able, key=lambda peer: self._asked.get(peer, float("-inf")), default=None)
        fresh = self._fresh(now)
        # One who could not may have been busy: where there is nobody else, the same is asked again.
        settled = self._rounds >= ENOUGH or any(verdict.address for verdict in fresh)
        known = len(fresh) >= ENOUGH or (settled and len(self._asked) >= len(able))
        self._next = now + (ASK_RARELY if known else ASK_AGAIN)
        if choice is not None:
            self._rounds += 1
            self._asked.pop(choice, None)
            self._asked[choice] = now
            while len(self._asked) > MAX_PEERS:
                del self._asked[next(iter(self._asked))]
        return choice

    # -- the judgement -------------------------------------------------------------------------------------------------

    def standing(self, own: Sequence[str], now: float) -> Standing:
        """How it stands; ``own`` are this machine's IP addresses (without loopback and link-local ones)."""
        fresh = self._fresh(now)
        reached = sum(bool(verdict.address) for verdict in fresh)
        if fresh:
            return Standing.PUBLIC if 2 * reached >= len(fresh) else Standing.BEHIND_ROUTER
        if not self._beyond:
            return Standing.LAN_ONLY
        seen = self._outside(own)
        return Standing.BEHIND_ROUTER if seen else Standing.UNKNOWN

    def reached_at(self, now: float) -> list[str]:
        """Addresses at which we were reached, each once, the latest first."""
        return list(dict.fromkeys(v.address for v in reversed(self._fresh(now)) if v.address))

    def outside_addresses(self, own: Sequence[str]) -> list[str]:
        """The IP addresses, not our own, that others see us under, those that most see first."""
        return self._outside(own)

    def words(self, own: Sequence[str], now: float) -> str:
        """Why, in a sentence for a person."""
        fresh = self._fresh(now)
        reached = sum(bool(verdict.address) for verdict in fresh)
        seen = self._outside(own)
        match self.standing(own, now):
            case Standing.PUBLIC:
                return f"{reached} of {_peers(len(fresh))} beyond this network called back and reached this node"
            case Standing.BEHIND_ROUTER:
                tried = f"{_peers(len(fresh))} beyond this network tried to call back, {reached or 'none'} got through"
                if seen:
                    where = f"others see this machine as {seen[0]}, which is not an address of its own: a router stands"
                    return f"{where} between" + (f"; {tried}" if fresh else "")
                return f"{tried}: a firewall stands between"
            case Standing.LAN_ONLY:
                return "no peer beyond this network is connected"
            case Standing.UNKNOWN:
                return "no peer beyond this network has tried to call back yet"
            case Standing.NO_NETWORK:
                return NOWHERE

    def _fresh(self, now: float) -> list[_Verdict]:
        return [verdict for verdict in self._verdicts.values() if now - verdict.at < VERDICT_SECONDS]

    def _outside(self, own: Sequence[str]) -> list[str]:
        seen = [ip for ip in self._seen_as.values() if ip not in own]
        return sorted(dict.fromkeys(seen), key=lambda ip: -seen.count(ip))


def _peers(number: int) -> str:
    return f"{number} peer" + ("" if number == 1 else "s")
