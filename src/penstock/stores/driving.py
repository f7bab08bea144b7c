"""A retrieval over a store that answers one question at a time: the course decides, this asks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from penstock.kernel.context import Context
from penstock.kernel.errors import PenstockError
from penstock.kernel.late import maxima
from penstock.ranking.course import advance, course, stage_of
from penstock.ranking.records import Compare, Outcome, P, Read, Retrieval, Seek, Step
from penstock.stores.contract import VectorStore
from penstock.stores.reading import HitReading
from penstock.stores.records import ArmQuery, ChunkPayload, Filter, Found, Retrieved


async def retrieve(store: VectorStore, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
    """Answer a search by ``search_all``, ``tokens`` and ``fetch``; see :meth:`VectorStore.retrieve`.

    Cancellation: What is being asked is cancelled.
    """
    stages: defaultdict[str, float] = defaultdict(float)
    cut = False
    going, now = course(wanted), asyncio.get_running_loop().time
    went: Step[str] | Outcome[str] = advance(going)
    while not isinstance(went, Outcome):
        stage, began_s = stage_of(went), now()
        try:
            if isinstance(went, Read):
                answer, cut = await _read(store, collection, went, ctx)
            else:
                answer = await _answered(store, collection, went, filter, ctx)
        except PenstockError as error:
            went = advance(going, error=error)
        else:
            went = advance(going, answer)
        stages[stage] += (now() - began_s) * 1000
    return told(went, str, stages, explain=wanted.explain, cut=cut)


async def _read(
    store: VectorStore, collection: str, step: Read[str], ctx: Context
) -> tuple[Mapping[str, ChunkPayload], bool]:
    """Return the payloads that fit into an answer, and whether some did not."""
    reading = HitReading(step.points)
    while points := reading.points():
        reading.take(await store.fetch(collection, points, ctx))
    return reading.payloads, reading.cut


async def _answered(
    store: VectorStore, collection: str, step: Seek[str] | Compare[str], filter: Filter, ctx: Context
) -> Any:
    if isinstance(step, Seek):
        # Known candidates have met the filter already.
        asked = [ArmQuery(ask.vector, ask.limit, filter if ask.among is None else (), ask.among) for ask in step.asks]
        return [dict(found) for found in await store.search_all(collection, asked, ctx)]
    tokens = await store.tokens(collection, step.points, ctx)
    return dict(zip(tokens, maxima(step.tokens, list(tokens.values())), strict=True))


def told(
    outcome: Outcome[P], name: Callable[[P], str], stages: Mapping[str, float], *, explain: bool, cut: bool
) -> Retrieved:
    """Return an outcome as stores tell it.

    Args:
        outcome: What came of a course.
        name: Returns a point's id.
        stages: Milliseconds by stage.
        explain: Whether each hit's places are wanted.
        cut: Whether hits were left out for their size.
    """
    places = outcome.places() if explain else {}
    hits = [
        Found(name(point), score, outcome.payloads[point], places.get(point, {}))
        for point, score in outcome.ranked.items()
    ]
    return Retrieved(hits, outcome.failures, {stage: round(took_ms, 3) for stage, took_ms in stages.items()}, cut)
