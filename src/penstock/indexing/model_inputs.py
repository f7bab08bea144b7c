"""Model inputs of a chunk: its text, with a header made of its path and symbol."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain
from typing import Final

_WORD: Final = re.compile(r"\w+(?:-\w+)*")
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEPARATOR: Final = re.compile(r"[_-]+")

#: Digests, base64 and other noise fall apart into dozens of parts; no name that a person typed
#: does.
PARTS_MAX: Final = 12
#: So is a longer word; the ones remembered would otherwise take a chunk's length each.
WORD_CHARS_MAX: Final = 128
CACHE_WORDS_MAX: Final = 65_536


@lru_cache(maxsize=CACHE_WORDS_MAX)
def _parts(word: str) -> tuple[str, ...]:
    """Return the lower-cased parts of one word, or nothing where it does not split."""
    if (word.isalpha() and (word.islower() or word[1:].islower())) or word[0].isdigit():
        return ()
    if word.isascii():
        parts = tuple(part.lower() for part in _PART.findall(word))
    else:
        # Case classes of other scripts are not worth a slower pattern: separators alone decide
        # there.
        parts = tuple(part.lower() for part in _SEPARATOR.split(word) if part)
    return parts if 1 < len(parts) <= PARTS_MAX else ()


def split_identifiers(text: str) -> list[str]:
    """Return the parts of every identifier in `text` that really splits.

    camelCase, PascalCase, snake_case, kebab-case, digits and acronyms are taken apart:
    `parseHTTPResponse2` gives `parse, http, response, 2`. A plain word gives nothing, since it is
    in the text already.

    Returns:
        Lower-cased parts in the order of the text, repeats kept (term frequency counts).

    Bounds:
        A word of more than `PARTS_MAX` parts or `WORD_CHARS_MAX` characters is noise and gives nothing;
        `CACHE_WORDS_MAX` words are remembered.
    """
    return list(chain.from_iterable(map(_parts, (word for word in _WORD.findall(text) if len(word) <= WORD_CHARS_MAX))))


#: Tokens kept free in front of a chunk for its header.
HEADER_TOKENS_MAX: Final = 24

#: Characters of a header at most; a token of a path has two to three.
HEADER_CHARACTERS_MAX: Final = 64

_SEPARATORS: Final = re.compile(r"[^\w]+|_+")


def context_header(path: str, symbol: str) -> str:
    """Return the chunk's header in words: the end of its path, and its symbol.

    The end tells most (``json/decoder.py``), so a long path loses its beginning.
    """
    words = " ".join(w for w in _SEPARATORS.split(f"{path} {symbol}") if w)
    return words[-HEADER_CHARACTERS_MAX:]


def dense_text(text: str, path: str, symbol: str) -> str:
    """Return the text that the dense model embeds: the header, if there is a path, then the chunk."""
    return f"{context_header(path, symbol)}\n{text}" if path else text


def header_tokens(path: str) -> int:
    """Return the tokens that :func:`dense_text` may put in front of a chunk."""
    return HEADER_TOKENS_MAX if path else 0


def sparse_text(text: str, path: str, symbol: str) -> str:
    """Return the text that the sparse model encodes: path, symbol and chunk, then the parts of identifiers.

    The tokenizer cuts ``snake_case`` and dots by itself; ``parseHTTPResponse`` would be one term
    without its parts beside it. Prose has next to no such words, so one rule serves all.
    """
    whole = f"{path} {symbol}\n{text}"
    return f"{whole}\n{' '.join(split_identifiers(whole))}"


def sparse_query(text: str) -> str:
    """Return a query with the parts of its compound identifiers beside them."""
    parts = split_identifiers(text)
    return f"{text} {' '.join(parts)}" if parts else text
