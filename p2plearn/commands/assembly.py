"""The commands of the first level: which module has each, and what the list of them says of it.

A command line is one of some forty commands, and each module brings its own imports; so a module is loaded when a
command of it is run, or asked for its own help. The list that ``--help`` shows, the completion of names and the guess
at a mistyped one come from the table below, whose words are those of the commands themselves (a test holds them
together).

Imports click and our own light modules only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from p2plearn.commands.scope import Group

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Row(NamedTuple):
    """A command: its name, the module in ``commands`` that has it, its first sentence, and what it is called there.

    Of a group also the names of its ``commands``, with blanks between.
    """

    name: str
    module: str
    short: str
    called: str = ""
    commands: str = ""

    def load(self) -> click.Command:
        """The command itself."""
        found = getattr(import_module(f"p2plearn.commands.{self.module}"), self.called or self.name)
        assert isinstance(found, click.Command)  # noqa: S101 - for the type checker
        return found


SECTIONS: Final[Mapping[str, Sequence[Row]]] = {
    "Courses": (
        Row("publish", "courses", "Publish a folder or a file and print its course hash."),
        Row("get", "courses", "Fetch a course by its hash (hex, CID or p2plearn: link) and print where it is."),
        Row("list", "courses", "The courses kept here, and why.", "list_"),
        Row("info", "courses", "All that is known here of one course (8 digits of its hash are enough)."),
        Row("verify", "courses", "Hash what is stored of one course, or of all, and name what is damaged; with "
                                 "--repair, mend it."),
        Row("remove", "courses", "Forget a course and free its bytes (8 digits of its hash are enough)."),
        Row("gc", "courses", "Free what nobody needs any more."),
        Row("export", "archive", "Write courses into one CAR file, to be carried to where no network is."),
        Row("import", "archive", "Take in the courses, and what people said, of a file that `p2plearn export` wrote "
                                 "(- for standard input).", "import_"),
    ),
    "This machine": (
        Row("node", "node", "Start, stop and look at this machine's node.",
            commands="start stop leave status pause resume peers"),
        Row("doctor", "doctor", "Say why this machine and others can't see each other, and what to do."),
        Row("service", "service", "Run the node as a service of systemd, from login (or boot) on.",
            commands="print install remove"),
        Row("metrics", "node", "The node's figures, as Prometheus reads them."),
        Row("paths", "home", "Where everything is kept."),
        Row("config", "home", "Settings: see `p2plearn config show`.", "config_", "show"),
        Row("completion", "home", "Print the completion script: `eval \"$(p2plearn completion bash)\"`."),
        Row("demo", "home", "Watch a course travel between three nodes on this machine."),
    ),
    "Find and judge": (
        Row("search", "people", "Find courses in the catalogue that this node keeps; works without a network."),
        Row("rate", "people", "Give a course 1 to 5 stars; your latest rating counts."),
        Row("ratings", "people", "What a course is worth to people you trust, and to everyone."),
        Row("trust", "people", "Whose judgement counts for you; see `p2plearn ratings`.", commands="add remove list"),
        Row("profile", "people", "Show a person (you, without an argument), or say how you want to be called."),
    ),
    "Ask and answer": (
        Row("discussion", "people", "What was said about a course: questions, answers, comments."),
        Row("ask", "people", "Ask a question about a course; prints its id."),
        Row("answer", "people", "Answer a question (8 digits of its id are enough)."),
        Row("comment", "people", "Comment on a course, or on somebody's post."),
        Row("accept", "people", "Mark the answer that helped you; only who asked can."),
        Row("edit", "people", "Put another text in place of your post's."),
        Row("withdraw", "people", "Take your post back: its text is deleted, here and wherever this becomes known."),
    ),
    "Keep order": (
        Row("mute", "people", "Don't show an author's words, or a course, to you."),
        Row("block", "people", "Refuse a course or an author on this node: not fetched, not served, nothing said kept "
                               "or passed on."),
        Row("label", "people", "Put a course or an author on your public list, which others can subscribe to."),
        Row("subscribe", "people", "Refuse what a moderator's list denies, as if you had blocked it; show what it "
                                   "warns of."),
        Row("hidden", "people", "The log of what was hidden or shown again here: by whom, when and why."),
        Row("moderate", "people", "Hide or pin a post in the discussion of your own course."),
    ),
    "Networks of one's own, and plans": (
        Row("invite", "group", "Print what others need to join this home's closed group: one text, a secret of the "
                               "group."),
        Row("join", "group", "Set this home up to be in a closed group, by the text that `p2plearn invite` printed "
                             "there."),
        Row("plan", "plan", "What loss to expect when nodes come and go, and how many copies to ask for."),
    ),
}  # fmt: skip
"""All of them, as ``--help`` orders them."""

ROWS: Final = {row.name: row for rows in SECTIONS.values() for row in rows}


class Assembled(Group):
    """The group of all commands, each loaded when it is wanted."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Their names."""
        return list(ROWS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, with its module loaded; None when there is none."""
        return ROWS[cmd_name].load() if cmd_name in ROWS else None

    def below(self) -> dict[str, str]:
        """Commands of its groups, and how they are written."""
        return {each: f"{row.name} {each}" for row in ROWS.values() for each in row.commands.split()}

    def sections(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """What its help lists."""
        return {title: [(row.name, row.short) for row in rows] for title, rows in SECTIONS.items()}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and options that begin so."""
        from click.shell_completion import CompletionItem

        found = [row for row in ROWS.values() if row.name.startswith(incomplete)]
        # The first words of a sentence, as click has them for a command.
        names = [
            CompletionItem(row.name, help=click.Command(row.name, help=row.short).get_short_help_str()) for row in found
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)
