"""A search over a Qdrant server: its round trips, what they carry, and points that others change between searches."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock.kernel.late_interaction import quantize
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.qdrant.server import QdrantServer
from penstock.stores.commands import CreateCollection, DeleteDocuments, Retrieve, SealDocument, UpsertPoints
from penstock.stores.data_model import CollectionInfo, DocumentInfo, Match, Point
from tests.clock import virtual
from tests.contract.shop import WORK, point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import sparse, unit
from tests.fakes.qdrant import FakeQdrant

DIM, LATE, POINTS = 8, 16, 300
THREAD = ThreadPoolExecutor(1)
LUCK = np.random.default_rng(7)


def vector(size: int = DIM) -> np.ndarray:
    return unit(*LUCK.normal(size=size).tolist())


def tokens(rows: int) -> np.ndarray:
    vectors = LUCK.normal(size=(rows, LATE)).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return quantize(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def chunk(id: str, text: str = "some text") -> Point:
    terms = sparse(**{f"t{n}": 1.0 for n in LUCK.choice(9, 3, replace=False)})
    return replace(point(id, dense=vector(), terms=terms, text=text), token_vectors=tokens(40))


QUERY = RetrievalQuery(10, 100, vector(), sparse(t1=1, t2=1), tokens(3), text="some text")


def changed(**fields: Any) -> RetrievalQuery:
    return msgspec.structs.replace(QUERY, **fields)


def serving(fake: FakeQdrant, cache_bytes: int = 10_000_000) -> QdrantServer:
    settings = QdrantSettings(url="http://qdrant")
    make = partial(QdrantServer, settings, TimeoutSettings(), LoopClock(), fake, cache_bytes=cache_bytes)
    # Not on the loop's thread: making a client reads files, which the loop is watched for.
    return THREAD.submit(make).result()


async def filled(fake: FakeQdrant) -> QdrantServer:
    server = serving(fake)
    await server.store.run(CreateCollection(CollectionInfo("c", DIM, "m", token_dim=LATE)), WORK)
    await server.store.run(UpsertPoints("c", [chunk(f"d{n}") for n in range(POINTS)]), WORK)
    return server


async def asked(fake: FakeQdrant, server: QdrantServer, query: RetrievalQuery = QUERY) -> tuple[Any, list[Any], int]:
    """Return a search's hits, its requests beside the one about the collection, and the bytes of its answers."""
    before, sent = len(fake.asked), fake.sent
    found = await server.store.run(Retrieve("c", query, ()), WORK)
    return found.hits, [one for one in fake.asked[before:] if one[0] == "POST"], fake.sent - sent


@pytest.mark.parametrize(
    "fields",
    [{}, {"text": ""}, {"token_vectors": None}, {"rerank": False}, {"sparse": None}, {"dense": None}, {"limit": 50}],
    ids=repr,
)
@virtual
async def test_a_search_takes_two_round_trips_the_first_time_and_again(fields):
    fake = FakeQdrant()
    server, query = await filled(fake), changed(**fields)
    for _ in range(2):
        hits, requests, _ = await asked(fake, server, query)
        assert len(hits) == query.limit
        assert len(requests) == 2, [one[1] for one in requests]


@virtual
async def test_what_has_not_changed_is_not_carried_twice():
    fake = FakeQdrant()
    server = await filled(fake)
    first, _, cold = await asked(fake, server)
    again, requests, warm = await asked(fake, server)
    assert again == first
    assert '"late"' in json.dumps(requests[-1][3]), "what has changed is asked for"
    assert warm < cold / 5


@virtual
async def test_what_another_process_changes_is_never_answered_from_memory():
    fake = FakeQdrant()
    ours, theirs = await filled(fake), serving(fake)
    for turn in range(30):
        hits, requests, _ = await asked(fake, ours)
        assert len(requests) == 2
        fresh, _, _ = await asked(fake, serving(fake, cache_bytes=0))
        assert hits == fresh
        victim = hits[turn % len(hits)].payload
        if turn % 3 == 0:
            await theirs.store.run(UpsertPoints("c", [chunk(victim.id, f"text of turn {turn}")]), WORK)
        elif turn % 3 == 1:
            await theirs.store.run(SealDocument("c", DocumentInfo(victim.id, f"h{turn}", 1)), WORK)
        else:
            await theirs.store.run(DeleteDocuments("c", (Match("id", [victim.id]),)), WORK)


@virtual
async def test_points_that_were_written_without_a_revision_are_read_each_time():
    fake = FakeQdrant()
    server = await filled(fake)
    for payload in fake._local._client.collections["c"].payload:
        payload.pop("rev", None)
    first, _, cold = await asked(fake, server)
    again, _, warm = await asked(fake, server)
    assert again == first
    assert warm == cold


@virtual
async def test_the_memory_is_bounded_and_told():
    fake = FakeQdrant()
    await filled(fake)
    small = serving(fake, cache_bytes=20_000)
    first, _, _ = await asked(fake, small)
    assert (await asked(fake, small))[0] == first
    state = small.caches[0].state()
    assert state.name == "points"
    assert 0 < state.bytes <= 20_000
