"""What the models get to read of a chunk: its text, and where it stands."""

from __future__ import annotations

import re
from typing import Final

from penstock.indexing.identifiers import split_identifiers

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
    """Return what the dense model embeds: the place in words, if it has one, then the chunk."""
    return f"{place(path, symbol)}\n{text}" if path else text


def tokens_reserved(path: str) -> int:
    """Return the tokens that :func:`dense_text` may put in front of a chunk."""
    return PLACE_TOKENS_MAX if path else 0


def sparse_text(text: str, path: str, symbol: str) -> str:
    """Return what the sparse model weighs: path, symbol and chunk, then the parts of identifiers.

    The tokenizer cuts ``snake_case`` and dots by itself; ``parseHTTPResponse`` would be one term
    without its parts beside it. Prose has next to no such words, so one rule serves all.
    """
    whole = f"{path} {symbol}\n{text}"
    return f"{whole}\n{' '.join(split_identifiers(whole))}"


def sparse_query(text: str) -> str:
    """Return a query with the parts of its compound identifiers beside them."""
    parts = split_identifiers(text)
    return f"{text} {' '.join(parts)}" if parts else text
