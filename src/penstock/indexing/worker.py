"""What runs in a chunker process: set up once with the model's tokenizer, then text by text."""

from __future__ import annotations

from penstock.indexing.chunk import Chunk, chunk
from penstock.kernel.messages import ChunkText
from penstock.models.tokenizer import TextTokenizer

#: Tokens the model itself puts around a text.
SPECIAL_TOKENS = 2


class _Process:
    """This process's tokenizer; worker functions are found by name and cannot carry it."""

    tokenizer: TextTokenizer


def prepare(tokenizer: TextTokenizer) -> None:
    """Keep the tokenizer for every later call in this process."""
    _Process.tokenizer = tokenizer


def cut(message: ChunkText) -> list[Chunk]:
    """Cut one text into chunks that the model reads whole, with what is put in front of them."""
    tokenizer = _Process.tokenizer
    tokens_max = tokenizer.tokens_max - SPECIAL_TOKENS - message.tokens_reserved
    return chunk(message.text, message.language, tokens_max=tokens_max, count=tokenizer.count)
