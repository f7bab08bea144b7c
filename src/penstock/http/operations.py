"""What each route does: request in, record out. No framework beyond the request object."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from penstock.http import answers, bodies, decoding, documents
from penstock.http.labels import label
from penstock.http.queries import DeletionQuery, PageQuery
from penstock.http.recent import Recent
from penstock.http.services import Services
from penstock.indexing.language import named
from penstock.indexing.records import Outcome, Status
from penstock.kernel.context import Context
from penstock.kernel.deadline import Deadline, limit
from penstock.kernel.errors import Broken, Expired, Invalid, Unavailable
from penstock.kernel.messages import (
    CollectionCreated,
    CollectionDeleted,
    IndexComplete,
    IndexProgress,
    SearchComplete,
    TextKind,
    Topic,
)
from penstock.pools.guarded import Layout
from penstock.search import filters
from penstock.search.records import QUERY_CHARACTERS_MAX, SearchRequest, SearchResult
from penstock.stores.errors import check_usable
from penstock.stores.records import CollectionInfo, Condition, Head, HeadPage, Match, Prefix, Snapshot

log = logging.getLogger(__name__)

DEFAULT_COLLECTION: Final = "default"

#: The store gets this long to list its collections for a status; whoever asks wants to know now.
STATUS_STORE_S: Final = 1.0

#: Heads that are read at once, and characters of ids and paths from which on a page ends: both have up to 4 096.
HEADS_READ: Final = 1_000
PAGE_CHARACTERS_MAX: Final = 4_194_304


class Operations:
    """The API's operations.

    Args:
        services: The rooms below.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._status = Recent(self._compute_status)
        self._alerts = Recent(self._compute_alerts)
        self._readiness = Recent(self._compute_readiness)

    async def search(self, request: Request) -> SearchResult:
        """Search a collection."""
        body = await decoding.read(await request.body(), bodies.SearchBody)
        collection = request.path_params.get("name", DEFAULT_COLLECTION)
        asked = SearchRequest(
            collection=collection,
            # What is cut off is never read; one character of it tells the pipeline that there is more.
            query=body.query[: QUERY_CHARACTERS_MAX + 1],
            limit=int(body.limit),
            filter=filters.parse(body.filter, named),
            rerank=body.rerank,
            explain=body.explain,
            weights=body.weights,
            fusion=body.fusion,
            strict=body.strict,
        )
        asked.check()
        ctx = self._context(request, body.timeout_ms)
        ctx = ctx.within(self._services.settings.timeouts.search, "search", self._now())
        request.scope["penstock.deadline_s"] = ctx.deadline.at_s
        self._refuse_foreign(collection)
        result: SearchResult = await self._services.bus.request(Topic.SEARCH_REQUEST, asked, ctx)
        done = SearchComplete(collection, len(result.hits), result.took_ms, tuple(result.degraded))
        await self._services.bus.publish(Topic.SEARCH_COMPLETE, done, ctx)
        return result

    async def list_collections(self, request: Request) -> answers.Collections:
        """List every collection."""
        return answers.Collections(await self._services.store.collections(self._context(request)))

    async def create_collection(self, request: Request) -> CollectionInfo:
        """Create a collection, or return the one that is there."""
        data = await request.body()
        if data.strip():
            await decoding.read(data, bodies.CollectionBody)
        services, ctx = self._services, self._context(request)
        embedder, name = services.embedder, request.path_params["name"]
        wanted = CollectionInfo(name, embedder.dim, services.model, late=embedder.late, sparse=services.learned)
        info = await services.store.create(wanted, ctx)
        await services.bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return info

    async def get_collection(self, request: Request) -> CollectionInfo:
        """Describe a collection."""
        name = request.path_params["name"]
        return await self._services.store.collection(name, self._context(request))

    async def delete_collection(self, request: Request) -> answers.Deleted:
        """Delete a collection and everything in it."""
        name, ctx = request.path_params["name"], self._context(request)
        await self._services.store.drop(name, ctx)
        self._services.foreign.pop(name, None)
        await self._services.bus.publish(Topic.COLLECTION_DELETED, CollectionDeleted(name), ctx)
        return answers.Deleted(1)

    async def make_snapshot(self, request: Request) -> Snapshot:
        """Make a snapshot of every collection, a file in the data directory."""
        return await self._services.snapshots.make(self._context(request))

    async def list_snapshots(self, _request: Request) -> answers.SnapshotList:
        """List the snapshots in the data directory."""
        return answers.SnapshotList(await self._services.snapshots.kept())

    async def delete_snapshot(self, request: Request) -> answers.Deleted:
        """Delete a snapshot in the data directory."""
        await self._services.snapshots.delete(request.path_params["name"])
        return answers.Deleted(1)

    async def restore_snapshot(self, request: Request) -> answers.Collections:
        """Take in what a snapshot in the data directory holds."""
        data = await request.body()
        body = await decoding.read(data, bodies.RestoreBody) if data.strip() else bodies.RestoreBody()
        services, ctx = self._services, self._context(request)
        embedder = services.embedder
        layout = CollectionInfo("", embedder.dim, services.model, late=embedder.late, sparse=services.learned)
        name, force = request.path_params["name"], body.force
        # Called also when the caller has hung up: what is in its place stays there.
        restored = await services.snapshots.restore(name, layout, ctx, force=force, restored=self._replaced)
        for info in restored:
            await services.bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return answers.Collections(restored)

    async def index_documents(self, request: Request) -> answers.IndexAnswer:
        """Index documents: JSON, or NDJSON with one document a line."""
        began = self._now()
        collection = request.path_params["name"]
        found = await documents.read(request, self._services.clock)
        became = await self._index(collection, found.documents, found.ctx)
        found.raise_if_all_failed(became)
        each = await found.told(became)
        return answers.IndexAnswer(
            collection=collection,
            documents=each,
            indexed=sum(o.status is Status.INDEXED for o in each),
            unchanged=sum(o.status is Status.UNCHANGED for o in each),
            failed=sum(o.status is Status.FAILED for o in each) + found.untold,
            chunks=sum(o.chunks for o in each if o.status is Status.INDEXED),
            took_ms=round((self._now() - began) * 1000, 3),
        )

    async def _index(self, collection: str, those: documents.Documents, ctx: Context) -> list[Outcome]:
        """Index sub-batch by sub-batch (D9), in order, telling the bus as it goes."""
        bus, size = self._services.bus, self._services.settings.http.max_batch
        outcomes: list[Outcome] = []
        self._refuse_foreign(collection)
        check_usable(await self._services.store.collection(collection, ctx))
        for first in range(0, len(those), size):
            if ctx.deadline.passed(self._now()):
                outcomes += _too_late(those[first:].ids, ctx)
                break
            batch = those[first : first + size]
            async for outcome in self._services.index.run(collection, batch, ctx):
                outcomes.append(outcome)
                progress = IndexProgress(collection, outcome.id, outcome.status, outcome.chunks)
                await bus.publish(Topic.INDEX_PROGRESS, progress, ctx)
        counts = {s: sum(o.status is s for o in outcomes) for s in Status}
        chunks = sum(o.chunks for o in outcomes if o.status is Status.INDEXED)
        done = IndexComplete(
            collection,
            counts[Status.INDEXED],
            counts[Status.UNCHANGED],
            counts[Status.FAILED],
            chunks,
        )
        await bus.publish(Topic.INDEX_COMPLETE, done, ctx)
        return outcomes

    async def list_documents(self, request: Request) -> answers.Heads:
        """List a page of a collection's documents."""
        query: PageQuery = request.scope["penstock.query"]
        page = await self._heads(request.path_params["name"], query, self._context(request))
        return answers.Heads(page.heads, page.next)

    async def _heads(self, name: str, query: PageQuery, ctx: Context) -> HeadPage:
        """Return a page of heads, read some at a time; it ends early where ids and paths are very long."""
        conditions = (Prefix("path", query.path_prefix),) if query.path_prefix else ()
        heads, after, characters = list[Head](), str(query.after) if query.after else None, 0
        while True:
            missing = min(query.limit - len(heads), HEADS_READ)
            page = await self._services.store.heads(name, conditions, after, missing, ctx)
            heads += page.heads
            after = page.next
            characters += sum(len(head.id) + len(head.path) for head in page.heads)
            if after is None or len(heads) >= query.limit or characters >= PAGE_CHARACTERS_MAX:
                return HeadPage(heads, after)

    async def delete_documents(self, request: Request) -> answers.Deleted:
        """Delete documents by ids or by the beginning of their paths.

        Without a body, the query may say the same: ``ids``, once for each, or ``path_prefix``.
        """
        condition = await _deletion(await request.body(), request.scope["penstock.query"])
        if condition is None:
            return answers.Deleted(0)
        name, ctx = request.path_params["name"], self._context(request)
        return answers.Deleted(await self._services.store.delete(name, (condition,), ctx))

    async def embed(self, request: Request) -> answers.Embeddings:
        """Embed texts with the dense model."""
        body = await decoding.read(await request.body(), bodies.EmbedBody)
        ctx = self._context(request, body.timeout_ms)
        services = self._services
        embedded = await services.embedder.embed(body.texts, body.kind, ctx)
        async with limit(ctx.deadline):
            cut = await services.unread.dense(body.texts)
        return answers.embeddings(services.model, embedded, cut)

    async def sparse(self, request: Request) -> answers.SparseVectors:
        """Encode texts as sparse vectors."""
        body = await decoding.read(await request.body(), bodies.SparseBody)
        ctx = self._context(request, body.timeout_ms)
        vectors = await self._services.sparse.encode(body.texts, TextKind(body.kind), ctx)
        async with limit(ctx.deadline):
            cut = await self._services.unread.sparse(body.texts)
        return answers.sparse_vectors(vectors, cut)

    async def rerank(self, request: Request) -> answers.Ranking:
        """Order texts by how well they answer a query."""
        body = await decoding.read(await request.body(), bodies.RerankBody)
        ctx = self._context(request, body.timeout_ms)
        scores = await self._services.reranker.rerank(body.query, body.texts, ctx)
        ranked = sorted(enumerate(scores.tolist()), key=lambda item: (-item[1], item[0]))
        results = [answers.RankedText(i, score) for i, score in ranked]
        async with limit(ctx.deadline):
            cut = await self._services.unread.rerank(body.query, body.texts)
        return answers.Ranking(results) if cut is None else answers.Ranking(results, cut[1], cut[0])

    async def status(self, request: Request) -> answers.ServerStatus:
        """Tell the server's state at a glance, also when its store cannot answer."""
        self._context(request)  # refuses headers that cannot be read; whoever asks next gets the same answer
        return await self._status.get()

    async def _compute_status(self) -> answers.ServerStatus:
        ctx = Context(Deadline.never()).within(STATUS_STORE_S, "status", self._now())
        try:
            collections = await self._services.store.collections(ctx)
        except (Expired, Unavailable, Broken) as error:
            status = self._services.status([])
            return msgspec.structs.replace(status, reasons=[*status.reasons, f"no collections: {error.detail}"])
        return self._services.status(collections)

    async def alerts(self, _request: Request) -> answers.Alerts:
        """Tell the alerts."""
        return await self._alerts.get()

    async def _compute_alerts(self) -> answers.Alerts:
        return answers.Alerts(self._services.alerts())

    async def readiness(self) -> answers.Readiness:
        """Tell whether the server can work, why not, and what of it does not."""
        return await self._readiness.get()

    async def _compute_readiness(self) -> answers.Readiness:
        reasons = list(self._services.readiness())
        return answers.Readiness(not reasons, reasons, list(self._services.warnings()))

    def _replaced(self, collection: str) -> None:
        """Forget what is known of a collection: another one has taken its place."""
        self._services.forget(collection)
        self._services.foreign.pop(collection, None)

    def _refuse_foreign(self, name: str) -> None:
        """Refuse a collection whose vectors another model made: their distances to ours would mean nothing.

        Raises:
            Invalid: It is such a one (``collection_conflict``).
        """
        services, info = self._services, self._services.foreign.get(name)
        if info is not None:
            Layout(services.model, services.embedder.dim, services.learned).check(info)

    def _now(self) -> float:
        return self._services.clock.now()

    def _context(self, request: Request, timeout_ms: float | None = None) -> Context:
        return label(request, self._services.clock, timeout_ms)


def _too_late(ids: Sequence[str], ctx: Context) -> list[Outcome]:
    """Return the outcomes of documents whose turn did not come before the deadline; nothing of them was begun."""
    detail = "the deadline passed before this document's turn came; send it again"
    error = Expired(ctx.deadline.operation, detail)
    return [Outcome(id, Status.FAILED, error=error) for id in ids]


async def _deletion(data: bytes, query: DeletionQuery) -> Condition | None:
    """Return which documents are to be deleted, as the body or else the query says; ``None`` for none at all.

    Raises:
        Invalid: It is said twice or not at all.
    """
    asked = query.ids is not UNSET or query.path_prefix is not UNSET
    if data.strip():
        if asked:
            raise Invalid("say what is to be deleted in the body or in the query, not in both", field="query")
        body = await decoding.read(data, bodies.DeleteBody)
        ids, path_prefix = body.ids, body.path_prefix
    else:
        ids = None if query.ids is UNSET else query.ids
        path_prefix = None if query.path_prefix is UNSET else query.path_prefix
    if (ids is None) == (path_prefix is None):
        raise Invalid("say either ids or path_prefix", field="ids")
    if path_prefix == "":
        detail = "path_prefix must not be empty; to delete everything, delete the collection"
        raise Invalid(detail, field="path_prefix")
    if path_prefix is not None:
        return Prefix("path", path_prefix)
    return Match("id", list(ids)) if ids else None
