"""A sensible title and language for a folder whose author gave none: what the folder says of itself.

Looks, in this order, at the settings of common course builders (``config.yaml``, ``_config.yml``, ``mkdocs.yml``,
``_quarto.yml``), at ``index.*`` and at ``README.*``. Reads only the simple spellings of each format: a guess that is
missing is better than one that is wrong, and the author can always say it.

Sans-IO. Imports ``course`` only.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from p2plearn.course.manifest import MAX_LANGUAGE, MAX_TITLE
from p2plearn.course.text import tidy

READ_AT_MOST = 64 * 1024
"""Bytes of a file worth reading: a title stands at the beginning. Also bounds what a crafted page can cost."""

_SETTINGS = ("config.yaml", "config.yml", "_config.yml", "_config.yaml", "mkdocs.yml", "mkdocs.yaml", "_quarto.yml")
_PAGES = ("index", "readme")
_SUFFIXES = (".md", ".markdown", ".qmd", ".rmd", ".html", ".htm", ".rst", ".adoc", ".org", ".txt", "")

# Left over from templates, or true of any folder.
_PLACEHOLDER = re.compile(
    r"\W*(?:fixme|todo|tbd|xxx|untitled|(?:my |your |the |a )?(?:lesson|course|site|page|project|document)?[ -]?"
    r"(?:title|name)(?: here)?|home(?: ?page)?|welcome|index|read ?me|(?:table of )?contents|overview|introduction"
    r"|about)\W*",
    re.IGNORECASE,
)
_TEMPLATED = re.compile(r"\{\{|\{%|<%|\$\{|\bFIXME\b|\bTODO\b")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")


class About(NamedTuple):
    """What a folder says of itself; ``language`` is a BCP 47 tag or empty."""

    title: str
    language: str


def is_telling(path: str) -> bool:
    """Whether ``title_from`` wants the beginning (``READ_AT_MOST`` bytes) of this file of a course."""
    return _rank(path) is not None


def title_from(files: Mapping[str, bytes], fallback: str) -> About:
    """Title and language from the beginnings of a folder's files; ``fallback`` (its name) when none has a title.

    The title is fit for a manifest: NFC, no control characters, no markup, 1 to ``MAX_TITLE`` characters.
    """
    title = language = ""
    ranked = sorted((rank, path) for path in files if (rank := _rank(path)) is not None)
    for _, path in ranked:
        text = _decoded(files[path][:READ_AT_MOST])
        for found_title, found_language in _reader(path)(text):
            title = title or _cleaned(found_title)
            language = language or _tag(found_language)
        if title and language:
            break
    return About(title or tidy(fallback, MAX_TITLE) or "Untitled", language)


def _rank(path: str) -> tuple[int, int] | None:
    """Where this file stands in the order of trust; None when it isn't looked at."""
    name = path.lower()
    if name in _SETTINGS:
        return 0, _SETTINGS.index(name)
    stem, dot, suffix = name.partition(".")
    if stem in _PAGES and dot + suffix in _SUFFIXES:
        return 1 + _PAGES.index(stem), _SUFFIXES.index(dot + suffix)
    return None


_Finds = Iterator[tuple[str, str]]
"""Pairs of a title and a language, either of which may be empty, the most telling first."""


def _reader(path: str) -> Callable[[str], _Finds]:
    name = path.lower()
    if name in _SETTINGS:
        return _settings
    if name.endswith((".html", ".htm")):
        return _page
    if name.endswith((".rst", ".txt")) or "." not in name:
        return _plain
    if name.endswith((".adoc", ".org")):
        return _marked
    return _markdown


def _decoded(raw: bytes) -> str:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return raw.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def _settings(text: str) -> _Finds:
    for key in ("title", "site_name"):
        yield _value(text, key), ""
    # Quarto's sit one level down.
    yield _value(text, "title", within="book|website"), ""
    for key in ("lang", "language", "locale"):
        yield "", _value(text, key)


def _value(text: str, key: str, within: str = "") -> str:
    """The text of ``key: value`` at the margin, or right below one of the keys ``within``; empty if there is none."""
    if within:
        block = re.search(rf"^(?:{within})[ \t]*:[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)+)", text, re.MULTILINE)
        if not block:
            return ""
        margin = re.match(r"[ \t]*", block[1])
        text = re.sub(rf"^{margin[0] if margin else ''}", "", block[1], flags=re.MULTILINE)
    found = re.search(rf"^{key}[ \t]*:(?:[ \t]+(.*))?$", text, re.MULTILINE)
    if not found:
        return ""
    value = (found[1] or "").strip()
    if re.fullmatch(r"[|>][-+0-9]*|", value):
        # A block: the indented lines below it.
        block = re.match(r"(?:\n[ \t]+\S.*)+", text[found.end() :])
        return " ".join(block[0].split()) if block and value else ""
    return _unquoted(value)


def _unquoted(value: str) -> str:
    """A YAML scalar written on one line, without its quotes and comment."""
    if value[0] == '"':
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"', value)
        return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if value[0] == "'":
        quoted = re.match(r"'((?:[^']|'')*)'", value)
        return quoted[1].replace("''", "'") if quoted else ""
    return "" if value[0] in "&*![{@`%#" else re.split(r"\s#", value, maxsplit=1)[0]


def _markdown(text: str) -> _Finds:
    front = re.match(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", text, re.DOTALL)
    if front:
        yield from _settings(front[1] + "\n")
        text = text[front.end() :]
    text = _without_comments(text)
    before = ""
    fence = ""
    for line in text.split("\n"):
        opened = re.match(r" {0,3}(```+|~~~+)", line)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        elif not fence:
            heading = re.match(r" {0,3}#[ \t]+(\S.*)", line)
            if heading:
                yield re.sub(r"(?:^|[ \t])#+[ \t]*$", "", heading[1]), ""
            elif before and re.fullmatch(r" {0,3}=+[ \t]*", line):
                yield before, ""
        before = line.strip()
    yield from _page(text, ("h1",))


def _without_comments(text: str) -> str:
    shown: list[str] = []
    while text:
        before, opened, text = text.partition("<!--")
        shown.append(before)
        text = text.partition("-->")[2] if opened else ""
    return "".join(shown)


def _page(text: str, elements: tuple[str, ...] = ("title", "h1")) -> _Finds:
    text = _without_comments(text)
    for element in elements:
        for found in re.finditer(
            rf"<{element}\b[^<>]*>([^<>]*(?:<(?!/{element}\b)[^<>]*>[^<>]*)*)", text, re.IGNORECASE
        ):
            yield found[1], ""
    language = re.search(r"""<html\b[^<>]*?\slang\s*=\s*["']?([\w-]+)""", text, re.IGNORECASE)
    if language:
        yield "", language[1]


def _plain(text: str) -> _Finds:
    """reStructuredText, and plain text that underlines its title as that does; else the first line, if it is short."""
    lines = [line.rstrip() for line in text.split("\n")]
    for line, below in itertools.pairwise(lines):
        under = re.fullmatch(r"([=\-~^\"'#*+`:.])\1{2,}", below)
        if under and re.search(r"\w", line) and not line.startswith(("..", ":")):
            yield line, ""
            break
    for line in lines:
        if re.search(r"\w", line):
            if len(line) <= 80 and not line.startswith(("..", ":", "-", "*")):
                yield line.lstrip("# "), ""
            break


def _marked(text: str) -> _Finds:
    """AsciiDoc and Org, which mark the title's line."""
    for found in re.finditer(r"^(?:=[ \t]+|#\+title:[ \t]*)(\S.*)$", text, re.MULTILINE | re.IGNORECASE):
        yield found[1], ""
    for found in re.finditer(r"^(?::lang:|#\+language:)[ \t]*(\S+)", text, re.MULTILINE | re.IGNORECASE):
        yield "", found[1]


def _cleaned(title: str) -> str:
    """``title`` without markup; empty when it is a placeholder."""
    title = title[: 10 * MAX_TITLE].strip()
    if _TEMPLATED.search(title):
        return ""
    text = re.sub(r"!\[[^\[\]]*\](?:\([^()]*\)|\[[^\[\]]*\])?", "", title)  # images, badges
    text = re.sub(r"\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])", r"\1", text)  # links
    text = re.sub(r"\{[#.:][^{}]*\}", "", text)  # ids and classes
    text = re.sub(r":[a-z][\w+.-]*:`([^`]*)`", r"\1", text)  # reStructuredText roles
    text = re.sub(r"</?[A-Za-z][^<>]*>", "", text)
    text = re.sub(r"(\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<!\w)([*_])(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", text)
    text = re.sub(r"`+([^`]*)`+", r"\1", text)
    text = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    text = tidy(" ".join(html.unescape(text).split()), MAX_TITLE)
    return "" if _PLACEHOLDER.fullmatch(text) or not re.search(r"\w", text) else text


def _tag(language: str) -> str:
    """``language`` as a BCP 47 tag; empty when it is none."""
    tag = language.strip().partition(".")[0]
    return tag.replace("_", "-") if len(tag) <= MAX_LANGUAGE and _LANGUAGE.fullmatch(tag) else ""
