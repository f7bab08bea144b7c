"""Detection of texts that a model truncates, so that an answer can name them, and counts of the tokens it reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from penstock.models.bm25 import Bm25Runner
from penstock.models.contract import TokenUsage, TruncationChecks
from penstock.models.factory import Models
from penstock.models.onnx_models import OnnxCrossEncoder, OnnxSparseEncoder
from penstock.models.token_estimate import LazyTokenizer
from penstock.models.tokenizer import TextTokenizer

T = TypeVar("T")

#: Texts of so many characters together are counted at once, in half a millisecond; more of them in a thread.
INLINE_CHARACTERS_MAX: Final = 2_048

RunInThread = Callable[[Callable[[], T]], Awaitable[T]]


def token_usage(models: Models, run: RunInThread[Any]) -> TokenUsage:
    """Return what tells of the dense model's tokens; many characters are counted in a thread."""
    counter = models.tokenizer

    async def count_read(texts: Sequence[str]) -> int:
        work = partial(counter.count_read, texts)
        return sum(work() if sum(map(len, texts)) <= INLINE_CHARACTERS_MAX else await run(work))

    async def cut(texts: Sequence[str], tokens: int) -> Sequence[str]:
        # A token has a character at least.
        if max(map(len, texts)) <= tokens:
            return texts
        beginnings: list[str] = await run(lambda: [counter.cut(text, tokens) for text in texts])
        return beginnings

    return TokenUsage(counter.tokens_max, count_read, cut)


def truncation_checks(models: Models, run: RunInThread[list[bool]]) -> TruncationChecks:
    """Return the checks that find texts which the models in use truncate."""
    counts = isinstance(models.tokenizer, TextTokenizer | LazyTokenizer)

    def lost(texts: Sequence[str]) -> list[bool]:
        return [models.tokenizer.truncated(text) for text in texts]

    async def cut(check: Callable[[Sequence[str]], list[bool]], texts: Sequence[str]) -> list[int]:
        short = sum(map(len, texts)) <= INLINE_CHARACTERS_MAX
        found = check(texts) if short else await run(partial(check, texts))
        return [number for number, one in enumerate(found) if one]

    async def dense(texts: Sequence[str]) -> list[int] | None:
        return await cut(lost, texts) if counts else None

    async def sparse(texts: Sequence[str]) -> list[int] | None:
        model = models.sparse
        return await cut(model.truncated, texts) if isinstance(model, Bm25Runner | OnnxSparseEncoder) else None

    async def rerank(query: str, texts: Sequence[str]) -> tuple[bool, list[int]] | None:
        if isinstance(models.rerank, OnnxCrossEncoder):
            # It refuses a query that it cannot read whole.
            return False, await cut(partial(models.rerank.truncated, query), texts)
        if models.infos[2].kind != "builtin" or not counts:
            return None
        found = await cut(lost, [query, *texts])
        return 0 in found, [number - 1 for number in found if number]

    return TruncationChecks(dense, sparse, rerank)
