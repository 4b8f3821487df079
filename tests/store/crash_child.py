"""One operation on a store, in a process of its own, to be killed or failed in the middle (test_crash, test_faults).

An operation that is refused with words is tried once more: after one fault the store works again.

Says on stdout what has been acknowledged, a line at a time, unbuffered.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

from stores import publish

from p2plearn import identity
from p2plearn.course.index import decode_index
from p2plearn.course.manifest import open_manifest
from p2plearn.errors import P2plearnError
from p2plearn.store.store import Store


def say(*words: object) -> None:
    for _ in range(2):  # the write that is to fail may be this one
        with contextlib.suppress(OSError):
            os.write(1, (" ".join(map(str, words)) + "\n").encode())
            break


def publish_it(store: Store, extra: Path) -> object:
    return publish(store, extra).course.hex()


def download_it(store: Store, extra: Path) -> object:
    raw, signature, index_raw, chunks = pickle.loads(extra.read_bytes())
    signed = open_manifest(raw, signature)
    download = store.begin_download(signed, index_raw, decode_index(index_raw, signed.manifest))
    try:
        for number, slot in enumerate(download.missing()):
            assert download.put(slot, [chunks[slot]])
            say("put", slot)
            if number % 5 == 4:
                download.commit()
    finally:
        download.close()
    return signed.course.hex()


def keep_it(store: Store, extra: Path) -> object:
    """What ``get --no-copy`` does to the store, with the parcel in ``extra`` and the place beside it."""
    raw, signature, index_raw, chunks = pickle.loads((extra / "parcel").read_bytes())
    signed, dest = open_manifest(raw, signature), extra / "out"
    index = decode_index(index_raw, signed.manifest)
    download = store.begin_download(signed, index_raw, index, checkout=dest, give=True)
    following = None
    try:
        for slot in download.missing():
            assert download.put(slot, [chunks[slot]])
            say("put", slot)
        download.commit()
        following = download.take_following(dest)
    finally:
        download.close()
    done = store.checkout(signed.course, dest, following=following, give=True)
    store.keep_in_place(signed.course, dest, known=done.handed_over)
    return signed.course.hex()


def checkout_it(store: Store, extra: Path) -> object:
    (course,) = (row.course for row in store.courses() if row.title == "first")
    store.checkout(course, extra)
    return extra


def remove_it(store: Store, _: Path) -> object:
    for course in [row.course for row in store.courses() if row.title == "second"]:
        store.remove(course)
    return "second"


def gc_it(store: Store, _: Path) -> object:
    swept = store.gc()
    if swept.left:
        say("refused", "left")
        swept = store.gc()
    return swept.freed


def mend_it(store: Store, extra: Path) -> object:
    """What ``verify --repair`` does to the store."""
    say("damaged", len(store.verify()))
    return download_it(store, extra)


OPERATIONS: dict[str, Callable[[Store, Path], object]] = {
    "publish": publish_it,
    "download": download_it,
    "checkout": checkout_it,
    "keep": keep_it,
    "remove": remove_it,
    "gc": gc_it,
    "mend": mend_it,
    "open": lambda store, extra: "open",
}


def opened(home: Path) -> Store:
    """The store; after one refusal it opens."""
    try:
        return Store.open(home)
    except P2plearnError as problem:
        say("refused", problem.code)
        return Store.open(home)


def main(operation: str, home: Path, extra: Path) -> None:
    if operation == "key":
        say("ack", identity.load_or_create(home / "keys" / "peer.key").public.hex())
        say("closed")
        return
    store = opened(home)
    say("open")
    for tries in (1, 2):
        try:
            say("ack", OPERATIONS[operation](store, extra))
            break
        except P2plearnError as problem:
            say("refused" if tries == 1 else "gave up", problem.code)
    try:
        store.close()
    except P2plearnError as problem:
        say("refused", problem.code)
    say("closed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
