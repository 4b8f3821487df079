"""The page on threats names tests as proofs: each of them exists, in whatever file it has moved to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "threat-model.md"


def names_of_tests() -> set[str]:
    """The name of every test function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    trees = [ast.parse(file.read_text("utf-8")) for file in TESTS.rglob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_proof_exists() -> None:
    named = re.findall(r"`[\w/]+\.py::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 60
    assert set(named) <= names_of_tests()


def test_every_file_of_ours_that_is_named_exists() -> None:
    text = PAGE.read_text("utf-8")
    for path in re.findall(r"`((?:tests|fuzz|benchmarks|p2plearn)/[\w/.-]+)`", text):
        assert (TESTS.parent / path).exists(), path
