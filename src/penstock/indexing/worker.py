"""What runs in a chunker process: set up once with the model's tokenizer, then text by text."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from penstock.indexing.chunk import Chunk, chunk
from penstock.indexing.language import TEXT
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText
from penstock.models.rough import TokenCounter

log = logging.getLogger(__name__)

#: Characters of a chunk at most, however few tokens they are: hits carry their chunks, so answers stay bounded.
CHARACTERS_MAX: Final = 65_536

#: Tokens the model itself puts around a text.
SPECIAL_TOKENS = 2


class _Process:
    """This process's tokenizer; worker functions are found by name and cannot carry it."""

    tokenizer: TokenCounter


def prepare(tokenizer: TokenCounter) -> None:
    """Keep the tokenizer for every later call in this process."""
    _Process.tokenizer = tokenizer


def cut(message: ChunkText) -> list[Chunk]:
    """Cut one text into chunks that the model reads whole, with what is put in front of them."""
    tokenizer = _Process.tokenizer
    tokens_max = tokenizer.tokens_max - SPECIAL_TOKENS - message.tokens_reserved
    cut_up = chunk(message.text, message.language, tokens_max=tokens_max, count=tokenizer.count)
    return [piece for one in cut_up for piece in _bounded(one)]


def _bounded(one: Chunk) -> Iterator[Chunk]:
    """Yield a chunk, in pieces where it has few tokens and very many characters: blanks, or one endless word."""
    for first in range(0, max(1, len(one.text)), CHARACTERS_MAX):
        yield replace(one, text=one.text[first : first + CHARACTERS_MAX])


class Cutter:
    """Has texts cut in worker processes, and no text fail because of its grammar.

    Grammars are native code, and some have a text that makes them crash. Such a text is cut by its lines, like prose.

    Args:
        run: Runs a call in a process; ``Broken`` with the code ``worker_died`` where that process died.
    """

    def __init__(self, run: Callable[[Callable[[], list[Chunk]]], Awaitable[list[Chunk]]]) -> None:
        self._run = run

    async def __call__(self, message: ChunkText) -> list[Chunk]:
        """Cut one text.

        Raises:
            Broken: The process died over the plain lines as well.
        """
        try:
            return await self._run(partial(cut, message))
        except Broken as error:
            if error.code != "worker_died" or message.language == TEXT:
                raise
        log.warning(
            "the grammar for %s ended its process over a text, which is cut by its lines instead", message.language
        )
        return await self._run(partial(cut, msgspec.structs.replace(message, language=TEXT)))
