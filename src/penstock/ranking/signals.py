"""Signals: score factors from a hit's path and from the identifiers that it defines. Pure.

They were chosen and evaluated on questions about Python's library (``docs/benchmarks/code.md``). A text without a path
is only affected by a query that asks for an identifier which it defines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from penstock.ranking.fusion import sort_best_first
from penstock.ranking.retrieval import P, Ranking

_TEST_PATH: Final = re.compile(
    r"""
    (^|/)(tests?|testing|__tests__|specs?)/     # a directory of tests
    | (^|/)(test_|conftest\.)[^/]*$             # test_http.py
    | _(test|spec)\.[a-z]+$                     # http_test.go
    | \.(test|spec)\.[a-z]+$                    # http.spec.ts
    | (^|/)[A-Z]\w*Tests?\.(java|kt|cs|scala)$  # HttpTest.java
    """,
    re.VERBOSE,
)
_ABOUT_TESTS: Final = re.compile(r"(?<![a-z])(unit)?tests?(ed|ing)?(?![a-z])|\bspecs?\b|assert|fixture", re.IGNORECASE)


def is_about_tests(query: str) -> bool:
    """Return whether the query itself asks for tests."""
    return _ABOUT_TESTS.search(query) is not None


def is_test_path(path: str) -> bool:
    """Return whether a path names a test."""
    return _TEST_PATH.search(path) is not None


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
    """An identifier: ``json.JSONDecoder.decode`` is ``decode`` in ``json`` and ``JSONDecoder``, all in lower case."""

    word: str
    qualifiers: frozenset[str] = frozenset()


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
            *around, last = _PART.findall(found[0].lower())
            names[Identifier(last, frozenset(around))] = None
        if len(names) == IDENTIFIERS_MAX:
            break
    return tuple(names)


def defines_identifier(chunk: ChunkView, identifier: Identifier) -> bool:
    """Return whether a chunk holds the beginning of an identifier's definition.

    The identifier's qualifiers must be in the chunk's symbol or path: ``asyncio.gather`` is not defined by the
    ``gather`` of a test.

    Bounds: ``OCCURRENCES_MAX`` occurrences of the identifier are examined.
    """
    text, place = chunk.text.lower(), -1
    for _ in range(OCCURRENCES_MAX):
        place = text.find(identifier.word, place + 1)
        if place < 0:
            return False
        if _begins_definition(text, place, place + len(identifier.word)):
            around = _PART.findall(f"{chunk.path} {chunk.symbol}".lower())
            return identifier.qualifiers.issubset(around)
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


@dataclass(frozen=True, slots=True)
class SignalFactors:
    """Factors on the score of a hit; 1 changes nothing.

    Attributes:
        definition: It defines an identifier that the query asks for, so that it stands above those that use it.
        test: It is a test, and the query is not about tests.
    """

    definition: float = 1.0
    test: float = 1.0


#: Hits that are weighed together, however many are wanted, and those of a query with identifiers: a test, a use that
#: stands further down does not come up among the first; a definition may.
SHORTLIST: Final = 20
SHORTLIST_OF_IDENTIFIERS: Final = 50

#: The factors that a search uses.
DEFAULT_SIGNALS: Final = SignalFactors(definition=1.5, test=0.9)


def shortlist_size(query: str) -> int:
    """Return how many hits are to be weighed together; it depends on the query alone (``Q1``)."""
    return SHORTLIST_OF_IDENTIFIERS if parse_identifiers(query) else SHORTLIST


def apply_signals(
    query: str, candidates: Ranking[P], chunks: Mapping[P, ChunkView], signals: SignalFactors = DEFAULT_SIGNALS
) -> Ranking[P]:
    """Return the candidates by their scores times the factors of their identifiers and paths."""
    names, tests_wanted = parse_identifiers(query), is_about_tests(query)

    def factor(piece: ChunkView) -> float:
        definition = signals.definition if any(defines_identifier(piece, name) for name in names) else 1.0
        return definition * (signals.test if is_test_path(piece.path) and not tests_wanted else 1.0)

    # A score below 0 must fall with a small factor as well.
    return sort_best_first({p: score + abs(score) * (factor(chunks[p]) - 1) for p, score in candidates.items()})
