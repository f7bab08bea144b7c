"""Names in a query: identifiers that were typed as such, and whether a chunk defines one of them. Pure.

``JSONDecoder.decode``, ``raw_decode``, ``urlopen(`` and a query of one word are names; "decode" among other words is
a plain word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

#: Names looked at in one query; a pasted program has hundreds, and means none of them.
NAMES_MAX: Final = 8
#: Characters of a query in which names are looked for.
QUERY_CHARACTERS_MAX: Final = 1000
#: Queries whose names are remembered.
QUERIES_KEPT_MAX: Final = 64
#: Places of a name in one chunk that are looked at, and how much of the text before and after it.
PLACES_MAX: Final = 20
BEFORE_CHARACTERS_MAX: Final = 160
AFTER_CHARACTERS_MAX: Final = 400

_TOKEN: Final = re.compile(r"[^\W\d]\w*(?:(?:\.|::|->|\#)[^\W\d]\w*)*")
_PART: Final = re.compile(r"\w+")
_HUMP: Final = re.compile(r"[a-z0-9][A-Z]|[A-Z][A-Z][a-z]")
_PLURAL_OF_CAPITALS: Final = re.compile(r"\A[A-Z]+s")

#: ``async def``, ``export default class``, ``func (s *Server)``, ``function tree.``
_KEYWORD_BEFORE: Final = re.compile(
    r"""
    (?<![\w.])
    (?: def|class|func|fn|function|fun|sub|proc|macro|struct|enum|union|interface|trait|typedef|type|module|namespace
      | protocol|extension|object|record|const|let|var|val|define )
    [ \t]+ (?:\([^()\n]*\)[ \t]*)? (?:\w+(?:\.|::?))* $
    """,
    re.VERBOSE,
)
#: ``= 5`` and ``: int = 5``.
_ASSIGNED: Final = re.compile(r"\A[ \t]*(?::[^=\n]{1,80})?=(?!=)")
#: ``public static List<T>``, ``int Tree::``, but no statement.
_HEAD_BEFORE: Final = re.compile(
    r"""
    \A (?![ \t]*(?:if|else|elif|while|until|unless|for|switch|match|case|guard|return|await|throw|new|in|not|and|or)\b)
    [ \t]* (?:[\w<>\[\],*&:~]+[ \t]+)* [*&]* (?:\w+::)*
    """,
    re.VERBOSE,
)
#: ``(const Key& key) const {``
_BODY_AFTER: Final = re.compile(r"\A[ \t]*\([^;{}]{0,300}\)[^;{}()]{0,80}\{")


class Piece(Protocol):
    """A chunk as far as names go."""

    @property
    def path(self) -> str:
        """Path shown to people, may be empty."""
        ...

    @property
    def symbol(self) -> str:
        """Qualified enclosing symbol or heading trail, may be empty."""
        ...

    @property
    def text(self) -> str:
        """The chunk's text."""
        ...


@dataclass(frozen=True, slots=True)
class Name:
    """A name: ``json.JSONDecoder.decode`` is ``decode`` in ``json`` and ``JSONDecoder``, all in lower case."""

    last: str
    around: frozenset[str] = frozenset()


@lru_cache(maxsize=QUERIES_KEPT_MAX)
def names_in(query: str) -> tuple[Name, ...]:
    """Return the names that a query asks for.

    Bounds: ``NAMES_MAX`` names in the first ``QUERY_CHARACTERS_MAX`` characters; the last ``QUERIES_KEPT_MAX`` queries
    are remembered, since a search asks more than once.
    """
    text = query[:QUERY_CHARACTERS_MAX].strip()
    names: dict[Name, None] = {}
    for found in _TOKEN.finditer(text):
        if _is_name(found, text):
            *around, last = _PART.findall(found[0].lower())
            names[Name(last, frozenset(around))] = None
        if len(names) == NAMES_MAX:
            break
    return tuple(names)


def defines(piece: Piece, name: Name) -> bool:
    """Return whether a chunk holds the beginning of a name's definition.

    What stands around the name must be in the chunk's symbol or path: ``asyncio.gather`` is not defined by the
    ``gather`` of a test.

    Bounds: ``PLACES_MAX`` places of the name are looked at.
    """
    text, place = piece.text.lower(), -1
    for _ in range(PLACES_MAX):
        place = text.find(name.last, place + 1)
        if place < 0:
            return False
        if _begins_definition(text, place, place + len(name.last)):
            around = _PART.findall(f"{piece.path} {piece.symbol}".lower())
            return name.around.issubset(around)
    return False


def _is_name(found: re.Match[str], text: str) -> bool:
    token = found[0]
    if len(token) < 2:
        return False
    alone = text.rstrip("()") == token
    called = text[found.end() : found.end() + 1] == "("
    quoted = text[max(0, found.start() - 1) : found.start()] == "`" == text[found.end() : found.end() + 1]
    joined = len(_PART.findall(token)) > 1 or "_" in token
    humped = _HUMP.search(token) is not None and _PLURAL_OF_CAPITALS.fullmatch(token) is None
    return alone or called or quoted or joined or humped


def _begins_definition(text: str, start: int, end: int) -> bool:
    """Return whether a definition begins with the word at a place of a text in lower case.

    Made for the languages that people index most: a keyword before the name, a constant at the margin, or a head with
    an opening brace, as of a function in C, Java or the shell.
    """
    margin = text.rfind("\n", 0, start) + 1
    before = text[max(margin, start - BEFORE_CHARACTERS_MAX) : start]
    after = text[end : end + AFTER_CHARACTERS_MAX]
    if _PART.match(after):
        return False
    return (
        _KEYWORD_BEFORE.search(before) is not None
        or (_ASSIGNED.match(after) is not None and before in ("", "export "))
        or (_BODY_AFTER.match(after) is not None and _HEAD_BEFORE.fullmatch(before) is not None)
    )
