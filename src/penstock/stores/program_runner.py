"""Runner of a retrieval program over a store: executes its steps one call at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic

import msgspec

from penstock.kernel.context import Context
from penstock.kernel.errors import PenstockError
from penstock.kernel.late_interaction import max_cosines
from penstock.ranking.program import advance, retrieval_program, stage_of
from penstock.ranking.retrieval import (
    CompareTokensStep,
    P,
    ProgramStep,
    ReadPayloadsStep,
    RetrievalOutcome,
    SearchStep,
)
from penstock.stores.commands import FetchPayloads, FetchTokenVectors, Retrieve, SearchBatch
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import ArmQuery, ChunkPayload, RetrievalResult, RetrievedHit

#: Bytes of texts and metadata in one answer at most. A thousand hits of ordinary chunks have 1 to 2 MB. With the most
#: metadata that a document may have, 64 KB, it is reached after 64 hits.
RESULT_BYTES_MAX: Final = 4_194_304

#: Points read in the first step; how large they are tells how many are read in the next. Most searches need one step.
FIRST_BATCH_POINTS: Final = 64


class HitPayloadReader(Generic[P]):
    """Bounded reading of an answer's payloads: collects those read and names the next batch.

    Args:
        points: The hits, best first.
        bytes_max: Bytes at most; the best hit is read whatever its size.

    Bounds: ``bytes_max``, and what one step reads beyond it: ``FIRST_BATCH_POINTS`` payloads, or about ``bytes_max``.

    Attributes:
        payloads: Those of the points that exist and fit, in the order of the points.
        truncated: Whether some did not fit.
    """

    def __init__(self, points: Sequence[P], bytes_max: int = RESULT_BYTES_MAX) -> None:
        self.payloads: dict[P, ChunkPayload] = {}
        self.truncated = False
        self._points: Sequence[P] = points
        self._next = 0
        self._left = bytes_max
        self._bytes = 0

    def __repr__(self) -> str:
        cut = ", cut" if self.truncated else ""
        return f"<HitPayloadReader {self._next}/{len(self._points)} points, {self._bytes} bytes{cut}>"

    def next_batch(self) -> Sequence[P]:
        """Return the points to read next; empty when all is read that will be."""
        if self.truncated:
            return ()
        count = FIRST_BATCH_POINTS
        if self.payloads:
            each = max(1, self._bytes // len(self.payloads))
            count = max(1, self._left // each)
        return self._points[self._next : self._next + count]

    def add(self, payloads: Mapping[P, ChunkPayload]) -> None:
        """Add the payloads of those points of the batch that exist."""
        asked = self.next_batch()
        self._next += len(asked)
        for point in asked:
            payload = payloads.get(point)
            if payload is None:
                continue
            size = estimate_payload_bytes(payload)
            if self.payloads and size > self._left:
                self.truncated = True
                return
            self.payloads[point] = payload
            self._bytes += size
            self._left -= size


def estimate_payload_bytes(payload: ChunkPayload) -> int:
    """Return about how many bytes a payload adds to an answer."""
    metadata = len(msgspec.json.encode(payload.metadata)) if payload.metadata else 2
    return len(payload.id) + len(payload.path) + len(payload.symbol) + len(payload.text) + metadata


async def run_retrieval(
    store: VectorStore, command: Retrieve, ctx: Context, expect: Callable[[Sequence[str]], None] = lambda _: None
) -> RetrievalResult:
    """Answer a search by the store's commands ``SearchBatch``, ``FetchTokenVectors`` and ``FetchPayloads``.

    Args:
        store: The store.
        command: The search.
        ctx: Request context.
        expect: Called before each ``SearchBatch`` with the points that the commands after it read.

    Cancellation: The command that runs is cancelled.
    """
    stages: defaultdict[str, float] = defaultdict(float)
    cut = False
    run, now = retrieval_program(command.query), asyncio.get_running_loop().time
    finished: ProgramStep[str] | RetrievalOutcome[str] = advance(run)
    while not isinstance(finished, RetrievalOutcome):
        stage, began_s = stage_of(finished), now()
        try:
            if isinstance(finished, ReadPayloadsStep):
                answer, cut = await _read(store, command.collection, finished, ctx)
            else:
                if isinstance(finished, SearchStep):
                    expect(finished.reads)
                answer = await _answered(store, command, finished, ctx)
        except PenstockError as error:
            finished = advance(run, error=error)
        else:
            finished = advance(run, answer)
        stages[stage] += (now() - began_s) * 1000
    return to_result(finished, str, stages, explain=command.query.explain, truncated=cut)


async def _read(
    store: VectorStore, collection: str, step: ReadPayloadsStep[str], ctx: Context
) -> tuple[Mapping[str, ChunkPayload], bool]:
    """Return the payloads that fit into an answer, and whether some did not."""
    reading = HitPayloadReader(step.points)
    while points := reading.next_batch():
        reading.add(await store.run(FetchPayloads(collection, points), ctx))
    return reading.payloads, reading.truncated


async def _answered(
    store: VectorStore, command: Retrieve, step: SearchStep[str] | CompareTokensStep[str], ctx: Context
) -> Any:
    collection = command.collection
    if isinstance(step, SearchStep):
        # Known candidates have met the filter already.
        asked = [
            ArmQuery(ask.vector, ask.limit, command.filter if ask.among is None else (), ask.among)
            for ask in step.searches
        ]
        return [dict(found) for found in await store.run(SearchBatch(collection, asked), ctx)]
    tokens = await store.run(FetchTokenVectors(collection, step.points), ctx)
    return dict(zip(tokens, max_cosines(step.query_tokens, list(tokens.values())), strict=True))


def to_result(
    outcome: RetrievalOutcome[P],
    point_id_of: Callable[[P], str],
    stages: Mapping[str, float],
    *,
    explain: bool,
    truncated: bool,
) -> RetrievalResult:
    """Return the outcome of a program as the store's result."""
    places = outcome.stage_ranks() if explain else {}
    hits = [
        RetrievedHit(point_id_of(point), score, outcome.payloads[point], places.get(point, {}))
        for point, score in outcome.ranked.items()
    ]
    return RetrievalResult(
        hits, outcome.failures, {stage: round(took_ms, 3) for stage, took_ms in stages.items()}, truncated
    )
