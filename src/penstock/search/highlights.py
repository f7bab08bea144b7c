"""Highlights: the ranges of a text that hold the words and identifiers of a query."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Final

from penstock.models.text_folding import pair_spans, without_pairs

#: Returns the terms by which a word is searched: none for a stop word, the same for words of one stem.
WordTerms = Callable[[str], Collection[Hashable]]

#: Distinct words of a query that are looked for.
WORDS_MAX: Final = 256
#: A longer word is passed over.
WORD_CHARACTERS_MAX: Final = 64
#: Characters of a text that are looked at; the sparse model reads no more either.
CHARACTERS_MAX: Final = 131_072
#: Ranges in one text at most.
RANGES_MAX: Final = 100

#: Distinct words of all texts whose terms are found, a quarter of a second; of the rest those that the query has too.
DISTINCT_WORDS_MAX: Final = 20_000

#: Words after which the event loop runs other tasks: 1 ms. A new one counts as ``NEW_WORD_COST``.
SLICE_WORDS: Final = 4000
NEW_WORD_COST: Final = 50

_WORD: Final = re.compile(r"[^\W_]+")
#: Parts of an identifier, as the sparse model gets them beside it.
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def folded_word(word: str) -> tuple[str]:
    """Return a word itself as its term, without regard to case: for a model whose terms are no words."""
    return (word.casefold(),)


class Highlighter:
    """Finds the words of one query in texts.

    Args:
        query: The query.
        word_terms: Terms of a word.

    Bounds: ``WORDS_MAX`` words of the query, ``CHARACTERS_MAX`` characters and ``RANGES_MAX`` ranges of a text,
        ``DISTINCT_WORDS_MAX`` words of all texts.
    """

    def __init__(self, query: str, word_terms: WordTerms) -> None:
        self._word_terms = word_terms
        words = dict.fromkeys(match[0] for match in _WORD.finditer(query) if len(match[0]) <= WORD_CHARACTERS_MAX)
        self._wanted: set[Hashable] = set()
        self._known: dict[str, bool] = {}
        for word in list(words)[:WORDS_MAX]:
            for one in (word, *(part[0] for part in _parts(word))):
                terms = word_terms(one)
                self._wanted.update(terms)
                self._known[one] = bool(terms)
        self._spent = 0

    async def ranges(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """Return the ranges of each text in code points, in their order; the event loop is released in between."""
        found: list[list[list[int]]] = []
        for text in texts:
            found.append([])
            for part in self._parts_of(text[:CHARACTERS_MAX]) if self._wanted else ():
                found[-1] += part
                if len(found[-1]) >= RANGES_MAX:
                    break
                if self._spent >= SLICE_WORDS:
                    self._spent = 0
                    await asyncio.sleep(0)
            found[-1] = _merged(found[-1])[:RANGES_MAX]
        return found

    def _parts_of(self, text: str) -> Iterator[list[list[int]]]:
        """Yield the ranges of each word, and of each pair of letters in a script without spaces."""
        for match in _WORD.finditer(without_pairs(text)):
            yield self._ranges_of(match)
        if not text.isascii():
            for start, end in pair_spans(text):
                self._spent += 1
                yield [[start, end]] if self._is_wanted(text[start:end]) else []

    def _ranges_of(self, match: re.Match[str]) -> list[list[int]]:
        """Return the range of a word that is wanted, or of its parts that are."""
        word = match[0]
        self._spent += 1
        if len(word) > WORD_CHARACTERS_MAX:
            return []
        if self._is_wanted(word):
            return [[*match.span()]]
        begin = match.start()
        return [[begin + part.start(), begin + part.end()] for part in _parts(word) if self._is_wanted(part[0])]

    def _is_wanted(self, word: str) -> bool:
        known = self._known.get(word)
        if known is None:
            if len(self._known) >= DISTINCT_WORDS_MAX:
                return False
            self._spent += NEW_WORD_COST
            known = self._known[word] = not self._wanted.isdisjoint(self._word_terms(word))
        return known


def _merged(ranges: list[list[int]]) -> list[list[int]]:
    """Return ranges in their order; those that overlap, as pairs of letters do, become one."""
    merged: list[list[int]] = []
    for start, end in sorted(ranges):
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return merged


def _parts(word: str) -> Iterator[re.Match[str]]:
    """Yield the parts of ``parseHTTPResponse``; nothing for a word that has none."""
    if word.islower() or word[1:].islower() or word.isdigit():
        return iter(())
    return _PART.finditer(word)
