"""Commands that move and keep courses: publish, get, and what is here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from p2plearn.commands.scope import Command, PathWord, Scope, held_course, pass_scope, seconds_of
from p2plearn.commands.usage import no_such_path
from p2plearn.config import COPIES, MOST_COPIES
from p2plearn.errors import IntegrityProblem, LastCopy, UsageProblem
from p2plearn.operations import GetRequest, PublishRequest, VerifyRequest


@click.command(cls=Command)
@click.argument("path", type=PathWord(path_type=Path))
@click.option("--title", default="", help="Its name (else from README, index or config.yaml, else the folder's).")
@click.option("--description", default="", help="What it is, in a sentence or two.")
@click.option("--tag", "tags", multiple=True, help="A word to find it by (again for more).")
@click.option("--language", default="", metavar="BCP47", help="Its language, such as en or zh-Hans.")
@click.option("--license", "license_", default="", metavar="SPDX", help="Its licence, such as CC-BY-4.0.")
@click.option("--chunker", type=click.Choice(["fastcdc", "fixed"]),
              help="fixed gives the chunks and the IPFS root of `ipfs add -r --cid-version=1` (default: fastcdc, or "
                   "as in the version before).")  # fmt: skip
@click.option("--copies", type=click.IntRange(1, MOST_COPIES),
              help="Copies that nodes shall keep, this one's included (default: as before, "
                   f"else {COPIES}).")  # fmt: skip
@click.option("--follow-symlinks", is_flag=True, help="Follow symlinks that stay inside the folder.")
@click.option("--skip-special", is_flag=True, help="Leave out symlinks, sockets, devices and unreadable files.")
@click.option("--no-copy", is_flag=True, help="Serve from these very files instead of a copy; don't change them.")
@click.option("--private/--public", default=None,
              help="Leave it out of the catalogue that others search, or put it in (default: as the version before; a "
                   "new course is put in).")  # fmt: skip
@pass_scope
def publish(
    scope: Scope, *, path: Path, title: str, description: str, tags: tuple[str, ...], language: str, license_: str,
    chunker: str | None, copies: int | None, follow_symlinks: bool, skip_special: bool, no_copy: bool,
    private: bool | None,
) -> None:  # fmt: skip
    """Publish a folder or a file and print its course hash.

    \b
    p2plearn publish ~/courses/python --tag programming --license CC-BY-4.0
    """
    from p2plearn import terminal, views

    scope.interrupted = "Interrupted: nothing was published. The same command does it."
    if not os.path.lexists(path):
        raise no_such_path(path)
    request = PublishRequest(
        path=os.path.abspath(path), title=title, description=description, tags=tags, language=language,
        license=license_, chunker=chunker or "", follow_symlinks=follow_symlinks, skip_special=skip_special,
        no_copy=no_copy, copies=copies or 0, private=private is True, public=private is False,
    )  # fmt: skip
    with scope.display("Publishing") as display:
        result = scope.client().publish(request, display.show)
    if scope.as_json:
        scope.emit(result.as_json())
    else:
        terminal.note(views.published(result, said=scope.said))
        click.echo(result.course)


@click.command(cls=Command)
@click.argument("course", metavar="HASH")
@click.option("-o", "--output", type=PathWord(path_type=Path), metavar="DIR", help="Where to (else ./TITLE).")
@click.option("--from", "providers", multiple=True, metavar="ADDR", help="Ask this node first (again for more).")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these files, such as '*.pdf' (again for more).")
@click.option("--manifest-only", is_flag=True, help="Show what is inside; fetch nothing else.")
@click.option(
    "--in-order", is_flag=True, help="Fetch files one after the other; each is in DIR as soon as it is complete."
)
@click.option("--no-copy", is_flag=True, help="Keep these very files instead of a copy in the store; half the disk.")
@click.option("--timeout", type=seconds_of, default=0.0, metavar="SECONDS", help="Give up for now after this long.")
@pass_scope
def get(
    scope: Scope, *, course: str, output: Path | None, providers: tuple[str, ...], only: tuple[str, ...],
    manifest_only: bool, in_order: bool, no_copy: bool, timeout: float,
) -> None:  # fmt: skip
    """Fetch a course by its hash (hex, CID or p2plearn: link) and print where it is.

    \b
    p2plearn get HASH
    p2plearn get HASH -o ~/python --only '*.pdf'
    """
    import dataclasses

    from p2plearn import terminal, views
    from p2plearn.course.names import parse_link

    scope.interrupted = "Interrupted. What was fetched is kept: the same command goes on from there."
    link = parse_link(course)
    begun = time.monotonic()
    request = GetRequest(
        course=link.course.hex(),
        dest=os.path.abspath(output) if output else "",
        providers=(*providers, *(address for address in link.providers if address not in providers)),
        only=only, timeout=timeout, in_order=in_order, no_copy=no_copy,
    )  # fmt: skip
    client = scope.client()
    with scope.display("Fetching") as display:
        if manifest_only or output is None:
            contents = client.contents(request, display.show)
            name = terminal.folder_name(str(contents.get("title", "")), request.course)
            request = dataclasses.replace(request, dest=os.path.abspath(name))
            if timeout:
                request = dataclasses.replace(request, timeout=max(0.1, timeout - (time.monotonic() - begun)))
        if not manifest_only:
            result = client.get(request, display.show)
    if manifest_only:
        scope.emit(contents) if scope.as_json else click.echo(views.course(contents))
    elif scope.as_json:
        scope.emit(result.as_json())
    else:
        terminal.note(views.fetched(result))
        click.echo(result.path)


@click.command("list", cls=Command)
@pass_scope
def list_(scope: Scope) -> None:
    """The courses kept here, and why."""
    from p2plearn import views

    courses = scope.client().courses()
    scope.emit({"courses": courses}) if scope.as_json else click.echo(views.courses(courses, said=scope.said))


@click.command(cls=Command)
@click.argument("course", metavar="HASH")
@pass_scope
def info(scope: Scope, course: str) -> None:
    """All that is known here of one course (8 digits of its hash are enough)."""
    from p2plearn import views

    client = scope.client()
    facts = client.info(held_course(client, course))
    scope.emit(facts) if scope.as_json else click.echo(views.course(facts))


@click.command(cls=Command)
@click.argument("course", metavar="[HASH]", required=False, default="")
@click.option("--repair", is_flag=True, help="Fetch what is damaged again from nodes that have it.")
@click.option("--from", "providers", multiple=True, metavar="ADDR", help="Ask this node first (again for more).")
@click.option("--timeout", type=seconds_of, default=0.0, metavar="SECONDS", help="Stop repairing after this long.")
@pass_scope
def verify(scope: Scope, *, course: str, repair: bool, providers: tuple[str, ...], timeout: float) -> int:
    """Hash what is stored of one course, or of all, and name what is damaged; with --repair, mend it."""
    from p2plearn import terminal, views

    if (providers or timeout) and not repair:
        raise UsageProblem("--from and --timeout are for repairing.", "Add --repair.")
    client = scope.client()
    held = held_course(client, course) if course else ""
    scope.interrupted = "Interrupted. What was mended so far stays; the same command goes on from there."
    with scope.display("Verifying") as display:
        result = client.verify(VerifyRequest(held, repair, providers, timeout), display.show)
    # The findings are the answer, also for a script: they stay the last line, and the exit code says the rest.
    scope.emit(result.as_json()) if scope.as_json else click.echo(views.verified(result))
    if advice := views.verify_advice(result, repair=repair):
        terminal.note(scope.said(advice))
    return IntegrityProblem.exit_code if (result.left if repair else result.damaged) else 0


@click.command(cls=Command)
@click.argument("course", metavar="HASH")
@click.option("--yes", is_flag=True, help="Even if no other node shows that it has a copy.")
@pass_scope
def remove(scope: Scope, course: str, *, yes: bool) -> None:
    """Forget a course and free its bytes (8 digits of its hash are enough)."""
    from p2plearn import terminal, views

    client = scope.client()
    held = held_course(client, course)
    try:
        facts = client.remove(held, last_copy=yes)
    except LastCopy as problem:
        if scope.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        terminal.note(terminal.plain(problem.message))
        if not click.confirm("Remove it all the same?", err=True):
            raise
        facts = client.remove(held, last_copy=True)
    if scope.as_json:
        scope.emit(facts)
    else:
        title = terminal.plain(str(facts.get("title", "")))
        click.echo(f"Removed {title}: {terminal.size(int(facts.get('freed', 0)))} freed.")
        for line in views.left_unfreed(facts):
            terminal.note(scope.said(line))


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@pass_scope
def gc(scope: Scope, *, dry_run: bool) -> int:
    """Free what nobody needs any more."""
    from p2plearn import terminal, views

    facts = scope.client().gc(dry_run=dry_run)
    if scope.as_json:
        scope.emit(facts)
    else:
        click.echo(views.swept(facts))
        for line in views.left_unfreed(facts):
            terminal.note(scope.said(line))
    return 1 if facts.get("left") else 0
