"""Folders to travel: the real course, and made ones with everything that a file system can hold."""

from __future__ import annotations

import filecmp
import random
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / "shared" / "courses" / "python-novice-inflammation"
DATES = ("2024-10", "2026-06")


def real_course(date: str) -> Path:
    """The real course at a date; skips where the folder beside the checkout is absent."""
    folder = REAL / date
    if not folder.is_dir():
        pytest.skip(f"no real course at {REAL} (it lies beside the checkout, not in it)")
    return folder


def odd_folder(folder: Path) -> Path:
    """Names in many scripts, empty files and folders, 0 and 1 byte, a file of several chunks."""
    rng = random.Random("odd")
    files = {
        "README.md": b"# Odd things\n\nA course of everything.\n",
        "empty": b"",
        "one": b"1",
        "课程/第一课.md": "# 第一课\n你好\n".encode(),
        "دروس/الدرس الأول.txt": "مرحبا".encode(),
        "emoji 🎓/notes – final (2).md": b"x" * 5000,
        "UPPER/Case.txt": b"upper",
        "UPPER/case.txt": b"lower",
        ".hidden/.secret": b"not so secret",
        "deep/" * 20 + "leaf": b"leaf",
        "large.bin": rng.randbytes(3_000_000),
        "same-1.bin": rng.randbytes(300_000),
        "ünïcödé": b"u",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "same-2.bin").write_bytes((folder / "same-1.bin").read_bytes())
    (folder / "empty folder" / "inside it").mkdir(parents=True)
    return folder


def made_file(path: Path, size: int, seed: str = "made") -> Path:
    """``size`` bytes that don't compress, the same for a seed."""
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for at in range(0, size, 1 << 20):
            out.write(rng.randbytes(min(1 << 20, size - at)))
    return path


def assert_same(one: Path, other: Path) -> None:
    """Both trees hold the same names and bytes, empty folders included."""
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        if (one / name).is_dir():
            assert (other / name).is_dir()
        else:
            assert filecmp.cmp(one / name, other / name, shallow=False), name
