"""Whole searches where the points are: many courses side by side, the steps of all of them as one batch.

What the ranking sees of a point is the number in its id: numbers are compared and looked up several times quicker than
the id itself.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, PenstockError
from penstock.kernel.late import maxima
from penstock.ranking.course import ARMS, Course, advance, course, stage_of
from penstock.ranking.fusion import RRF_K, TIE_SHARE
from penstock.ranking.records import Arm, Compare, Outcome, Ranking, Read, Retrieval, Seek
from penstock.stores.backends.edge import asking, packing, tuning, wire
from penstock.stores.backends.edge.engine import Panicked, Shard
from penstock.stores.backends.edge.reader import PointReader
from penstock.stores.driving import told
from penstock.stores.reading import HitReading
from penstock.stores.records import ChunkPayload, Condition, Found

#: The engine counts ranks from 0.
ENGINE_RRF_K: Final = RRF_K + 1

#: The engine divides the rank by what it calls a weight. It puts equal scores in an order that changes from answer to
#: answer: none may be equal.
ENGINE_WEIGHTS: Final = [1.0, 1 / (1 + TIE_SHARE)]


def retrieve(reader: PointReader, commands: Sequence[wire.Retrieve]) -> list[wire.Retrieved | PenstockError]:
    """Answer searches of one collection, or say why one cannot be answered.

    Raises:
        Panicked: The engine did; none is answered.
    """
    results: dict[int, wire.Retrieved | PenstockError] = {}
    plain = [number for number, command in enumerate(commands) if _is_plain(command)]
    if plain:
        results.update(zip(plain, _fused(reader, [commands[number] for number in plain]), strict=False))
    others = [Going(reader, command) for number, command in enumerate(commands) if number not in results]
    _drive(others)
    rest = iter(others)
    return [results[number] if number in results else next(rest).result() for number in range(len(commands))]


class Going:
    """A course over a shard.

    Args:
        reader: Reads the shard's points.
        command: What is wanted.

    Attributes:
        shard: The shard.
        seek: Its next step, if that is a question to the engine's indexes.
        read: Its next step, if that is one that reads points.
    """

    def __init__(self, reader: PointReader, command: wire.Retrieve) -> None:
        self.shard: Shard = reader.shard
        self.seek: Seek[int] | None = None
        self.read: Compare[int] | Read[int] | None = None
        self._reader = reader
        self._filter: list[Condition] = command.filter
        self._explain = command.explain
        self._ids: dict[int, Any] = {}
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._cut = False
        self._end: Outcome[int] | PenstockError | None = None
        self._course: Course[int] = course(packing.unpack_retrieval(command))
        self._go(None)

    def questions(self, seek: Seek[int]) -> list[qe.QueryRequest]:
        """Return what is sought."""
        name = self.shard.sparse
        return [
            asking.question(ask.vector, ask.limit, name, filter=self._filter)
            if ask.among is None
            else asking.question(ask.vector, ask.limit, name, among=self._named(ask.among))
            for ask in seek.asks
        ]

    def found(self, seek: Seek[int], answers: Iterator[Sequence[qe.ScoredPoint]]) -> None:
        """Go on with what was found for the questions."""
        self._go([self._ranking(found) for found in islice(answers, len(seek.asks))])

    def look_up(self, step: Compare[int] | Read[int]) -> None:
        """Read points, and go on."""
        try:
            answer = self._compared(step) if isinstance(step, Compare) else self._fetched(step)
        except PenstockError as error:
            self.fail(error)
        else:
            self._go(answer)

    def fail(self, error: PenstockError) -> None:
        """Go on without what could not be done.

        Raises:
            Panicked: The engine did.
        """
        if isinstance(error, Panicked):
            raise error
        self._go(None, error)

    def result(self) -> wire.Retrieved | PenstockError:
        """Return how it ended."""
        if not isinstance(self._end, Outcome):
            return self._end or Broken("a search has not come to its end")
        name = lambda point: str(self._ids[point])  # noqa: E731 - needed here alone
        found = told(self._end, name, self._stages, explain=self._explain, cut=self._cut)
        failures = {what: wire.failure_of(error) for what, error in found.failures.items()}
        return wire.Retrieved(found.hits, failures, dict(found.stages), found.cut)

    def took(self, stage: str, took_ms: float) -> None:
        """Count the time of a step."""
        self._stages[stage] += took_ms

    def _go(self, answer: Any, error: PenstockError | None = None) -> None:
        self.seek = self.read = None
        try:
            went = advance(self._course, answer, error=error)
        except PenstockError as end:
            self._end = end
            return
        if isinstance(went, Outcome):
            self._end = went
        elif isinstance(went, Seek):
            self.seek = went
        else:
            self.read = went

    def _named(self, points: Sequence[int]) -> list[Any]:
        return [self._ids[point] for point in points]

    def _ranking(self, found: Sequence[qe.ScoredPoint]) -> Ranking[int]:
        ids: list[Any] = [point.id for point in found]
        numbers = [id.int for id in ids]
        self._ids.update(zip(numbers, ids, strict=True))
        return dict(zip(numbers, [point.score for point in found], strict=True))

    def _compared(self, step: Compare[int]) -> dict[int, NDArray[np.float32]]:
        tokens = self._reader.tokens(step.points)
        return dict(zip(tokens, maxima(step.tokens, list(tokens.values())), strict=True))

    def _fetched(self, step: Read[int]) -> dict[int, ChunkPayload]:
        read = _read(self._reader, step.points)
        self._cut = read.cut
        return read.payloads


def _read(reader: PointReader, points: Sequence[int]) -> HitReading[int]:
    """Read the payloads that fit into an answer."""
    reading = HitReading(points)
    while asked := reading.points():
        reading.take(reader.fetch(asked))
    return reading


def _drive(goings: Sequence[Going]) -> None:
    """Take courses to their ends, step by step together."""
    while active := [going for going in goings if going.seek or going.read]:
        for going in active:
            if going.read is not None:
                stage, began_s = stage_of(going.read), time.perf_counter()
                going.look_up(going.read)
                going.took(stage, (time.perf_counter() - began_s) * 1000)
        sought = [(going, going.seek) for going in active if going.seek is not None]
        began_s = time.perf_counter()
        _seek(sought)
        for going, seek in sought:
            going.took(stage_of(seek), (time.perf_counter() - began_s) * 1000)


def _seek(sought: Sequence[tuple[Going, Seek[int]]]) -> None:
    """Put the questions of some courses as one batch; if it fails, those of each by themselves."""
    if not sought:
        return
    questions = [question for going, seek in sought for question in going.questions(seek)]
    try:
        found = iter(sought[0][0].shard.query(questions))
    except PenstockError as error:
        if len(sought) == 1 or isinstance(error, Panicked):
            sought[0][0].fail(error)
            return
        for one in sought:
            _seek([one])
        return
    for going, seek in sought:
        going.found(seek, found)


# --- Two arms and nothing more: the engine fuses them as well as the course does, and hands out only the hits.


def _is_plain(command: wire.Retrieve) -> bool:
    """Return whether the engine can answer by itself."""
    both = command.dense is not None and command.sparse is not None
    alike = len({command.weights.get(arm, 1.0) for arm in Arm}) == 1
    return both and alike and command.fusion == "rrf" and not command.rerank and not command.explain


def _fused(reader: PointReader, commands: Sequence[wire.Retrieve]) -> list[wire.Retrieved]:
    """Answer searches by one question each; nothing if the engine does not like one, or cannot read the hits."""
    began_s = time.perf_counter()
    try:
        answers = reader.shard.query([_fusion(reader.shard, command) for command in commands])
        results = [_hits(reader, hits, _weight(command)) for command, hits in zip(commands, answers, strict=True)]
    except Panicked:
        raise
    except PenstockError:
        return []
    stages = {ARMS: round((time.perf_counter() - began_s) * 1000, 3)}
    return [wire.Retrieved(hits, {}, stages, cut) for hits, cut in results]


def _hits(reader: PointReader, found: Sequence[qe.ScoredPoint], weight: float) -> tuple[list[Found], bool]:
    """Return the hits that fit into an answer, and whether some did not."""
    ids: list[Any] = [point.id for point in found]
    read = _read(reader, [id.int for id in ids])
    kept = list(zip(ids, found, strict=True))
    if read.cut:
        kept = kept[: len(read.payloads)]
    return [Found(str(id), point.score * weight, read.payloads[id.int], {}) for id, point in kept], read.cut


def _weight(command: wire.Retrieve) -> float:
    """Return the weight that both arms have."""
    return command.weights.get(Arm.DENSE, 1.0)


def _fusion(shard: Shard, command: wire.Retrieve) -> qe.QueryRequest:
    wanted: Retrieval = packing.unpack_retrieval(command)
    held = asking.conditions(command.filter) if command.filter else None
    arms = [
        qe.Prefetch(wanted.candidates, asking.nearest(vector, shard.sparse), params=tuning.SEARCHING, filter=held)
        for vector in (wanted.dense, wanted.sparse)
        if vector is not None
    ]
    fusion: Any = qe.Fusion.Rrf(ENGINE_RRF_K, ENGINE_WEIGHTS)
    return qe.QueryRequest(
        limit=wanted.limit,
        prefetches=arms,
        query=fusion,
        with_payload=False,
        with_vector=False,
    )
