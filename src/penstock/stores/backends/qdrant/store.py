"""``VectorStore`` on a Qdrant server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from penstock.kernel.context import Clock, Context, point_id, run_all
from penstock.kernel.errors import Broken, Invalid, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores import commands
from penstock.stores.backends import layout, payload_format
from penstock.stores.backends.qdrant import collection_schema, conversions, path_prefixes, point_memory
from penstock.stores.backends.qdrant.client import QdrantConnection, QdrantRequest
from penstock.stores.backends.qdrant.collection_schema import CollectionMetadata
from penstock.stores.backends.qdrant.error_mapping import STORE_DEPENDENCY, collection_not_found
from penstock.stores.backends.qdrant.point_memory import PointMemory, ReadPoint, new_revision
from penstock.stores.backends.qdrant.remote_search import RemoteSearch
from penstock.stores.commands import StoreCommand
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Condition,
    DocumentInfo,
    DocumentPage,
    Match,
    PendingPage,
    Point,
    PointPage,
    Range,
    RetrievalResult,
)
from penstock.stores.sources import SOURCES_MAX, SourceRecord

R = TypeVar("R")

#: Collections whose layout is remembered; beyond that number they are read again.
CACHED_LAYOUTS_MAX: Final = 10_000

#: Collections described at once.
CONCURRENT_DESCRIBES_MAX: Final = 8

_COLLECTION: Final = "/collections/{collection}"
_POINTS: Final = "/collections/{collection}/points"

#: A write is answered when it has been applied; a replica never keeps another of two writes than its fellows.
_WRITTEN: Final = {"wait": "true", "ordering": "medium"}


class QdrantStore:
    """A Qdrant server, one node or a cluster, as a ``VectorStore``.

    Collections that are not Penstock's are left alone: neither listed nor written nor deleted.

    Args:
        connection: The connections to it.
        settings: Shards and replicas of new collections.
        timeouts: The limit of an operation.
        clock: The loop's clock.
        memory: What searches have read of points.

    Attributes:
        replica_warnings: Collections that have another number of replicas than wanted, as they were last described.

    Bounds: the layouts of ``CACHED_LAYOUTS_MAX`` collections.
    """

    def __init__(
        self,
        connection: QdrantConnection,
        settings: QdrantSettings,
        timeouts: TimeoutSettings,
        clock: Clock,
        memory: PointMemory,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._timeouts = timeouts
        self._clock = clock
        self._layouts: dict[str, CollectionMetadata] = {}
        self._memory = memory
        self.replica_warnings: dict[str, str] = {}

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command by requests to the server; see :meth:`penstock.stores.contract.VectorStore.run`."""
        # A search has no limit of its own: each of its steps comes back to this as a command.
        if not isinstance(command, commands.Retrieve):
            ctx = ctx.within(self._timeouts.store, "store", self._clock.now())
        if not self._connection.knows_prefixes and path_prefixes.has_prefix(command):
            command = await path_prefixes.spelt_out(command, partial(self._list_paths, ctx=ctx))
        result: R = await self._HANDLERS[type(command)](self, command, ctx)
        return result

    # --- Collections

    async def _create(self, command: commands.CreateCollection, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one; complete one whose creation was interrupted."""
        info = command.info
        layout.check_name(info.name)
        there = await self._fetch_description(info.name, ctx)
        if there is None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            wanted = CollectionMetadata(
                info.model, info.dim, now, info.token_dim, info.sparse, text=info.text, renewing=info.renewing
            )
            there = await self._make(info.name, wanted, ctx)
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

    async def _list(self, _command: commands.ListCollections, ctx: Context) -> list[CollectionInfo]:
        """Return every collection that is Penstock's."""
        listed = await self._connection.send(QdrantRequest("GET", "/collections", accepts_timeout=False), ctx)
        prefix = self._connection.prefix
        every = (one["name"] for one in listed["collections"])
        names = sorted(name.removeprefix(prefix) for name in every if name.startswith(prefix))
        found: dict[str, CollectionInfo] = {}

        async def describe(name: str) -> None:
            there = await self._fetch_description(name, ctx)
            kept = collection_schema.read_metadata(there) if there is not None else None
            if kept is not None:
                found[name] = await self._info(kept, name, there, ctx)

        for first in range(0, len(names), CONCURRENT_DESCRIBES_MAX):
            await run_all([describe(name) for name in names[first : first + CONCURRENT_DESCRIBES_MAX]])
        return [found[name] for name in names if name in found]

    async def _describe(self, command: commands.DescribeCollection, ctx: Context) -> CollectionInfo:
        name = command.collection
        there = await self._fetch_description(name, ctx)
        kept = collection_schema.read_metadata(there) if there is not None else None
        if kept is None:
            raise collection_not_found(name)
        return await self._info(kept, name, there, ctx)

    async def _drop(self, command: commands.DropCollection, ctx: Context) -> None:
        name = command.collection
        self._layouts.pop(name, None)
        await self._layout(name, ctx)
        self._layouts.pop(name, None)
        await self._connection.send(QdrantRequest("DELETE", _COLLECTION, name), ctx)

    # --- Writing

    async def _upsert(self, command: commands.UpsertPoints, ctx: Context) -> None:
        kept = await self._layout(command.collection, ctx)
        if command.points:
            body = {"points": [conversions.encode_point(one, kept) for one in command.points]}
            await self._send(QdrantRequest("PUT", _POINTS, command.collection, body, _WRITTEN), ctx)

    async def _add_vectors(self, command: commands.AddVectors, ctx: Context) -> None:
        """Write those that lack them anew, whole; one that has changed since it was read is left as it is."""
        kept = await self._layout(command.collection, ctx)
        wanted = {(one.document_id, one.chunk): one for one in command.vectors}
        places = [point_id(*place) for place in wanted]
        there = await self._fetch_points(commands.FetchPoints(command.collection, places), ctx)
        found = (payload_format.with_vectors(one, wanted[one.payload.id, one.payload.chunk]) for one in there)
        points = [conversions.encode_point(one, kept) for one in found if one is not None]
        if not points:
            return
        unchanged = {"key": "pending", "match": {"any": sorted({one.pending for one in command.vectors})}}
        body = {"points": points, "update_filter": {"must": [unchanged]}, "update_mode": "update_only"}
        await self._send(QdrantRequest("PUT", _POINTS, command.collection, body, _WRITTEN), ctx)

    async def _replace_sparse(self, command: commands.ReplaceSparse, ctx: Context) -> None:
        kept = await self._layout(command.collection, ctx)
        vectors = {point_id(one.document_id, one.chunk): one for one in command.points}
        there = await self._existing(command.collection, list(vectors), ctx)
        if not there:
            return
        points = [conversions.encode_sparse_replacement(one, vectors[one], kept) for one in there]
        try:
            await self._send(
                QdrantRequest("PUT", f"{_POINTS}/vectors", command.collection, {"points": points}, _WRITTEN), ctx
            )
        except (Broken, Invalid):
            # A point that has been deleted in between is reported after all others have been written.
            if len(await self._existing(command.collection, there, ctx)) == len(there):
                raise

    async def _existing(self, collection: str, points: Sequence[str], ctx: Context) -> list[str]:
        """Return the ids of those of the points that exist."""
        return [str(one["id"]) for one in await self._read(collection, points, [payload_format.CHUNK_FIELD], ctx)]

    async def _set_text_version(self, command: commands.SetTextVersion, ctx: Context) -> None:
        """Record the version in the collection's metadata, of which the server keeps the other keys."""
        name = command.collection
        self._layouts.pop(name, None)
        stated = msgspec.structs.replace(await self._layout(name, ctx), text=command.text, renewing=command.renewing)
        body = {"metadata": {collection_schema.METADATA_KEY: msgspec.to_builtins(stated)}}
        await self._send(QdrantRequest("PATCH", _COLLECTION, name, body), ctx)
        self._layouts.pop(name, None)

    async def _trim(self, command: commands.TrimDocument, ctx: Context) -> None:
        surplus = Range(payload_format.CHUNK_FIELD, gte=float(command.chunks))
        await self._remove(command.collection, [Match("id", [command.document_id]), surplus], ctx)

    async def _seal(self, command: commands.SealDocument, ctx: Context) -> None:
        collection, document = command.collection, command.document
        if not await self._read_documents(collection, [document.id], ctx):
            raise Unavailable(
                "the document was deleted while it was being written; send it again",
                dependency=STORE_DEPENDENCY,
                code="write_conflict",
            )
        fields = {"hash": document.hash, "chunks": document.chunks, point_memory.REVISION_FIELD: new_revision()}
        body = {"payload": fields, "points": [point_id(document.id, 0)]}
        await self._send(QdrantRequest("POST", f"{_POINTS}/payload", collection, body, _WRITTEN), ctx)

    async def _delete(self, command: commands.DeleteDocuments, ctx: Context) -> int:
        documents = await self._count_documents(commands.CountDocuments(command.collection, command.filter), ctx)
        await self._remove(command.collection, command.filter, ctx)
        return documents

    # --- Reading

    async def _retrieve(self, command: commands.Retrieve, ctx: Context) -> RetrievalResult:
        return await RemoteSearch(self._search_and_read).retrieve(command, ctx)

    async def _search(self, command: commands.SearchBatch, ctx: Context) -> list[list[ScoredPoint]]:
        return (await self._search_and_read(command.collection, command.queries, (), ctx, whole=False))[0]

    async def _search_and_read(
        self, collection: str, queries: Sequence[ArmQuery], points: Sequence[str], ctx: Context, *, whole: bool
    ) -> tuple[list[list[ScoredPoint]], dict[str, ReadPoint]]:
        """Ask several arms and read points at once; arms that can match nothing are not asked."""
        ctx = ctx.within(self._timeouts.store, "store", self._clock.now())
        kept = await self._layout(collection, ctx)
        asked = [conversions.can_match(query) for query in queries]
        searches = [conversions.encode_query(query, kept) for query in compress(queries, asked)]
        known = self._memory.known(collection, points, whole=whole) if points else {}
        if points:
            searches.append(point_memory.read_query(points, known.values(), whole=whole))
        call = QdrantRequest("POST", f"{_POINTS}/query/batch", collection, {"searches": searches})
        answers = iter(await self._send(call, ctx) if searches else ())
        hits = [conversions.decode_hits(next(answers)) if is_asked else [] for is_asked in asked]
        if points:
            for one in next(answers)["points"]:
                known[one["id"]] = read = point_memory.decode_read(one, whole=whole)
                self._memory.put(collection, one["id"], read)
        return hits, known

    async def _fetch_token_vectors(
        self, command: commands.FetchTokenVectors, ctx: Context
    ) -> Mapping[str, TokenVectors]:
        found = await self._read(command.collection, command.points, [payload_format.TOKEN_VECTORS_FIELD], ctx)
        kept = {str(one["id"]): payload_format.decode_token_vectors(one["payload"]) for one in found}
        return {place: tokens for place, tokens in kept.items() if tokens is not None}

    async def _fetch_payloads(self, command: commands.FetchPayloads, ctx: Context) -> Mapping[str, ChunkPayload]:
        found = await self._read(command.collection, command.points, payload_format.CHUNK_PAYLOAD_FIELDS, ctx)
        return {str(one["id"]): payload_format.decode_payload(one["payload"]) for one in found}

    async def _list_documents(self, command: commands.ListDocuments, ctx: Context) -> DocumentPage:
        """Read a page of heads in the order of their point ids."""
        body = {
            "filter": conversions.encode_filter([*command.filter, _HEAD]),
            "with_payload": payload_format.DOCUMENT_FIELDS,
            "with_vector": False,
        }
        points, following = await self._scroll(command, body, ctx)
        return DocumentPage([payload_format.decode_document(one["payload"]) for one in points], following)

    async def _list_pending(self, command: commands.ListPending, ctx: Context) -> PendingPage:
        """Read a page of chunks in the order of their point ids."""
        body = {
            "filter": conversions.pending_filter(command.filter),
            "with_payload": payload_format.PENDING_FIELDS,
            "with_vector": False,
        }
        points, following = await self._scroll(command, body, ctx)
        return PendingPage([payload_format.decode_pending(one["payload"]) for one in points], following)

    async def _get_documents(self, command: commands.GetDocuments, ctx: Context) -> dict[str, DocumentInfo]:
        return await self._read_documents(command.collection, command.document_ids, ctx)

    async def _count_documents(self, command: commands.CountDocuments, ctx: Context) -> int:
        return await self._count(command.collection, conversions.encode_filter([*command.filter, _HEAD]), ctx)

    async def _fetch_points(self, command: commands.FetchPoints, ctx: Context) -> list[Point]:
        kept = await self._layout(command.collection, ctx)
        body = {"ids": list(command.points), "with_payload": True, "with_vector": True}
        found = await self._send(QdrantRequest("POST", _POINTS, command.collection, body), ctx)
        return [conversions.decode_point(one, kept) for one in found]

    async def _list_sources(self, command: commands.ListSources, ctx: Context) -> list[SourceRecord]:
        there = await self._fetch_description(command.collection, ctx)
        if there is None or collection_schema.read_metadata(there) is None:
            raise collection_not_found(command.collection)
        return collection_schema.read_sources(there)

    async def _put_source(self, command: commands.PutSource, ctx: Context) -> None:
        there = await self._list_sources(commands.ListSources(command.collection), ctx)
        if len({command.source.name, *(one.name for one in there)}) > SOURCES_MAX:
            detail = f"collection {command.collection!r} has {SOURCES_MAX} sources already; forget one"
            raise Invalid(detail, field="source", code="too_many_sources")
        await self._write_source(command.collection, command.source.name, command.source, ctx)

    async def _drop_source(self, command: commands.DropSource, ctx: Context) -> None:
        await self._write_source(command.collection, command.name, None, ctx)

    async def _write_source(self, collection: str, name: str, source: SourceRecord | None, ctx: Context) -> None:
        await self._layout(collection, ctx)
        body = collection_schema.source_request(name, source)
        await self._send(QdrantRequest("PATCH", _COLLECTION, collection, body), ctx)

    async def _scroll_points(self, command: commands.ScrollPoints, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        kept = await self._layout(command.collection, ctx)
        points, following = await self._scroll(command, {"with_payload": True, "with_vector": True}, ctx)
        return PointPage([conversions.decode_point(one, kept) for one in points], following)

    async def _list_paths(self, collection: str, *, ctx: Context) -> list[str]:
        """Return every distinct path, from the index of the field."""
        await self._layout(collection, ctx)
        body = {"key": path_prefixes.PATH_FIELD, "limit": path_prefixes.PATHS_MAX + 1}
        found = await self._send(QdrantRequest("POST", f"{_COLLECTION}/facet", collection, body), ctx)
        return [str(one["value"]) for one in found["hits"]]

    # --- Shared by all operations

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
            there = await self._fetch_description(name, ctx)
            kept = collection_schema.read_metadata(there) if there is not None else None
            if kept is None:
                raise collection_not_found(name)
            if len(self._layouts) >= CACHED_LAYOUTS_MAX:
                self._layouts.clear()
            self._layouts[name] = kept
        return kept

    async def _fetch_description(self, name: str, ctx: Context) -> Any:
        """Return the server's description of a collection; ``None`` if there is none of that name."""
        try:
            layout.check_name(name)
            return await self._connection.send(QdrantRequest("GET", _COLLECTION, name, accepts_timeout=False), ctx)
        except Invalid:
            return None

    async def _make(self, name: str, wanted: CollectionMetadata, ctx: Context) -> Any:
        """Create a collection and return the server's description of it.

        Raises:
            Broken: The server does not keep the collection's metadata: it is too old (``store_version_unsupported``).
        """
        body = collection_schema.create_request(wanted, self._settings.shards, self._settings.replicas)
        try:
            await self._connection.send(QdrantRequest("PUT", _COLLECTION, name, body), ctx)
        except (Broken, Invalid) as error:
            # Another process may have been quicker; then it is looked at like any other.
            there = await self._fetch_description(name, ctx)
            if there is None:
                raise error from None
            return there
        there = await self._fetch_description(name, ctx)
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
        counts: dict[str, int] = {}
        params, wanted = there["config"]["params"], self._settings.replicas
        replicas = params.get("replication_factor") or 1
        self.replica_warnings.pop(name, None)
        if wanted and replicas != wanted and len(self.replica_warnings) < CACHED_LAYOUTS_MAX:
            self.replica_warnings[name] = (
                f"collection {name!r} has {replicas} replicas, not the {wanted} of QDRANT_REPLICAS: a node's death may"
                " make it unavailable"
            )

        async def count(what: str, filter: Mapping[str, Any]) -> None:
            counts[what] = await self._count(name, filter, ctx)

        filters = {
            "documents": conversions.encode_filter([_HEAD]),
            "chunks": conversions.encode_filter([]),
            "pending": conversions.pending_filter(),
        }
        await run_all([count(*one) for one in filters.items()])
        return msgspec.structs.replace(
            found.info(name),
            documents=counts["documents"],
            chunks=counts["chunks"],
            pending=counts["pending"],
            indexed=min(there.get("indexed_vectors_count") or 0, counts["chunks"]),
            upkeep="optimising" if collection_schema.is_optimizing(there) else "",
            shards=params.get("shard_number") or 1,
        )

    async def _count(self, collection: str, filter: Mapping[str, Any], ctx: Context) -> int:
        body = {"filter": filter, "exact": True}
        await self._layout(collection, ctx)
        return int((await self._send(QdrantRequest("POST", f"{_POINTS}/count", collection, body), ctx))["count"])

    async def _remove(self, collection: str, filter: Sequence[Condition], ctx: Context) -> None:
        body = {"filter": conversions.encode_filter(filter)}
        await self._layout(collection, ctx)
        await self._send(QdrantRequest("POST", f"{_POINTS}/delete", collection, body, _WRITTEN, repeatable=False), ctx)

    async def _read_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        ids = [point_id(document, 0) for document in document_ids]
        found = await self._read(collection, ids, payload_format.DOCUMENT_FIELDS, ctx)
        heads = (payload_format.decode_document(one["payload"]) for one in found)
        return {head.id: head for head in heads}

    async def _read(self, collection: str, ids: Sequence[str], fields: Sequence[str], ctx: Context) -> list[Any]:
        """Return those of the points that exist, with these fields of their payloads."""
        await self._layout(collection, ctx)
        body = {"ids": list(ids), "with_payload": fields, "with_vector": False}
        found: list[Any] = await self._send(QdrantRequest("POST", _POINTS, collection, body), ctx) if ids else []
        return found

    async def _scroll(
        self,
        command: commands.ListDocuments | commands.ListPending | commands.ScrollPoints,
        wanted: Mapping[str, Any],
        ctx: Context,
    ) -> tuple[list[Any], str | None]:
        """Return a page of points, and where the next one starts."""
        await self._layout(command.collection, ctx)
        body = {"limit": command.limit, "offset": command.after, **wanted}
        page = await self._send(QdrantRequest("POST", f"{_POINTS}/scroll", command.collection, body), ctx)
        following = page.get("next_page_offset")
        return page["points"], str(following) if following else None

    _HANDLERS: ClassVar[Mapping[type, Callable[[Any, Any, Context], Awaitable[Any]]]] = {
        commands.CreateCollection: _create,
        commands.ListCollections: _list,
        commands.DescribeCollection: _describe,
        commands.DropCollection: _drop,
        commands.UpsertPoints: _upsert,
        commands.AddVectors: _add_vectors,
        commands.ReplaceSparse: _replace_sparse,
        commands.SetTextVersion: _set_text_version,
        commands.TrimDocument: _trim,
        commands.SealDocument: _seal,
        commands.DeleteDocuments: _delete,
        commands.Retrieve: _retrieve,
        commands.SearchBatch: _search,
        commands.FetchTokenVectors: _fetch_token_vectors,
        commands.FetchPayloads: _fetch_payloads,
        commands.ListDocuments: _list_documents,
        commands.ListPending: _list_pending,
        commands.GetDocuments: _get_documents,
        commands.CountDocuments: _count_documents,
        commands.FetchPoints: _fetch_points,
        commands.ListSources: _list_sources,
        commands.PutSource: _put_source,
        commands.DropSource: _drop_source,
        commands.ScrollPoints: _scroll_points,
    }


_HEAD: Final = Match(payload_format.CHUNK_FIELD, [0])
