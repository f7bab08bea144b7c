"""Tokenizers for exported ONNX graphs: token rows of texts, and of pairs of a query and a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from penstock.kernel.errors import Invalid
from penstock.models.onnx_session import TokenBatch
from penstock.models.tokenizer import CHARACTERS_PER_TOKEN_MAX, TextTokenizer, well_formed

#: The share of a pair's tokens that a query must leave for the text.
TEXT_SHARE_MIN: Final = 0.25


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids of a text or pair, with each token's segment number (token type)."""

    ids: Sequence[int]
    type_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)


class TextRowTokenizer:
    """Rows of single texts, cut at the model's length.

    Args:
        path: ``tokenizer.json``.
        tokens_max: Tokens after which a text is cut, special tokens included.

    Raises:
        Invalid: The file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        self.tokenizer = TextTokenizer(path, tokens_max)

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return a row for each text."""
        return [TokenRow(ids, [0] * len(ids)) for ids in self.tokenizer.token_ids(texts)]

    def pad(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return the rows as one batch, padded on the right."""
        return pad_rows(rows, self.tokenizer.pad_id)


class PairRowTokenizer:
    """Rows of a query with each of several texts. The text is cut at the model's length, the query never.

    Args:
        path: ``tokenizer.json``; its template says what stands around and between the two.
        tokens_max: Tokens after which a pair is cut, special tokens included.

    Raises:
        Invalid: The file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        self.tokens_max = tokens_max
        self._texts = TextTokenizer(path, tokens_max)
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens_max, strategy="only_second")
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=True)

    def tokenize(self, query: str, texts: Sequence[str]) -> list[TokenRow]:
        """Return a row for each text.

        Raises:
            Invalid: The query leaves too little for a text (``query_too_long``). Scores for its beginning alone would
                be scores for another query.
        """
        asked = well_formed(query)
        self._room(asked)
        longest = self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        encoded = self._tokenizer.encode_batch([(asked, well_formed(text[:longest])) for text in texts])
        return [TokenRow(one.ids, one.type_ids) for one in encoded]

    def truncated(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read beside the query.

        Raises:
            Invalid: As :meth:`tokenize`.
        """
        room = self._room(well_formed(query))
        return [self._texts.truncated(text, self._texts.text_tokens_max - room) for text in texts]

    def _room(self, query: str) -> int:
        """Return how many tokens of a text fit beside a query."""
        # One over the limit need not be counted to its end.
        longest = self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        room = self.tokens_max - self._special - self._texts.count([query[:longest]])[0]
        if room < TEXT_SHARE_MIN * self.tokens_max:
            detail = f"the query is longer than the reranker can read beside a text ({self.tokens_max} tokens in all)"
            raise Invalid(detail, field="query", code="query_too_long")
        return room

    def pad(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return the rows as one batch, padded on the right."""
        return pad_rows(rows, self._texts.pad_id)


def pad_rows(rows: Sequence[TokenRow], pad_id: int) -> TokenBatch:
    """Return rows as one batch, padded on the right."""
    shape = len(rows), max(map(len, rows), default=0)
    ids, mask, types = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row.ids
        mask[number, : len(row)] = 1
        types[number, : len(row)] = row.type_ids
    return TokenBatch(ids, mask, types)
