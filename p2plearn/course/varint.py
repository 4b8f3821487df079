"""Unsigned LEB128, in which CIDs, dag-pb, CAR files and libp2p's messages write numbers and lengths.

Each reader has its own: what they refuse, and with which words, differs by format.
"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A number, not negative, seven bits a byte, the low ones first."""
    # The short ones by hand: a course's tree has one for each chunk.
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
