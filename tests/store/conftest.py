"""Fixtures of the store's tests; the helpers are in ``stores``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import FILES, FOLDERS, write_tree

from p2plearn.store.space import StoreLimits
from p2plearn.store.store import Store


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens stores by name; closes them all at the end."""
    stores: list[Store] = []

    def open_store(name: str = "home", **limits: object) -> Store:
        store = Store.open(tmp_path / name, StoreLimits(**limits))  # type: ignore[arg-type]
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened("home")


@pytest.fixture
def other(opened: Callable[..., Store]) -> Store:
    return opened("other")


@pytest.fixture
def source(opened: Callable[..., Store]) -> Store:
    return opened("source")


@pytest.fixture
def target(opened: Callable[..., Store]) -> Store:
    return opened("target")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", FILES, FOLDERS)
