"""The tools about what is indexed: collections, the state of sources, and, with a key that may write, sources."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import Final

import msgspec

from penstock.http import responses, sources
from penstock.http.mcp.budget import count_fitting, token_count
from penstock.http.mcp.call import ToolCall
from penstock.http.mcp.records import (
    WAIT_S_MAX,
    ForgetAnswer,
    ForgetArguments,
    IndexAnswer,
    IndexArguments,
    ListAnswer,
    ListArguments,
    ListedCollection,
    SourceEntry,
    StatusAnswer,
    StatusArguments,
)
from penstock.http.mcp.rendering import collection_row, one_line, render_table, source_row
from penstock.http.request_bodies import HostDirectory, SourceBody
from penstock.indexing.sources.source_watches import SourceWatch, WatchState
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid
from penstock.stores.commands import CountDocuments
from penstock.stores.data_model import STATE_DAMAGED, Match
from penstock.stores.sources import allowed_name

#: Collections on one page at most: the store tells the freshness of each.
COLLECTIONS_PER_PAGE: Final = 50
#: Seconds between looks at a source that is being indexed.
POLL_S: Final = 0.5
_SETTLED: Final = frozenset({WatchState.WATCHING, WatchState.WAITING, WatchState.FAILED})
_FRAME_BYTES: Final = 300


async def list_collections(call: ToolCall, asked: ListArguments) -> tuple[ListAnswer, str]:
    """List the collections that the caller may see; return them and their text form."""
    ctx = _context(call, "list_collections")
    first = _parse_offset(asked.cursor)
    there = (await call.visible_collections(ctx))[first:]
    page = there[:COLLECTIONS_PER_PAGE]
    freshness = await call.freshness.of([one.name for one in page if one.state != STATE_DAMAGED], ctx)
    fresh = {one.collection: one for one in freshness}
    entries = [ListedCollection(one.name, one.documents, one.chunks, one.state) for one in page]

    def cost(entry: ListedCollection) -> int:
        return _cost(entry) + _cost(fresh.get(entry.name, entry))

    shown = count_fitting(entries, cost, asked.max_tokens - token_count(_FRAME_BYTES)) or min(1, len(entries))
    answer = ListAnswer(
        collections=entries[:shown],
        freshness=[fresh[one.name] for one in entries[:shown] if one.name in fresh],
        truncated=shown < len(there),
        omitted=len(there) - shown,
        cursor=str(first + shown) if shown < len(there) else None,
    )
    return answer, render_table(map(collection_row, answer.collections), answer, "There are no collections.")


async def index_status(call: ToolCall, asked: StatusArguments) -> tuple[StatusAnswer, str]:
    """Tell how fresh sources are and how the server is; return it and its text form."""
    ctx = _context(call, "index_status")
    first = _parse_offset(asked.cursor)
    if asked.collection is not None:
        call.principal.require_collections([asked.collection])
        names = [asked.collection]
    else:
        visible = await call.visible_collections(ctx)
        names = [one.name for one in visible if one.state != STATE_DAMAGED][:COLLECTIONS_PER_PAGE]
    store, watches = call.core.store, call.core.deps.source_watches
    there = [info for name in names for info in (await sources.list_sources(store, watches, name, ctx)).sources]
    entries = [_source_entry(one) for one in there[first:]]
    freshness = await call.freshness.of(names, ctx)
    readiness = await call.operations.readiness()
    frame = _FRAME_BYTES + len(msgspec.json.encode([freshness, readiness]))
    shown = count_fitting(entries, _cost, asked.max_tokens - token_count(frame)) or min(1, len(entries))
    answer = StatusAnswer(
        sources=entries[:shown],
        ready=readiness.ready,
        reasons=readiness.reasons,
        # Warnings name collections.
        warnings=[] if call.principal.collections else readiness.warnings,
        rung=rung_name(call),
        freshness=freshness,
        truncated=shown < len(entries),
        omitted=len(entries) - shown,
        cursor=str(first + shown) if shown < len(entries) else None,
    )
    told = "The server is ready" if answer.ready else f"The server is not ready: {'; '.join(answer.reasons)}"
    load = "" if answer.rung == "full" else f"; under load, rung {answer.rung}"
    rows = [f"{told}{load}.", *(f"Warning: {one_line(one)}" for one in answer.warnings)]
    rows += map(source_row, answer.sources) if answer.sources else ["There are no sources."]
    return answer, render_table(rows, answer, "")


async def index_source(call: ToolCall, asked: IndexArguments) -> tuple[IndexAnswer, str]:
    """Let the server index a directory of its host and keep it up to date; return how far it is.

    Cancellation: The server ends what this call has begun. Documents already written stay.
    """
    limit_s = asked.wait_s + call.core.deps.settings.timeouts.search
    ctx = call.context(Criticality.BULK, limit_s, "index_source")
    call.principal.require_collections([asked.collection])
    name = asked.name or allowed_name(PurePosixPath(asked.path).name)
    watches, store = call.core.deps.source_watches, call.core.store
    await asyncio.to_thread(watches.roots.check, asked.path)
    await call.operations.ensure_collection(asked.collection, ctx)
    was_watched = watches.find(asked.collection, name) is not None
    body = SourceBody(collection=asked.collection, root=HostDirectory(asked.path), watch=True)
    await sources.put_source(store, watches, name, body, ctx)
    try:
        watch, documents = await _await_indexed(call, name, asked, ctx)
    except asyncio.CancelledError:
        if not was_watched:
            await asyncio.shield(_unwatch(call, name, asked.collection))
        raise
    answer = IndexAnswer(
        name=name,
        collection=asked.collection,
        state=watch.state.value,
        detail=watch.detail,
        documents=documents,
        freshness=await call.freshness.of([asked.collection], ctx),
    )
    rows = [f"{one_line(name)} in {asked.collection}: {answer.state}, {documents} documents. {answer.detail}".strip()]
    if watch.state not in _SETTLED:
        rows.append("It goes on; `index_status` tells how far it is.")
    return answer, render_table(rows, answer, "")


async def _await_indexed(call: ToolCall, name: str, asked: IndexArguments, ctx: Context) -> tuple[SourceWatch, int]:
    """Report the progress of a source until it is indexed, or the caller has waited long enough."""
    watches, began_s, clock = call.core.deps.source_watches, call.core.deps.clock.now(), call.core.deps.clock
    while True:
        watch = watches.find(asked.collection, name) or SourceWatch(WatchState.STARTING)
        count = CountDocuments(asked.collection, (Match("source", [name]),))
        documents = await call.core.store.run(count, ctx)
        waited_s = clock.now() - began_s
        if watch.state in _SETTLED or waited_s >= asked.wait_s or call.core.traffic.draining:
            return watch, documents
        await call.report(round(waited_s, 1), WAIT_S_MAX, f"{watch.state.value}: {documents} documents so far")
        await asyncio.sleep(POLL_S)


async def _unwatch(call: ToolCall, name: str, collection: str) -> None:
    body = SourceBody(collection=collection, watch=False)
    await sources.put_source(call.core.store, call.core.deps.source_watches, name, body, Context.background())


async def forget_source(call: ToolCall, asked: ForgetArguments) -> tuple[ForgetAnswer, str]:
    """Delete a source with its documents; return their number."""
    ctx = _context(call, "forget_source")
    call.principal.require_collections([asked.collection])
    watches = call.core.deps.source_watches
    deleted = await sources.delete_source(call.core.store, watches, asked.name, asked.collection, ctx)
    freshness = await call.freshness.of([asked.collection], ctx)
    answer = ForgetAnswer(name=asked.name, collection=asked.collection, deleted=deleted, freshness=freshness)
    return answer, render_table([f"{one_line(asked.name)}: {deleted} documents deleted"], answer, "")


def rung_name(call: ToolCall) -> str:
    """Return the rung of the degradation ladder for interactive work."""
    return call.core.ladder.state()[Criticality.INTERACTIVE].name.lower()


def _context(call: ToolCall, operation: str) -> Context:
    return call.context(Criticality.STANDARD, call.core.deps.settings.timeouts.search, operation)


def _source_entry(one: responses.SourceInfo) -> SourceEntry:
    return SourceEntry(
        name=one.name,
        collection=one.collection,
        documents=one.documents,
        completed_at=one.completed_at,
        commit=one.commit,
        indexed=one.run.indexed,
        unchanged=one.run.unchanged,
        removed=one.run.removed,
        failed=one.run.failed,
        watch=one.watch.state.value if one.watch is not None else "off",
        detail=one.watch.detail if one.watch is not None else "",
    )


def _cost(entry: msgspec.Struct) -> int:
    # As JSON, the larger of the two forms.
    return token_count(len(msgspec.json.encode(entry)))


def _parse_offset(cursor: str | None) -> int:
    """Return the place at which a page begins.

    Raises:
        Invalid: The cursor is none (``invalid_cursor``).
    """
    if cursor is None:
        return 0
    if not (cursor.isdecimal() and len(cursor) <= 6):
        raise Invalid("`cursor` must be that of an answer before", field="cursor", code="invalid_cursor")
    return int(cursor)
