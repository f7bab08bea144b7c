"""API operations, one method for each endpoint: a request in, a response record out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from penstock.core.core import Core
from penstock.http import decoding, documents, request_bodies, responses, sources
from penstock.http.decoding import (
    ChunksQuery,
    DeleteQuery,
    IndexQuery,
    LookupQuery,
    PageQuery,
    SourceQuery,
    SourcesQuery,
)
from penstock.http.document_reading import read_document
from penstock.http.endpoints import ApiEndpoint, declared_endpoints
from penstock.http.flow_operations import FlowOperations
from penstock.http.key_operations import KeyOperations
from penstock.http.probes import CachedValue
from penstock.http.request_context import build_context, request_state
from penstock.http.snapshot_operations import SnapshotOperations, collection_layout
from penstock.http.status_report import alert_status, server_status
from penstock.http.task_operations import TaskOperations, TaskWaitQuery
from penstock.http.task_work import TaskWork
from penstock.http.vendor_operations import VendorOperations, best_first
from penstock.http.vendor_records import JinaRanking, JinaRerankBody
from penstock.indexing.document_records import DocumentStatus, IndexOutcome, Wait
from penstock.indexing.language import canonical_language
from penstock.kernel.access import Scope
from penstock.kernel.context import Context, Criticality, Deadline, enforce_deadline
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
from penstock.search.request import SearchBody, SearchRequest, SearchResult
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
    DocumentPage,
    Match,
    Prefix,
)
from penstock.tasks.records import TaskKind

#: Seconds that the store has to list its collections for a status, so that a status never waits for a slow store.
STATUS_STORE_TIMEOUT_S: Final = 1.0

#: Documents read from the store at once, and characters of ids and paths after which a page ends. Each id and each path
#: has up to 4 096.
HEADS_PER_READ: Final = 1_000
PAGE_CHARACTERS_MAX: Final = 4_194_304

#: Told of the documents whose turn did not come before the deadline.
EXPIRED_BEFORE_TURN: Final = "the deadline passed before this document's turn came; send it again"

_COLLECTION: Final = "/v1/collections/{name}"
_DOCUMENTS: Final = "/v1/collections/{name}/documents"
_SOURCE: Final = "/v1/sources/{name}"

_SEARCH: Final = ApiEndpoint(
    "POST",
    "/v1/search",
    topics=(Topic.SEARCH_REQUEST,),
    criticality=Criticality.INTERACTIVE,
    scope=Scope.SEARCH,
    error_statuses=(404, 409),
)
_DOCUMENT: Final = ApiEndpoint(
    "GET", f"{_DOCUMENTS}/{{id}}", query=ChunksQuery, scope=Scope.SEARCH, error_statuses=(404,)
)


class Operations:
    """The API's operations."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._clock, self._bus, self._store = core.deps.clock, core.bus, core.store
        self._watches = core.deps.source_watches
        self._vendors = VendorOperations(core)
        self._status = CachedValue(self._compute_status)
        self._alerts = CachedValue(self._compute_alerts)
        self._readiness = CachedValue(self._compute_readiness)
        core.tasks.perform = TaskWork(core, self.index, SnapshotOperations(core).restore).perform

    @_SEARCH
    @replace(_SEARCH, path=f"{_COLLECTION}/search")
    async def search(self, request: Request, body: SearchBody) -> SearchResult:
        """Search a collection: the one in the path, or else those of `collections`, or else `default`."""
        asked = SearchRequest.from_body(body, request.path_params.get("name"), canonical_language)
        if (principal := request_state(request.scope).principal).collections:
            principal.require_collections(asked.names)
        ctx = self._context(request, body.timeout_ms)
        ctx = ctx.within(self._core.deps.settings.timeouts.search, "search", self._clock.now())
        request_state(request.scope).deadline_s = ctx.deadline.at_s
        return await self.run_search(asked, ctx)

    async def run_search(self, asked: SearchRequest, ctx: Context) -> SearchResult:
        """Run a search that has been checked."""
        names = asked.names
        for name in names:
            self._refuse_incompatible(name)
        result: SearchResult = await self._bus.request(Topic.SEARCH_REQUEST, asked, ctx)
        done = SearchComplete(", ".join(names), len(result.hits), result.took_ms, tuple(result.degraded))
        await self._bus.publish(Topic.SEARCH_COMPLETE, done, ctx)
        self._count_search(result)
        return result

    def _count_search(self, result: SearchResult) -> None:
        metrics = self._core.metrics
        metrics.searches.labels(str(bool(result.degraded)).lower()).inc()
        for what in result.degraded or ("none",):
            metrics.degraded.labels(what).inc()
        for stage, took_ms in result.stages.items():
            metrics.stage_s.labels(stage).observe(took_ms / 1000)

    @ApiEndpoint("GET", "/v1/collections", scope=Scope.SEARCH)
    async def list_collections(self, request: Request) -> responses.CollectionList:
        """List every collection that the key may use."""
        may_see = request_state(request.scope).principal.may_see
        listed = await self._store.run(ListCollections(), self._context(request))
        return responses.CollectionList([info for info in listed if may_see(info.name)])

    @ApiEndpoint("PUT", _COLLECTION, body_required=False, scope=Scope.WRITE, error_statuses=(409, 507))
    async def create_collection(self, request: Request, body: request_bodies.CollectionBody) -> CollectionInfo:  # noqa: ARG002 - no options yet
        """Create a collection, or return the one that is there."""
        return await self.ensure_collection(request.path_params["name"], self._context(request))

    async def ensure_collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Create a collection, or return the one that is there."""
        info = await self._store.run(CreateCollection(collection_layout(self._core, name)), ctx)
        await self._bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return info

    @ApiEndpoint("GET", _COLLECTION, scope=Scope.SEARCH, error_statuses=(404,))
    async def get_collection(self, request: Request) -> CollectionInfo:
        """Describe a collection."""
        return await self._store.run(DescribeCollection(request.path_params["name"]), self._context(request))

    @ApiEndpoint("DELETE", _COLLECTION, error_statuses=(404, 507))
    async def delete_collection(self, request: Request) -> responses.DeleteResponse:
        """Delete a collection and everything in it."""
        name, ctx = request.path_params["name"], self._context(request)
        async with self._watches.paused(name):
            await self._store.run(DropCollection(name), ctx)
        self._core.incompatible.pop(name, None)
        await self._bus.publish(Topic.COLLECTION_DELETED, CollectionDeleted(name), ctx)
        return responses.DeleteResponse(1)

    @ApiEndpoint(
        "POST",
        f"{_COLLECTION}/renew",
        query=TaskWaitQuery,
        criticality=Criticality.BULK,
        task=TaskKind.RENEW_COLLECTION,
        error_statuses=(404, 409, 507),
    )
    async def renew_collection(self, request: Request) -> responses.RenewResponse:
        """Renew the BM25 vectors of a collection of `text: 1`, so that words of every script are found.

        It is searched and written meanwhile. Repeat the request if it was interrupted.
        """
        name, ctx = request.path_params["name"], self._context(request)
        self._refuse_incompatible(name)
        return responses.RenewResponse(await self._core.renewal.run(name, ctx))

    @ApiEndpoint(
        "POST",
        _DOCUMENTS,
        body=request_bodies.DocumentsBody,
        query=IndexQuery,
        ndjson=True,
        topics=(Topic.INDEX_CHUNK, Topic.INDEX_REQUEST),
        criticality=Criticality.BULK,
        scope=Scope.WRITE,
        task=TaskKind.INDEX_DOCUMENTS,
        error_statuses=(404, 409, 507),
    )
    async def index_documents(self, request: Request) -> responses.IndexResponse:
        """Index documents: JSON, or NDJSON with one document a line."""
        began = self._clock.now()
        collection, query = request.path_params["name"], request_state(request.scope).query
        found = await documents.read_documents(request, self._clock)
        became, done = await self.index(collection, found.documents, found.ctx, found.wait or Wait(query.wait))
        found.raise_if_all_failed(became)
        each = await found.report_outcomes(became)
        return responses.IndexResponse(
            collection=collection,
            documents=each,
            indexed=sum(o.status is DocumentStatus.INDEXED for o in each),
            unchanged=done.unchanged,
            failed=sum(o.status is DocumentStatus.FAILED for o in each) + found.unreported,
            chunks=done.chunks,
            took_ms=round((self._clock.now() - began) * 1000, 3),
            searchable=sum(o.status is DocumentStatus.SEARCHABLE for o in each),
        )

    async def index(
        self,
        collection: str,
        those: documents.LazyDocuments,
        ctx: Context,
        wait: Wait,
        done: Callable[[IndexOutcome], None] | None = None,
    ) -> tuple[list[IndexOutcome], IndexComplete]:
        """Index sub-batch by sub-batch (D9), in order, and publish the progress on the bus.

        Args:
            collection: Their collection.
            those: The documents.
            ctx: Request context.
            wait: What is waited for.
            done: Called with each outcome.
        """
        size, outcomes = self._core.deps.settings.http.max_batch, list[IndexOutcome]()
        self._refuse_incompatible(collection)
        check_usable(await self._store.run(DescribeCollection(collection), ctx))
        for first in range(0, len(those), size):
            if ctx.deadline.passed(self._clock.now()):
                # Nothing of the rest was begun.
                late = Expired(ctx.deadline.operation, EXPIRED_BEFORE_TURN)
                outcomes += [IndexOutcome(id, DocumentStatus.FAILED, error=late) for id in those[first:].ids]
                break
            async for outcome in self._core.index.run(collection, those[first : first + size], ctx, wait):
                outcomes.append(outcome)
                if done is not None:
                    done(outcome)
                progress = IndexProgress(collection, outcome.id, outcome.status, outcome.chunks)
                await self._bus.publish(Topic.INDEX_PROGRESS, progress, ctx)
        counts = Counter(outcome.status for outcome in outcomes)
        written = DocumentStatus.INDEXED, DocumentStatus.SEARCHABLE
        chunks = sum(o.chunks for o in outcomes if o.status in written)
        complete = IndexComplete(
            collection,
            sum(counts[status] for status in written),
            counts[DocumentStatus.UNCHANGED],
            counts[DocumentStatus.FAILED],
            chunks,
        )
        await self._bus.publish(Topic.INDEX_COMPLETE, complete, ctx)
        return outcomes, complete

    @ApiEndpoint("GET", _DOCUMENTS, query=PageQuery, scope=Scope.SEARCH, error_statuses=(404,))
    async def list_documents(self, request: Request) -> DocumentPage:
        """List documents, a page at a time."""
        query: PageQuery = request_state(request.scope).query
        name, ctx = request.path_params["name"], self._context(request)
        conditions = (Prefix("path", query.path_prefix),) if query.path_prefix else ()
        heads, after, characters = list[DocumentInfo](), str(query.after) if query.after else None, 0
        # Read in batches. The page ends early where ids and paths are very long.
        while True:
            missing = min(query.limit - len(heads), HEADS_PER_READ)
            page = await self._store.run(ListDocuments(name, conditions, after, missing), ctx)
            heads += page.documents
            after = page.next
            characters += sum(len(head.id) + len(head.path) for head in page.documents)
            if after is None or len(heads) >= query.limit or characters >= PAGE_CHARACTERS_MAX:
                return DocumentPage(heads, after)

    @_DOCUMENT
    @replace(_DOCUMENT, path=f"{_COLLECTION}/document", query=LookupQuery)
    async def get_document(self, request: Request) -> responses.DocumentText:
        """Read a document by its id, with its chunks in their order.

        The id is the rest of the path, percent-encoded, or a query parameter: a client may take `.`, `..` and `//` in a
        path for something else.
        """
        query: ChunksQuery = request_state(request.scope).query
        id = query.id if isinstance(query, LookupQuery) else request.path_params["id"]
        return await read_document(self._store, request.path_params["name"], id, query, self._context(request))

    @ApiEndpoint(
        "DELETE",
        _DOCUMENTS,
        body=request_bodies.DeleteBody,
        query=DeleteQuery,
        scope=Scope.WRITE,
        error_statuses=(404, 507),
    )
    async def delete_documents(self, request: Request) -> responses.DeleteResponse:
        """Delete documents by ids or by path prefix.

        Without a body, query parameters select the documents: ``ids``, once for each id, or ``path_prefix``.
        """
        condition = await _delete_condition(await request.body(), request_state(request.scope).query)
        if condition is None:
            return responses.DeleteResponse(0)
        name, ctx = request.path_params["name"], self._context(request)
        return responses.DeleteResponse(await self._store.run(DeleteDocuments(name, (condition,)), ctx))

    @ApiEndpoint("GET", "/v1/sources", query=SourcesQuery, scope=Scope.SEARCH, error_statuses=(404,))
    async def list_sources(self, request: Request) -> responses.SourceList:
        """List the sources of a collection, or of every collection that the key may use."""
        state = request_state(request.scope)
        query: SourcesQuery = state.query
        collection = None if query.collection is UNSET else query.collection
        state.principal.require_collections([] if collection is None else [collection])
        ctx, may_see = self._context(request), state.principal.may_see
        return await sources.list_sources(self._store, self._watches, collection, ctx, may_see)

    @ApiEndpoint("PUT", _SOURCE, scope=Scope.WRITE, error_statuses=(404, 409, 507))
    async def put_source(self, request: Request, body: request_bodies.SourceBody) -> responses.SourceInfo:
        """Register a source, or write what a run tells of it."""
        name, ctx = request.path_params["name"], self._context(request)
        request_state(request.scope).principal.require_collections([body.collection])
        return await sources.put_source(self._store, self._watches, name, body, ctx)

    @ApiEndpoint("DELETE", _SOURCE, query=SourceQuery, scope=Scope.WRITE, error_statuses=(404, 507))
    async def delete_source(self, request: Request) -> responses.DeleteResponse:
        """Delete a source with its documents."""
        query: SourceQuery = request_state(request.scope).query
        request_state(request.scope).principal.require_collections([query.collection])
        name, ctx = request.path_params["name"], self._context(request)
        deleted = await sources.delete_source(self._store, self._watches, name, query.collection, ctx)
        return responses.DeleteResponse(deleted)

    @ApiEndpoint("POST", "/v1/embed", topics=(Topic.ML_EMBED,), scope=Scope.SEARCH)
    async def embed(self, request: Request, body: request_bodies.TextsBody) -> responses.EmbedResponse:
        """Embed texts with the dense model."""
        ctx = self._context(request, body.timeout_ms)
        embedded = await self._core.embedder.embed(body.texts, body.kind, ctx)
        async with enforce_deadline(ctx.deadline):
            cut = await self._core.deps.models.truncation.dense(body.texts)
        return responses.embed_response(self._core.layout.model, embedded, cut)

    @ApiEndpoint("POST", "/v1/sparse", topics=(Topic.ML_SPARSE,), scope=Scope.SEARCH)
    async def sparse(self, request: Request, body: request_bodies.TextsBody) -> responses.SparseResponse:
        """Encode texts as sparse vectors."""
        ctx = self._context(request, body.timeout_ms)
        kind, models = TextKind(body.kind), self._core.deps.models
        texts = await models.sparse_inputs.prepare(body.texts, kind)
        vectors = await self._core.sparse.encode(texts, kind, ctx)
        async with enforce_deadline(ctx.deadline):
            cut = await models.truncation.sparse(texts)
        return responses.sparse_response(vectors, cut)

    @ApiEndpoint("POST", "/v1/rerank", topics=(Topic.ML_RERANK,), scope=Scope.SEARCH, error_statuses=(404,))
    async def rerank(
        self, request: Request, body: request_bodies.RerankBody | JinaRerankBody
    ) -> responses.RerankResponse | JinaRanking:
        """Order texts by how well they answer a query.

        A body that has `documents` in the place of `texts` is one of Jina's clients, and so is its answer.
        """
        if isinstance(body, JinaRerankBody):
            return await self._vendors.rank_for_jina(request, body)
        ctx = self._context(request, body.timeout_ms)
        scores = await self._core.reranker.rerank(body.query, body.texts, ctx)
        results = [responses.RankedText(place, score) for place, score in best_first(scores)]
        async with enforce_deadline(ctx.deadline):
            cut = await self._core.deps.models.truncation.rerank(body.query, body.texts)
        return responses.RerankResponse(results) if cut is None else responses.RerankResponse(results, cut[1], cut[0])

    @ApiEndpoint("GET", "/v1/status", scope=Scope.SEARCH)
    async def status(self, request: Request) -> responses.ServerStatus:
        """Describe the server at a glance, even when its store does not answer."""
        self._context(request)  # refuses malformed headers; the status itself is shared by all callers
        status, principal = await self._status.get(), request_state(request.scope).principal
        if not principal.collections:
            return status
        visible = [info for info in status.collections if principal.may_see(info.name)]
        # Warnings name collections.
        return msgspec.structs.replace(status, collections=visible, warnings=[])

    @ApiEndpoint("GET", "/v1/alerts", scope=Scope.SEARCH)
    async def alerts(self, _request: Request) -> responses.AlertList:
        """List alerts, those active now first."""
        return await self._alerts.get()

    async def _compute_status(self) -> responses.ServerStatus:
        ctx = Context(Deadline.never()).within(STATUS_STORE_TIMEOUT_S, "status", self._clock.now())
        try:
            collections = await self._store.run(ListCollections(), ctx)
        except (Expired, Unavailable, Broken) as error:
            status = server_status(self._core, [])
            return msgspec.structs.replace(status, reasons=[*status.reasons, f"no collections: {error.detail}"])
        return server_status(self._core, collections)

    async def _compute_alerts(self) -> responses.AlertList:
        return responses.AlertList([alert_status(alert) for alert in self._core.alert_monitor.alerts()])

    async def readiness(self) -> responses.Readiness:
        """Return whether the server is ready, the reasons if it is not, and warnings."""
        return await self._readiness.get()

    async def _compute_readiness(self) -> responses.Readiness:
        reasons = self._core.unready_reasons()
        return responses.Readiness(not reasons, reasons, self._core.deps.warnings())

    def _refuse_incompatible(self, name: str) -> None:
        """Refuse a collection whose vectors another model made: their distances to ours would mean nothing.

        Raises:
            Invalid: It is such a one (``collection_conflict``).
        """
        info = self._core.incompatible.get(name)
        if info is not None:
            self._core.layout.check(info)

    def _context(self, request: Request, timeout_ms: float | None = None) -> Context:
        return build_context(request, self._clock, timeout_ms)


#: Every endpoint of the API.
ENDPOINTS: Final = declared_endpoints(
    Operations, KeyOperations, SnapshotOperations, TaskOperations, FlowOperations, VendorOperations
)


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
