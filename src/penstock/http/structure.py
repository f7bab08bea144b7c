"""Structure of a JSON text, read a slice at a time, before any object is made of it.

A parser makes objects of tens of bytes from three (``[],``), and lets go of nothing until it is through. Here a text
costs a few bytes for each of its own, whatever is in it, and the loop runs on between the slices. What is no JSON is
counted all the same: to refuse it is the parser's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Read at once, in well under a millisecond and a megabyte.
SLICE_BYTES: Final = 1 << 14

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")

_COMMA: Final = 1
_OPENING: Final = 2
_CLOSING: Final = 3

#: The kind of each byte outside of strings; 0 for those that are no structure.
_KINDS: Final = np.zeros(256, np.uint8)
_KINDS[ord(",")] = _COMMA
_KINDS[[ord("["), ord("{")]] = _OPENING
_KINDS[[ord("]"), ord("}")]] = _CLOSING

#: How each kind changes the depth.
_STEPS: Final = np.array([0, 0, 1, -1])


class Marks(NamedTuple):
    """The commas and brackets of a slice that lie outside of strings.

    Attributes:
        places: Their places in the text.
        kinds: What each is.
        depths: The depth behind each.
    """

    places: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    depths: NDArray[np.int64]


async def values_exceed(data: bytes, most: int) -> bool:
    """Return whether a text holds more than about ``most`` values: an empty list or object counts as two.

    Bounds: memory for one slice; it stops where there are too many.
    """
    if len(data) <= SLICE_BYTES and data.count(b",") + data.count(b"[") + data.count(b"{") < most:
        return False
    count = 1
    for marks in _scan(data):
        count += int(np.count_nonzero(marks.kinds != _CLOSING))
        if count > most:
            return True
        await asyncio.sleep(0)
    return False


async def elements(data: memoryview, most: int) -> list[tuple[int, int]] | None:
    """Return where each element of a list begins and ends, ``None`` if there are more than ``most``.

    Args:
        data: A list as JSON, from bracket to bracket.
        most: Elements at most.

    Bounds: memory for one slice and the elements found.
    """
    begins, found = 1, list[tuple[int, int]]()
    for marks in _scan(data):
        ends_list = (marks.kinds == _CLOSING) & (marks.depths == 0)
        ends = (marks.kinds == _COMMA) & (marks.depths == 1) | ends_list
        for place in marks.places[ends].tolist():
            found.append((begins, place))
            begins = place + 1
            if len(found) > most:
                return None
        if ends_list.any():
            break
        await asyncio.sleep(0)
    empty = len(found) == 1 and not bytes(data[slice(*found[0])]).strip()
    return [] if empty else found


def _scan(data: bytes | memoryview) -> Iterator[Marks]:
    """Yield the marks of each slice."""
    quoted, escaped, depth = False, False, 0
    for first in range(0, len(data), SLICE_BYTES):
        text = np.frombuffer(data, np.uint8, min(SLICE_BYTES, len(data) - first), first)
        quotes, escaped = _quotes(text, escaped=escaped)
        inside = np.logical_xor.accumulate(quotes) ^ quoted
        quoted = bool(inside[-1])
        kinds = np.where(inside, np.uint8(0), _KINDS[text])
        places = np.flatnonzero(kinds)
        kinds = kinds[places]
        depths = depth + np.cumsum(_STEPS[kinds])
        depth = int(depths[-1]) if len(depths) else depth
        yield Marks(places + first, kinds, depths)


def _quotes(text: NDArray[np.uint8], *, escaped: bool) -> tuple[NDArray[np.bool_], bool]:
    """Return which bytes begin or end a string, and whether the byte after the last is escaped.

    In a run of backslashes every other one escapes what follows it.

    Args:
        text: A slice.
        escaped: Whether its first byte is.
    """
    quotes = text == _QUOTE
    slashes = np.flatnonzero(text == _BACKSLASH)
    if escaped:
        quotes[0] = False
        if len(slashes) and slashes[0] == 0:
            slashes = slashes[1:]
    if not len(slashes):
        return quotes, False
    runs = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(runs, append=len(slashes))
    place_in_run = np.arange(len(slashes)) - np.repeat(runs, lengths)
    after = slashes[place_in_run % 2 == 0] + 1
    ends_escaped = bool(after[-1] == len(text))
    quotes[after[:-1] if ends_escaped else after] = False
    return quotes, ends_escaped
