"""Points read by id: asked of the engine once, and again after every update that may have changed them."""

import itertools
import random
import tracemalloc

import numpy as np
import pytest

from penstock.kernel.context import point_id
from penstock.kernel.errors import Unavailable
from penstock.kernel.late_interaction import quantize
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge.batch_search import retrieve_batch
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.point_reader import PointReader, point_number
from penstock.stores.backends.point_cache import PointCache
from penstock.stores.commands import DeleteDocuments, Retrieve, SealDocument, TrimDocument, UpsertPoints
from penstock.stores.data_model import ChunkPayload, CollectionInfo, DocumentInfo, Match, Point
from tests.fakes.memory_store import sparse, unit

LATE = 4


def place(document, chunk=0):
    return point_number(point_id(document, chunk))


def chunk(document, number=0, text="x", *, late=True):
    vectors = quantize(np.full((2, LATE), len(text) / 10, np.float32)) if late else None
    return Point(ChunkPayload(id=document, chunk=number, text=text), unit(1, 0), sparse(t1=1), vectors)


@pytest.fixture
def shelf(tmp_path):
    shelf = CollectionRegistry(tmp_path, cache_bytes=1 << 20)
    shelf.create(CollectionInfo("c", 2, "m", token_dim=LATE))
    yield shelf
    shelf.close()


@pytest.fixture
def collection(shelf):
    return shelf.collection("c")


def asked(collection, monkeypatch):
    """Return a list that gets what the engine is asked for."""
    log, shard = [], collection.shard
    tokens, fetch = shard.fetch_token_vectors, shard.fetch_payloads
    monkeypatch.setattr(
        shard, "fetch_token_vectors", lambda points: log.append(("tokens", len(points))) or tokens(points)
    )
    monkeypatch.setattr(shard, "fetch_payloads", lambda points: log.append(("fetch", len(points))) or fetch(points))
    return log


def test_the_engine_is_asked_once_for_a_point(collection, monkeypatch):
    collection.update(UpsertPoints("c", [chunk("a"), chunk("b")]))
    log, reader = asked(collection, monkeypatch), collection.reader
    first = reader.fetch_token_vectors([place("a")]), reader.fetch_payloads([place("a")])
    assert reader.fetch_payloads([place("b"), place("a")]) == {
        place("b"): chunk("b").payload,
        place("a"): chunk("a").payload,
    }
    assert list(reader.fetch_payloads([place("b"), place("a")])) == [place("b"), place("a")]
    again = reader.fetch_token_vectors([place("a")]), reader.fetch_payloads([place("a")])
    assert log == [("tokens", 1), ("fetch", 1), ("fetch", 1)]
    assert again[1] == first[1]
    assert np.array_equal(again[0][place("a")], first[0][place("a")])


def test_points_without_tokens_are_not_asked_for_again(collection, monkeypatch):
    collection.update(UpsertPoints("c", [chunk("a", late=False)]))
    log = asked(collection, monkeypatch)
    assert [collection.reader.fetch_token_vectors([place("a"), place("gone")]) for _ in range(2)] == [{}, {}]
    assert log == [("tokens", 2)]
    collection.update(UpsertPoints("c", [chunk("a"), chunk("gone")]))
    assert list(collection.reader.fetch_token_vectors([place("a"), place("gone")])) == [place("a"), place("gone")]


def test_points_that_do_not_exist_are_left_out_until_they_do(collection):
    assert collection.reader.fetch_payloads([place("a")]) == {}
    collection.update(UpsertPoints("c", [chunk("a")]))
    assert list(collection.reader.fetch_payloads([place("a")])) == [place("a")]


def test_an_update_that_fails_makes_forget_as_well(collection, monkeypatch):
    collection.update(UpsertPoints("c", [chunk("a")]))
    collection.reader.fetch_payloads([place("a")])
    upsert = collection.shard.upsert

    def half(points):
        upsert(points)
        raise Unavailable("the disk is full", dependency="store")

    monkeypatch.setattr(collection.shard, "upsert", half)
    with pytest.raises(Unavailable):
        collection.update(UpsertPoints("c", [chunk("a", text="other")]))
    assert collection.reader.fetch_payloads([place("a")])[place("a")].text == "other"


def test_a_collection_of_the_same_name_is_another(shelf):
    shelf.update(UpsertPoints("c", [chunk("a")]))
    shelf.reader("c").fetch_payloads([place("a")])
    shelf.drop("c")
    shelf.create(CollectionInfo("c", 2, "m", token_dim=LATE))
    assert shelf.reader("c").fetch_payloads([place("a")]) == {}


def test_a_restored_collection_is_another(tmp_path, shelf):
    other = CollectionRegistry(tmp_path / "other")
    other.create(CollectionInfo("c", 2, "m", token_dim=LATE))
    other.update(UpsertPoints("c", [chunk("a", text="restored")]))
    other.close()
    shelf.update(UpsertPoints("c", [chunk("a")]))
    shelf.reader("c").fetch_payloads([place("a")])
    shelf.install("c", tmp_path / "other" / "c", force=True)
    assert shelf.reader("c").fetch_payloads([place("a")])[place("a")].text == "restored"


def test_two_collections_share_a_bound_and_no_points(shelf):
    shelf.create(CollectionInfo("d", 2, "m", token_dim=LATE))
    shelf.update(UpsertPoints("c", [chunk("a", text="of c")]))
    shelf.update(UpsertPoints("d", [chunk("a", text="of d")]))
    assert [shelf.reader(name).fetch_payloads([place("a")])[place("a")].text for name in "cdc"] == [
        "of c",
        "of d",
        "of c",
    ]
    assert shelf.cache.state().entries == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"numbers": [*range(1000, 1400)]},
        {str(n): {"a": [n / 7], "b": None} for n in range(50)},
        {"t": "é" * 9999},
    ],
    ids=["none", "numbers", "nested", "text"],
)
def test_payloads_of_any_metadata_keep_the_bound(collection, shelf, metadata):
    payloads = [ChunkPayload(id=f"d{n}", chunk=0, text="x", metadata=metadata) for n in range(40)]
    for payload in payloads:
        collection.update(UpsertPoints("c", [Point(payload, unit(1, 0), sparse(t1=1))]))
    reader = PointReader(collection.shard, PointCache(1 << 22))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for payload in payloads:
            assert reader.fetch_payloads([place(payload.id)])[place(payload.id)].metadata == metadata
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= reader._cache.state().bytes + 50_000
    assert reader._cache.state().bytes <= 1 << 22


@pytest.mark.parametrize("seed", range(5))
def test_what_is_remembered_is_what_the_engine_says(collection, seed):
    chance, documents, chunks = random.Random(seed), "abcd", 4
    everything = [place(document, n) for document in documents for n in range(chunks)]
    blank = PointReader(collection.shard, PointCache(0))
    for _ in range(60):
        document, kind = chance.choice(documents), chance.randrange(6)
        if kind <= 2:
            text, late = "x" * chance.randrange(1, 9), chance.random() < 0.8
            collection.update(UpsertPoints("c", [chunk(document, chance.randrange(chunks), text, late=late)]))
        elif kind == 3:
            collection.update(TrimDocument("c", document, chance.randrange(chunks)))
        elif kind == 4 and collection.shard.get_documents([document]):
            collection.update(SealDocument("c", DocumentInfo(document, f"h{chance.random()}", 3)))
        elif kind == 5 and chance.random() < 0.3:
            collection.update(DeleteDocuments("c", [Match("id", [document])]))
        some = chance.sample(everything, 8)
        assert collection.reader.fetch_payloads(some) == blank.fetch_payloads(some)
        known, true = collection.reader.fetch_token_vectors(some), blank.fetch_token_vectors(some)
        assert list(known) == list(true)
        assert all(np.array_equal(known[one], true[one]) for one in true)
    assert collection.describe().chunks == len(blank.fetch_payloads(everything))


def test_hits_that_cannot_be_read_spoil_their_own_search_only(collection, monkeypatch):
    collection.update(UpsertPoints("c", [chunk("a"), chunk("b", text="other")]))
    fetch, asked = collection.shard.fetch_payloads, itertools.count()

    def fails_twice(points):
        if next(asked) < 2:
            raise Unavailable("the disk is gone", dependency="store", code="disk")
        return fetch(points)

    monkeypatch.setattr(collection.shard, "fetch_payloads", fails_twice)
    wanted = RetrievalQuery(limit=2, candidates=8, dense=unit(1, 0), sparse=sparse(t1=1), rerank=False)
    spoiled, answered = retrieve_batch(collection.reader, [Retrieve("c", wanted, ())] * 2)
    assert isinstance(spoiled, Unavailable)
    assert {hit.payload.id for hit in answered.hits} == {"a", "b"}
