"""API operations, one method for each endpoint: a request in, a response record out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from penstock.http import decoding, documents, request_bodies, responses
from penstock.http.api_dependencies import ApiDependencies
from penstock.http.decoding import DeleteQuery, PageQuery
from penstock.http.probes import CachedValue
from penstock.http.request_context import build_context, request_state
from penstock.indexing.document_records import DocumentStatus, IndexOutcome
from penstock.indexing.language import canonical_language
from penstock.kernel.context import Context, Deadline, enforce_deadline
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
from penstock.pools.guarded_store import VectorLayout
from penstock.search.request import QUERY_CHARACTERS_MAX, SearchRequest, SearchResult, parse_filter
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    ListCollections,
    ListDocuments,
)
from penstock.stores.contract import check_usable
from penstock.stores.data_model import (
    CollectionInfo,
    Condition,
    DocumentInfo,
    DocumentInfoPage,
    Match,
    Prefix,
    SnapshotInfo,
)

log = logging.getLogger(__name__)

DEFAULT_COLLECTION: Final = "default"

#: Seconds that the store has to list its collections for a status, so that a status never waits for a slow store.
STATUS_STORE_TIMEOUT_S: Final = 1.0

#: Documents read from the store at once, and characters of ids and paths after which a page ends. Each id and each path
#: has up to 4 096.
HEADS_PER_READ: Final = 1_000
PAGE_CHARACTERS_MAX: Final = 4_194_304


class Operations:
    """The API's operations.

    Args:
        deps: Bus, store, models and server state.
    """

    def __init__(self, deps: ApiDependencies) -> None:
        self._deps = deps
        self._status = CachedValue(self._compute_status)
        self._alerts = CachedValue(self._compute_alerts)
        self._readiness = CachedValue(self._compute_readiness)

    async def search(self, request: Request) -> SearchResult:
        """Search a collection."""
        body = await decoding.decode_body(await request.body(), request_bodies.SearchBody)
        collection = request.path_params.get("name", DEFAULT_COLLECTION)
        asked = SearchRequest(
            collection=collection,
            # The rest is never read. One character of it tells the pipeline that the query is too long.
            query=body.query[: QUERY_CHARACTERS_MAX + 1],
            limit=int(body.limit),
            filter=parse_filter(body.filter, canonical_language),
            rerank=body.rerank,
            explain=body.explain,
            weights=body.weights,
            fusion=body.fusion,
            strict=body.strict,
        )
        asked.check()
        ctx = self._context(request, body.timeout_ms)
        ctx = ctx.within(self._deps.settings.timeouts.search, "search", self._now())
        request_state(request.scope).deadline_s = ctx.deadline.at_s
        self._refuse_incompatible(collection)
        result: SearchResult = await self._deps.bus.request(Topic.SEARCH_REQUEST, asked, ctx)
        done = SearchComplete(collection, len(result.hits), result.took_ms, tuple(result.degraded))
        await self._deps.bus.publish(Topic.SEARCH_COMPLETE, done, ctx)
        return result

    async def list_collections(self, request: Request) -> responses.CollectionList:
        """List every collection."""
        return responses.CollectionList(await self._deps.store.run(ListCollections(), self._context(request)))

    async def create_collection(self, request: Request) -> CollectionInfo:
        """Create a collection, or return the one that is there."""
        data = await request.body()
        if data.strip():
            await decoding.decode_body(data, request_bodies.CollectionBody)
        services, ctx = self._deps, self._context(request)
        embedder, name = services.embedder, request.path_params["name"]
        wanted = CollectionInfo(
            name, embedder.dim, services.model, token_dim=embedder.token_dim, sparse=services.learned_sparse_model
        )
        info = await services.store.run(CreateCollection(wanted), ctx)
        await services.bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return info

    async def get_collection(self, request: Request) -> CollectionInfo:
        """Describe a collection."""
        name = request.path_params["name"]
        return await self._deps.store.run(DescribeCollection(name), self._context(request))

    async def delete_collection(self, request: Request) -> responses.DeleteResponse:
        """Delete a collection and everything in it."""
        name, ctx = request.path_params["name"], self._context(request)
        await self._deps.store.run(DropCollection(name), ctx)
        self._deps.incompatible.pop(name, None)
        await self._deps.bus.publish(Topic.COLLECTION_DELETED, CollectionDeleted(name), ctx)
        return responses.DeleteResponse(1)

    async def make_snapshot(self, request: Request) -> SnapshotInfo:
        """Make a snapshot of every collection, a file in the data directory."""
        return await self._deps.snapshots.create(self._context(request))

    async def list_snapshots(self, _request: Request) -> responses.SnapshotList:
        """List the snapshots in the data directory."""
        return responses.SnapshotList(await self._deps.snapshots.list_snapshots())

    async def delete_snapshot(self, request: Request) -> responses.DeleteResponse:
        """Delete a snapshot in the data directory."""
        await self._deps.snapshots.delete(request.path_params["name"])
        return responses.DeleteResponse(1)

    async def restore_snapshot(self, request: Request) -> responses.CollectionList:
        """Restore the collections of a snapshot in the data directory."""
        data = await request.body()
        body = (
            await decoding.decode_body(data, request_bodies.RestoreBody)
            if data.strip()
            else request_bodies.RestoreBody()
        )
        services, ctx = self._deps, self._context(request)
        embedder = services.embedder
        layout = CollectionInfo(
            "", embedder.dim, services.model, token_dim=embedder.token_dim, sparse=services.learned_sparse_model
        )
        name, force = request.path_params["name"], body.force
        # ``on_restored`` runs even if the caller has hung up, since restored collections stay in place.
        restored = await services.snapshots.restore(name, layout, ctx, force=force, on_restored=self._on_restored)
        for info in restored:
            await services.bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return responses.CollectionList(restored)

    async def index_documents(self, request: Request) -> responses.IndexResponse:
        """Index documents: JSON, or NDJSON with one document a line."""
        began = self._now()
        collection = request.path_params["name"]
        found = await documents.read_documents(request, self._deps.clock)
        became = await self._index(collection, found.documents, found.ctx)
        found.raise_if_all_failed(became)
        each = await found.report_outcomes(became)
        return responses.IndexResponse(
            collection=collection,
            documents=each,
            indexed=sum(o.status is DocumentStatus.INDEXED for o in each),
            unchanged=sum(o.status is DocumentStatus.UNCHANGED for o in each),
            failed=sum(o.status is DocumentStatus.FAILED for o in each) + found.unreported,
            chunks=sum(o.chunks for o in each if o.status is DocumentStatus.INDEXED),
            took_ms=round((self._now() - began) * 1000, 3),
        )

    async def _index(self, collection: str, those: documents.LazyDocuments, ctx: Context) -> list[IndexOutcome]:
        """Index sub-batch by sub-batch (D9), in order, and publish the progress on the bus."""
        bus, size = self._deps.bus, self._deps.settings.http.max_batch
        outcomes: list[IndexOutcome] = []
        self._refuse_incompatible(collection)
        check_usable(await self._deps.store.run(DescribeCollection(collection), ctx))
        for first in range(0, len(those), size):
            if ctx.deadline.passed(self._now()):
                outcomes += _expired_outcomes(those[first:].ids, ctx)
                break
            batch = those[first : first + size]
            async for outcome in self._deps.index.run(collection, batch, ctx):
                outcomes.append(outcome)
                progress = IndexProgress(collection, outcome.id, outcome.status, outcome.chunks)
                await bus.publish(Topic.INDEX_PROGRESS, progress, ctx)
        counts = {s: sum(o.status is s for o in outcomes) for s in DocumentStatus}
        chunks = sum(o.chunks for o in outcomes if o.status is DocumentStatus.INDEXED)
        done = IndexComplete(
            collection,
            counts[DocumentStatus.INDEXED],
            counts[DocumentStatus.UNCHANGED],
            counts[DocumentStatus.FAILED],
            chunks,
        )
        await bus.publish(Topic.INDEX_COMPLETE, done, ctx)
        return outcomes

    async def list_documents(self, request: Request) -> responses.DocumentPage:
        """List a page of a collection's documents."""
        query: PageQuery = request_state(request.scope).query
        page = await self._document_page(request.path_params["name"], query, self._context(request))
        return responses.DocumentPage(page.heads, page.next)

    async def _document_page(self, name: str, query: PageQuery, ctx: Context) -> DocumentInfoPage:
        """Return a page of documents, read in batches. The page ends early where ids and paths are very long."""
        conditions = (Prefix("path", query.path_prefix),) if query.path_prefix else ()
        heads, after, characters = list[DocumentInfo](), str(query.after) if query.after else None, 0
        while True:
            missing = min(query.limit - len(heads), HEADS_PER_READ)
            page = await self._deps.store.run(ListDocuments(name, conditions, after, missing), ctx)
            heads += page.heads
            after = page.next
            characters += sum(len(head.id) + len(head.path) for head in page.heads)
            if after is None or len(heads) >= query.limit or characters >= PAGE_CHARACTERS_MAX:
                return DocumentInfoPage(heads, after)

    async def delete_documents(self, request: Request) -> responses.DeleteResponse:
        """Delete documents by ids or by path prefix.

        Without a body, query parameters select the documents: ``ids``, once for each id, or ``path_prefix``.
        """
        condition = await _delete_condition(await request.body(), request_state(request.scope).query)
        if condition is None:
            return responses.DeleteResponse(0)
        name, ctx = request.path_params["name"], self._context(request)
        return responses.DeleteResponse(await self._deps.store.run(DeleteDocuments(name, (condition,)), ctx))

    async def embed(self, request: Request) -> responses.EmbedResponse:
        """Embed texts with the dense model."""
        body = await decoding.decode_body(await request.body(), request_bodies.EmbedBody)
        ctx = self._context(request, body.timeout_ms)
        services = self._deps
        embedded = await services.embedder.embed(body.texts, body.kind, ctx)
        async with enforce_deadline(ctx.deadline):
            cut = await services.truncation.dense(body.texts)
        return responses.embed_response(services.model, embedded, cut)

    async def sparse(self, request: Request) -> responses.SparseResponse:
        """Encode texts as sparse vectors."""
        body = await decoding.decode_body(await request.body(), request_bodies.SparseBody)
        ctx = self._context(request, body.timeout_ms)
        vectors = await self._deps.sparse.encode(body.texts, TextKind(body.kind), ctx)
        async with enforce_deadline(ctx.deadline):
            cut = await self._deps.truncation.sparse(body.texts)
        return responses.sparse_response(vectors, cut)

    async def rerank(self, request: Request) -> responses.RerankResponse:
        """Order texts by how well they answer a query."""
        body = await decoding.decode_body(await request.body(), request_bodies.RerankBody)
        ctx = self._context(request, body.timeout_ms)
        scores = await self._deps.reranker.rerank(body.query, body.texts, ctx)
        ranked = sorted(enumerate(scores.tolist()), key=lambda item: (-item[1], item[0]))
        results = [responses.RankedText(i, score) for i, score in ranked]
        async with enforce_deadline(ctx.deadline):
            cut = await self._deps.truncation.rerank(body.query, body.texts)
        return responses.RerankResponse(results) if cut is None else responses.RerankResponse(results, cut[1], cut[0])

    async def status(self, request: Request) -> responses.ServerStatus:
        """Return the server's status, even when its store does not answer."""
        self._context(request)  # refuses malformed headers; the status itself is shared by all callers
        return await self._status.get()

    async def _compute_status(self) -> responses.ServerStatus:
        ctx = Context(Deadline.never()).within(STATUS_STORE_TIMEOUT_S, "status", self._now())
        try:
            collections = await self._deps.store.run(ListCollections(), ctx)
        except (Expired, Unavailable, Broken) as error:
            status = self._deps.status([])
            return msgspec.structs.replace(status, reasons=[*status.reasons, f"no collections: {error.detail}"])
        return self._deps.status(collections)

    async def alerts(self, _request: Request) -> responses.AlertList:
        """Return active and recently resolved alerts."""
        return await self._alerts.get()

    async def _compute_alerts(self) -> responses.AlertList:
        return responses.AlertList(self._deps.alerts())

    async def readiness(self) -> responses.Readiness:
        """Return whether the server is ready, the reasons if it is not, and warnings."""
        return await self._readiness.get()

    async def _compute_readiness(self) -> responses.Readiness:
        reasons = list(self._deps.unready_reasons())
        return responses.Readiness(not reasons, reasons, list(self._deps.warnings()))

    def _on_restored(self, collection: str) -> None:
        """Drop the cached results and the incompatibility of a collection that a restore has replaced."""
        self._deps.invalidate_results(collection)
        self._deps.incompatible.pop(collection, None)

    def _refuse_incompatible(self, name: str) -> None:
        """Refuse a collection whose vectors another model made: their distances to ours would mean nothing.

        Raises:
            Invalid: It is such a one (``collection_conflict``).
        """
        services, info = self._deps, self._deps.incompatible.get(name)
        if info is not None:
            VectorLayout(services.model, services.embedder.dim, services.learned_sparse_model).check(info)

    def _now(self) -> float:
        return self._deps.clock.now()

    def _context(self, request: Request, timeout_ms: float | None = None) -> Context:
        return build_context(request, self._deps.clock, timeout_ms)


def _expired_outcomes(ids: Sequence[str], ctx: Context) -> list[IndexOutcome]:
    """Return the outcomes of documents whose turn did not come before the deadline; nothing of them was begun."""
    detail = "the deadline passed before this document's turn came; send it again"
    error = Expired(ctx.deadline.operation, detail)
    return [IndexOutcome(id, DocumentStatus.FAILED, error=error) for id in ids]


async def _delete_condition(data: bytes, query: DeleteQuery) -> Condition | None:
    """Return which documents are to be deleted, as the body or else the query says; ``None`` for none at all.

    Raises:
        Invalid: It is said twice or not at all.
    """
    asked = query.ids is not UNSET or query.path_prefix is not UNSET
    if data.strip():
        if asked:
            raise Invalid("say what is to be deleted in the body or in the query, not in both", field="query")
        body = await decoding.decode_body(data, request_bodies.DeleteBody)
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
