"""Glob patterns as git matches them, in time that grows with pattern times text and no faster.

Git's own matcher (``wildmatch.c``) tries again after every star that did not fit. Here all places of the pattern to
which the text read so far can lead are followed at once, as bits of one number (the Shift-And algorithm, Baeza-
Yates and Gonnet 1992).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

#: Characters that stand for more than themselves.
SPECIAL: Final = "*?[\\"

_BYTES: Final = frozenset(map(chr, range(256)))
#: ``**/``: nothing, so that it can be left out; any number of characters; a slash.
_DIRECTORIES: Final = (frozenset[str](), _BYTES, frozenset("/"))
_PRINTED: Final = frozenset(map(chr, range(0x20, 0x7F)))
_SPACES: Final = frozenset(" \t\n\r")
_CLASSES: Final = {
    "alnum": frozenset(string.ascii_letters + string.digits),
    "alpha": frozenset(string.ascii_letters),
    "blank": frozenset(" \t"),
    "cntrl": frozenset([*map(chr, range(0x20)), "\x7f"]),
    "digit": frozenset(string.digits),
    "graph": _PRINTED - _SPACES,
    "lower": frozenset(string.ascii_lowercase),
    "print": _PRINTED,
    "punct": frozenset(string.punctuation),
    "space": _SPACES,
    "upper": frozenset(string.ascii_uppercase),
    "xdigit": frozenset(string.hexdigits),
}


class _InvalidPattern(Exception):
    """The pattern matches nothing."""


def literal_prefix_length(pattern: str) -> int:
    """Return how many characters at the pattern's beginning stand for themselves alone."""
    return next((place for place, one in enumerate(pattern) if one in SPECIAL), len(pattern))


class Glob:
    """A glob pattern.

    Args:
        pattern: One character for each byte (Latin-1), as a wild card stands for bytes.
        is_path: Whether ``*``, ``?`` and classes stop at slashes, and ``**`` does not.
    """

    __slots__ = ("_accepted", "_end", "_last", "_looping", "_optional", "_stars")

    def __init__(self, pattern: str, *, is_path: bool) -> None:
        tokens = _GlobParser(pattern, is_path=is_path)
        try:
            tokens.read()
        except _InvalidPattern:
            # One token that takes nothing.
            tokens.sets, tokens.stars, tokens.optional = [frozenset()], 0, 0
        self._stars, self._optional = tokens.stars, tokens.optional
        self._end = 1 << len(tokens.sets)
        places: dict[frozenset[str], int] = {}
        for number, accepted in enumerate(tokens.sets):
            places[accepted] = places.get(accepted, 0) | 1 << number
        self._accepted: dict[str, int] = {}
        self._looping: dict[str, int] = {}
        for accepted, bits in places.items():
            for one in accepted:
                self._accepted[one] = self._accepted.get(one, 0) | bits & ~tokens.stars
                self._looping[one] = self._looping.get(one, 0) | bits & tokens.stars
        ends_in_star = bool(tokens.stars & self._end >> 1)
        self._last = tokens.sets[-1] if tokens.sets and not ends_in_star else None

    def matches(self, text: str) -> bool:
        """Tell whether the pattern takes the whole text, one character for each byte."""
        if self._last is not None and text[-1:] not in self._last:
            return False
        accepted, looping = self._accepted, self._looping
        places = self._reached(1)
        for one in text:
            places = self._reached((places & accepted.get(one, 0)) << 1 | places & looping.get(one, 0))
            if not places:
                return False
        return bool(places & self._end)

    def _reached(self, places: int) -> int:
        """Return the places with those behind stars that take nothing."""
        optional = places & self._optional
        places |= optional << 1 | optional << len(_DIRECTORIES)
        return places | (places & self._stars) << 1


class _GlobParser:
    """Reads a pattern from left to right, as ``dowild`` in git's ``wildmatch.c`` does.

    Attributes:
        sets: For each token the characters that it takes: one of them, or any number where it is a star.
        stars: Bits of the tokens that are stars.
        optional: Bits of the tokens that take nothing and stand before ``**/``, which may be left out.
    """

    def __init__(self, pattern: str, *, is_path: bool) -> None:
        self.sets: list[frozenset[str]] = []
        self.stars = 0
        self.optional = 0
        self._pattern = pattern
        self._is_path = is_path
        self._place = 0
        self._one = _BYTES - {"/"} if is_path else _BYTES

    def read(self) -> None:
        """Read the pattern's tokens.

        Raises:
            _InvalidPattern: A class does not end or is not known, or the last character escapes nothing.
        """
        while self._place < len(self._pattern):
            if self._peek() == "*":
                self._star()
            else:
                self.sets.append(self._single())

    def _peek(self, ahead: int = 0) -> str:
        return self._pattern[self._place + ahead : self._place + ahead + 1]

    def _next(self) -> str:
        one = self._peek()
        if not one:
            raise _InvalidPattern
        self._place += 1
        return one

    def _single(self) -> frozenset[str]:
        one = self._next()
        if one == "?":
            return self._one
        if one == "[":
            return self._class()
        return frozenset(self._next() if one == "\\" else one)

    def _star(self) -> None:
        start = self._place
        while self._peek() == "*":
            self._place += 1
        begins = start == 0 or self._pattern[start - 1] == "/"
        ends = self._peek() in {"", "/"} or (self._peek() == "\\" and self._peek(1) == "/")
        is_double = self._place - start > 1 and begins and ends
        bit = 1 << len(self.sets)
        if is_double and self._is_path and self._peek() == "/":
            self._place += 1
            # `**/**/` is `**/`: both are any number of directories.
            if not self.optional & bit >> len(_DIRECTORIES):
                self.optional |= bit
                self.stars |= bit << 1
                self.sets += _DIRECTORIES
            return
        self.stars |= bit
        self.sets.append(_BYTES if is_double else self._one)

    def _class(self) -> frozenset[str]:
        negated = self._peek() in {"!", "^"}
        self._place += negated
        members: set[str] = set()
        previous = ""
        one = self._next()
        while True:
            if one == "\\":
                one = self._next()
                members.add(one)
            elif one == "-" and previous and self._peek() not in {"", "]"}:
                members.update(self._range(previous))
                one = ""
            elif one == "[" and self._peek() == ":" and (named := self._named()) is not None:
                members |= named
                one = ""
            else:
                members.add(one)
            previous, one = one, self._next()
            if one == "]":
                return self._one - members if negated else self._one & members

    def _range(self, first: str) -> Iterator[str]:
        """Yield the characters up to the next one; none where that comes before the first."""
        last = self._next()
        if last == "\\":
            last = self._next()
        return map(chr, range(ord(first), ord(last) + 1))

    def _named(self) -> frozenset[str] | None:
        """Read a class such as ``[:alpha:]`` behind its bracket; return `None` where it is none after all."""
        end = self._pattern.find("]", self._place + 1)
        if end < 0:
            raise _InvalidPattern
        if end - self._place < len("::") or self._pattern[end - 1] != ":":
            return None
        name = self._pattern[self._place + 1 : end - 1]
        if name not in _CLASSES:
            raise _InvalidPattern
        self._place = end + 1
        return _CLASSES[name]
