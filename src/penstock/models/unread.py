"""Texts whose end a model does not read, so that an answer can tell of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from penstock.models.choice import Models
from penstock.models.contract import Unread
from penstock.models.elsewhere import LazyTokenizer
from penstock.models.onnx_rerank import OnnxCrossEncoder
from penstock.models.onnx_sparse import OnnxSparse
from penstock.models.sparse import Bm25Runner
from penstock.models.tokenizer import TextTokenizer

T = TypeVar("T")

#: Texts of so many characters together are counted at once, in half a millisecond; more of them in a thread.
QUICK_CHARACTERS: Final = 2_048

Run = Callable[[Callable[[], T]], Awaitable[T]]


def unread(models: Models, run: Run[list[bool]]) -> Unread:
    """Return what finds texts that the models in use do not read whole.

    Args:
        models: The models.
        run: Runs a call in a thread.
    """
    counts = isinstance(models.tokenizer, TextTokenizer | LazyTokenizer)

    def lost(texts: Sequence[str]) -> list[bool]:
        return [models.tokenizer.truncated(text) for text in texts]

    async def dense(texts: Sequence[str]) -> list[int] | None:
        return _numbers(await _counted(lost, texts, run)) if counts else None

    async def sparse(texts: Sequence[str]) -> list[int] | None:
        model = models.sparse
        if not isinstance(model, Bm25Runner | OnnxSparse):
            return None
        return _numbers(await _counted(model.truncated, texts, run))

    async def rerank(query: str, texts: Sequence[str]) -> tuple[bool, list[int]] | None:
        if isinstance(models.rerank, OnnxCrossEncoder):
            # It refuses a query that it cannot read whole.
            return False, _numbers(await _counted(partial(models.rerank.truncated, query), texts, run))
        if models.used[2].kind != "builtin" or not counts:
            return None
        first, *rest = await _counted(lost, [query, *texts], run)
        return first, _numbers(rest)

    return Unread(dense, sparse, rerank)


async def _counted(
    count: Callable[[Sequence[str]], list[bool]], texts: Sequence[str], run: Run[list[bool]]
) -> list[bool]:
    if sum(map(len, texts)) <= QUICK_CHARACTERS:
        return count(texts)
    return await run(partial(count, texts))


def _numbers(lost: Sequence[bool]) -> list[int]:
    return [number for number, one in enumerate(lost) if one]
