"""Handlers of the ML topics, whoever runs the models: threads of this process, or other servers.

A message for another server holds its permit while the answer is on its way, and no thread. Guard, limit and retries
stand around it: :class:`penstock.pools.remote.Remote`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from penstock.kernel.context import Context
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.choice import Models
from penstock.models.contract import Embedder, LateRunner, Reranker, RerankRunner, SparseEncoder, SparseRunner
from penstock.pools.ml import MlWorkers
from penstock.pools.threads import Threads

Worker: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


def handlers(models: Models, threads: Threads, bulk: Threads) -> tuple[Worker, Worker, Worker]:
    """Return what the pools embed, sparse and rerank do with a message.

    Args:
        models: The models.
        threads: What those of this process run on.
        bulk: What they run bulk work on.
    """
    # A part that another server runs has its own handler; that of the threads is then never called.
    local = MlWorkers(
        cast("LateRunner", models.dense),
        cast("SparseRunner", models.sparse),
        cast("RerankRunner", models.rerank),
        threads,
        bulk,
    )
    remote = models.remote
    return (
        embedding(cast("Embedder", models.dense)) if "embed" in remote else local.embed,
        encoding(cast("SparseEncoder", models.sparse)) if "sparse" in remote else local.sparse,
        reranking(cast("Reranker", models.rerank)) if "rerank" in remote else local.rerank,
    )


def embedding(model: Embedder) -> Callable[[EmbedBatch, Context], Awaitable[Embeddings]]:
    """Return a handler of ``ml.embed``."""

    async def embed(message: EmbedBatch, ctx: Context) -> Embeddings:
        return await model.embed(message.texts, message.kind, ctx, late=message.late)

    return embed


def encoding(model: SparseEncoder) -> Callable[[SparseBatch, Context], Awaitable[list[SparseVector]]]:
    """Return a handler of ``ml.sparse``."""

    async def encode(message: SparseBatch, ctx: Context) -> list[SparseVector]:
        return await model.encode(message.texts, message.kind, ctx)

    return encode


def reranking(model: Reranker) -> Callable[[RerankTexts, Context], Awaitable[DenseVectors]]:
    """Return a handler of ``ml.rerank``."""

    async def rerank(message: RerankTexts, ctx: Context) -> DenseVectors:
        return await model.rerank(message.query, message.texts, ctx)

    return rerank
