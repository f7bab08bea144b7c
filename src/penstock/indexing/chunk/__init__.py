"""A file's text becomes chunks that a model reads whole, each with exact lines and symbol.

Enters: text, its language, a token budget and a way to count tokens. Leaves: chunks in order; every
    line that is not
blank is in one of them (an over-long line in several). Refuses nothing: what cannot be parsed is
cut at blank lines.
Read next: `records.py` (what the parts exchange), `syntax.py` (code), `markdown.py` (documents),
`packing.py`.
"""

from penstock.indexing.chunk.ledger import Ledger
from penstock.indexing.chunk.markdown import outline_markdown
from penstock.indexing.chunk.packing import chunks_of, pack
from penstock.indexing.chunk.prose import outline_prose
from penstock.indexing.chunk.records import Chunk, Outline, TokenCount
from penstock.indexing.chunk.restructured import outline_restructured
from penstock.indexing.chunk.syntax import outline_syntax

__all__ = ["Chunk", "TokenCount", "chunk"]


def chunk(text: str, language: str, *, tokens_max: int, count: TokenCount) -> list[Chunk]:
    """Cut a file into chunks of at most `tokens_max` tokens.

    A function, method or section is one chunk where it fits and is not tiny; small neighbours share
    one; a larger one is cut between statements or paragraphs into about equal parts. Comments and
    decorators stay with what they precede.

    Args:
        text: The file's text.
        language: Its language, as `penstock.indexing.language` names it.
        tokens_max: Tokens that the model reads, less those it adds itself.
        count: Model tokens of each string without special tokens; must add up over lines. Called
            once for all lines, and again for lines that are over the limit alone.

    Returns:
        Chunks in the order of their lines, without blank lines at their ends.

    Raises:
        ValueError: `tokens_max` is not positive.

    Bounds:
        A chunk has at most 32 characters for each token allowed, since a word unknown to the model
        is one token however long it is.
    """
    if tokens_max < 1:
        raise ValueError("tokens_max must be positive")
    ledger = Ledger(text.split("\n"), count)
    outline = _outline(text, language, ledger, tokens_max)
    return list(chunks_of(ledger, pack(ledger, outline, tokens_max), tokens_max, count))


def _outline(text: str, language: str, ledger: Ledger, budget: int) -> Outline:
    if language == "markdown":
        return outline_markdown(ledger)
    if language == "rst":
        return outline_restructured(ledger)
    return outline_syntax(text, language, ledger, budget) or outline_prose(ledger)
