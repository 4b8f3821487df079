"""The command that says why two machines can't see each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2plearn.commands.scope import Command, PathWord, Scope, pass_scope
from p2plearn.config import choose_home

if TYPE_CHECKING:
    from p2plearn.doctor.judge import Finding

_MARKS = {"good": "ok   ", "note": "note ", "bad": "BAD  "}


@click.command(cls=Command)
@click.argument("address", required=False, default="")
@click.option("--bundle", type=PathWord(path_type=Path), metavar="FILE",
              help="Write a report for the developers; without keys, titles and whole addresses.")  # fmt: skip
@pass_scope
def doctor(scope: Scope, *, address: str, bundle: Path | None) -> int:
    """Say why this machine and others can't see each other, and what to do.

    With an ADDRESS (/ip4/…/tcp/…/p2p/…, a WebSocket's, one by way of a relay, host:port, or a
    link that has one), try to reach that node
    step by step. Exits with 1 when something is bad.
    """
    from p2plearn.doctor.collect import collect  # with libp2p, which takes a second
    from p2plearn.doctor.judge import judge

    _, source = choose_home(scope.home_option)
    scope.interrupted = "Interrupted; nothing was changed."
    facts = collect(scope.home, named=source == "--home") if bundle or not address else None
    knocked: dict[str, Any] = {}
    findings: list[Finding] = [] if facts is None else judge(facts)
    if address:
        knocked, found = _knock(scope, address)
        findings.append(found)
    if bundle is not None and facts is not None:
        from p2plearn.doctor.bundle import write_bundle

        write_bundle(bundle, scope.home, facts, findings, knocked)
    _tell(scope, findings, knocked, bundle)
    return 1 if any(each.grade == "bad" for each in findings) else 0


def _knock(scope: Scope, address: str) -> tuple[dict[str, Any], Finding]:
    import time

    import p2plearn.doctor.collect as machine
    from p2plearn.clock import clock_set
    from p2plearn.doctor.knocking import knock_now
    from p2plearn.doctor.reach import Tried, explain

    found = knock_now(address, scope.home)
    failed = next((step for step in found.steps if step.fault), None)
    now = time.time()
    ahead = found.their_clock - now if found.their_clock else 0.0
    behind = now - found.their_latest if found.their_latest else 0.0
    tried = Tried(
        failed.name if failed else "",
        failed.fault if failed else "",
        failed.words if failed else "",
        found.target,
        found.port,
        machine.answers_arp(found.target),
        ahead,
        behind,
        clock_set() if ahead or behind else None,
        "/p2p-circuit" in address,
        bool(found.peer) and found.peer == machine.own_peer(scope.home),
    )
    return dataclasses.asdict(found), explain(tried, machine.list_interfaces())


def _tell(scope: Scope, findings: list[Finding], knocked: dict[str, Any], bundle: Path | None) -> None:
    from p2plearn.terminal import note, plain

    findings = [dataclasses.replace(each, todo=scope.said(each.todo)) for each in findings]
    if scope.as_json:
        facts: dict[str, Any] = {"findings": [dataclasses.asdict(each) for each in findings]}
        scope.emit(facts | ({"knock": knocked} if knocked else {}) | ({"bundle": str(bundle)} if bundle else {}))
        return
    width = max((len(step["name"]) for step in knocked.get("steps", [])), default=0)
    for step in knocked.get("steps", []):
        words = plain(step["words"])
        mark = "BAD  " if step["fault"] else "ok   "
        click.echo(f"{mark}{step['name']:<{width}} {step['seconds']:5.1f} s  {words}".rstrip())
    if knocked:
        click.echo()
    for each in findings:
        click.echo(f"{_MARKS[each.grade]}{plain(each.words)}")
        if each.todo:
            click.echo(f"     {plain(each.todo)}")
    if bundle is not None:
        note(f"Wrote {bundle}. Read it before you send it.")
