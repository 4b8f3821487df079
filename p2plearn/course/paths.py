"""Which names a course may give its files, so that no course writes outside its folder, on any system.

One rule for both ends: publish refuses what decode would refuse. The rules keep out what some file system takes for
something else than a name (``..``, a drive letter, a device, a backslash), what can't be shown (control
characters), and second spellings of one name (Unicode that is not NFC). Names that differ only in upper and lower
case are allowed: most systems keep them apart, and checkout deals with those that don't.

Sans-IO. Imports nothing of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_COMPONENT = 255
"""UTF-8 bytes of one name: what ext4, XFS, APFS and NTFS hold. More could be published but never written."""
MAX_PATH = 4096
"""UTF-8 bytes of a whole path: Linux's PATH_MAX. Longer ones can't be opened in one call."""
MAX_DEPTH = 64
"""Names in a path. Real courses have fewer than ten; each level costs whoever checks a course a folder."""

# Python's own list (os.path.isreserved on Windows) is the source: devices, whatever extension or spaces follow them.
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [device + digit for device in ("COM", "LPT") for digit in "123456789\u00b9\u00b2\u00b3"]
)

# Whatever might break a rule that needs no counting; a hit is looked at again, slowly, for the reason.
_SUSPECT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]"
    r"|(?:^|/)(?:\.{0,2}(?:/|$)|(?:CON|PRN|AUX|NUL|COM.|LPT.)[ ]*(?:[./]|$)|CONIN\$|CONOUT\$)"
    r"|^[A-Za-z]:",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DRIVE = re.compile(r"^[A-Za-z]:")


class BadPath(ValueError):
    """A path breaks a rule; the message is the reason. Whose fault it is, the caller knows."""


def check_path(path: str) -> None:
    """Raise BadPath with the reason unless ``path`` may stand in a course.

    ``path`` is relative to the course's folder, its names separated by ``/``.
    """
    if len(path) <= MAX_COMPONENT and path.isascii() and _SUSPECT.search(path) is None and path.count("/") < MAX_DEPTH:
        return
    _check_slowly(path)


def _check_slowly(path: str) -> None:
    if not path:
        raise BadPath("the path is empty")
    if _SURROGATE.search(path):
        raise BadPath("the name is not valid Unicode (its bytes are not UTF-8)")
    size = len(path.encode())
    if size > MAX_PATH:
        raise BadPath(f"the path has {size} bytes, more than {MAX_PATH}")
    control = _CONTROL.search(path)
    if control:
        raise BadPath(f"the name holds a control character (U+{ord(control[0]):04X})")
    if "\\" in path:
        raise BadPath("the name holds a backslash, which separates folders on Windows")
    if path[0] == "/":
        raise BadPath("the path is absolute")
    if _DRIVE.match(path):
        raise BadPath("the path begins with a drive letter")
    if not unicodedata.is_normalized("NFC", path):
        raise BadPath("the name is not in Unicode's composed form (NFC)")
    names = path.split("/")
    if len(names) > MAX_DEPTH:
        raise BadPath(f"the path is {len(names)} levels deep, more than {MAX_DEPTH}")
    for name in names:
        _check_name(name)


def _check_name(name: str) -> None:
    if not name:
        raise BadPath("the path has an empty name in it (two slashes together, or one at the end)")
    if name in (".", ".."):
        raise BadPath(f"the path has a '{name}' in it")
    size = len(name.encode())
    if size > MAX_COMPONENT:
        raise BadPath(f"a name in the path has {size} bytes, more than {MAX_COMPONENT}")
    if name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        raise BadPath(f"'{name}' is a device on Windows, not a name")


def tree_key(path: str) -> str:
    """A sort key under which a folder's contents stand together, sorted by name.

    Plain path order tears folders apart ("a", "a.txt", "a/b"); a separator below every allowed character doesn't.
    """
    return path.replace("/", "\0")


def check_tree(files: Iterable[str], folders: Iterable[str], max_folders: int) -> None:
    """Raise BadPath unless these paths, each allowed by itself, make one tree.

    ``files`` are paths of files, ``folders`` of empty folders. Refused: a path twice; a file or an empty folder
    with something inside; more than ``max_folders`` folders, those in between included.
    """
    # In this order whatever is inside a path comes right after it, so neighbours are all there is to compare.
    empty = [tree_key(path) for path in folders]
    count = len(empty)
    leaves = sorted([*empty, *(tree_key(path) for path in files)])
    before = ""
    for key in leaves:
        if before and key.startswith(before):
            if len(key) == len(before):
                raise BadPath(f"the path '{_path(key)}' is there twice")
            if key[len(before)] == "\0":
                raise BadPath(f"'{_path(before)}' is a file or an empty folder, but '{_path(key)}' is inside it")
        count += _new_folders(before, key)
        before = key
    if count > max_folders:
        raise BadPath(f"there are more than {max_folders} folders")


def _new_folders(before: str, key: str) -> int:
    """How many folders hold ``key`` but not ``before``, its neighbour in tree order."""
    depth = key.count("\0")
    if not depth:
        return 0
    cut = key.rfind("\0") + 1
    if before[:cut] == key[:cut]:
        return 0  # the usual case: the same folder
    shared = 0
    at = key.find("\0") + 1
    while at and before[:at] == key[:at]:
        shared += 1
        at = key.find("\0", at) + 1
    return depth - shared


def _path(key: str) -> str:
    return key.replace("\0", "/")
