"""⊙ Names as the eye takes them: two that look alike have one likeness, so that an impostor of a trusted name is told.

What case, width, accents, blanks, marks and invisible characters do is taken off; letters of Cyrillic and Greek, and
digits, that look like Latin ones become those (after Unicode Technical Standard 39, "confusables": the few that pass in
an ordinary typeface). Too much alike rather than too little: the mark only says "not the one you trust".

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_PAIRS: Final = (
    "аa вb еe кk мm нh оo рp сc тt уy хx іl ѕs јj ԁd ԛq ԝw һh ґr ёe "  # Cyrillic, folded to lower case
    "αa βb εe ηn ιl κk μm νv οo ρp τt υu χx γy ωw "  # Greek
    "0o 1l il |l 5s ıl ɑa ɡg ℓl ǀl"
)
_LOOKS: Final = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()})


def likeness(name: str) -> str:
    """What of ``name`` the eye goes by; compare these."""
    folded = unicodedata.normalize("NFKD", name.casefold()).translate(_LOOKS)
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNS")
