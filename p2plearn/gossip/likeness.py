"""⊙ Names as the eye takes them: two that look alike have one likeness, so that an impostor of a trusted name is told.

What case, width, accents, blanks, marks and invisible characters do is taken off; letters of Cyrillic and Greek, and
digits, that look like Latin ones become those (after Unicode Technical Standard 39, "confusables": the few that pass in
an ordinary typeface). Too much alike rather than too little: the mark only says "not the one you trust".

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

FINGERPRINT_DIGITS: Final = 12
"""Of a key, as people see it beside a name."""

_PAIRS: Final = (
    "аa вb еe кk мm нh оo рp сc тt уy хx іl ѕs јj ԁd ԛq ԝw һh ґr ёe "  # Cyrillic, folded to lower case
    "αa βb εe ηn ιl κk μm νv οo ρp τt υu χx γy ωw "  # Greek
    "0o 1l il |l 5s ıl ɑa ɡg ℓl ǀl"
)
_LOOKS: Final = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()})
_BRACKETED: Final = re.compile(r"[(\[{<][^)\]}>]*[)\]}>]?")


def likeness(name: str) -> str:
    """What of ``name`` the eye goes by; compare these."""
    # Folded again once decomposed: of a bold capital that makes an ordinary one, which has its own small letter.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold()).translate(_LOOKS)
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNS")


def pretends(name: str, mine: str, taken: Mapping[str, str]) -> bool:
    """Whether ``name``, of the key ``mine`` (hex), is to be taken for somebody else's.

    ``taken``: keys (hex) by the likenesses of their names. A name with the beginning of another's key in it pretends
    as well, and one that is another's but for what stands in brackets: they look like the fingerprint that is shown.
    """
    bare = likeness(_BRACKETED.sub(" ", unicodedata.normalize("NFKC", name)))
    if any(taken.get(form, mine) != mine for form in (likeness(name), bare) if form):
        return True
    # Compared by likeness, too: the digits of a fingerprint can be written in many ways.
    said = likeness(name)
    return any(key != mine and likeness(key[:FINGERPRINT_DIGITS]) in said for key in taken.values())
