"""``VectorStore`` on a Qdrant server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Final

import msgspec

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Invalid, Unavailable
from penstock.kernel.ids import point_id
from penstock.kernel.late import TokenVectors
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.kernel.together import together
from penstock.ranking.records import Retrieval, Scored
from penstock.stores import driving
from penstock.stores.backends import layout, records
from penstock.stores.backends.qdrant import schema, wire
from penstock.stores.backends.qdrant.connection import Call, Connection
from penstock.stores.backends.qdrant.errors import STORE, not_found
from penstock.stores.backends.qdrant.schema import Stated
from penstock.stores.records import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Filter,
    Head,
    HeadPage,
    Match,
    Point,
    PointPage,
    Range,
    Retrieved,
)

#: Collections whose layout is remembered; beyond them each is asked for anew.
KNOWN_MAX: Final = 10_000

#: Collections described at once.
DESCRIBED_MAX: Final = 8

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

    Bounds: the layouts of ``KNOWN_MAX`` collections.
    """

    def __init__(
        self, connection: Connection, settings: QdrantSettings, timeouts: TimeoutSettings, clock: Clock
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._timeouts = timeouts
        self._clock = clock
        self._known: dict[str, Stated] = {}

    # --- Collections

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one; what an interrupted creation left out is made up for."""
        layout.check_name(info.name)
        ctx = self._limited(ctx)
        there = await self._described(info.name, ctx)
        if there is None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            wanted = Stated(info.model, info.dim, now, info.late, info.sparse)
            there = await self._make(info.name, wanted, ctx)
        found = schema.stated(there)
        if found is None:
            theirs, ours = schema.vectors_of(there), layout.said(info)
            raise layout.conflict(
                f"the Qdrant server has a collection {info.name!r} that is not Penstock's, with the vectors {theirs},"
                f" where one of {ours} is wanted"
            )
        layout.check_same(found.info(info.name), info)
        missing = [one for one in schema.indexes().items() if one[0] not in (there.get("payload_schema") or {})]
        await together([self._index(info.name, *one, ctx) for one in missing])
        return await self._info(found, info.name, there, ctx)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection of Penstock's."""
        ctx = self._limited(ctx)
        listed = await self._connection.ask(Call("GET", "/collections", timed=False), ctx)
        prefix = self._connection.prefix
        every = (one["name"] for one in listed["collections"])
        names = sorted(name.removeprefix(prefix) for name in every if name.startswith(prefix))
        found: dict[str, CollectionInfo] = {}

        async def describe(name: str) -> None:
            there = await self._described(name, ctx)
            kept = schema.stated(there) if there is not None else None
            if kept is not None:
                found[name] = await self._info(kept, name, there, ctx)

        for first in range(0, len(names), DESCRIBED_MAX):
            await together([describe(name) for name in names[first : first + DESCRIBED_MAX]])
        return [found[name] for name in names if name in found]

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        ctx = self._limited(ctx)
        there = await self._described(name, ctx)
        kept = schema.stated(there) if there is not None else None
        if kept is None:
            raise not_found(name)
        return await self._info(kept, name, there, ctx)

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        ctx = self._limited(ctx)
        self._known.pop(name, None)
        await self._kept(name, ctx)
        self._known.pop(name, None)
        await self._connection.ask(Call("DELETE", _COLLECTION, name), ctx)

    # --- Writing

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        ctx = self._limited(ctx)
        kept = await self._kept(collection, ctx)
        if points:
            body = {"points": [wire.point(one, kept) for one in points]}
            await self._ask(Call("PUT", _POINTS, collection, body, _WRITTEN), ctx)

    async def trim(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        surplus = wire.filtered([Match("id", [document]), Range(records.CHUNK, gte=float(chunks))])
        await self._delete(collection, surplus, self._limited(ctx))

    async def seal(self, collection: str, head: Head, ctx: Context) -> None:
        """Mark a document complete."""
        ctx = self._limited(ctx)
        if head.id not in await self.find(collection, [head.id], ctx):
            raise Unavailable(
                "the document was deleted while it was being written; send it again",
                dependency=STORE,
                code="write_conflict",
            )
        body = {"payload": {"hash": head.hash, "chunks": head.chunks}, "points": [point_id(head.id, 0)]}
        await self._ask(Call("POST", f"{_POINTS}/payload", collection, body, _WRITTEN), ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        ctx = self._limited(ctx)
        documents = await self._count(collection, [*filter, _HEAD], ctx)
        await self._delete(collection, wire.filtered(filter), ctx)
        return documents

    # --- Reading

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
        """Answer a search, call by call."""
        return await driving.retrieve(self, collection, wanted, filter, ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[Scored]:
        """Ask one arm."""
        return (await self.search_all(collection, [query], ctx))[0]

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[Scored]]:
        """Ask several arms at once."""
        if not queries:
            return []
        ctx = self._limited(ctx)
        kept = await self._kept(collection, ctx)
        asked = [wire.answerable(query) for query in queries]
        searches = [wire.search(query, kept) for query in compress(queries, asked)]
        if not searches:
            return [[] for _ in queries]
        call = Call("POST", f"{_POINTS}/query/batch", collection, {"searches": searches})
        answers = iter(await self._ask(call, ctx))
        return [wire.scored(next(answers)) if is_asked else [] for is_asked in asked]

    async def tokens(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        body = {"ids": list(points), "with_payload": [records.TOKENS], "with_vector": False}
        found = await self._retrieve(collection, body, self._limited(ctx))
        kept = {str(one["id"]): records.tokens(one["payload"]) for one in found}
        return {place: tokens for place, tokens in kept.items() if tokens is not None}

    async def fetch(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        body = {"ids": list(points), "with_payload": records.FIELDS, "with_vector": False}
        found = await self._retrieve(collection, body, self._limited(ctx))
        return {str(one["id"]): records.payload(one["payload"]) for one in found}

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context) -> HeadPage:
        """Read a page of heads in the order of their point ids."""
        body = {
            "filter": wire.filtered([*filter, _HEAD]),
            "limit": limit,
            "offset": after,
            "with_payload": records.HEAD_FIELDS,
            "with_vector": False,
        }
        ctx = self._limited(ctx)
        await self._kept(collection, ctx)
        page = await self._ask(Call("POST", f"{_POINTS}/scroll", collection, body), ctx)
        following = page.get("next_page_offset")
        return HeadPage([records.head(one["payload"]) for one in page["points"]], str(following) if following else None)

    async def find(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, Head]:
        """Read the heads of given documents."""
        ids = [point_id(document, 0) for document in documents]
        body = {"ids": ids, "with_payload": records.HEAD_FIELDS, "with_vector": False}
        found = await self._retrieve(collection, body, self._limited(ctx))
        heads = [records.head(one["payload"]) for one in found]
        return {head.id: head for head in heads}

    async def points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        ctx = self._limited(ctx)
        kept = await self._kept(collection, ctx)
        body = {"limit": limit, "offset": after, "with_payload": True, "with_vector": True}
        page = await self._ask(Call("POST", f"{_POINTS}/scroll", collection, body), ctx)
        following = page.get("next_page_offset")
        return PointPage([wire.read(one, kept) for one in page["points"]], str(following) if following else None)

    # --- What they share

    def _limited(self, ctx: Context) -> Context:
        return ctx.within(self._timeouts.store, "store", self._clock.now())

    async def _ask(self, call: Call, ctx: Context) -> Any:
        """Ask about a collection; what is known of it is forgotten when the server does not take the request."""
        try:
            return await self._connection.ask(call, ctx)
        except (Broken, Invalid):
            # Another process may have dropped it, or made another in its place.
            self._known.pop(call.collection, None)
            raise

    async def _kept(self, name: str, ctx: Context) -> Stated:
        """Return what a collection keeps.

        Raises:
            Invalid: There is no such collection, or it is not Penstock's (``collection_not_found``).
        """
        kept = self._known.get(name)
        if kept is None:
            there = await self._described(name, ctx)
            kept = schema.stated(there) if there is not None else None
            if kept is None:
                raise not_found(name)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[name] = kept
        return kept

    async def _described(self, name: str, ctx: Context) -> Any:
        """Return what the server says of a collection; ``None`` where it has none of that name."""
        try:
            layout.check_name(name)
            return await self._connection.ask(Call("GET", _COLLECTION, name, timed=False), ctx)
        except Invalid:
            return None

    async def _make(self, name: str, wanted: Stated, ctx: Context) -> Any:
        """Make a collection and return what the server says of it.

        Raises:
            Broken: The server does not keep what it was told of the collection: it is too old (``store_old``).
        """
        body = schema.creation(wanted, self._settings.shards, self._settings.replicas)
        try:
            await self._connection.ask(Call("PUT", _COLLECTION, name, body), ctx)
        except (Broken, Invalid) as error:
            # Another process may have been quicker; then it is looked at like any other.
            there = await self._described(name, ctx)
            if there is None:
                raise error from None
            return there
        there = await self._described(name, ctx)
        if there is None or schema.stated(there) is None:
            await self._connection.ask(Call("DELETE", _COLLECTION, name), ctx)
            raise Broken("the Qdrant server keeps no metadata of collections: it is too old", code="store_old")
        return there

    async def _index(self, name: str, field: str, params: Mapping[str, Any], ctx: Context) -> None:
        body = {"field_name": field, "field_schema": params}
        await self._connection.ask(Call("PUT", f"{_COLLECTION}/index", name, body, _WRITTEN), ctx)

    async def _info(self, found: Stated, name: str, there: Any, ctx: Context) -> CollectionInfo:
        """Return a collection with its counts."""
        counts: dict[str, int] = {}

        async def count(what: str, filter: Sequence[Any]) -> None:
            counts[what] = await self._count(name, filter, ctx)

        await together([count("documents", [_HEAD]), count("chunks", [])])
        return msgspec.structs.replace(
            found.info(name),
            documents=counts["documents"],
            chunks=counts["chunks"],
            indexed=min(there.get("indexed_vectors_count") or 0, counts["chunks"]),
            upkeep="optimising" if schema.optimising(there) else "",
            shards=there["config"]["params"].get("shard_number") or 1,
        )

    async def _count(self, collection: str, conditions: Sequence[Any], ctx: Context) -> int:
        body = {"filter": wire.filtered(conditions), "exact": True}
        await self._kept(collection, ctx)
        return int((await self._ask(Call("POST", f"{_POINTS}/count", collection, body), ctx))["count"])

    async def _delete(self, collection: str, filter: Mapping[str, Any], ctx: Context) -> None:
        await self._kept(collection, ctx)
        await self._ask(Call("POST", f"{_POINTS}/delete", collection, {"filter": filter}, _WRITTEN), ctx)

    async def _retrieve(self, collection: str, body: Mapping[str, Any], ctx: Context) -> list[Any]:
        await self._kept(collection, ctx)
        found: list[Any] = await self._ask(Call("POST", _POINTS, collection, body), ctx) if body["ids"] else []
        return found


_HEAD: Final = Match(records.CHUNK, [0])
