"""Model inputs: a chunk's text with its path and symbol, and a query's text, as each model wants them.

And the vectors of chunks, which everything that embeds chunks gets here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import Embeddings
from penstock.models.contract import Embedder
from penstock.models.text_folding import LETTERS_FOLLOW, fold_document, fold_query, spell_out
from penstock.stores.data_model import TEXT_FOLDED, TEXT_PLAIN, TEXT_RENEWING, ChunkPayload

_WORD: Final = re.compile(r"\w+(?:-\w+)*")
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEPARATOR: Final = re.compile(r"[_-]+")

#: Characters of texts beyond ASCII in a request that are prepared on the event loop.
INLINE_CHARACTERS_MAX: Final = 8_000

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
    if not (text.isascii() and path.isascii() and symbol.isascii()):
        text, path, symbol = spell_out(text), spell_out(path), spell_out(symbol)
    return f"{context_header(path, symbol)}\n{text}" if path else text


async def embed_chunks(embedder: Embedder, chunks: Sequence[ChunkPayload], ctx: Context) -> Embeddings:
    """Return the dense and token vectors of chunks.

    Raises:
        Broken: The model gave a vector that is not finite (``bad_vector``).
        PenstockError: The model does not answer.
    """
    texts = [dense_text(one.text, one.path, one.symbol) for one in chunks]
    embedded = await embedder.embed(texts, TextKind.DOCUMENT, ctx, late_interaction=True)
    if not np.isfinite(embedded.dense).all():
        raise Broken("the dense model gave a vector that is not finite", code="bad_vector")
    return embedded


def header_tokens(path: str) -> int:
    """Return the tokens that :func:`dense_text` may put in front of a chunk."""
    return HEADER_TOKENS_MAX if path else 0


def sparse_text(text: str, path: str, symbol: str, version: int = TEXT_FOLDED) -> str:
    """Return the text that BM25 encodes: path, symbol and chunk, and the parts of identifiers.

    The tokenizer cuts ``snake_case`` and dots by itself; ``parseHTTPResponse`` would be one term
    without its parts beside it. Prose has next to no such words, so one rule serves all.
    """
    # While a collection is renewed, what is added is of the new version.
    whole, sign, letters = _folded(fold_document, f"{path} {symbol}\n{text}", version).partition(LETTERS_FOLLOW)
    return f"{whole}\n{' '.join(split_identifiers(whole))}{sign}{letters}"


def sparse_query(text: str, version: int = TEXT_FOLDED) -> str:
    """Return a query with the parts of its compound identifiers beside them."""
    if version == TEXT_RENEWING:
        # Some of the documents have the terms of each; those of the other weigh nothing where they are not found.
        return f"{sparse_query(text, TEXT_PLAIN)} {sparse_query(text, TEXT_FOLDED)}"
    text = _folded(fold_query, text, version)
    parts = split_identifiers(text)
    return f"{text} {' '.join(parts)}" if parts else text


def _folded(fold: Callable[[str], str], text: str, version: int) -> str:
    return text if version == TEXT_PLAIN or text.isascii() else fold(text)


@dataclass(frozen=True, slots=True)
class SparseInputs:
    """Inputs of a sparse model.

    Attributes:
        query: A query's text in a version.
        chunk: A chunk's text, path and symbol in a version.
        text: A text that belongs to no collection.
    """

    query: Callable[[str, int], str]
    chunk: Callable[[str, str, str, int], str]
    text: Callable[[str, TextKind], str]

    async def prepare(self, texts: Sequence[str], kind: TextKind) -> list[str]:
        """Return texts that belong to no collection; many characters in a thread: folding 10 000 takes some 4 ms."""
        if sum(len(text) for text in texts if not text.isascii()) <= INLINE_CHARACTERS_MAX:
            return [self.text(text, kind) for text in texts]
        return await asyncio.to_thread(lambda: [self.text(text, kind) for text in texts])


BM25_INPUTS: Final = SparseInputs(
    sparse_query, sparse_text, lambda text, kind: (fold_query if kind is TextKind.QUERY else fold_document)(text)
)

#: A learned model has its own notion of what a word means, so its texts are those of the dense model.
LEARNED_INPUTS: Final = SparseInputs(
    lambda text, _: spell_out(text), lambda text, path, symbol, _: dense_text(text, path, symbol), lambda text, _: text
)
