"""Handlers of the ML topics, for models in threads of this process and on other servers.

A message for a thread is one run of a model. A message for another server holds its permit while the answer is on its
way, and no thread. Guard, limit and retries stand around it:
:class:`penstock.pools.remote_dependency.RemoteDependency`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias, cast

from penstock.kernel.context import Context, Criticality
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import (
    Embedder,
    LateInteractionRunner,
    Reranker,
    RerankRunner,
    SparseEncoder,
    SparseRunner,
)
from penstock.models.factory import Models
from penstock.models.prompts import NO_PROMPTS, Prompts
from penstock.pools.thread_pool import ThreadPool

#: A thread so nice gets a tenth of what an ordinary one gets where both want the same core (Linux: 110 to 1024).
BULK_NICENESS: Final = 10


class ThreadModelHandlers:
    """Handlers of the pools embed, sparse and rerank, each run in a thread.

    Args:
        dense: Runs the dense model.
        sparse: Runs the sparse model.
        rerank: Runs the reranker.
        threads: Threads of the models; as many as cores, whatever the permits admit.
        bulk_threads: Threads of bulk work: as many again, of a priority so low that they stand still while the others
            compute (``BULK_NICENESS``); the same as the others by default.
        prompts: What the dense model wants in front of its texts.
    """

    def __init__(
        self,
        dense: LateInteractionRunner,
        sparse: SparseRunner,
        rerank: RerankRunner,
        threads: ThreadPool,
        bulk_threads: ThreadPool | None = None,
        *,
        prompts: Prompts = NO_PROMPTS,
    ) -> None:
        self._dense = dense
        self._prompts = prompts
        self._sparse = sparse
        self._rerank = rerank
        self._threads = threads
        self._bulk = bulk_threads or threads

    async def embed(self, message: EmbedBatch, ctx: Context) -> Embeddings:
        """Return the texts' vectors, in their order.

        Cancellation: The run is asked to stop; this returns when it has.
        """
        stop, threads, kind = CancellationToken(), self._threads_for(ctx), message.kind
        texts = self._prompts.applied(message.texts, kind)
        if message.late:
            return await threads.run(partial(self._dense.run_with_token_vectors, texts, kind, stop), stop.cancel)
        return Embeddings(await threads.run(partial(self._dense.run, texts, stop), stop.cancel))

    async def sparse(self, message: SparseBatch, ctx: Context) -> list[SparseVector]:
        """Return one sparse vector for each text.

        Cancellation: As :meth:`embed`.
        """
        stop = CancellationToken()
        encode = self._sparse.encode_queries if message.kind is TextKind.QUERY else self._sparse.encode_documents
        return await self._threads_for(ctx).run(partial(encode, message.texts, stop), stop.cancel)

    async def rerank(self, message: RerankTexts, ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``, higher is better.

        Cancellation: As :meth:`embed`.
        """
        stop = CancellationToken()
        call = partial(self._rerank.run, message.query, message.texts, stop)
        return await self._threads_for(ctx).run(call, stop.cancel)

    def _threads_for(self, ctx: Context) -> ThreadPool:
        return self._bulk if ctx.criticality is Criticality.BULK else self._threads


ModelHandler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


def model_handlers(
    models: Models, threads: ThreadPool, bulk_threads: ThreadPool
) -> tuple[ModelHandler, ModelHandler, ModelHandler]:
    """Return the handlers of the pools embed, sparse and rerank."""
    # A part that another server runs has its own handler; that of the threads is then never called.
    local = ThreadModelHandlers(
        cast("LateInteractionRunner", models.dense),
        cast("SparseRunner", models.sparse),
        cast("RerankRunner", models.rerank),
        threads,
        bulk_threads,
        prompts=models.prompts,
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
