"""``VectorStore`` on a Qdrant server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Final

import msgspec

from penstock.kernel.context import Clock, Context, point_id, run_all
from penstock.kernel.errors import Broken, Invalid, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores import program_runner
from penstock.stores.backends import layout, payload_format
from penstock.stores.backends.qdrant import collection_schema, conversions
from penstock.stores.backends.qdrant.client import QdrantConnection, QdrantRequest
from penstock.stores.backends.qdrant.collection_schema import CollectionMetadata
from penstock.stores.backends.qdrant.error_mapping import STORE_DEPENDENCY, collection_not_found
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    DocumentInfo,
    DocumentInfoPage,
    Filter,
    Match,
    Point,
    PointPage,
    Range,
    RetrievalResult,
)

#: Collections whose layout is remembered; beyond that number they are read again.
CACHED_LAYOUTS_MAX: Final = 10_000

#: Collections described at once.
CONCURRENT_DESCRIBES_MAX: Final = 8

_COLLECTION: Final = "/collections/{collection}"
_POINTS: Final = "/collections/{collection}/points"

#: A write is answered when it has been applied; a replica never keeps another of two writes than its fellows.
_WRITTEN: Final = {"wait": "true", "ordering": "medium"}


class QdrantStore:
    """A Qdrant server, one node or a cluster; see :class:`penstock.stores.contract.VectorStore` for each method.

    Collections that are not Penstock's are left alone: neither listed nor written nor deleted.

    Args:
        connection: The server.
        settings: How new collections are spread.
        timeouts: The limit of one operation.
        clock: The loop's clock.

    Bounds: the layouts of ``CACHED_LAYOUTS_MAX`` collections.
    """

    def __init__(
        self, connection: QdrantConnection, settings: QdrantSettings, timeouts: TimeoutSettings, clock: Clock
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._timeouts = timeouts
        self._clock = clock
        self._layouts: dict[str, CollectionMetadata] = {}

    # --- Collections

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one; complete one whose creation was interrupted."""
        layout.check_name(info.name)
        ctx = self._with_timeout(ctx)
        there = await self._describe(info.name, ctx)
        if there is None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            wanted = CollectionMetadata(info.model, info.dim, now, info.token_dim, info.sparse)
            there = await self._create(info.name, wanted, ctx)
        found = collection_schema.read_metadata(there)
        if found is None:
            theirs, ours = collection_schema.describe_vectors(there), layout.describe_models(info)
            raise layout.collection_conflict(
                f"the Qdrant server has a collection {info.name!r} that is not Penstock's, with the vectors {theirs},"
                f" where one of {ours} is wanted"
            )
        layout.check_same_models(found.info(info.name), info)
        missing = [
            one
            for one in collection_schema.payload_indexes().items()
            if one[0] not in (there.get("payload_schema") or {})
        ]
        await run_all([self._index(info.name, *one, ctx) for one in missing])
        return await self._info(found, info.name, there, ctx)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection that is Penstock's."""
        ctx = self._with_timeout(ctx)
        listed = await self._connection.send(QdrantRequest("GET", "/collections", accepts_timeout=False), ctx)
        prefix = self._connection.prefix
        every = (one["name"] for one in listed["collections"])
        names = sorted(name.removeprefix(prefix) for name in every if name.startswith(prefix))
        found: dict[str, CollectionInfo] = {}

        async def describe(name: str) -> None:
            there = await self._describe(name, ctx)
            kept = collection_schema.read_metadata(there) if there is not None else None
            if kept is not None:
                found[name] = await self._info(kept, name, there, ctx)

        for first in range(0, len(names), CONCURRENT_DESCRIBES_MAX):
            await run_all([describe(name) for name in names[first : first + CONCURRENT_DESCRIBES_MAX]])
        return [found[name] for name in names if name in found]

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        ctx = self._with_timeout(ctx)
        there = await self._describe(name, ctx)
        kept = collection_schema.read_metadata(there) if there is not None else None
        if kept is None:
            raise collection_not_found(name)
        return await self._info(kept, name, there, ctx)

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        ctx = self._with_timeout(ctx)
        self._layouts.pop(name, None)
        await self._layout(name, ctx)
        self._layouts.pop(name, None)
        await self._connection.send(QdrantRequest("DELETE", _COLLECTION, name), ctx)

    # --- Writing

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        ctx = self._with_timeout(ctx)
        kept = await self._layout(collection, ctx)
        if points:
            body = {"points": [conversions.encode_point(one, kept) for one in points]}
            await self._send(QdrantRequest("PUT", _POINTS, collection, body, _WRITTEN), ctx)

    async def trim_document(self, collection: str, document_id: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        surplus = conversions.encode_filter(
            [Match("id", [document_id]), Range(payload_format.CHUNK_FIELD, gte=float(chunks))]
        )
        await self._delete(collection, surplus, self._with_timeout(ctx))

    async def seal_document(self, collection: str, document: DocumentInfo, ctx: Context) -> None:
        """Mark a document complete."""
        ctx = self._with_timeout(ctx)
        if document.id not in await self.get_documents(collection, [document.id], ctx):
            raise Unavailable(
                "the document was deleted while it was being written; send it again",
                dependency=STORE_DEPENDENCY,
                code="write_conflict",
            )
        body = {"payload": {"hash": document.hash, "chunks": document.chunks}, "points": [point_id(document.id, 0)]}
        await self._send(QdrantRequest("POST", f"{_POINTS}/payload", collection, body, _WRITTEN), ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        ctx = self._with_timeout(ctx)
        documents = await self._count(collection, [*filter, _HEAD], ctx)
        await self._delete(collection, conversions.encode_filter(filter), ctx)
        return documents

    # --- Reading

    async def retrieve(self, collection: str, query: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        """Answer a search by several calls to the server."""
        return await program_runner.run_retrieval(self, collection, query, filter, ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        """Ask one arm."""
        return (await self.search_batch(collection, [query], ctx))[0]

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        """Ask several arms at once."""
        if not queries:
            return []
        ctx = self._with_timeout(ctx)
        kept = await self._layout(collection, ctx)
        asked = [conversions.can_match(query) for query in queries]
        searches = [conversions.encode_query(query, kept) for query in compress(queries, asked)]
        if not searches:
            return [[] for _ in queries]
        call = QdrantRequest("POST", f"{_POINTS}/query/batch", collection, {"searches": searches})
        answers = iter(await self._send(call, ctx))
        return [conversions.decode_hits(next(answers)) if is_asked else [] for is_asked in asked]

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        body = {"ids": list(points), "with_payload": [payload_format.TOKEN_VECTORS_FIELD], "with_vector": False}
        found = await self._retrieve(collection, body, self._with_timeout(ctx))
        kept = {str(one["id"]): payload_format.decode_token_vectors(one["payload"]) for one in found}
        return {place: tokens for place, tokens in kept.items() if tokens is not None}

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        body = {"ids": list(points), "with_payload": payload_format.CHUNK_PAYLOAD_FIELDS, "with_vector": False}
        found = await self._retrieve(collection, body, self._with_timeout(ctx))
        return {str(one["id"]): payload_format.decode_payload(one["payload"]) for one in found}

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        """Read a page of heads in the order of their point ids."""
        body = {
            "filter": conversions.encode_filter([*filter, _HEAD]),
            "limit": limit,
            "offset": after,
            "with_payload": payload_format.DOCUMENT_FIELDS,
            "with_vector": False,
        }
        ctx = self._with_timeout(ctx)
        await self._layout(collection, ctx)
        page = await self._send(QdrantRequest("POST", f"{_POINTS}/scroll", collection, body), ctx)
        following = page.get("next_page_offset")
        return DocumentInfoPage(
            [payload_format.decode_document(one["payload"]) for one in page["points"]],
            str(following) if following else None,
        )

    async def get_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        """Read the heads of given documents."""
        ids = [point_id(document, 0) for document in document_ids]
        body = {"ids": ids, "with_payload": payload_format.DOCUMENT_FIELDS, "with_vector": False}
        found = await self._retrieve(collection, body, self._with_timeout(ctx))
        heads = [payload_format.decode_document(one["payload"]) for one in found]
        return {head.id: head for head in heads}

    async def scroll_points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        ctx = self._with_timeout(ctx)
        kept = await self._layout(collection, ctx)
        body = {"limit": limit, "offset": after, "with_payload": True, "with_vector": True}
        page = await self._send(QdrantRequest("POST", f"{_POINTS}/scroll", collection, body), ctx)
        following = page.get("next_page_offset")
        return PointPage(
            [conversions.decode_point(one, kept) for one in page["points"]], str(following) if following else None
        )

    # --- Shared by all operations

    def _with_timeout(self, ctx: Context) -> Context:
        return ctx.within(self._timeouts.store, "store", self._clock.now())

    async def _send(self, call: QdrantRequest, ctx: Context) -> Any:
        """Send a request about a collection; drop its cached layout when the server rejects the request."""
        try:
            return await self._connection.send(call, ctx)
        except (Broken, Invalid):
            # Another process may have dropped it, or made another in its place.
            self._layouts.pop(call.collection, None)
            raise

    async def _layout(self, name: str, ctx: Context) -> CollectionMetadata:
        """Return a collection's metadata record.

        Raises:
            Invalid: There is no such collection, or it is not Penstock's (``collection_not_found``).
        """
        kept = self._layouts.get(name)
        if kept is None:
            there = await self._describe(name, ctx)
            kept = collection_schema.read_metadata(there) if there is not None else None
            if kept is None:
                raise collection_not_found(name)
            if len(self._layouts) >= CACHED_LAYOUTS_MAX:
                self._layouts.clear()
            self._layouts[name] = kept
        return kept

    async def _describe(self, name: str, ctx: Context) -> Any:
        """Return the server's description of a collection; ``None`` if there is none of that name."""
        try:
            layout.check_name(name)
            return await self._connection.send(QdrantRequest("GET", _COLLECTION, name, accepts_timeout=False), ctx)
        except Invalid:
            return None

    async def _create(self, name: str, wanted: CollectionMetadata, ctx: Context) -> Any:
        """Create a collection and return the server's description of it.

        Raises:
            Broken: The server does not keep the collection's metadata: it is too old (``store_version_unsupported``).
        """
        body = collection_schema.create_request(wanted, self._settings.shards, self._settings.replicas)
        try:
            await self._connection.send(QdrantRequest("PUT", _COLLECTION, name, body), ctx)
        except (Broken, Invalid) as error:
            # Another process may have been quicker; then it is looked at like any other.
            there = await self._describe(name, ctx)
            if there is None:
                raise error from None
            return there
        there = await self._describe(name, ctx)
        if there is None or collection_schema.read_metadata(there) is None:
            await self._connection.send(QdrantRequest("DELETE", _COLLECTION, name), ctx)
            raise Broken(
                "the Qdrant server keeps no metadata of collections: it is too old", code="store_version_unsupported"
            )
        return there

    async def _index(self, name: str, field: str, params: Mapping[str, Any], ctx: Context) -> None:
        body = {"field_name": field, "field_schema": params}
        await self._connection.send(QdrantRequest("PUT", f"{_COLLECTION}/index", name, body, _WRITTEN), ctx)

    async def _info(self, found: CollectionMetadata, name: str, there: Any, ctx: Context) -> CollectionInfo:
        """Return a collection with its counts."""
        counts: dict[str, int] = {}

        async def count(what: str, filter: Sequence[Any]) -> None:
            counts[what] = await self._count(name, filter, ctx)

        await run_all([count("documents", [_HEAD]), count("chunks", [])])
        return msgspec.structs.replace(
            found.info(name),
            documents=counts["documents"],
            chunks=counts["chunks"],
            indexed=min(there.get("indexed_vectors_count") or 0, counts["chunks"]),
            upkeep="optimising" if collection_schema.is_optimizing(there) else "",
            shards=there["config"]["params"].get("shard_number") or 1,
        )

    async def _count(self, collection: str, conditions: Sequence[Any], ctx: Context) -> int:
        body = {"filter": conversions.encode_filter(conditions), "exact": True}
        await self._layout(collection, ctx)
        return int((await self._send(QdrantRequest("POST", f"{_POINTS}/count", collection, body), ctx))["count"])

    async def _delete(self, collection: str, filter: Mapping[str, Any], ctx: Context) -> None:
        await self._layout(collection, ctx)
        await self._send(QdrantRequest("POST", f"{_POINTS}/delete", collection, {"filter": filter}, _WRITTEN), ctx)

    async def _retrieve(self, collection: str, body: Mapping[str, Any], ctx: Context) -> list[Any]:
        await self._layout(collection, ctx)
        found: list[Any] = (
            await self._send(QdrantRequest("POST", _POINTS, collection, body), ctx) if body["ids"] else []
        )
        return found


_HEAD: Final = Match(payload_format.CHUNK_FIELD, [0])
