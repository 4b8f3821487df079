"""People to say things in tests: keys from a name, envelopes in one line."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2plearn.course.manifest import Manifest, Part, Series, SignedManifest, sign_manifest
from p2plearn.course.names import RAW_CID
from p2plearn.gossip import envelope as env
from p2plearn.gossip.envelope import CATALOGUE, Body, Content, Envelope, seal

NOW = 1_790_000_000
COURSE = hashlib.sha256(b"a course").digest()


class Person:
    """Someone with a key; ``says`` counts numbers up by itself."""

    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.key = self.private.public_key().public_bytes_raw()
        self.seq = 0

    def says(self, body: Body, course: bytes = COURSE, time: int = NOW, seq: int = 0) -> Envelope:
        self.seq = seq or self.seq + 1
        if isinstance(body, env.Profile | env.Trust | env.Label):
            course = CATALOGUE
        return seal(Content(self.key, body, course, self.seq, time), self.private.sign)

    def course(self, title: str, **more: Any) -> SignedManifest:
        fields: dict[str, Any] = {
            "kind": "file", "title": title, "description": "", "author": self.key, "tags": (), "language": "en",
            "license": "CC0-1.0", "created": NOW, "series": Series(title, 1, None), "chunker": "fixed;size=262144",
            "bytes": 1, "files": 1, "chunks": 1, "root": RAW_CID + bytes(32), "index": (Part(bytes(32), 100),),
        }  # fmt: skip
        return sign_manifest(Manifest(**(fields | more)), self.private.sign)

    def announces(self, signed: SignedManifest, copies: int = 1, time: int = NOW) -> Envelope:
        return self.says(env.Entry(copies, signed.raw, signed.signature), signed.course, time)


@cache
def person(name: str) -> Person:
    return Person(name)


def question(text: str = "Why?", path: str = "") -> env.Post:
    return env.Post(path, None, "question", text)


def reply(to: Envelope, text: str = "Because.", role: str = "answer") -> env.Post:
    return env.Post("", to.id, role, text)
