"""The embedded engine beside Qdrant's client: the same documents, the same queries, the same hits.

The client asks the server at ``QDRANT_URL`` where that is set, else its own local mode; the test's id says which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from penstock.kernel.context import Context, point_id
from penstock.kernel.late_interaction import quantize
from penstock.kernel.settings import TimeoutSettings
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    FetchPayloads,
    FetchTokenVectors,
    GetDocuments,
    ListCollections,
    ListDocuments,
    Retrieve,
    SealDocument,
    SearchBatch,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    DocumentInfo,
    Filter,
    Match,
    Point,
    Prefix,
    Range,
)
from tests.contract.shop import QDRANT_VERSIONS
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm
from tests.fakes.qdrant import qdrant_server, remove_all

WORK = Context.background()
DIM, LATE, DOCUMENTS, CHUNKS, TERMS = 32, 16, 60, 3, 40
LANGUAGES = ("python", "go", "", "markdown")

FILTERS: dict[str, Filter] = {
    "none": (),
    "language": (Match("language", ["python", "go"]),),
    "prefix": (Prefix("path", "src/1"),),
    "metadata": (Match("metadata.team", ["core"]),),
    "range": (Range("metadata.year", gte=2021, lt=2024),),
    "times": (Range("metadata.at", gte="2024-01-01T00:00:00+00:00", lt="2024-01-20T00:00:00+00:00"),),
    "both": (Match("metadata.team", ["core"]), Range("metadata.year", gt=2022)),
    "nothing": (Match("id", ["absent"]),),
}


@dataclass
class Pair:
    """The embedded store and the other, and the loop that both live on."""

    runner: asyncio.Runner
    embedded: VectorStore
    other: VectorStore

    def both(self, ask: Any) -> tuple[Any, Any]:
        """Ask both the same."""
        return self.runner.run(ask(self.embedded)), self.runner.run(ask(self.other))

    def same(self, ask: Any) -> Any:
        """Ask both the same and return what both answer."""
        embedded, other = self.both(ask)
        assert embedded == other
        return embedded


class Texts:
    """Documents out of nothing, always the same."""

    def __init__(self) -> None:
        self._luck = np.random.default_rng(11)

    def dense(self) -> np.ndarray:
        vector = self._luck.normal(size=DIM).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def sparse(self, terms: int) -> SparseVector:
        indices = self._luck.choice(TERMS, terms, replace=False).astype(np.uint32)
        return SparseVector(indices, self._luck.uniform(0.5, 2, terms).astype(np.float32))

    def tokens(self, rows: int) -> np.ndarray:
        vectors = self._luck.normal(size=(rows, LATE)).astype(np.float32)
        vectors -= vectors.mean(axis=1, keepdims=True)
        return quantize(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def point(self, document: int, chunk: int) -> Point:
        payload = ChunkPayload(
            id=f"d{document}",
            chunk=chunk,
            text=f"text {document}.{chunk}",
            path=f"src/{document}.py",
            language=LANGUAGES[document % 4],
            metadata={
                "team": ("core", "web")[document % 2],
                "year": 2020 + document % 5,
                "at": f"2024-01-{document % 28 + 1:02}",
            },
        )
        return Point(payload, self.dense(), self.sparse(6), self.tokens(int(self._luck.integers(1, 5))))


@pytest.fixture(scope="module", params=QDRANT_VERSIONS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    embedded = EdgeStore(tmp_path_factory.mktemp("edge"), TimeoutSettings(), LoopClock())
    with asyncio.Runner() as runner:
        server = qdrant_server(QDRANT_VERSIONS[request.param])
        runner.run(embedded.start())
        runner.run(server.start())
        yield Pair(runner, embedded, server.store)
        runner.run(remove_all(server))
        runner.run(embedded.close())


@dataclass
class Shelf:
    """What both stores hold.

    Attributes:
        texts: Where it comes from.
        rarity: Whether both weigh terms alike. The engine counts what it has overwritten or deleted until it builds
            its segments anew, the client's local mode does not; vectors that say themselves what a term is worth are
            free of it.
        gone: Documents that were deleted.
    """

    texts: Texts
    rarity: bool
    gone: int


@pytest.fixture(scope="module", params=["new", "changed", "changed, learned"])
def shelf(request: pytest.FixtureRequest, pair: Pair) -> Shelf:
    """Write the documents to both stores, then change some as an index run does: rewritten, cut, sealed, deleted."""
    changed, learned = request.param.startswith("changed"), request.param.endswith("learned")
    made = Texts()
    points = [made.point(document, chunk) for document in range(DOCUMENTS) for chunk in range(CHUNKS)]
    again = [made.point(document, 0) for document in range(0, DOCUMENTS, 7)]
    heads = [DocumentInfo(f"d{document}", f"h{document}", CHUNKS) for document in range(0, DOCUMENTS, 2)]

    async def fill(store: VectorStore) -> int:
        if "c" in [one.name for one in await store.run(ListCollections(), WORK)]:
            await store.run(DropCollection("c"), WORK)
        await store.run(
            CreateCollection(CollectionInfo("c", DIM, "m", token_dim=LATE, sparse="splade" if learned else "")), WORK
        )
        for first in range(0, len(points), 50):
            await store.run(UpsertPoints("c", points[first : first + 50]), WORK)
        for head in heads:
            await store.run(SealDocument("c", head), WORK)
        if not changed:
            return 0
        await store.run(UpsertPoints("c", again), WORK)
        await store.run(TrimDocument("c", "d3", 1), WORK)
        return await store.run(
            DeleteDocuments("c", (Match("language", ["markdown"]), Range("metadata.year", lt=2022))), WORK
        )

    gone = pair.same(fill)
    assert gone == (6 if changed else 0)
    return Shelf(made, learned or not changed, gone)


def alike(embedded: Any, other: Any) -> None:
    """Hits are the same, in the same order, with the same scores."""
    assert [hit.point for hit in embedded] == [hit.point for hit in other]
    assert [hit.score for hit in embedded] == pytest.approx([hit.score for hit in other], abs=1e-4, rel=1e-4)


@pytest.mark.parametrize("name", FILTERS)
def test_both_find_the_same_by_either_arm(pair, shelf, name):
    for _ in range(10):
        for vector in (shelf.texts.dense(), shelf.texts.sparse(4)):
            alone = isinstance(vector, SparseVector) and not shelf.rarity
            query = ArmQuery(vector, 1000 if alone else 25, FILTERS[name])
            embedded, other = pair.both(lambda store, query=query: search_arm(store, "c", query, WORK))
            if alone:
                assert {hit.point for hit in embedded} == {hit.point for hit in other}
            else:
                alike(embedded, other)
            assert bool(embedded) is (name != "nothing")


def test_both_score_the_same_candidates_alike_in_one_trip(pair, shelf):
    texts = shelf.texts
    for _ in range(10):
        found = pair.runner.run(search_arm(pair.embedded, "c", ArmQuery(texts.dense(), 40), WORK))
        among = [hit.point for hit in found]
        vectors = [texts.dense(), *([texts.sparse(5)] if shelf.rarity else [])]
        queries = [ArmQuery(vector, len(among), among=among) for vector in vectors]
        embedded, other = pair.both(lambda store, queries=queries: store.run(SearchBatch("c", queries), WORK))
        for one, two in zip(embedded, other, strict=True):
            alike(one, two)
        assert len(embedded[0]) == len(among)


def alike_but_for_ties(embedded: Any, other: Any) -> None:
    """As :func:`alike`, but hits of one score in any order: ranks 1 and 3 are worth as much as 3 and 1."""
    assert [hit.score for hit in embedded] == pytest.approx([hit.score for hit in other], abs=1e-4, rel=1e-4)
    if embedded:
        least = embedded[-1].score + 1e-4
        above = [{hit.point: hit.payload for hit in hits if hit.score > least} for hits in (embedded, other)]
        assert above[0] == above[1]


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("name", FILTERS)
def test_both_answer_a_search_alike(pair, shelf, name, rerank):
    texts = shelf.texts
    for _ in range(10):
        words = texts.sparse(5) if shelf.rarity else None
        wanted = RetrievalQuery(10, 40, texts.dense(), words, texts.tokens(6), rerank=rerank)
        embedded, other = pair.both(lambda store, wanted=wanted: store.run(Retrieve("c", wanted, FILTERS[name]), WORK))
        alike_but_for_ties(embedded.hits, other.hits)


@pytest.mark.parametrize("name", FILTERS)
def test_both_list_the_same_heads_in_the_same_pages(pair, shelf, name):
    after, seen = None, 0
    for _ in range(DOCUMENTS):
        page = pair.same(lambda store, after=after: store.run(ListDocuments("c", FILTERS[name], after, 7), WORK))
        seen += len(page.documents)
        after = page.next
        if after is None:
            break
    assert (seen > 0) is (name != "nothing")


def test_both_hold_the_same_points(pair, shelf):
    places = [point_id(f"d{document}", chunk) for document in range(DOCUMENTS) for chunk in range(CHUNKS)]
    payloads = pair.same(lambda store: store.run(FetchPayloads("c", places), WORK))
    embedded, other = pair.both(lambda store: store.run(FetchTokenVectors("c", places), WORK))
    assert embedded.keys() == other.keys() == payloads.keys()
    assert all(np.array_equal(embedded[place], other[place]) for place in embedded)
    documents = [f"d{document}" for document in range(DOCUMENTS)]
    assert pair.same(lambda store: store.run(GetDocuments("c", documents), WORK))


def test_both_count_the_same(pair, shelf):
    one, two = pair.both(lambda store: store.run(DescribeCollection("c"), WORK))
    assert (one.documents, one.chunks) == (two.documents, two.chunks) == (DOCUMENTS - shelf.gone, len_of(pair))
    assert (one.dim, one.model, one.token_dim, one.sparse) == (two.dim, two.model, two.token_dim, two.sparse)


def len_of(pair: Pair) -> int:
    places = [point_id(f"d{document}", chunk) for document in range(DOCUMENTS) for chunk in range(CHUNKS)]
    return len(pair.runner.run(pair.embedded.run(FetchPayloads("c", places), WORK)))
