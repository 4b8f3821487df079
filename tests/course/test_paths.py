"""Path rules: one list of what is allowed and what isn't, and no way out of the folder."""

from __future__ import annotations

import ntpath
import posixpath
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2plearn.course import paths
from p2plearn.course.paths import BadPath, check_path, check_tree, tree_key

nasty = st.text(st.sampled_from("ab.:/\\\0 \n~CONcon1é\u0301\ud800$"), max_size=12)


def test_the_vectors(vectors: Callable[[str], Any]) -> None:
    told = vectors("paths")
    for path in told["good"]:
        check_path(path)
    for each in told["bad"]:
        with pytest.raises(BadPath) as wrong:
            check_path(each["path"])
        assert str(wrong.value) == each["reason"]
    for tree in told["good_trees"]:
        check_tree(tree["files"], tree["folders"], 100)
    for tree in told["bad_trees"]:
        with pytest.raises(BadPath) as wrong:
            check_tree(tree["files"], tree["folders"], 100)
        assert str(wrong.value) == tree["reason"]


@settings(deadline=None, max_examples=500)
@given(st.one_of(nasty, st.text(max_size=30)))
def test_what_is_allowed_stays_inside_on_every_system(path: str) -> None:
    try:
        check_path(path)
    except BadPath:
        return
    path.encode()
    assert posixpath.normpath(f"/top/{path}") == f"/top/{path}"
    # "1:" is a drive to ntpath, but to no Windows there is; only letters are.
    drive, _ = ntpath.splitdrive(path)
    assert not re.match(r"[A-Za-z\\/]", drive)
    assert drive or not ntpath.isabs(path)
    assert ntpath.normpath(f"C:/top/{path}").startswith("C:\\top\\")
    assert unicodedata.normalize("NFC", path) == path
    assert all(ord(char) >= 32 for char in path)


@settings(deadline=None, max_examples=500)
@given(st.one_of(nasty, st.text(st.characters(max_codepoint=0x7F), max_size=300)))
@example("a" * 256)
@example("/".join("a" * 65))
def test_the_quick_look_and_the_slow_one_agree(path: str) -> None:
    try:
        paths._check_slowly(path)
    except BadPath:
        with pytest.raises(BadPath):
            check_path(path)
    else:
        check_path(path)


simple = st.lists(st.sampled_from(["a", "b", "a.b", "a-"]), min_size=1, max_size=4).map("/".join)


@settings(deadline=None, max_examples=500)
@given(st.lists(simple, max_size=6), st.lists(simple, max_size=3))
def test_a_tree_is_what_a_file_system_could_hold(files: list[str], folders: list[str]) -> None:
    leaves = files + folders
    above = {path[:at] for path in leaves for at in range(len(path)) if path[at] == "/"}
    holds = len(set(leaves)) == len(leaves) and not above & set(leaves)
    count = len(above) + len(folders)
    if holds:
        check_tree(files, folders, count)
    with pytest.raises(BadPath):
        check_tree(files, folders, count - 1 if holds else 100)


def test_tree_order_keeps_folders_together() -> None:
    assert sorted(["a.txt", "a/b", "a", "a-b/c", "a/b/c"], key=tree_key) == ["a", "a/b", "a/b/c", "a-b/c", "a.txt"]
