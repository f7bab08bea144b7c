"""Chunking: cuts a file's text into chunks that a model reads whole, each with exact lines and symbol.

Enters: text, its language, a token budget and a way to count tokens. Leaves: chunks in order; every line that is not
blank is in one of them (an over-long line in several). Refuses nothing: what cannot be parsed is cut at blank lines.
A notebook is cut cell by cell; its lines are those of its JSON.
Read next: `outline.py` (the records that are exchanged), `syntax.py` (code), `documents.py`, `unit_packing.py`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Final

from msgspec.structs import replace

from penstock.indexing.chunk.documents import outline_markdown, outline_prose, outline_restructured
from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import Chunk, Outline, ParseLimit, TokenCount
from penstock.indexing.chunk.syntax import outline_syntax
from penstock.indexing.chunk.unit_packing import chunks_of, pack
from penstock.indexing.language import NOTEBOOK, PLAIN_TEXT
from penstock.indexing.notebook import NotebookCell, read_cells

__all__ = ["PLAIN_NOTEBOOK", "Chunk", "TokenCount", "chunk_text"]

#: A notebook whose code no grammar is asked about.
PLAIN_NOTEBOOK: Final = f"{NOTEBOOK}/{PLAIN_TEXT}"

#: A longer text was written by a machine. It is cut by its lines, window by window: what is noted of each line, and a
#: syntax tree all the more, takes many times the memory of the text.
OUTLINED_CHARS_MAX: Final = 1_000_000
WINDOW_CHARS: Final = 250_000


def chunk_text(
    text: str,
    language: str,
    *,
    tokens_max: int,
    count: TokenCount,
    parse_limit: ParseLimit = nullcontext,
    chunks_max: int | None = None,
) -> list[Chunk]:
    """Cut a file into chunks of at most `tokens_max` tokens.

    A function, method or section is one chunk where it fits and is not tiny; small neighbours share
    one; a larger one is cut between statements or paragraphs into about equal parts. Comments and
    decorators stay with what they precede.

    Args:
        text: The file's text.
        language: Its language, as `penstock.indexing.language` names it.
        tokens_max: Tokens that the model reads, less those it adds itself.
        count: Model tokens of each string without special tokens; must add up over lines. Called
            for all lines, some at a time, and again for lines that are over the limit alone.
        parse_limit: Context manager around each run of a parser.
        chunks_max: How many are wanted at most. One more is returned where there are more, so that it shows.

    Returns:
        Chunks in the order of their lines, without blank lines at their ends.

    Raises:
        ValueError: `tokens_max` is not positive.

    Bounds:
        A chunk has at most 32 characters for each token allowed, since a word unknown to the model
        is one token however long it is. Beside the chunks, the memory for a text of more than
        `OUTLINED_CHARS_MAX` characters does not grow with it.
    """
    if tokens_max < 1:
        raise ValueError("tokens_max must be positive")

    def cut(part: str, language: str, parsed: str | None = None) -> Iterator[Chunk]:
        if len(part) > OUTLINED_CHARS_MAX:
            return (one for first, window in _windows(part) for one in _lines_of(window, first, tokens_max, count))
        ledger = LineCosts(part.split("\n"), count)
        outline = _outline(part if parsed is None else parsed, language, ledger, tokens_max, parse_limit)
        return chunks_of(ledger, pack(ledger, outline, tokens_max), tokens_max, count)

    chunks = cut(text, language)
    if language in {NOTEBOOK, PLAIN_NOTEBOOK}:
        cells = read_cells(text)
        if cells is None:
            chunks = (replace(one, language="json") for one in cut(text, "json"))
        else:
            chunks = _cut_cells(cells, cut, is_plain=language == PLAIN_NOTEBOOK)
    return list(islice(chunks, None if chunks_max is None else chunks_max + 1))


Cut = Callable[[str, str, str], Iterator[Chunk]]
#: What a notebook's shell adds to its language: commands of its own and of the system, and questions.
_MAGIC: Final = re.compile(r"^[ \t]*+[%!?].*", re.MULTILINE)


def _cut_cells(cells: Sequence[NotebookCell], cut: Cut, *, is_plain: bool) -> Iterator[Chunk]:
    """Cut each cell by itself, so that the lines of a chunk follow each other in the file as well."""
    for cell in cells:
        lines, numbers = cell.lines()
        text = "\n".join(lines)
        for one in cut(text, PLAIN_TEXT if is_plain else cell.language, _MAGIC.sub("", text)):
            start, end = numbers[one.start_line - 1] + 1, numbers[one.end_line - 1] + 1
            yield replace(one, start_line=start, end_line=end, language=cell.language)


def _windows(text: str) -> Iterator[tuple[int, str]]:
    """Yield pieces of a text with the number of the line that each begins in; an over-long line is in several."""
    start, line = 0, 0
    while start < len(text):
        end = start + WINDOW_CHARS
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        window = text[start:end]
        yield line, window
        line += window.count("\n")
        start = end


def _lines_of(window: str, first: int, tokens_max: int, count: TokenCount) -> Iterator[Chunk]:
    ledger = LineCosts(window.split("\n"), count)
    for one in chunks_of(ledger, pack(ledger, outline_prose(ledger), tokens_max), tokens_max, count):
        yield replace(one, start_line=one.start_line + first, end_line=one.end_line + first)


def _outline(text: str, language: str, ledger: LineCosts, budget: int, guard: ParseLimit) -> Outline:
    if language == "markdown":
        return outline_markdown(ledger)
    if language == "rst":
        return outline_restructured(ledger)
    return outline_syntax(text, language, ledger, budget, guard) or outline_prose(ledger)
