"""Handlers of the ML topics, for models in threads of this process and on other servers.

A message for another server holds its permit while the answer is on its way, and no thread. Guard, limit and retries
stand around it: :class:`penstock.pools.remote_dependency.RemoteDependency`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from penstock.kernel.context import Context
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.contract import (
    Embedder,
    LateInteractionRunner,
    Reranker,
    RerankRunner,
    SparseEncoder,
    SparseRunner,
)
from penstock.models.factory import Models
from penstock.pools.model_handlers import ThreadModelHandlers
from penstock.pools.thread_pool import ThreadPool

ModelHandler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


def model_handlers(
    models: Models, threads: ThreadPool, bulk_threads: ThreadPool
) -> tuple[ModelHandler, ModelHandler, ModelHandler]:
    """Return the handlers of the pools embed, sparse and rerank.

    Args:
        models: The models.
        threads: Threads for the models of this process.
        bulk_threads: Their threads for bulk work.
    """
    # A part that another server runs has its own handler; that of the threads is then never called.
    local = ThreadModelHandlers(
        cast("LateInteractionRunner", models.dense),
        cast("SparseRunner", models.sparse),
        cast("RerankRunner", models.rerank),
        threads,
        bulk_threads,
    )
    remote = models.remote_pools
    return (
        embed_handler(cast("Embedder", models.dense)) if "embed" in remote else local.embed,
        sparse_handler(cast("SparseEncoder", models.sparse)) if "sparse" in remote else local.sparse,
        rerank_handler(cast("Reranker", models.rerank)) if "rerank" in remote else local.rerank,
    )


def embed_handler(model: Embedder) -> Callable[[EmbedBatch, Context], Awaitable[Embeddings]]:
    """Return a handler of ``ml.embed``."""

    async def embed(message: EmbedBatch, ctx: Context) -> Embeddings:
        return await model.embed(message.texts, message.kind, ctx, late_interaction=message.late)

    return embed


def sparse_handler(model: SparseEncoder) -> Callable[[SparseBatch, Context], Awaitable[list[SparseVector]]]:
    """Return a handler of ``ml.sparse``."""

    async def encode(message: SparseBatch, ctx: Context) -> list[SparseVector]:
        return await model.encode(message.texts, message.kind, ctx)

    return encode


def rerank_handler(model: Reranker) -> Callable[[RerankTexts, Context], Awaitable[DenseVectors]]:
    """Return a handler of ``ml.rerank``."""

    async def rerank(message: RerankTexts, ctx: Context) -> DenseVectors:
        return await model.rerank(message.query, message.texts, ctx)

    return rerank
