"""⊙ Words to search by, from text in any script, and what a person typed as a query for SQLite's FTS5.

Scripts written without blanks (Chinese, Japanese, Thai, …; Korean too, whose endings stick to words) are indexed as
overlapping pairs of characters, so that any two or more of them in a row are found; a single one is found as the
beginning of a pair. FTS5's own trigrams would miss words of two characters, which most Chinese words are.

Tokens are plain ASCII (other characters as six hex digits each), so that it doesn't matter which Unicode version
SQLite's tokenizer knows. Index and query go through the same function.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

MAX_TERMS: Final = 16
"""Words of a query that are heeded; each costs a lookup."""
MAX_WORD: Final = 40
"""Characters of a word that count: longer ones are hashes and links."""

_PAIRED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def index_tokens(text: str) -> str:
    """``text`` as tokens to index, a blank between."""
    tokens: list[str] = []
    for run, paired in _runs(text):
        tokens += _pairs(run) if paired else [_token(run)]
    return " ".join(tokens)


def facet(kind: str, value: str) -> str:
    """A token for an exact value, such as a tag."""
    return kind + value.casefold().encode("utf-8", "replace").hex()


def match(text: str) -> str:
    """An FTS5 expression that finds rows with every word of ``text`` (or its beginning); empty if there is no word."""
    terms: list[str] = []
    for run, paired in _runs(text):
        if not paired or len(run) == 1:
            terms.append(f'"{_token(run)}"*')
        else:
            terms.append('"' + " ".join(_pairs(run)[:-1]) + '"')
    return " AND ".join(list(dict.fromkeys(terms))[:MAX_TERMS])


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    """Words in order, each with whether it is of a script that is cut into pairs."""
    # Compatibility forms first (full-width letters), then accents off: é and e find each other.
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(char for char in folded if unicodedata.category(char) != "Mn" or _PAIRED.match(char))
    for word in re.split(r"[\W_]+", _keep_marks(unicodedata.normalize("NFC", plain))):
        at = 0
        for found in _PAIRED.finditer(word):
            if found.start() > at:
                yield word[at : found.start()][:MAX_WORD], False
            yield found.group(), True
            at = found.end()
        if at < len(word):
            yield word[at:][:MAX_WORD], False


def _keep_marks(text: str) -> str:
    """``text`` without the spacing marks that Python takes for the end of a word, though they are inside of it."""
    return "".join(char for char in text if not unicodedata.category(char).startswith("M"))


def _pairs(run: str) -> list[str]:
    """Each two neighbours, and the last character by itself, so that it is found as a beginning too."""
    return [_token(run[at : at + 2]) for at in range(len(run))]


def _token(word: str) -> str:
    return word if word.isascii() else "u" + "".join(f"{ord(char):06x}" for char in word)
