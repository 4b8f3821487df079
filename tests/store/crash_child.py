"""One operation on a store, in a process of its own, to be killed somewhere in the middle (test_crash.py).

Says on stdout what has been acknowledged, a line at a time, unbuffered.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from stores import publish

from p2plearn.course.index import decode_index
from p2plearn.course.manifest import open_manifest
from p2plearn.store.store import Store


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(operation: str, home: Path, extra: Path) -> None:
    store = Store.open(home)
    say("open")
    if operation == "publish":
        say("ack", publish(store, extra).course.hex())
    elif operation == "download":
        raw, signature, index_raw, chunks = pickle.loads(extra.read_bytes())
        signed = open_manifest(raw, signature)
        download = store.begin_download(signed, index_raw, decode_index(index_raw, signed.manifest))
        for number, slot in enumerate(download.missing()):
            assert download.put(slot, [chunks[slot]])
            say("put", slot)
            if number % 5 == 4:
                download.commit()
        download.close()
        say("ack", signed.course.hex())
    elif operation == "checkout":
        (course,) = (row.course for row in store.courses() if row.title == "first")
        store.checkout(course, extra)
        say("ack", extra)
    elif operation == "remove":
        (course,) = (row.course for row in store.courses() if row.title == "second")
        store.remove(course)
        say("ack", course.hex())
    store.close()
    say("closed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
