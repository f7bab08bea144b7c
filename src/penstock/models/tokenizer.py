"""Tokenizer of a model: token ids, truncated and padded for the model; whole counts for the chunker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np
from tokenizers import Encoding, Tokenizer

from penstock.kernel.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# The library would start a thread per core beside the model's own, and warn after a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHARACTERS_PER_TOKEN_MAX = 64
"""A text is cut to so many characters a token before it is tokenised: a 1 MB text costs 6 ms
instead of 470. Only a text whose first 256 tokens span 16 000 characters (runs of blanks, words
past 100 letters) is cut short by it."""

CHARACTERS_PER_TOKEN_FIRST_PASS = 8
"""A text is read so far at first: most give all tokens within, and a text of 10 KB costs 0.6 ms instead of 3."""

WORD_TOKENS_MAX = 100
"""So many tokens beyond the window a first reading must give: the word that it cuts in two may give other tokens than
the whole one, and WordPiece reads at most 100 letters of a word."""

UNKNOWN_TOKENS = ("[UNK]", "<unk>")
"""Names of the token for what a vocabulary does not have, of WordPiece and of SentencePiece; others know every byte."""


class TextTokenizer:
    """Tokenizer of one model; thread-safe, and it travels to worker processes by its path.

    Attributes:
        path: Its file.
        tokens_max: Tokens after which ``encode`` cuts, special tokens included.
        text_tokens_max: The same without the special tokens.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        """Load ``tokenizer.json``; its own truncation and padding are ignored.

        Raises:
            Invalid: The file cannot be read as a tokenizer.
        """
        self.path = path
        self.tokens_max = tokens_max
        try:
            self._whole = Tokenizer.from_file(str(path))
            self._cut = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise Invalid(f"cannot read the tokenizer {path}: {error}", field=str(path), code="tokenizer") from error
        padding = self._cut.padding or {}
        self.pad_id = int(padding.get("pad_id", self._cut.token_to_id("[PAD]") or 0))
        unknown = (self._whole.token_to_id(name) for name in UNKNOWN_TOKENS)
        self._unknown_id: int | None = next((id for id in unknown if id is not None), None)
        for tokenizer in (self._whole, self._cut):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._cut.enable_truncation(tokens_max)
        self.text_tokens_max = tokens_max - self._whole.num_special_tokens_to_add(is_pair=False)

    def __reduce__(self) -> tuple[type[TextTokenizer], tuple[Path, int]]:
        return (TextTokenizer, (self.path, self.tokens_max))

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of every text, special tokens included, cut to ``tokens_max``."""
        first, longest = self.tokens_max * CHARACTERS_PER_TOKEN_FIRST_PASS, self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        encoded = self._cut.encode_batch_fast([well_formed(text[:first]) for text in texts])
        rows = [encoding.ids for encoding in encoded]
        # A text of long words or blanks: the first reading did not fill the window.
        more = [n for n, text in enumerate(texts) if len(text) > first and _beyond(encoded[n]) < WORD_TOKENS_MAX]
        for number in more:
            rows[number] = self._cut.encode(well_formed(texts[number][:longest])).ids
        return rows

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return ids and mask, each ``int32 [n, longest]``, padded on the right."""
        return pad_rows(rows, self.pad_id), pad_rows([[1] * len(row) for row in rows], 0)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return ids and mask of ``texts``, each ``int32 [n, longest]``."""
        return self.pad(self.token_ids(texts))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of every text, uncut and without special tokens."""
        encoded = self._whole.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [len(encoding.ids) for encoding in encoded]

    def count_read(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of every text that the model reads, special tokens included."""
        return [len(row) for row in self.token_ids(texts)]

    def cut(self, text: str, tokens: int) -> str:
        """Return the beginning of a text that has so many tokens, or the whole of a shorter one."""
        beginning = well_formed(text[: tokens * CHARACTERS_PER_TOKEN_MAX])
        encoded = self._whole.encode(beginning, add_special_tokens=False)
        return text if len(encoded.ids) <= tokens else text[: encoded.offsets[tokens - 1][1]]

    def knows(self, text: str) -> bool:
        """Return whether the vocabulary has at least half of a text's tokens, so that its vector means something."""
        if text.isascii() or self._unknown_id is None:
            return True
        # The first characters tell: what comes after the window is not read at all.
        ids = self._whole.encode(well_formed(text[: self.tokens_max]), add_special_tokens=False).ids
        return 2 * ids.count(self._unknown_id) <= len(ids)

    def whole_words(self) -> list[str]:
        """Return the vocabulary's whole words of two letters and more, in the order of their ids."""
        vocabulary = sorted(self._whole.get_vocab().items(), key=lambda entry: entry[1])
        return [word for word, _ in vocabulary if len(word) > 1 and word.isalpha()]

    def truncated(self, text: str, reserved: int = 0) -> bool:
        """Return whether ``encode`` loses part of the text, where something else takes the ``reserved`` tokens."""
        room = self.text_tokens_max - reserved
        if text.isascii() and len(text) <= room:
            return False  # a character of ASCII is one token at most: most queries need not be counted
        first, longest = self.tokens_max * CHARACTERS_PER_TOKEN_FIRST_PASS, self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        if len(text) > first and self.count([text[:first]])[0] > room + WORD_TOKENS_MAX:
            return True
        return len(text) > longest or self.count([text])[0] > room


#: The share of a pair's tokens that a query must leave for the text.
TEXT_SHARE_MIN: Final = 0.25


class PairTokenizer:
    """Tokenizer of a query with each of several texts. The text is cut at the model's length, the query never.

    Args:
        texts: The model's; the template in its file says what stands around and between the two.
    """

    def __init__(self, texts: TextTokenizer) -> None:
        self._texts = texts
        self._tokenizer = Tokenizer.from_file(str(texts.path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(texts.tokens_max, strategy="only_second")
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=True)

    def tokenize(self, query: str, texts: Sequence[str]) -> list[Encoding]:
        """Return ids and segment numbers (token types) for each text.

        Raises:
            Invalid: The query leaves too little for a text (``query_too_long``). Scores for its beginning alone would
                be scores for another query.
        """
        asked = well_formed(query)
        self._room(asked)
        longest = self._texts.tokens_max * CHARACTERS_PER_TOKEN_MAX
        return self._tokenizer.encode_batch([(asked, well_formed(text[:longest])) for text in texts])

    def truncated(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read beside the query.

        Raises:
            Invalid: As :meth:`tokenize`.
        """
        room = self._room(well_formed(query))
        return [self._texts.truncated(text, self._texts.text_tokens_max - room) for text in texts]

    def _room(self, query: str) -> int:
        """Return how many tokens of a text fit beside a query."""
        most = self._texts.tokens_max
        # One over the limit need not be counted to its end.
        room = most - self._special - self._texts.count([query[: most * CHARACTERS_PER_TOKEN_MAX]])[0]
        if room < TEXT_SHARE_MIN * most:
            detail = f"the query is longer than the reranker can read beside a text ({most} tokens in all)"
            raise Invalid(detail, field="query", code="query_too_long")
        return room


def pad_rows(rows: Sequence[Sequence[int]], fill: int) -> NDArray[np.int32]:
    """Return rows as ``int32 [n, longest]``, padded on the right."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), fill, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def _beyond(encoding: Encoding) -> int:
    """Return how many tokens were left out of an encoding because it was full."""
    return sum(len(part) for part in encoding.overflowing)


def well_formed(text: str) -> str:
    """Replace lone surrogates (from mangled JSON), which the Rust libraries refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
