"""⊙ Text that people write, as manifests and envelopes take it: Unicode's composed form, no control characters.

So that the same words have the same bytes, and that nothing of them acts on a terminal.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""Terminal codes as a whole (ECMA-48: control sequences, strings such as window titles, the rest), not ESC alone."""


def fault(text: str, *, lines: bool) -> str:
    """What is wrong with ``text``, to be put behind its name; empty if nothing is. ``lines``: it may have several."""
    if _controls(lines).search(text):
        return "holds a control character"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode's composed form (NFC)"
    return ""


def tidy(text: str, limit: int, *, lines: bool = False) -> str:
    """``text`` without a fault: blanks for control characters, no blanks around, at most ``limit`` characters.

    For names and descriptions that were found; ``lines`` keeps line ends and tabs.
    """
    text = _controls(lines).sub(" ", _composed(text).replace("\r\n", "\n"))
    return unicodedata.normalize("NFC", text.strip()[:limit].strip())


def tidy_text(text: str) -> str:
    """``text`` without a fault: no terminal codes, no controls but line ends and tabs, no blanks around.

    For what somebody typed, or pasted from a terminal; its length stays its author's matter.
    """
    text = _controls(True).sub("", _ESCAPES.sub("", _composed(text)).replace("\r\n", "\n").replace("\r", "\n"))
    return unicodedata.normalize("NFC", text.strip())


def _controls(lines: bool) -> re.Pattern[str]:
    return _CONTROL_BUT_LINES if lines else _CONTROL


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
