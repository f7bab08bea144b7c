"""A token count that adds up over lines, as WordPiece does, and shortcuts around the chunker."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from penstock.indexing.chunk import Chunk, TokenCount, chunk_text

_TOKEN: Final = re.compile(r"\w{1,8}|[^\w\s]")

Cut = Callable[..., list[Chunk]]
Symbols = Callable[..., dict[str, tuple[int, int]]]


def _count(texts: Sequence[str]) -> list[int]:
    return [len(_TOKEN.findall(text)) for text in texts]


def _cut(text: str, language: str, tokens_max: int = 100) -> list[Chunk]:
    return chunk_text(text, language, tokens_max=tokens_max, count=_count)


@pytest.fixture(scope="session")
def count() -> TokenCount:
    """Count words of at most eight letters, and punctuation marks."""
    return _count


@pytest.fixture(scope="session")
def cut() -> Cut:
    """Cut a text with that count."""
    return _cut


@pytest.fixture(scope="session")
def symbols() -> Symbols:
    """Return the first range of each symbol in a text."""

    def ranges(text: str, language: str, tokens_max: int = 100) -> dict[str, tuple[int, int]]:
        first: dict[str, tuple[int, int]] = {}
        for one in _cut(text, language, tokens_max):
            first.setdefault(one.symbol, (one.start_line, one.end_line))
        return first

    return ranges
