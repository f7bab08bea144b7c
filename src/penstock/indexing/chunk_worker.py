"""Code of a chunker process: set up once with the model's tokenizer, then called text by text."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from penstock.indexing.chunk import PLAIN_NOTEBOOK, Chunk, chunk_text
from penstock.indexing.language import NOTEBOOK, PLAIN_TEXT
from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.messages import ChunkText
from penstock.models.token_estimate import TokenCounter

log = logging.getLogger(__name__)

#: Characters of a chunk at most, however few tokens they are: hits carry their chunks, so answers stay bounded.
CHARACTERS_MAX: Final = 65_536

#: Chunks of a text at most: so many in any case, and more for a longer text. In prose and code a chunk is 500 bytes and
#: more. Only a text whose every character is a token has more chunks, and its vectors would take fifty times its size.
CHUNKS_MAX: Final = 10_000
BYTES_PER_CHUNK_MIN: Final = 400

#: Tokens the model itself puts around a text.
SPECIAL_TOKENS = 2


#: Seconds of the processor that a grammar may take: for any text, for each byte of it, and at most.
PARSE_S: Final = 0.25
PARSE_S_PER_BYTE: Final = 3e-6
PARSE_S_MAX: Final = 2.0
#: Memory that a call may take beyond what a fresh process has.
CALL_BYTES_MAX: Final = 400 << 20


class _ProcessState:
    """State of this process: its tokenizer. Worker functions are found by name and cannot carry it."""

    tokenizer: TokenCounter


def init_process(tokenizer: TokenCounter) -> None:
    """Keep the tokenizer for every later call in this process, and bound the memory that a call may take."""
    _ProcessState.tokenizer = tokenizer
    tokenizer.count(["What is loaded at first use is loaded before the memory is measured."])
    used = _data_bytes()
    if used is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (used + CALL_BYTES_MAX,) * 2)


def _data_bytes() -> int | None:
    """Return the memory that counts against ``RLIMIT_DATA``, ``None`` where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return None


@contextmanager
def _guarded(size: int) -> Iterator[None]:
    """End this process by ``SIGPROF`` where a parser takes too long over ``size`` bytes.

    A parser is native code that hears of nothing else, and its time is the processor's, not the clock's: on a busy
    machine a good file keeps its structure.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, min(PARSE_S + size * PARSE_S_PER_BYTE, PARSE_S_MAX))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def chunk_message(message: ChunkText) -> list[Chunk]:
    """Cut one text into chunks that the model reads whole, with what is put in front of them.

    Raises:
        Invalid: There would be too many of them for its size.
    """
    tokenizer = _ProcessState.tokenizer
    tokens_max = tokenizer.tokens_max - SPECIAL_TOKENS - message.tokens_reserved
    most = max(CHUNKS_MAX, len(message.text.encode()) // BYTES_PER_CHUNK_MIN)
    cut_up = chunk_text(
        message.text,
        message.language,
        tokens_max=tokens_max,
        count=tokenizer.count,
        parse_limit=_guarded,
        chunks_max=most,
    )
    if len(cut_up) > most:
        raise Invalid(
            f"the text would be cut into more than {most} chunks, so small is each; split it, or leave it out",
            field="text",
        )
    return [piece for one in cut_up for piece in _bounded(one)]


def _bounded(one: Chunk) -> Iterator[Chunk]:
    """Yield a chunk, in pieces where it has few tokens and very many characters: blanks, or one endless word."""
    for first in range(0, max(1, len(one.text)), CHARACTERS_MAX):
        yield msgspec.structs.replace(one, text=one.text[first : first + CHARACTERS_MAX])


@dataclass(frozen=True, slots=True)
class FallbackChunker:
    """Chunks texts in worker processes, and falls back to plain lines where a grammar fails.

    Grammars are native code, and some have a text over which they crash, never end or take all memory. Such a text is
    cut by its lines, like prose. It is indexed then like any other, so the next run of ``penstock index`` does not send
    it again.

    Attributes:
        run: Runs a call in a process; ``Broken`` with the code ``worker_died`` where that process died.
    """

    run: Callable[[Callable[[], list[Chunk]]], Awaitable[list[Chunk]]]

    async def __call__(self, message: ChunkText) -> list[Chunk]:
        """Cut one text.

        Raises:
            Broken: The process died over the plain lines as well.
        """
        try:
            return await self.run(partial(chunk_message, message))
        except Broken as error:
            if error.code != "worker_died" or message.language == PLAIN_TEXT:
                raise
        log.warning(
            "the grammar for %s crashed over a text or took too long or too much memory; the text is cut by its lines",
            message.language,
        )
        plain = PLAIN_NOTEBOOK if message.language == NOTEBOOK else PLAIN_TEXT
        return await self.run(partial(chunk_message, msgspec.structs.replace(message, language=plain)))
