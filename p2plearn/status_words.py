"""``node status`` for a person: what needs attention, what the node is, keeps, moves and hears; ``--json`` has all.

What is as it should be is left out or short; what isn't has a line of its own that begins with ``!`` and says what to
do where there is something to do. Every text that may come from a peer passes through ``terminal.plain``.

Imports ``terminal`` and ``views``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from p2plearn.terminal import count, is_pause, plain, size, span
from p2plearn.views import copies_of

Facts = Mapping[str, Any]

_MOST_NAMED = 20
"""Courses, peers and the like named one by one; ``--json`` names all."""


def status(facts: Facts, *, said: Callable[[str], str] = str) -> str:
    """All of it; ``said`` puts the home into the commands of what needs attention (not into titles)."""
    attention = [said(line) if line.startswith(("! ", "    and ")) else line for line in _attention(facts)]
    blocks = [list(block(facts)) for block in (_node, _storage, _copies, _traffic, _network, _people)]
    blocks.insert(0, attention)
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _part(facts: Facts, name: str) -> Facts:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _line(name: str, words: str) -> str:
    return f"{name:<12}{words}"


def _course(row: Facts) -> str:
    return f"{str(row.get('course', '?'))[:12]} {plain(str(row.get('title', '')))}".rstrip()


def _named(head: str, rows: list[str]) -> Iterator[str]:
    if rows:
        yield f"! {head}"
        yield from (f"    {row}" for row in rows[:_MOST_NAMED])
        if len(rows) > _MOST_NAMED:
            yield f"    and {len(rows) - _MOST_NAMED:,} more: p2plearn node status --json"


def _attention(facts: Facts) -> Iterator[str]:
    """What a person should know first."""
    if facts.get("paused"):
        yield "! Paused: no course is served or fetched until `p2plearn node resume`."
    changed = facts.get("restart_for") or []
    if changed:
        yield f"! Changed in config.toml, in force after a restart: {', '.join(plain(str(one)) for one in changed)}."
    custody = _part(facts, "custody")
    lost = [_course(row) for row in custody.get("lost", ())]
    yield from _named("Lost: nobody that can be found has these courses any more:", lost)
    under = [f"{_course(row)}: {copies_of(row, noun=' copies')}" for row in custody.get("under_replicated", ())]
    yield from _named("Fewer copies than asked for; more are made as nodes come:", under)
    given, give = custody.get("given", 0), custody.get("give", 0)
    if given > give:
        yield (
            f"! {size(given)} are kept for others, more than the {size(give)} that storage.give allows now: nothing "
            "new is taken in, and what is here stays, since others count on it. To hand it over: p2plearn node leave."
        )
    yield from (f"! {plain(str(notice))}" for notice in _part(facts, "storage").get("notices", ()))
    yield from (f"! {plain(str(notice))}" for notice in facts.get("manners", ()))
    dht = _part(facts, "dht")
    if dht.get("late") and dht.get("peers"):  # who is alone has nobody to tell, and reads that above
        late = f"{count(int(dht['late']), 'course')} late by up to {span(float(dht.get('lateness', 0)))}"
        why = f" ({plain(str(dht['last_error']))})" if dht.get("last_error") else ""
        yield f"! Telling the network what is here falls behind: {late}{why}. Others forget it after 25 h."
    banned = [f"{row.get('peer', '?')}: {plain(str(row.get('last', '')))}" for row in facts.get("banned", ())]
    yield from _named("Banned for what they sent:", banned)
    unreachable = [f"{plain(str(who))}: {plain(str(why))}" for who, why in _part(facts, "unreachable").items()]
    yield from _named("Could not be reached (p2plearn doctor ADDRESS says more):", unreachable)
    nowhere = _is_nowhere(facts)
    if nowhere:
        yield "! This machine has no network: plug in a cable, or join the Wi-Fi. The node goes on by itself then."
    problem = _part(facts, "lan").get("problem")
    if problem and not nowhere:
        yield f"! Other nodes on the LAN can't be looked for: {plain(str(problem))}"
    if facts.get("network_restarts"):
        fault = plain(str(facts.get("last_fault", "")))
        yield f"! The network part was restarted {count(int(facts['network_restarts']), 'time')} ({fault})."


def _node(facts: Facts) -> Iterator[str]:
    """Who and where it is."""
    yield _line("Node", str(facts.get("peer_id", "?")))
    yield _line("Author", str(facts.get("author", "?")))
    yield _line("Running", f"for {span(float(facts.get('uptime', 0)))}, process {facts.get('pid', '?')}")
    if facts.get("group"):
        yield _line("Group", f"{plain(str(facts['group']))} (closed)")
    for number, address in enumerate(facts.get("addresses", ())):
        yield _line("" if number else "Listens on", str(address).partition("/p2p/")[0])


def _storage(facts: Facts) -> Iterator[str]:
    """What is on the disk."""
    storage, custody = _part(facts, "storage"), _part(facts, "custody")
    if storage:
        quota = storage.get("quota")
        room = f"of {size(quota)}" if quota else "no quota"
        courses = int(facts.get("courses", 0))
        lacking = courses - int(facts.get("complete", courses))
        part = f" ({lacking:,} of them not complete, with room kept for the rest)" if lacking else ""
        kept = f"{count(courses, 'course')}{part}, {size(storage.get('bytes', 0))} ({room})"
        free = f"{size(storage.get('free_disk', 0))} free on the disk, {size(storage.get('min_free', 0))} stay so"
        yield _line("Keeps", f"{kept}; {free}")
    if custody:
        given = f"{size(custody.get('given', 0))} of {size(custody.get('give', 0))}"
        yield _line("For others", f"{given} that storage.give allows")


def _copies(facts: Facts) -> Iterator[str]:
    """How courses are kept and told."""
    custody, dht = _part(facts, "custody"), _part(facts, "dht")
    if custody:
        others = int(custody.get("others", 0))
        watched = f"watched together with {count(others, 'other node')}" if others else "on no other node so far"
        busy = [f"{count(int(custody.get('units', 0)), 'course or segment', 'courses and segments')}, {watched}"]
        if custody.get("repairing"):
            busy.append(f"{custody['repairing']} being copied")
        if custody.get("leaving"):
            busy.append("leaving")
        yield _line("Copies", ", ".join(busy))
    if dht:
        told = f"{count(int(dht.get('announced', 0)), 'course')} told to the network"
        waiting = f", {dht['waiting']} waiting for their turn" if dht.get("waiting") else ""
        yield _line("Provides", f"{told}{waiting}")


def _traffic(facts: Facts) -> Iterator[str]:
    """What moves now and moved this month."""
    for row in facts.get("fetching", ()):
        why = plain(str(row.get("waiting_for") or ""))
        # The command that ends a pause stands above.
        waiting = (", paused" if is_pause(why) else f", waiting for {why}") if why else ""
        yield _line("Fetching", f"{_course(row)}{waiting}")
    serving = _part(facts, "serving")
    if serving.get("streams"):
        yield _line("Serving", count(int(serving["streams"]), "fetcher"))
    month = _part(facts, "month")
    if month:
        lan = f"{size(month.get('lan_sent', 0))} out, {size(month.get('lan_received', 0))} in on the LAN"
        wan = f"{size(month.get('wan_sent', 0))} out, {size(month.get('wan_received', 0))} in beyond it"
        yield _line("This month", f"{lan}; {wan}")
        relayed = int(month.get("lan_relayed", 0)), int(month.get("wan_relayed", 0))
        if any(relayed):
            yield _line("", f"relayed for others: {size(relayed[0])} on the LAN, {size(relayed[1])} beyond it")
    limits = _part(facts, "limits")
    set_ = [f"{way} {size(limits[way])}/s" for way in ("upload", "download") if limits.get(way)]
    if limits.get("monthly_cap"):
        set_.append(f"{size(limits.get('cap_left') or 0)} left of {size(limits['monthly_cap'])} a month")
    if set_:
        yield _line("Limits", ", ".join(set_) + (", on the LAN too" if limits.get("lan") else ", not on the LAN"))
    power = _part(facts, "power")
    known = (("on_battery", "on battery"), ("metered", "on a metered line"))
    states = [words for key, words in known if power.get(key)]
    if states:
        yield _line("Runs", " and ".join(states))


def _is_nowhere(facts: Facts) -> bool:
    return bool(_part(facts, "reach").get("standing") == "no-network")


def _network(facts: Facts) -> Iterator[str]:
    """Whom it knows, and who can reach it."""
    lan = "; on no LAN now" if _is_nowhere(facts) else _lan(_part(facts, "lan"))
    yield _line("Peers", f"{count(int(facts.get('peers', 0)), 'node')} connected{lan}")
    reach = _part(facts, "reach")
    if reach.get("words"):
        yield _line("Reached", plain(str(reach["words"])))
    if reach.get("port_mapping"):
        yield _line("", f"port mapping: {plain(str(reach['port_mapping']))}")
    relaying = _part(reach, "relaying")
    if relaying.get("on"):
        lent = f"{count(int(relaying.get('places', 0)), 'place')} lent, {count(int(relaying.get('calls', 0)), 'call')}"
        yield _line("Relays", f"for nodes behind routers: {lent}, {size(relaying.get('moved', 0))} moved")


def _lan(lan: Facts) -> str:
    if not lan.get("on"):
        return "; not looking on the LAN"
    return f"; {count(int(lan.get('heard', 0)), 'node')} heard on the LAN"


def _people(facts: Facts) -> Iterator[str]:
    """What it knows of people's words."""
    people = _part(facts, "people")
    if people:
        known = f"{count(int(people.get('catalogue', 0)), 'record')} in the catalogue"
        compared = f"made equal with a peer's {span(float(people.get('lag', 0.0)))} ago"
        agreed = f", {compared if people.get('compared') else 'not compared with any peer so far'}"
        yield _line("People", known + agreed)
        if ahead := int(people.get("ahead", 0)):
            yield _line("", f"{ahead:,} that you said dated ahead of this clock: others don't take them yet")
        dropped = {why: int(n) for why, n in _part(people, "dropped").items() if n and why not in {"known", "stale"}}
        if dropped:
            yield _line("", "passed over: " + ", ".join(f"{n:,} {plain(str(why))}" for why, n in dropped.items()))
