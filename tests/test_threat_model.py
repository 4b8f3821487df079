"""The page on threats names tests as proofs: they exist, under these names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "threat-model.md"


def test_every_proof_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 60
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}, f"{file} has no {name}"


def test_every_file_that_is_named_exists() -> None:
    text = PAGE.read_text("utf-8")
    for path in re.findall(r"`((?:tests|fuzz|benchmarks|p2plearn)/[\w/.-]+)`", text):
        assert (TESTS.parent / path).exists(), path
    for path in re.findall(r"`((?:net|web|transfer)/\w+\.py|\w+\.py)`", text):
        assert (TESTS.parent / "p2plearn" / path).exists(), path
