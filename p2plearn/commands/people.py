"""Commands about people: ratings, search, discussion, trust, moderation.

Imports click and light modules only.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from p2plearn import people
from p2plearn.commands import people_words
from p2plearn.commands.scope import Command, Group, course_word
from p2plearn.errors import UsageProblem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLLOW_SECONDS: Final = 1.0
"""How often ``discussion --follow`` looks for news."""


class _Node(Protocol):
    def people(self, name: str, request: DataclassInstance) -> dict[str, Any]:
        """See ``client.NodeClient.people``."""
        ...


class Scope(Protocol):
    """What these commands need of ``cli.Scope``."""

    as_json: bool
    interrupted: str

    def said(self, text: str) -> str:
        """A sentence of ours, its commands with the home that was given."""
        ...

    def client(self) -> _Node:
        """The node of this home."""
        ...

    def emit(self, value: dict[str, Any]) -> None:
        """The final JSON object."""
        ...


def _ask(scope: Scope, name: str, request: DataclassInstance) -> dict[str, Any]:
    return scope.client().people(name, request)


def _answer(scope: Scope, facts: dict[str, Any], words: str) -> None:
    if scope.as_json:
        scope.emit(facts)
        return
    click.echo(words)
    _warn(facts)


def _warn(facts: dict[str, Any]) -> None:
    """What the node had to say of its clock when it signed."""
    from p2plearn.terminal import note, plain

    for doubt in facts.get("warnings", ()):
        if isinstance(doubt, str):  # (those about a person are shown beside the name)
            note(plain(doubt))


def _words(given: str | None, option: str | None, before: str = "") -> str:
    """A text: as argument, as option, from standard input, or from the editor."""
    text = given if given is not None else option
    if text is None and not sys.stdin.isatty():
        text = sys.stdin.read()
    elif text is None:
        text = click.edit(before) or ""
    if not text.strip():
        raise UsageProblem("There is no text.", "Give it as an argument, with --text, or on standard input.")
    return text


_text_option = click.option("--text", "option", default=None, metavar="TEXT", help="The text (else standard input).")


# -- ratings and search -----------------------------------------------------------------------------------------------


@click.command("rate", cls=Command)
@click.argument("course", metavar="HASH")
@click.argument("stars", type=click.IntRange(1, 5), required=False)
@click.option("--review", default="", metavar="TEXT", help="Say why, in Markdown.")
@click.option("--withdraw", is_flag=True, help="Take your rating back.")
@click.pass_obj
def rate(scope: Scope, *, course: str, stars: int | None, review: str, withdraw: bool) -> None:
    """Give a course 1 to 5 stars; your latest rating counts.

    \b
    p2plearn rate HASH 5 --review "Clear and short."
    """
    if withdraw == (stars is not None):
        raise UsageProblem("Give either a number of stars, 1 to 5, or --withdraw.")
    facts = _ask(scope, "rate", people.RateRequest(course_word(course), stars or 0, review))
    _answer(scope, facts, "Your rating is withdrawn." if withdraw else f"Rated {'★' * (stars or 0)}.")


@click.command("ratings", cls=Command)
@click.argument("course", metavar="HASH")
@click.pass_obj
def ratings(scope: Scope, course: str) -> None:
    """What a course is worth to people you trust, and to everyone."""
    facts = _ask(scope, "ratings", people.RatingsRequest(course_word(course)))
    _answer(scope, facts, people_words.ratings(facts))


@click.command("search", cls=Command)
@click.argument("words", nargs=-1)
@click.option("--tag", "tags", multiple=True, help="Only with this tag (again for more).")
@click.option("--language", default="", metavar="BCP47", help="Only in this language; en also finds en-GB.")
@click.option("--author", default="", metavar="KEY|NAME", help="Only by this author.")
@click.option("--order", type=click.Choice(["relevance", "rating", "new", "title", "copies"]), default="relevance")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="At most this many.")
@click.pass_obj
def search(
    scope: Scope, *, words: tuple[str, ...], tags: tuple[str, ...], language: str, author: str, order: str, limit: int
) -> None:
    """Find courses in the catalogue that this node keeps; works without a network.

    \b
    p2plearn search python --language en --order rating
    """
    request = people.SearchRequest(" ".join(words), tags, language, author, order, limit)
    facts = _ask(scope, "search", request)
    _answer(scope, facts, people_words.found(facts["courses"]))


# -- discussion -------------------------------------------------------------------------------------------------------


def _say(scope: Scope, role: str, request: people.PostRequest) -> None:
    facts = _ask(scope, "post", request)
    if scope.as_json:
        scope.emit(facts)
    else:
        click.echo(f"{role} {facts['id']}")
        _warn(facts)


@click.command("ask", cls=Command)
@click.argument("course", metavar="HASH")
@click.argument("text", required=False)
@_text_option
@click.option("--file", "path", default="", metavar="PATH", help="About this file of the course.")
@click.pass_obj
def ask(scope: Scope, *, course: str, text: str | None, option: str | None, path: str) -> None:
    """Ask a question about a course; prints its id.

    \b
    p2plearn ask HASH "Which Python does lesson 3 want?"
    """
    _say(scope, "Question", people.PostRequest("question", _words(text, option), course=course_word(course), path=path))


@click.command("answer", cls=Command)
@click.argument("question", metavar="ID")
@click.argument("text", required=False)
@_text_option
@click.pass_obj
def answer(scope: Scope, *, question: str, text: str | None, option: str | None) -> None:
    """Answer a question (8 digits of its id are enough)."""
    _say(scope, "Answer", people.PostRequest("answer", _words(text, option), reply=question))


@click.command("comment", cls=Command)
@click.argument("about", metavar="HASH|ID")
@click.argument("text", required=False)
@_text_option
@click.option("--file", "path", default="", metavar="PATH", help="About this file of the course.")
@click.pass_obj
def comment(scope: Scope, *, about: str, text: str | None, option: str | None, path: str) -> None:
    """Comment on a course, or on somebody's post."""
    words = _words(text, option)
    _say(scope, "Comment", people.PostRequest("comment", words, course=course_word(about), path=path))


@click.command("edit", cls=Command)
@click.argument("post", metavar="ID")
@click.argument("text", required=False)
@_text_option
@click.pass_obj
def edit(scope: Scope, *, post: str, text: str | None, option: str | None) -> None:
    """Put another text in place of your post's."""
    facts = _ask(scope, "edit", people.EditRequest(post, _words(text, option)))
    _answer(scope, facts, f"Edited {facts['post'][:12]}.")


@click.command("withdraw", cls=Command)
@click.argument("post", metavar="ID")
@click.pass_obj
def withdraw(scope: Scope, post: str) -> None:
    """Take your post back: its text is deleted, here and wherever this becomes known."""
    facts = _ask(scope, "withdraw", people.WithdrawRequest(post))
    _answer(scope, facts, f"Withdrew {facts['post'][:12]}.")


@click.command("accept", cls=Command)
@click.argument("answer_id", metavar="ID")
@click.option("--undo", is_flag=True, help="No longer.")
@click.pass_obj
def accept(scope: Scope, *, answer_id: str, undo: bool) -> None:
    """Mark the answer that helped you; only who asked can."""
    facts = _ask(scope, "accept", people.AcceptRequest(answer_id, undo))
    _answer(scope, facts, "No answer is accepted any more." if undo else f"Accepted {facts['answer'][:12]}.")


@click.command("moderate", cls=Command)
@click.argument("post", metavar="ID")
@click.argument("action", type=click.Choice(["hide", "pin", "clear"]))
@click.option("--reason", default="", metavar="TEXT", help="Shown in place of what is hidden.")
@click.pass_obj
def moderate(scope: Scope, *, post: str, action: str, reason: str) -> None:
    """Hide or pin a post in the discussion of your own course."""
    facts = _ask(scope, "moderate", people.ModerateRequest(post, action, reason))
    _answer(scope, facts, f"{action.capitalize()}: {facts['post'][:12]}.")


@click.command("discussion", cls=Command)
@click.argument("course", metavar="HASH")
@click.option("--order", type=click.Choice(["new", "best"]), default="new", show_default=True)
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Threads to show.")
@click.option("--follow", is_flag=True, help="Stay, and show what comes, until Ctrl-C.")
@click.pass_obj
def discussion(scope: Scope, *, course: str, order: str, limit: int, follow: bool) -> None:
    """What was said about a course: questions, answers, comments."""
    request = people.DiscussionRequest(course_word(course), order, limit)
    facts = _ask(scope, "discussion", request)
    _answer(scope, facts, people_words.discussion(facts, said=scope.said))
    if follow:
        scope.interrupted = "No longer following."
        _follow(scope, request, facts)


def _follow(scope: Scope, request: people.DiscussionRequest, facts: dict[str, Any]) -> None:
    seen = {item["id"]: people_words.state(item) for item in people_words.flat(facts["threads"])}
    while True:
        time.sleep(FOLLOW_SECONDS)
        facts = _ask(scope, "discussion", request)
        for item in reversed(list(people_words.flat(facts["threads"]))):
            if seen.get(item["id"]) != people_words.state(item):
                seen[item["id"]] = people_words.state(item)
                alone = {name: value for name, value in item.items() if name != "replies"}
                _answer(scope, {"event": "post", **alone}, people_words.item(item, 0))


# -- people -----------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def trust() -> None:
    """Whose judgement counts for you; see `p2plearn ratings`."""


@trust.command("add")
@click.argument("author", metavar="KEY|NAME")
@click.option("--private", is_flag=True, help="Tell nobody; those who trust you don't see it either.")
@click.pass_obj
def trust_add(scope: Scope, *, author: str, private: bool) -> None:
    """Trust an author: their ratings count for you, and half as much those of whom they trust."""
    facts = _ask(scope, "trust", people.TrustRequest(author, private=private))
    _answer(scope, facts, f"You trust {people_words.person(facts)}.")


@trust.command("remove")
@click.argument("author", metavar="KEY|NAME")
@click.pass_obj
def trust_remove(scope: Scope, author: str) -> None:
    """Trust an author no longer."""
    facts = _ask(scope, "trust", people.TrustRequest(author, remove=True))
    _answer(scope, facts, f"You no longer trust {people_words.person(facts)}.")


@trust.command("list")
@click.pass_obj
def trust_list(scope: Scope) -> None:
    """Whom you trust, and whom they bring along."""
    facts = _ask(scope, "trust_list", people.TrustListRequest())
    _answer(scope, facts, people_words.trusted(facts, said=scope.said))


@click.command("profile", cls=Command)
@click.argument("author", metavar="[KEY|NAME]", required=False, default="")
@click.option("--name", default=None, help="How you want to be called.")
@click.option("--about", default="", help="A line about you (with --name).")
@click.pass_obj
def profile(scope: Scope, *, author: str, name: str | None, about: str) -> None:
    """Show a person (you, without an argument), or say how you want to be called."""
    if name is not None and not name.strip():
        raise UsageProblem("A name has at least one character.")
    if about and name is None:
        raise UsageProblem("--about goes with --name: a profile is one whole.")
    facts = _ask(scope, "profile", people.ProfileRequest(author, name or "", about))
    _answer(scope, facts, people_words.profile(facts))


def _shun(scope: Scope, how: str, given: dict[str, Any]) -> None:
    if given["show"]:
        facts = _ask(scope, "shunned", people.ShunnedRequest())
        facts["shunned"] = [row for row in facts["shunned"] if row["how"] == how]
        _answer(scope, facts, people_words.shunned(facts["shunned"]))
        return
    if not given["subject"]:
        raise UsageProblem(f"Say whom or what to {how}, or --list.")
    target = "course" if given["course"] else "author" if given["author"] else ""
    subject = given["subject"] if target == "author" else _course_or_name(given["subject"])
    request = people.ShunRequest(subject, how, target, given["reason"], given["remove"])
    facts = _ask(scope, "shun", request)
    done = {"mute": "muted", "block": "blocked"}[how]
    _answer(
        scope, facts, f"{facts['target']} {facts['subject'][:12]} is {'no longer ' if given['remove'] else ''}{done}."
    )


def _course_or_name(text: str) -> str:
    try:
        return course_word(text)
    except UsageProblem:
        return text


def _shunning(how: str, words: str) -> click.Command:
    """``mute`` and ``block``: the same options, another severity."""

    @click.command(how, cls=Command, help=words)
    @click.argument("subject", metavar="[HASH|KEY|NAME]", required=False, default="")
    @click.option("--course", is_flag=True, help="It is a course.")
    @click.option("--author", is_flag=True, help="It is an author.")
    @click.option("--reason", default="", metavar="TEXT", help="Why; for yourself.")
    @click.option("--remove", is_flag=True, help="No longer.")
    @click.option("--list", "show", is_flag=True, help="Show what is.")
    @click.pass_obj
    def command(scope: Scope, /, **given: Any) -> None:
        _shun(scope, how, given)

    return command


mute = _shunning("mute", "Don't show an author's words, or a course, to you.")
block = _shunning(
    "block", "Refuse a course or an author on this node: not fetched, not served, nothing said kept or passed on."
)


@click.command("label", cls=Command)
@click.argument("subject", metavar="HASH|KEY")
@click.argument("word", metavar="deny|warn|clear", type=click.Choice(["deny", "warn", "clear"]))
@click.option("--course", is_flag=True, help="It is a course.")
@click.option("--author", is_flag=True, help="It is an author.")
@click.option("--reason", default="", metavar="TEXT", help="Why; for those who subscribe to you.")
@click.pass_obj
def label(scope: Scope, *, subject: str, word: str, course: bool, author: bool, reason: str) -> None:
    """Put a course or an author on your public list, which others can subscribe to."""
    target = "course" if course else "author" if author else ""
    facts = _ask(scope, "label", people.LabelRequest(_course_or_name(subject), word, target, reason))
    _answer(scope, facts, f"Your list says {word} of {facts['target']} {facts['subject'][:12]}.")


@click.command("subscribe", cls=Command)
@click.argument("author", metavar="KEY|NAME")
@click.option("--remove", is_flag=True, help="No longer.")
@click.pass_obj
def subscribe(scope: Scope, *, author: str, remove: bool) -> None:
    """Refuse what a moderator's list denies, as if you had blocked it; show what it warns of."""
    facts = _ask(scope, "subscribe", people.SubscribeRequest(author, remove))
    words = f"{facts['author'][:12]}: {'no longer heeded' if remove else 'heeded'}"
    _answer(scope, facts, words + ("." if remove else f", {facts['denied']} denied."))


@click.command("hidden", cls=Command)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Lines to show.")
@click.pass_obj
def hidden(scope: Scope, limit: int) -> None:
    """The log of what was hidden or shown again here: by whom, when and why."""
    facts = _ask(scope, "hidden", people.HiddenRequest(limit))
    _answer(scope, facts, people_words.hidden(facts["hidden"]))
