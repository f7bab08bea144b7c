"""Handlers of the ML topics: each message is one run of a model in a thread."""

from __future__ import annotations

from functools import partial
from typing import Final

from penstock.kernel.context import Context, Criticality
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import LateInteractionRunner, RerankRunner, SparseRunner
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
    """

    def __init__(
        self,
        dense: LateInteractionRunner,
        sparse: SparseRunner,
        rerank: RerankRunner,
        threads: ThreadPool,
        bulk_threads: ThreadPool | None = None,
    ) -> None:
        self._dense = dense
        self._sparse = sparse
        self._rerank = rerank
        self._threads = threads
        self._bulk = bulk_threads or threads

    async def embed(self, message: EmbedBatch, ctx: Context) -> Embeddings:
        """Return the texts' vectors, in their order.

        Cancellation: The run is asked to stop; this returns when it has.
        """
        stop, threads = CancellationToken(), self._threads_for(ctx)
        if message.late:
            return await threads.run(
                partial(self._dense.run_with_token_vectors, message.texts, message.kind, stop), stop.cancel
            )
        return Embeddings(await threads.run(partial(self._dense.run, message.texts, stop), stop.cancel))

    async def sparse(self, message: SparseBatch, ctx: Context) -> list[SparseVector]:
        """Return one sparse vector for each text; queries that are encoded at once are not handed to a thread.

        Cancellation: As :meth:`embed`.
        """
        stop = CancellationToken()
        if message.kind is TextKind.QUERY and sum(map(len, message.texts)) <= self._sparse.inline_characters_max:
            return self._sparse.encode_queries(message.texts, stop)
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
