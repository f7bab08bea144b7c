"""The tools ``search`` and ``find_related``: the search of the API, cut to an agent's budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from penstock.http.mcp.budget import SNIPPET_BYTES_MIN, count_fitting, cut_text, token_count
from penstock.http.mcp.call import ToolCall
from penstock.http.mcp.reading import find_document, read_chunk_at
from penstock.http.mcp.records import FoundChunk, RelatedArguments, SearchAnswer, SearchArguments, ToolAnswer
from penstock.http.mcp.rendering import render_hit, render_search
from penstock.http.mcp.resources import link_size
from penstock.indexing.language import canonical_language
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid
from penstock.search.request import CURSOR_CHARACTERS, LIMIT_MAX, Like, SearchBody, SearchHit, SearchRequest

#: Hits of the page to leave out, and the cursor of the page if it is not the first.
_CURSOR: Final = re.compile(rf"(\d{{1,3}})(?:\.([A-Za-z0-9_-]{{{CURSOR_CHARACTERS}}}))?")

#: Bytes of JSON and text around the hits.
_FRAME_BYTES: Final = 300


class _PagePlace(NamedTuple):
    """Place of a page: after so many hits of the page that a cursor of the API names."""

    skip: int = 0
    page: str | None = None

    def cursor(self) -> str:
        """Return the place as an agent gives it back."""
        return f"{self.skip}.{self.page}" if self.page else str(self.skip)


async def search(call: ToolCall, asked: SearchArguments) -> tuple[SearchAnswer, str]:
    """Search collections by words and by meaning; return hits and their text form."""
    ctx = _context(call)
    if asked.collections is None:
        names = [await call.choose_collection(None, ctx)]
    else:
        names = asked.collections
        call.principal.require_collections(names)
    wanted = {"query": asked.query, **({"group": asked.group} if asked.group else {})}
    answer = await _search(call, asked, names, wanted, ctx)
    return answer, render_search(answer, repr(_shortened(asked.query)))


async def find_related(call: ToolCall, asked: RelatedArguments) -> tuple[SearchAnswer, str]:
    """Find code like that of a document, or at a line of it; return hits and their text form."""
    ctx = _context(call)
    collection = await call.choose_collection(asked.collection, ctx)
    head = await find_document(call.core.store, collection, asked.path, ctx)
    chunk = None if asked.line is None else await read_chunk_at(call.core.store, collection, head, asked.line, ctx)
    wanted = {"like": Like(head.id, chunk.chunk if chunk is not None else None)}
    answer = await _search(call, asked, [collection], wanted, ctx)
    place = asked.path if chunk is None else f"{asked.path}:{chunk.start_line}-{chunk.end_line}"
    return answer, render_search(answer, f"what is like {_shortened(place)}")


def _context(call: ToolCall) -> Context:
    return call.context(Criticality.INTERACTIVE, call.core.deps.settings.timeouts.search, "search")


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


async def _search(
    call: ToolCall,
    asked: SearchArguments | RelatedArguments,
    names: Sequence[str],
    wanted: dict[str, Any],
    ctx: Context,
) -> SearchAnswer:
    place = _parse_place(asked.cursor)
    if place.skip:
        wanted["offset"] = place.skip
    if place.page:
        wanted["cursor"] = place.page
    several = list(names) if len(names) > 1 else None
    body = SearchBody(limit=asked.limit, filter=_filter(asked), collections=several, **wanted)
    request = SearchRequest.from_body(body, None if several else names[0], canonical_language)
    result = await call.operations.run_search(request, ctx)
    hits = [_found(hit, names[0]) for hit in result.hits]
    left_out = [] if result.left_out is UNSET else [f"{one.collection}: {one.detail}" for one in result.left_out]
    told = ToolAnswer(freshness=await call.freshness.of(names, ctx), degraded=list(result.degraded))
    tokens = asked.max_tokens - token_count(_FRAME_BYTES + len(msgspec.json.encode([told, left_out])))
    shown = count_fitting(hits, _cost, tokens)
    if not shown and hits:
        # An answer without a hit would never go on.
        hits[0], shown = _cut(hits[0], tokens), 1
    following = _PagePlace(place.skip + shown, place.page).cursor() if shown < len(hits) else None
    if following is None and result.next:
        following = _PagePlace(page=result.next).cursor()
    return SearchAnswer(
        hits=hits[:shown],
        freshness=told.freshness,
        degraded=told.degraded,
        truncated=shown < len(hits) or any(hit.cut for hit in hits[:shown]),
        omitted=len(hits) - shown,
        cursor=following,
        left_out=left_out,
    )


def _filter(asked: SearchArguments | RelatedArguments) -> dict[str, Any]:
    said = {"path_prefix": asked.path_prefix, "language": asked.languages, "source": getattr(asked, "source", None)}
    return {name: value for name, value in said.items() if value is not None}


def _found(hit: SearchHit, collection: str) -> FoundChunk:
    return FoundChunk(
        path=hit.path,
        start_line=hit.start_line,
        end_line=hit.end_line,
        language=hit.language,
        symbol=hit.symbol,
        score=round(hit.score, 4),
        snippet=hit.text,
        collection=collection if hit.collection is UNSET else hit.collection,
        id=hit.id,
    )


def _cost(hit: FoundChunk) -> int:
    """Return the tokens of a hit in the larger of its two forms: which of them a model reads is its client's choice."""
    text = len(render_hit(hit).encode("utf-8", "replace")) + link_size(hit)
    return token_count(max(text, len(msgspec.json.encode(hit))))


def _cut(hit: FoundChunk, tokens: int) -> FoundChunk:
    """Return a hit whose snippet is cut such that the hit costs about so many tokens."""
    over = max(1.0, _cost(hit) / max(1, tokens))
    size = max(SNIPPET_BYTES_MIN, int(len(hit.snippet.encode("utf-8", "replace")) / over * 0.9) - SNIPPET_BYTES_MIN)
    return msgspec.structs.replace(hit, snippet=cut_text(hit.snippet, size), cut=True)


def _parse_place(cursor: str | None) -> _PagePlace:
    """Return the place that a cursor names.

    Raises:
        Invalid: It is none (``invalid_cursor``).
    """
    if cursor is None:
        return _PagePlace()
    said = _CURSOR.fullmatch(cursor)
    if said is None or int(said[1]) >= LIMIT_MAX:
        detail = "`cursor` must be that of an answer before; search again without it"
        raise Invalid(detail, field="cursor", code="invalid_cursor")
    return _PagePlace(int(said[1]), said[2])
