"""Titles found in a folder: what a person would have typed, or the folder's name, never a placeholder or markup."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2plearn.course.manifest import MAX_LANGUAGE, MAX_TITLE
from p2plearn.course.text import tidy
from p2plearn.course.titles import READ_AT_MOST, About, is_telling, title_from

FALLBACK = "folder"


@pytest.mark.parametrize("date", ["2024-10", "2026-06"])
def test_the_real_course(real_course: Callable[[str], Path], date: str) -> None:
    top = real_course(date)
    files = {path.name: path.read_bytes() for path in top.iterdir() if is_telling(path.name)}
    assert title_from(files, date) == About("Programming with Python", "en")
    del files["config.yaml"]
    assert title_from(files, date).title == "Programming with Python"


@pytest.mark.parametrize(
    ("name", "text", "title", "language"),
    [
        ("config.yaml", "title: 'Programming with Python'\nlang: en\n", "Programming with Python", "en"),
        ("config.yaml", 'a: 1\ntitle: "A \\"quoted\\" title" # why\n', 'A "quoted" title', ""),
        ("config.yaml", "title: 'It''s here'\n", "It's here", ""),
        ("config.yaml", "title: Plain # comment\nlanguage: pt_BR\n", "Plain", "pt-BR"),
        ("config.yaml", "title: C# for all\n", "C# for all", ""),
        ("config.yaml", "title: >\n  Folded\n  title\nother: 1\n", "Folded title", ""),
        ("config.yaml", "title:\nother: 1\n", FALLBACK, ""),
        ("config.yaml", "title: FIXME\n", FALLBACK, ""),
        ("config.yaml", "title: 'Lesson Title'\n", FALLBACK, ""),
        ("config.yaml", "title: {{ name }}\n", FALLBACK, ""),
        ("config.yaml", "menu:\n  title: Not this\n", FALLBACK, ""),
        ("config.yaml", "lang: 'not a language'\ntitle: X\n", "X", ""),
        ("_config.yml", "\ufefftitle: 中文课程\r\nlang: zh-CN\r\n", "中文课程", "zh-CN"),
        ("mkdocs.yml", "site_name: My Docs\ntheme:\n  language: de\n", "My Docs", ""),
        ("_quarto.yml", "project:\n  type: book\nbook:\n  title: R for All\nlang: fr\n", "R for All", "fr"),
        ("README.md", "[![badge](a.svg)](b)\n\n# Learn *Python* [now](x) {#top} #\n", "Learn Python now", ""),
        ("README.md", "Setext `title`\n====\n", "Setext title", ""),
        ("README.md", "```\n# not this\n```\n~~~\n# nor this\n~~~\n# This\n", "This", ""),
        ("README.md", "<!-- # hidden\n# hidden -->\n# Shown &amp; said\n", "Shown & said", ""),
        ("README.md", "# Home\n# The real one\n", "The real one", ""),
        ("README.md", '<h1 align="center">\n <img src=x> A <b>centred</b> title\n</h1>\n', "A centred title", ""),
        ("README.md", "## Only a second level\n", FALLBACK, ""),
        ("README.md", "# C# and snake_case_names\n", "C# and snake_case_names", ""),
        ("README.md", "# TODO: title\n", FALLBACK, ""),
        ("index.md", "---\ntitle: Front matter\nlang: es\n---\n# Heading\n", "Front matter", "es"),
        ("index.md", "---\nlayout: home\n---\n# Heading\n", "Heading", ""),
        (
            "index.html",
            '<!DOCTYPE html><html class="a" lang="ar"><head><title>\n دورة &mdash; بايثون </title>',
            "دورة — بايثون",
            "ar",
        ),
        ("index.html", "<title>Home</title><h1>The <i>course</i></h1>", "The course", ""),
        ("INDEX.HTM", "<TITLE>Upper</TITLE>", "Upper", ""),
        ("README.rst", "======\nTales!\n======\n\nText\n", "Tales!", ""),
        ("README.rst", ".. image:: x\n\nWith :doc:`roles`\n-----------------\n", "With roles", ""),
        ("README.txt", "\nA short first line\nand more\n", "A short first line", ""),
        ("README", "# Marked\n", "Marked", ""),
        ("README.txt", "word " * 40, FALLBACK, ""),
        ("README.adoc", "= An AsciiDoc title\n:lang: it\n", "An AsciiDoc title", "it"),
        ("readme.org", "#+TITLE: An Org title\n#+LANGUAGE: nl\n", "An Org title", "nl"),
        ("README.md", "# e\u0301cole\x1b[2J\n", "école [2J", ""),
        ("README.md", "# " + "x" * 500, "x" * 200, ""),
        ("README.md", "", FALLBACK, ""),
        ("sub/README.md", "# Not at the top\n", FALLBACK, ""),
        ("notes.md", "# Not asked\n", FALLBACK, ""),
    ],
)
def test_titles(name: str, text: str, title: str, language: str) -> None:
    assert title_from({name: text.encode()}, FALLBACK) == About(title, language)


def test_the_more_telling_file_wins_and_the_others_fill_in() -> None:
    files = {
        "README.md": b"# From the readme",
        "index.html": b'<html lang="sv"><title>From the index</title>',
        "config.yaml": b"title: From the settings",
    }
    assert title_from(files, FALLBACK) == About("From the settings", "sv")
    del files["config.yaml"]
    assert title_from(files, FALLBACK) == About("From the index", "sv")
    assert title_from(dict(reversed(files.items())), FALLBACK) == About("From the index", "sv")


def test_other_encodings_do_no_harm() -> None:
    assert title_from({"README.md": "# Größe".encode("utf-16")}, FALLBACK).title == "Größe"
    assert title_from({"README.md": "# Größe".encode("latin-1")}, FALLBACK).title == "Gr��e"


def test_a_fallback_is_made_fit() -> None:
    assert title_from({}, "bad\x07 name\ud800").title == "bad  name?"
    assert title_from({}, "\n") == About("Untitled", "")


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["config.yaml", "_quarto.yml", "index.md", "index.html", "README", "readme.rst", "readme.org"]),
    st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from("#=-`*_[]()<h1>!\n \"':title|&{}\\é\u0301\x1b"), max_size=80).map(str.encode),
    ),
)
def test_any_file_gives_a_title_that_a_manifest_takes(name: str, content: bytes) -> None:
    title, language = title_from({name: content}, FALLBACK)
    assert 1 <= len(title) <= MAX_TITLE
    assert tidy(title, MAX_TITLE) == title
    assert len(language) <= MAX_LANGUAGE


REPEATED = [
    "[", "![a]", "<h1", "<h1><a>", "**a", "# **a ", "_a ", "\\", "`a", "{#", "<!--", ":a:`", "<a", "---\n", "title: ",
    " \n", "=\n", "book:\n", "# #", "title: >\n a\n", "<title>", "&#", '"\\', "~~~\n", "<html ", "lesson-",
]  # fmt: skip


@pytest.mark.parametrize("before", ["", "# ", "title: ", "<h1>"])
def test_crafted_files_cost_little_time(before: str) -> None:
    for text in REPEATED:
        content = (before + text * READ_AT_MOST)[:READ_AT_MOST].encode()
        for name in ("config.yaml", "_quarto.yml", "index.md", "index.html", "readme.rst", "readme.adoc"):
            started = time.process_time()
            title_from({name: content}, FALLBACK)
            assert time.process_time() - started < 2, (name, text)
