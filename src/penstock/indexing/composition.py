"""What the models get to read of a chunk: its text, and where it stands."""

from __future__ import annotations

import re
from typing import Final

from penstock.indexing.identifiers import split_identifiers

#: Languages whose words are words: nothing in them is an identifier to take apart.
PROSE: Final = frozenset({"", "text", "markdown", "rst", "html", "asciidoc", "org"})

#: Tokens kept free in front of a chunk for its place.
PLACE_TOKENS_MAX: Final = 24

#: Characters of a place at most; a token of a path has two to three.
PLACE_CHARACTERS_MAX: Final = 64

_SEPARATORS: Final = re.compile(r"[^\w]+|_+")


def place(path: str, symbol: str) -> str:
    """Return the chunk's place in words: the end of its path, and its symbol.

    The end tells most (``json/decoder.py``), so a long path loses its beginning.
    """
    words = " ".join(w for w in _SEPARATORS.split(f"{path} {symbol}") if w)
    return words[-PLACE_CHARACTERS_MAX:]


def dense_text(text: str, path: str, symbol: str) -> str:
    """Return what the dense model embeds: the place in words, then the chunk."""
    where = place(path, symbol)
    return f"{where}\n{text}" if where else text


def sparse_text(text: str, path: str, symbol: str, language: str) -> str:
    """Return what the sparse model weighs: prose as it is; code with path, symbol and parts."""
    if language in PROSE:
        return f"{path}\n{text}" if path else text
    named = f"{path} {symbol}"
    parts = split_identifiers(f"{named}\n{text}")
    return f"{named}\n{text}\n{' '.join(parts)}"


def sparse_query(text: str) -> str:
    """Return a query with the parts of its compound identifiers beside them."""
    parts = split_identifiers(text)
    return f"{text} {' '.join(parts)}" if parts else text
