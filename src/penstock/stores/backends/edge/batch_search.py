"""Searches inside the store process: runs many retrieval programs at once and batches their steps.

The ranking sees the number in a point's id, not the id: numbers are compared and looked up several times quicker than
the id itself.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import msgspec
import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, PenstockError
from penstock.kernel.late_interaction import max_cosines
from penstock.ranking.fusion import RRF_K, TIE_BREAK_SHARE
from penstock.ranking.program import ARMS_STAGE, RetrievalProgram, advance, retrieval_program, stage_of
from penstock.ranking.retrieval import (
    Arm,
    CompareTokensStep,
    Ranking,
    ReadPayloadsStep,
    RetrievalOutcome,
    RetrievalQuery,
    SearchStep,
)
from penstock.stores.backends.edge import engine_config, query_builder
from penstock.stores.backends.edge.engine import EnginePanicked, Shard
from penstock.stores.backends.edge.point_reader import PointReader
from penstock.stores.commands import Retrieve
from penstock.stores.data_model import ChunkPayload, Condition, RetrievalResult, RetrievedHit
from penstock.stores.program_runner import HitPayloadReader, to_result

#: The engine counts ranks from 0.
ENGINE_RRF_K: Final = RRF_K + 1

#: The engine divides the rank by what it calls a weight. It puts equal scores in an order that changes from answer to
#: answer: none may be equal.
ENGINE_WEIGHTS: Final = [1.0, 1 / (1 + TIE_BREAK_SHARE)]


def retrieve_batch(reader: PointReader, commands: Sequence[Retrieve]) -> list[RetrievalResult | PenstockError]:
    """Answer searches of one collection, or say why one cannot be answered.

    Raises:
        EnginePanicked: The engine panicked; no search is answered.
    """
    plain = [number for number, command in enumerate(commands) if _is_plain(command)]
    fused = dict(zip(plain, _fused(reader, [commands[number] for number in plain]) if plain else (), strict=False))
    deep = {number for number in fused if _is_deep(commands[number])}
    others = [number for number in range(len(commands)) if number not in fused or number in deep]
    runs = {number: ProgramRun(reader, commands[number]) for number in others}
    _run_programs(list(runs.values()))

    def result(number: int) -> RetrievalResult | PenstockError:
        if number not in runs:
            return fused[number]
        found = runs[number].result()
        return found if number not in deep else _below(fused[number], found, commands[number].query.limit)

    return [result(number) for number in range(len(commands))]


class ProgramRun:
    """A retrieval program that runs over one shard.

    Attributes:
        shard: The shard.
        search_step: Its next step, if that is a search in the engine's indexes.
        read_step: Its next step, if that is one that reads points.
    """

    def __init__(self, reader: PointReader, command: Retrieve) -> None:
        self.shard: Shard = reader.shard
        self.search_step: SearchStep[int] | None = None
        self.read_step: CompareTokensStep[int] | ReadPayloadsStep[int] | None = None
        self._reader = reader
        self._filter: Sequence[Condition] = command.filter
        self._explain = command.query.explain
        self._ids: dict[int, Any] = {}
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._truncated = False
        self._outcome: RetrievalOutcome[int] | PenstockError | None = None
        self._program: RetrievalProgram[int] = retrieval_program(command.query)
        self._resume(None)

    def query_requests(self, seek: SearchStep[int]) -> list[qe.QueryRequest]:
        """Return the step's searches as requests to the engine."""
        name = self.shard.sparse_name
        return [
            query_builder.arm_query_request(ask.vector, ask.limit, name, filter=self._filter)
            if ask.among is None
            else query_builder.arm_query_request(ask.vector, ask.limit, name, among=self._named(ask.among))
            for ask in seek.searches
        ]

    def resume_with_hits(self, seek: SearchStep[int], answers: Iterator[Sequence[qe.ScoredPoint]]) -> None:
        """Resume the program with the hits of its searches."""
        self._resume([self._ranking(found) for found in islice(answers, len(seek.searches))])

    def run_read_step(self, step: CompareTokensStep[int] | ReadPayloadsStep[int]) -> None:
        """Read points and resume the program with them."""
        try:
            answer = self._compared(step) if isinstance(step, CompareTokensStep) else self._fetched(step)
        except PenstockError as error:
            self.resume_with_error(error)
        else:
            self._resume(answer)

    def resume_with_error(self, error: PenstockError) -> None:
        """Resume the program with the error of its last step.

        Raises:
            EnginePanicked: The engine panicked.
        """
        if isinstance(error, EnginePanicked):
            raise error
        self._resume(None, error)

    def result(self) -> RetrievalResult | PenstockError:
        """Return the result, or the error that ended the program."""
        if not isinstance(self._outcome, RetrievalOutcome):
            return self._outcome or Broken("a search has not come to its end")
        name = lambda point: str(self._ids[point])  # noqa: E731 - needed here alone
        return to_result(self._outcome, name, self._stages, explain=self._explain, truncated=self._truncated)

    def add_stage_time(self, stage: str, took_ms: float) -> None:
        """Add the time of a step to its stage."""
        self._stages[stage] += took_ms

    def _resume(self, answer: Any, error: PenstockError | None = None) -> None:
        self.search_step = self.read_step = None
        try:
            finished = advance(self._program, answer, error=error)
        except PenstockError as end:
            self._outcome = end
            return
        if isinstance(finished, RetrievalOutcome):
            self._outcome = finished
        elif isinstance(finished, SearchStep):
            self.search_step = finished
        else:
            self.read_step = finished

    def _named(self, points: Sequence[int]) -> list[Any]:
        return [self._ids[point] for point in points]

    def _ranking(self, found: Sequence[qe.ScoredPoint]) -> Ranking[int]:
        ids: list[Any] = [point.id for point in found]
        numbers = [id.int for id in ids]
        self._ids.update(zip(numbers, ids, strict=True))
        return dict(zip(numbers, [point.score for point in found], strict=True))

    def _compared(self, step: CompareTokensStep[int]) -> dict[int, NDArray[np.float32]]:
        tokens = self._reader.fetch_token_vectors(step.points)
        return dict(zip(tokens, max_cosines(step.query_tokens, list(tokens.values())), strict=True))

    def _fetched(self, step: ReadPayloadsStep[int]) -> dict[int, ChunkPayload]:
        read = _read(self._reader, step.points)
        self._truncated = read.truncated
        return read.payloads


def _read(reader: PointReader, points: Sequence[int]) -> HitPayloadReader[int]:
    """Read the payloads that fit into an answer."""
    reading = HitPayloadReader(points)
    while asked := reading.next_batch():
        reading.add(reader.fetch_payloads(asked))
    return reading


def _run_programs(runs: Sequence[ProgramRun]) -> None:
    while active := [run for run in runs if run.search_step or run.read_step]:
        for run in active:
            if run.read_step is not None:
                stage, began_s = stage_of(run.read_step), time.perf_counter()
                run.run_read_step(run.read_step)
                run.add_stage_time(stage, (time.perf_counter() - began_s) * 1000)
        sought = [(run, run.search_step) for run in active if run.search_step is not None]
        began_s = time.perf_counter()
        _run_searches(sought)
        for run, seek in sought:
            run.add_stage_time(stage_of(seek), (time.perf_counter() - began_s) * 1000)


def _run_searches(sought: Sequence[tuple[ProgramRun, SearchStep[int]]]) -> None:
    """Run the searches of some programs as one batch; if that fails, those of each program by themselves."""
    if not sought:
        return
    questions = [question for run, seek in sought for question in run.query_requests(seek)]
    try:
        found = iter(sought[0][0].shard.query_batch(questions))
    except PenstockError as error:
        if len(sought) == 1 or isinstance(error, EnginePanicked):
            sought[0][0].resume_with_error(error)
            return
        for one in sought:
            _run_searches([one])
        return
    for run, seek in sought:
        run.resume_with_hits(seek, found)


# --- Two arms and nothing more: the engine fuses them as well as the program does, and hands out only the hits.


def _is_plain(command: Retrieve) -> bool:
    """Return whether the engine can answer by itself."""
    query = command.query
    both = query.dense is not None and query.sparse is not None
    alike = len({query.weights.get(arm, 1.0) for arm in Arm}) == 1
    return both and alike and query.fusion == "rrf" and not query.rerank and not query.explain


def _is_deep(command: Retrieve) -> bool:
    """Return whether more hits are wanted than the engine is asked for."""
    return command.query.limit > command.query.candidates


def _below(
    first: RetrievalResult, found: RetrievalResult | PenstockError, limit: int
) -> RetrievalResult | PenstockError:
    """Return the engine's hits and below them what a program has found besides, so that no order depends on the limit.

    The two may differ where an arm has equal scores, or by a rounding.
    """
    if isinstance(found, PenstockError) or not first.hits or first.truncated:
        return found if isinstance(found, PenstockError) else first
    shown, lowest = {hit.point for hit in first.hits}, first.hits[-1].score
    rest = (msgspec.structs.replace(hit, score=min(hit.score, lowest)) for hit in found.hits if hit.point not in shown)
    return dataclasses.replace(found, hits=list(islice(chain(first.hits, rest), limit)))


def _fused(reader: PointReader, commands: Sequence[Retrieve]) -> list[RetrievalResult]:
    """Answer searches by one engine query each; nothing if the engine refuses one or cannot read the hits."""
    began_s = time.perf_counter()
    try:
        answers = reader.shard.query_batch([_fusion(reader.shard, command) for command in commands])
        results = [_hits(reader, hits, _weight(command)) for command, hits in zip(commands, answers, strict=True)]
    except EnginePanicked:
        raise
    except PenstockError:
        return []
    stages = {ARMS_STAGE: round((time.perf_counter() - began_s) * 1000, 3)}
    return [RetrievalResult(hits, {}, stages, cut) for hits, cut in results]


def _hits(reader: PointReader, found: Sequence[qe.ScoredPoint], weight: float) -> tuple[list[RetrievedHit], bool]:
    """Return the hits that fit into an answer, and whether some did not."""
    ids: list[Any] = [point.id for point in found]
    read = _read(reader, [id.int for id in ids])
    kept = list(zip(ids, found, strict=True))
    if read.truncated:
        kept = kept[: len(read.payloads)]
    return [
        RetrievedHit(str(id), point.score * weight, read.payloads[id.int], {}) for id, point in kept
    ], read.truncated


def _weight(command: Retrieve) -> float:
    """Return the weight that both arms have."""
    return command.query.weights.get(Arm.DENSE, 1.0)


def _fusion(shard: Shard, command: Retrieve) -> qe.QueryRequest:
    wanted: RetrievalQuery = command.query
    held = query_builder.engine_filter(command.filter) if command.filter else None
    arms = [
        qe.Prefetch(
            wanted.candidates,
            query_builder.nearest_query(vector, shard.sparse_name),
            params=engine_config.SEARCH_PARAMS,
            filter=held,
        )
        for vector in (wanted.dense, wanted.sparse)
        if vector is not None
    ]
    fusion: Any = qe.Fusion.Rrf(ENGINE_RRF_K, ENGINE_WEIGHTS)
    return qe.QueryRequest(
        limit=min(wanted.limit, wanted.candidates),
        prefetches=arms,
        query=fusion,
        with_payload=False,
        with_vector=False,
    )
