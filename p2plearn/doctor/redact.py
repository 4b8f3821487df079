"""⊙ What may leave this machine in a bug report: figures, and words without names.

Out go keys, titles, descriptions, names of files and people; addresses, peer ids and hashes are shortened so that two
of them can still be told apart in one report, but not be found.

Imports nothing.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

WORDS: Final = frozenset(
    {"standing", "words", "port_mapping", "last_error", "problem", "since", "until"}
    | {"waiting_for", "direction", "found_by", "last_fault", "why", "life"}
)
"""Names of texts in a status that are ours or the system's; all other texts are left out."""

LOGGERS: Final = frozenset({"p2plearn.net", "p2plearn.node", "p2plearn.monitoring", "p2plearn.web"})
"""Whose log lines name no course and no person."""

_HEX = re.compile(r"\b[0-9a-fA-F]{16,}\b")
_PEER = re.compile(r"\b(?:12D3KooW|Qm|16Uiu2HA)[1-9A-HJ-NP-Za-km-z]{20,}\b")
_CID = re.compile(r"\bb[a-z2-7]{40,}\b")
_IP4 = re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
_IP6 = re.compile(r"(?<![\w:])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?:%\w+)?(?![\w:])")
_DNS = re.compile(r"(/dns(?:[46]|addr)?/)[^/\s]+")
_HOST = re.compile(r"(?<![\w.:-])(?:[\w-]+\.)+[^\W\d][\w-]*\.?(?=:\d{1,5}(?!\w))")
"""A name that a port follows."""
_HEAD = re.compile(r"\S+Z (\w+) +([\w.]+): ")


class Redactor:
    """Shortens texts; ``secrets`` are words (a user's name, a host's) that must not appear, with what stands there."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        # The longest first: /home/ada before ada.
        self._secrets = sorted(((k, v) for k, v in secrets.items() if len(k) > 1), key=lambda pair: -len(pair[0]))

    def text(self, words: str) -> str:
        """``words`` with everything shortened that could be looked for."""
        for secret, instead in self._secrets:
            words = words.replace(secret, instead)
        words = _PEER.sub(lambda match: f"peer…{match[0][-4:]}", words)
        words = _CID.sub(lambda match: f"cid…{match[0][-4:]}", words)
        words = _HEX.sub(lambda match: f"{match[0][:6]}…", words)
        words = _HOST.sub("…", _DNS.sub(r"\1…", words))
        words = _IP6.sub(lambda match: _short_ip(match[0]), words)
        return _IP4.sub(lambda match: _short_ip(match[0]), words)

    def figures(self, value: Any, name: str = "") -> Any:
        """A status with its numbers, yes and no, and the texts of ``WORDS``; other texts become an ellipsis."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value) if name in WORDS else "…"
        if isinstance(value, Mapping):
            if any(not str(key).isidentifier() or len(str(key)) > 30 for key in value):  # by peer, by course
                return {self.text(str(key)): self.figures(each, "problem") for key, each in value.items()}
            return {str(key): self.figures(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.figures(each, name) for each in value]
        return "…"

    def log(self, lines: Iterable[str]) -> list[str]:
        """Lines of a node's log that are of ``LOGGERS``, shortened; of all others level and logger.

        Takes both formats of the log, mixed too, and gives the one for people.
        """
        kept, open_ = [], False
        for line in (each for raw in lines for each in _as_text(raw)):
            head = _HEAD.match(line)
            if head is None:
                if open_ and line.startswith("    "):
                    kept.append(self.text(line))
                continue
            open_ = head[2] in LOGGERS
            kept.append(self.text(line) if open_ else f"{line[: head.end()]}…")
        return kept


def _as_text(line: str) -> Iterator[str]:
    """A line of a log in JSON as the lines of one in text; any other as it is."""
    try:
        record = json.loads(line) if line.startswith("{") else None
        if record is None:
            yield line
            return
        yield f"{record['time']} {record['level']:<7} {record['logger']}: {record['message']}"
        for name, value in record.get("fields", {}).items():
            yield f"    {name}={value}"
        for trace in record.get("exception", ()):
            yield f"    {trace}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # cut in the middle, or another program's: nobody knows what is in it


def _short_ip(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if ip.is_loopback or ip.is_unspecified:
        return text
    if ip.version == 4:
        return ".".join(text.split(".")[:2]) + ".x.x"
    return ":".join(ip.exploded.split(":")[:2]) + "::x"
