"""Operations on the records of sources: list them, write one, forget one with its documents."""

from __future__ import annotations

import datetime as dt

import msgspec

from penstock.http import request_bodies, responses
from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.stores.commands import (
    CountDocuments,
    DeleteDocuments,
    DropSource,
    ListCollections,
    ListSources,
    PutSource,
)
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import STATE_DAMAGED, Match
from penstock.stores.sources import SourceRecord, SourceRoot, check_source_name


async def list_sources(store: VectorStore, collection: str | None, ctx: Context) -> responses.SourceList:
    """Return the sources of one collection, or of every collection that is not damaged."""
    if collection is not None:
        names = [collection]
    else:
        listed = await store.run(ListCollections(), ctx)
        names = [info.name for info in listed if info.state != STATE_DAMAGED]
    found: list[responses.SourceInfo] = []
    for name in names:
        found += [await _info(store, name, source, ctx) for source in await store.run(ListSources(name), ctx)]
    return responses.SourceList(found)


async def put_source(
    store: VectorStore, name: str, body: request_bodies.SourceBody, ctx: Context
) -> responses.SourceInfo:
    """Write what a run tells of a source; members that the body leaves out stay as they are.

    Raises:
        Invalid: The name is not allowed (``invalid_source``).
    """
    check_source_name(name)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    there = await store.run(ListSources(body.collection), ctx)
    source = next((one for one in there if one.name == name), SourceRecord(name))
    if body.root is not None:
        source = source.with_root(SourceRoot(body.root.host, body.root.path, now))
    if body.run is not None:
        source = msgspec.structs.replace(source, run=body.run.recorded(), commit=body.commit or "", completed_at=now)
    if body.include is not None:
        source = msgspec.structs.replace(source, include=body.include)
    await store.run(PutSource(body.collection, source), ctx)
    return await _info(store, body.collection, source, ctx)


async def delete_source(store: VectorStore, name: str, collection: str, ctx: Context) -> int:
    """Delete a source's documents, then its record; return the number of documents.

    Other documents stay, also those with an id that looks like one of the source's.

    Raises:
        Invalid: There is neither a record nor a document of it (``source_not_found``).
    """
    there = await store.run(ListSources(collection), ctx)
    # The record last: an interrupted deletion can be repeated.
    deleted = await store.run(DeleteDocuments(collection, (Match("source", [name]),)), ctx)
    if not deleted and all(one.name != name for one in there):
        detail = f"there is no source {name!r} in the collection {collection!r}"
        raise Invalid(detail, field="source", code="source_not_found")
    await store.run(DropSource(collection, name), ctx)
    return deleted


async def _info(store: VectorStore, collection: str, source: SourceRecord, ctx: Context) -> responses.SourceInfo:
    documents = await store.run(CountDocuments(collection, (Match("source", [source.name]),)), ctx)
    return responses.SourceInfo(
        name=source.name,
        collection=collection,
        documents=documents,
        roots=source.roots,
        commit=source.commit,
        completed_at=source.completed_at,
        run=source.run,
        include=source.include,
    )
