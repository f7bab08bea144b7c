"""Operations on the records of sources: list them, write one, forget one with its documents."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence

import msgspec

from penstock.http import request_bodies, responses
from penstock.indexing.sources.source_watches import SourceWatches
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


async def list_sources(
    store: VectorStore,
    watches: SourceWatches,
    collection: str | None,
    ctx: Context,
    may_see: Callable[[str], bool] = lambda _: True,
) -> responses.SourceList:
    """Return the sources of one collection, or of every collection that may be seen and is not damaged."""
    if collection is not None:
        names = [collection]
    else:
        listed = await store.run(ListCollections(), ctx)
        names = [info.name for info in listed if info.state != STATE_DAMAGED and may_see(info.name)]
    found: list[responses.SourceInfo] = []
    for name in names:
        sources = await store.run(ListSources(name), ctx)
        found += [await _info(store, watches, name, source, ctx) for source in sources]
    return responses.SourceList(found)


async def put_source(
    store: VectorStore, watches: SourceWatches, name: str, body: request_bodies.SourceBody, ctx: Context
) -> responses.SourceInfo:
    """Write what a run tells of a source; members that the body leaves out stay as they are.

    Raises:
        Invalid: The name is not allowed (``invalid_source``), or the server may not watch the root
            (``root_not_allowed``, ``root_not_found``, ``source_conflict``).
    """
    check_source_name(name)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    there = await store.run(ListSources(body.collection), ctx)
    before = source = next((one for one in there if one.name == name), SourceRecord(name))
    if body.watch:
        path = await _watchable_root(watches, source, body.root, there)
        source = source.with_root(SourceRoot(watches.host, path, now, watch=True))
    elif body.root is not None:
        host = body.root.host or watches.host
        source = source.with_root(SourceRoot(host, body.root.path, now, source.is_watched_on(host)))
    if body.watch is False:
        source = source.unwatched()
    if body.run is not None:
        source = msgspec.structs.replace(source, run=body.run.recorded(), commit=body.commit or "", completed_at=now)
    if body.include is not None:
        source = msgspec.structs.replace(source, include=body.include)
    await store.run(PutSource(body.collection, source), ctx)
    # A run tells of its source twice, and changes nothing about who watches it.
    if (root := _watched_root(source, watches.host)) != _watched_root(before, watches.host):
        watches.changed.set()
        if root:
            watches.begin(body.collection, name)
    return await _info(store, watches, body.collection, source, ctx)


def _watched_root(source: SourceRecord, host: str) -> str:
    return source.root_on(host) if source.is_watched_on(host) else ""


async def _watchable_root(
    watches: SourceWatches,
    source: SourceRecord,
    root: request_bodies.HostDirectory | None,
    others: Sequence[SourceRecord],
) -> str:
    """Return the directory that the server is to watch for a source, without links.

    Args:
        watches: Of the server.
        source: As it is recorded.
        root: The directory that the caller names, if it names one.
        others: The collection's sources.

    Raises:
        Invalid: The server may not watch it.
    """
    host = watches.host
    if root is not None and root.host not in ("", host):
        detail = f"the server on {host!r} does not index directories of {root.host!r}; ask the server there"
        raise Invalid(detail, field="root", code="root_not_allowed")
    named = root.path if root is not None else source.root_on(host)
    if not named and watches.roots.enabled:
        raise Invalid(f"the source has no root on {host!r}; name one with `root`", field="root", code="root_not_found")
    path = str(await asyncio.to_thread(watches.roots.check, named))
    taken = next((one.name for one in others if one.name != source.name and one.root_on(host) == path), None)
    if taken is not None:
        raise Invalid(f"{path} is the root of the source {taken!r} already", field="root", code="source_conflict")
    return path


async def delete_source(store: VectorStore, watches: SourceWatches, name: str, collection: str, ctx: Context) -> int:
    """Delete a source's documents, then its record; return the number of documents.

    Other documents stay, also those with an id that looks like one of the source's.

    Raises:
        Invalid: There is neither a record nor a document of it (``source_not_found``).
    """
    there = await store.run(ListSources(collection), ctx)
    async with watches.paused(collection, name):
        # The record last: an interrupted deletion can be repeated.
        deleted = await store.run(DeleteDocuments(collection, (Match("source", [name]),)), ctx)
        if not deleted and all(one.name != name for one in there):
            detail = f"there is no source {name!r} in the collection {collection!r}"
            raise Invalid(detail, field="source", code="source_not_found")
        await store.run(DropSource(collection, name), ctx)
    return deleted


async def _info(
    store: VectorStore, watches: SourceWatches, collection: str, source: SourceRecord, ctx: Context
) -> responses.SourceInfo:
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
        watch=watches.find(collection, source.name),
    )
