"""Exact terms of a query: codes, versions, addresses and quoted phrases, which a text holds or does not. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from penstock.ranking.retrieval import P

#: Exact terms taken from one query, from its first characters.
TERMS_MAX: Final = 8
PARSED_CHARACTERS_MAX: Final = 1000
#: Fewer digits, with nothing joined to them, are a count or a part of a word.
CODE_DIGITS_MIN: Final = 3
#: Words of a query whose exact terms count whole.
WORDS_OF_A_QUESTION: Final = 8
#: Occurrences of a term in one text that are examined.
OCCURRENCES_MAX: Final = 20

_QUOTED: Final = re.compile(r'"([^"\n]{2,200})"|“([^“”\n]{2,200})”')
#: ``ORA-01017``, ``2.31.0``, ``10.0.0.1``, ``fe80::1``, ``0x80070005``, ``B12-345/X``.
_CODE: Final = re.compile(r"[a-z0-9_.:/+#@-]+")
#: What stands around a code in a sentence.
_PUNCTUATION: Final = ".:-/"
#: What a term may not be a part of: ``1.2.3`` is not in ``1.2.30``, nor in ``11.2.3``, nor in ``1.2.3.4``.
#: Letters of other scripts may touch it.
_JOINED_BEFORE: Final = re.compile(r"[a-z0-9_]\Z|[0-9][-.]\Z")
_JOINED_AFTER: Final = re.compile(r"[a-z0-9_]|[-.][0-9]")


@lru_cache(maxsize=64)
def parse_exact_terms(query: str) -> tuple[str, ...]:
    """Return the exact terms that a query asks for, in lower case; identifiers are not among them.

    Bounds: ``TERMS_MAX`` terms in the first ``PARSED_CHARACTERS_MAX`` characters; those of the last 64 queries are
        cached.
    """
    text = _folded(query[:PARSED_CHARACTERS_MAX])
    quoted = [" ".join((found[1] or found[2]).split()) for found in _QUOTED.finditer(text)]
    codes = filter(_is_code, (word.strip(_PUNCTUATION) for word in _CODE.findall(_QUOTED.sub(" ", text))))
    return tuple(dict.fromkeys(term for term in (*quoted, *codes) if term))[:TERMS_MAX]


def exact_shares(query: str, texts: Mapping[P, str]) -> dict[P, float]:
    """Return how much of a query's exact terms each text holds, 0 to 1; no entry for one that holds none.

    A term counts by the share of the other texts that do not hold it: what all of them hold tells nothing.
    In a query of more than ``WORDS_OF_A_QUESTION`` words each counts less in proportion: an abstract that quotes a word
    does not ask for it.
    """
    terms = parse_exact_terms(query)
    shares: dict[P, float] = {}
    if not terms:
        return shares
    phrases = any(" " in term for term in terms)
    folded = {point: _folded(text) for point, text in texts.items()}
    prepared = {point: " ".join(text.split()) for point, text in folded.items()} if phrases else folded
    weight = min(1.0, WORDS_OF_A_QUESTION / len(query.split())) / len(terms) / max(1, len(texts) - 1)
    for term in terms:
        held = [point for point, text in prepared.items() if _holds(text, term)]
        for point in held:
            shares[point] = shares.get(point, 0.0) + weight * (len(texts) - len(held))
    return shares


def _folded(text: str) -> str:
    """Return a text in lower case, its letters of full width and ligatures as plain ones."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def _is_code(word: str) -> bool:
    """Return whether a word has ``CODE_DIGITS_MIN`` digits, or one beside a joint; ``python3`` is a word."""
    digits = sum(map(str.isdigit, word))
    return digits >= CODE_DIGITS_MIN or (digits > 0 and not word.isalnum())


def _holds(text: str, term: str) -> bool:
    """Return whether a text holds a term that stands alone, in its first ``OCCURRENCES_MAX`` occurrences."""
    end = 0
    for _ in range(OCCURRENCES_MAX):
        start = text.find(term, end)
        if start < 0:
            return False
        end = start + len(term)
        around = text[max(0, start - 2) : start], text[end : end + 2]
        if not _JOINED_BEFORE.search(around[0]) and not _JOINED_AFTER.match(around[1]):
            return True
    return False
