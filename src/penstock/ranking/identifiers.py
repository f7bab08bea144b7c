"""Identifiers that a query asks for, and the chunks in which their definitions begin. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

#: Identifiers taken from one query; a pasted program has hundreds and asks for none of them.
IDENTIFIERS_MAX: Final = 8
#: Characters of a query in which identifiers are looked for.
PARSED_CHARACTERS_MAX: Final = 1000
#: Queries whose identifiers are cached.
CACHED_QUERIES_MAX: Final = 64
#: Occurrences of an identifier in one chunk that are examined, and characters of the text before and after each.
OCCURRENCES_MAX: Final = 20
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


class ChunkView(Protocol):
    """The parts of a chunk in which identifiers are looked for."""

    @property
    def path(self) -> str:
        """Path shown to people, may be empty."""

    @property
    def symbol(self) -> str:
        """Qualified enclosing symbol or heading trail, may be empty."""

    @property
    def text(self) -> str:
        """The chunk's text."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier: ``json.JSONDecoder.decode`` is ``decode`` in ``json`` and ``jsondecoder``.

    Attributes:
        word: Its last part, as typed.
        qualifiers: The parts before, in lower case.
    """

    word: str
    qualifiers: frozenset[str] = frozenset()

    @property
    def lowered(self) -> str:
        """The word in lower case."""
        return self.word.lower()


class Definition(enum.IntEnum):
    """Kind of a chunk's definition of an identifier: none, one in letters of another case, or one as typed."""

    NONE = 0
    OTHER_CASE = 1
    AS_TYPED = 2


@lru_cache(maxsize=CACHED_QUERIES_MAX)
def parse_identifiers(query: str) -> tuple[Identifier, ...]:
    """Return the identifiers that a query asks for.

    Bounds: ``IDENTIFIERS_MAX`` identifiers in the first ``PARSED_CHARACTERS_MAX`` characters; the results of the last
        ``CACHED_QUERIES_MAX`` queries are cached, since a search asks more than once.
    """
    text = query[:PARSED_CHARACTERS_MAX].strip()
    names: dict[Identifier, None] = {}
    for found in _TOKEN.finditer(text):
        if _is_name(found, text):
            *around, last = _PART.findall(found[0])
            names[Identifier(last, frozenset(part.lower() for part in around))] = None
        if len(names) == IDENTIFIERS_MAX:
            break
    return tuple(names)


def find_definition(chunk: ChunkView, identifiers: Sequence[Identifier]) -> Definition:
    """Return how a chunk holds the beginning of the definition of one of some identifiers.

    An identifier's qualifiers must be in the chunk's symbol or path: ``asyncio.gather`` is not defined by the
    ``gather`` of a test.

    Bounds: ``OCCURRENCES_MAX`` occurrences of each identifier are examined.
    """
    text, found = chunk.text.lower(), Definition.NONE
    for identifier in identifiers:
        place = text.find(identifier.lowered)
        if place >= 0 and found < Definition.AS_TYPED:
            kind = _definition_in(chunk.text, text, identifier, place)
            if kind > found and identifier.qualifiers.issubset(_PART.findall(f"{chunk.path} {chunk.symbol}".lower())):
                found = kind
    return found


def _definition_in(given: str, text: str, identifier: Identifier, place: int) -> Definition:
    """Return how a text, given and in lower case, defines an identifier, from its first occurrence on."""
    word, found = identifier.lowered, Definition.NONE
    # Few letters have a lower case of another length; such a text tells no places, so its cases are not compared.
    same_places = len(given) == len(text)
    for _ in range(OCCURRENCES_MAX):
        if _begins_definition(text, place, place + len(word)):
            if not same_places or given.startswith(identifier.word, place):
                return Definition.AS_TYPED
            found = Definition.OTHER_CASE
        place = text.find(word, place + 1)
        if place < 0:
            break
    return found


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
