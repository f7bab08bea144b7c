"""One suite over the contract of ``VectorStore``.

It runs over the fake in memory, the real engine in its process, and Qdrant's client: over the server at ``QDRANT_URL``
where that is set (``qdrant-server``), else over the client's own local mode (``qdrant-local``).
"""

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock.kernel.clock import LoopClock
from penstock.kernel.deadline import Deadline
from penstock.kernel.errors import Expired, Invalid, Unavailable
from penstock.kernel.ids import point_id
from penstock.kernel.late import levels
from penstock.kernel.settings import TimeoutSettings
from penstock.kernel.work import Work
from penstock.ranking.records import Retrieval
from penstock.stores import driving
from penstock.stores.backends.edge import link
from penstock.stores.backends.edge.shards import ShardedStore
from penstock.stores.backends.edge.store import EdgeStore
from penstock.stores.contract import MovableStore
from penstock.stores.records import ArmQuery, ChunkPayload, CollectionInfo, Head, Match, Point, Prefix, Range
from tests.fakes.memory_store import MemoryStore, sparse, unit
from tests.fakes.qdrant import qdrant_server, remove_all

WORK = Work.background()
NUMBERS = itertools.count()

#: Characters that some store, codec or path grammar has stumbled over.
ODD_IDS = [
    "a b",
    "ä/ö",
    "日本語",
    "😀",
    'q"uote',
    "back\\slash",
    "nul\0inside",
    "new\nline",
    "\u202ertl",
    "x" * 4096,
    ".",
]

METADATA: dict[str, dict[str, Any]] = {
    "strings": {"team": "core", "tags": ["a", "b"]},
    "numbers": {"year": 2024, "share": 0.1, "whole": 3.0, "big": 2**63 + 1, "negative": -5},
    "flags": {"draft": True, "nested": {"done": False}, "none": None},
    "times": {"at": "2024-05-01T12:00:00+02:00", "day": "2023-01-31", "list": [1, "2022-02-02", {"x": 7}]},
    "odd": {"a.b": 1, "c[0]": 2, 'q"q': 3, "back\\slash": 4, "ключ": "да", "per%cent": 5, "": 6, " ": 7},
    "colliding": {"facets": ["x"], "scales": {"year": 1}, "id": "other", "hash": "h", "metadata": {"team": "core"}},
    "empty": {},
}


@dataclass(frozen=True)
class Features:
    """What a store does otherwise than the contract says.

    Attributes:
        rarity: Weighs terms by how rare they are in the whole collection.
        wordless: Counts points without a term when it tells how rare one is.
    """

    rarity: bool = True
    wordless: bool = False


#: Qdrant's client asks a server where there is one.
QDRANT = "qdrant-server" if os.environ.get("QDRANT_URL") else "qdrant-local"
QDRANT_FEATURES = Features(wordless=QDRANT == "qdrant-local")


@dataclass
class Shop:
    """A store, the loop that it lives on, and a fresh collection for each test."""

    runner: asyncio.Runner
    store: MovableStore
    features: Features = Features()

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(asyncio.wait_for(coroutine, 30))

    def collection(self) -> str:
        """Return the collection that the tests share, emptied: making one takes the engine 0.3 s."""
        self.do(self.store.create(CollectionInfo("shared", 2, "m"), WORK))
        self.do(self.store.delete("shared", (), WORK))
        return "shared"

    def fresh(self) -> str:
        """Return a collection of its own."""
        name = f"c{next(NUMBERS)}"
        self.do(self.store.create(CollectionInfo(name, 2, "m"), WORK))
        return name

    def put(self, collection: str, *points: Point) -> None:
        self.do(self.store.upsert(collection, points, WORK))

    def found(self, collection: str, *conditions: Any) -> set[str]:
        """Return the ids that dense and sparse search, heads and their filter agree on."""
        dense = self.do(self.store.search(collection, ArmQuery(unit(1, 0), 100, conditions), WORK))
        rare = self.do(self.store.search(collection, ArmQuery(sparse(t1=1), 100, conditions), WORK))
        page = self.do(self.store.heads(collection, conditions, None, 100, WORK))
        assert {s.point for s in dense} == {s.point for s in rare} == {point_id(head.id, 0) for head in page.heads}
        return {head.id for head in page.heads}


@pytest.fixture(scope="module", params=["memory", "edge", "sharded", QDRANT])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with asyncio.Runner() as runner:
        if request.param == "memory":
            yield Shop(runner, MemoryStore())
            return
        if request.param == "sharded":
            sharded = ShardedStore([MemoryStore(), MemoryStore(), MemoryStore()], 3)
            yield Shop(runner, sharded, Features(rarity=False))
            return
        if request.param == QDRANT:
            server = qdrant_server()
            runner.run(server.start())
            yield Shop(runner, server.store, QDRANT_FEATURES)
            runner.run(remove_all(server))
            return
        store = EdgeStore(tmp_path_factory.mktemp("edge"), TimeoutSettings(), LoopClock())
        runner.run(store.start())
        yield Shop(runner, store)
        runner.run(store.close())


def point(id: str, chunk: int = 0, *, dense: Any = None, terms: Any = None, **fields: Any) -> Point:
    payload = ChunkPayload(id=id, chunk=chunk, text=fields.pop("text", f"text of {id}"), **fields)
    return Point(payload, unit(1, 0) if dense is None else dense, sparse(t1=1) if terms is None else terms)


# Collections


def test_a_new_collection_is_empty_and_dated(shop):
    info = shop.do(shop.store.create(CollectionInfo("fresh", 2, "m", late=8), WORK))
    assert (info.name, info.dim, info.late, info.model) == ("fresh", 2, 8, "m")
    assert (info.documents, info.chunks) == (0, 0)
    assert info.created_at.endswith("+00:00")
    assert info in shop.do(shop.store.collections(WORK))


def test_creating_twice_returns_the_collection_that_is_there(shop):
    name = shop.collection()
    shop.put(name, point("a"))
    assert shop.do(shop.store.create(CollectionInfo(name, 2, "m"), WORK)).documents == 1


@pytest.mark.parametrize(
    "other",
    [CollectionInfo("", 3, "m"), CollectionInfo("", 2, "n"), CollectionInfo("", 2, "m", sparse="splade")],
    ids=["dim", "model", "sparse model"],
)
def test_another_layout_is_a_conflict(shop, other):
    name = shop.collection()
    with pytest.raises(Invalid) as caught:
        shop.do(shop.store.create(msgspec.structs.replace(other, name=name), WORK))
    assert (caught.value.code, caught.value.field) == ("collection_conflict", "collection")


@pytest.mark.parametrize("name", ["", ".", "..", ".new-x", "a/b", "a b", "ä", "-a", "x" * 65, "a\0", "a\n"])
def test_bad_names_are_refused(shop, name):
    with pytest.raises(Invalid) as caught:
        shop.do(shop.store.create(CollectionInfo(name, 2, "m"), WORK))
    assert (caught.value.code, caught.value.field) == ("invalid_name", "collection")


def test_collections_are_listed_by_name(shop):
    shop.fresh()
    shop.collection()
    names = [info.name for info in shop.do(shop.store.collections(WORK))]
    assert names == sorted(names)


def test_a_dropped_collection_is_gone_and_may_be_made_anew(shop):
    name = shop.fresh()
    shop.put(name, point("a"))
    shop.do(shop.store.drop(name, WORK))
    with pytest.raises(Invalid):
        shop.do(shop.store.collection(name, WORK))
    assert shop.do(shop.store.create(CollectionInfo(name, 5, "other"), WORK)).chunks == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.collection("absent", WORK),
        lambda store: store.drop("absent", WORK),
        lambda store: store.upsert("absent", [point("a")], WORK),
        lambda store: store.trim("absent", "a", 0, WORK),
        lambda store: store.seal("absent", Head("a", "h", 1), WORK),
        lambda store: store.delete("absent", (), WORK),
        lambda store: store.search("absent", ArmQuery(unit(1, 0), 1), WORK),
        lambda store: store.search_all("absent", [ArmQuery(unit(1, 0), 1)], WORK),
        lambda store: store.tokens("absent", [], WORK),
        lambda store: store.retrieve("absent", WANTED, (), WORK),
        lambda store: store.fetch("absent", [], WORK),
        lambda store: store.heads("absent", (), None, 1, WORK),
        lambda store: store.find("absent", [], WORK),
        lambda store: store.points("absent", None, 1, WORK),
    ],
    ids=[
        "collection",
        "drop",
        "upsert",
        "trim",
        "seal",
        "delete",
        "search",
        "search_all",
        "tokens",
        "retrieve",
        "fetch",
        "heads",
        "find",
        "points",
    ],
)
def test_an_unknown_collection_is_named(shop, ask):
    with pytest.raises(Invalid, match="absent") as caught:
        shop.do(ask(shop.store))
    assert (caught.value.code, caught.value.field) == ("collection_not_found", "collection")


def test_a_passed_deadline_expires(shop):
    late = replace(WORK, deadline=Deadline(0.0, "search"))
    with pytest.raises(Expired) as caught:
        shop.do(shop.store.collections(late))
    assert caught.value.operation == "search"


# Writing


def test_a_point_of_the_same_place_is_replaced(shop):
    name = shop.collection()
    shop.put(name, point("a", text="old", metadata={"v": 1}))
    shop.put(name, point("a", text="new"))
    stored = shop.do(shop.store.fetch(name, [point_id("a", 0)], WORK))[point_id("a", 0)]
    assert (stored.text, stored.metadata) == ("new", {})
    assert shop.found(name, Match("metadata.v", [1])) == set()


def test_what_is_stored_comes_back_whole(shop):
    name = shop.collection()
    payload = ChunkPayload("a", 2, "t\0 \U0001f600", "p/q.py", 3, 9, "A.b", "python", METADATA["odd"], "h", 4)
    shop.put(name, Point(payload, unit(1, 1), sparse(t1=1, t7=2)))
    assert shop.do(shop.store.fetch(name, [point_id("a", 2), point_id("b", 0)], WORK)) == {point_id("a", 2): payload}


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_comes_back_as_it_went_in(shop, kind):
    name = shop.collection()
    shop.put(name, point("a", metadata=METADATA[kind]))
    stored = shop.do(shop.store.fetch(name, [point_id("a", 0)], WORK))[point_id("a", 0)]
    assert stored.metadata == METADATA[kind]
    assert list(stored.metadata) == list(METADATA[kind])


def test_deeply_nested_metadata_harms_nothing(shop):
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    name = shop.collection()
    shop.put(name, point("deep", metadata=deep), point("flat", metadata={"x": 1}))
    assert shop.found(name, Match("metadata.x", [1])) == {"flat"}
    assert shop.found(name, Range("metadata.x", gte=0)) == {"flat"}


def test_trim_deletes_the_surplus_chunks_of_one_document(shop):
    name = shop.collection()
    shop.put(name, *(point(id, chunk) for id in ("a", "b") for chunk in range(4)))
    shop.do(shop.store.trim(name, "a", 2, WORK))
    left = shop.do(shop.store.fetch(name, [point_id(id, chunk) for id in ("a", "b") for chunk in range(4)], WORK))
    assert sorted((payload.id, payload.chunk) for payload in left.values()) == [
        *(("a", chunk) for chunk in range(2)),
        *(("b", chunk) for chunk in range(4)),
    ]


def test_seal_completes_a_head_and_touches_nothing_else(shop):
    name = shop.collection()
    shop.put(name, point("a", path="p", metadata={"k": "v"}), point("a", 1))
    assert shop.do(shop.store.find(name, ["a"], WORK)) == {"a": Head("a", "", 0, "p")}
    shop.do(shop.store.seal(name, Head("a", "hash", 2, "p"), WORK))
    assert shop.do(shop.store.find(name, ["a"], WORK)) == {"a": Head("a", "hash", 2, "p")}
    stored = shop.do(shop.store.fetch(name, [point_id("a", 0)], WORK))[point_id("a", 0)]
    assert (stored.metadata, stored.path, stored.text) == ({"k": "v"}, "p", "text of a")


def test_sealing_a_document_that_was_deleted_meanwhile_is_a_conflict(shop):
    name = shop.collection()
    with pytest.raises(Unavailable) as caught:
        shop.do(shop.store.seal(name, Head("a", "hash", 2), WORK))
    assert caught.value.code == "write_conflict"
    assert shop.do(shop.store.find(name, ["a"], WORK)) == {}


@pytest.mark.parametrize("id", ODD_IDS, ids=[str(n) for n in range(len(ODD_IDS))])
def test_ids_may_be_any_unicode(shop, id):
    name = shop.collection()
    shop.put(name, point(id), point("other"))
    assert set(shop.do(shop.store.find(name, [id, "absent"], WORK))) == {id}
    assert shop.found(name, Match("id", [id])) == {id}
    assert shop.do(shop.store.delete(name, (Match("id", [id]),), WORK)) == 1
    assert shop.found(name) == {"other"}


# Listing


def test_heads_come_in_pages_that_miss_and_repeat_nothing(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}", chunk, path=f"{n % 2}/") for n in range(10) for chunk in range(2)))
    seen, after = [], None
    for _ in range(10):
        page = shop.do(shop.store.heads(name, (Prefix("path", "0/"),), after, 2, WORK))
        assert len(page.heads) <= 2
        seen += [head.id for head in page.heads]
        after = page.next
        if after is None:
            break
    assert sorted(seen) == ["d0", "d2", "d4", "d6", "d8"]


def test_a_page_begins_where_it_should_though_its_first_document_is_gone(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(6)))
    first = shop.do(shop.store.heads(name, (), None, 2, WORK))
    order = [head.id for head in shop.do(shop.store.heads(name, (), None, 100, WORK)).heads]
    shop.do(shop.store.delete(name, (Match("id", [order[2]]),), WORK))
    second = shop.do(shop.store.heads(name, (), first.next, 100, WORK))
    assert [head.id for head in second.heads] == order[3:]


def test_points_come_whole_in_pages_in_the_order_of_their_ids(shop):
    name = with_tokens(shop)
    wanted, seen, after = with_tokens_points(), [], None
    for _ in range(5):
        page = shop.do(shop.store.points(name, after, 2, WORK))
        assert len(page.points) <= 2
        seen += page.points
        after = page.next
        if after is None:
            break
    assert [point_id(one.payload.id, 0) for one in seen] == sorted(point_id(id, 0) for id in wanted)
    for one in seen:
        first = wanted[one.payload.id]
        assert one.payload == first.payload
        assert one.dense.tolist() == first.dense.tolist()
        assert one.sparse.indices.tolist() == first.sparse.indices.tolist()
        assert one.sparse.values.tolist() == first.sparse.values.tolist()
        assert (one.late is None) is (first.late is None)
        assert first.late is None or one.late.tolist() == first.late.tolist()


def test_a_page_of_points_may_begin_where_there_is_none(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(20)))
    places = sorted(point_id(f"d{n}", 0) for n in range(20))
    middle = "80000000-0000-0000-0000-000000000000"
    page = shop.do(shop.store.points(name, middle, 100, WORK))
    assert [point_id(one.payload.id, 0) for one in page.points] == [place for place in places if place >= middle]
    assert page.next is None


# Deleting


@pytest.mark.parametrize(
    ("condition", "gone"),
    [
        (Match("id", ["a", "c", "absent"]), {"a", "c"}),
        (Match("path", ["x/1"]), {"a"}),
        (Prefix("path", "x/"), {"a", "b"}),
        (Match("language", ["go"]), {"c"}),
        (Match("metadata.k", [1]), {"a"}),
        (Range("metadata.k", gte=2), {"b", "c"}),
        (Match("id", ["absent"]), set()),
    ],
    ids=["ids", "path", "prefix", "language", "metadata", "range", "nothing"],
)
def test_delete_takes_every_chunk_and_counts_documents(shop, condition, gone):
    name = shop.collection()
    for chunk in range(3):
        shop.put(
            name,
            point("a", chunk, path="x/1", metadata={"k": 1}),
            point("b", chunk, path="x/2", metadata={"k": 2}),
            point("c", chunk, path="y", language="go", metadata={"k": 3}),
        )
    assert shop.do(shop.store.delete(name, (condition,), WORK)) == len(gone)
    info = shop.do(shop.store.collection(name, WORK))
    assert (info.documents, info.chunks) == (3 - len(gone), 9 - 3 * len(gone))
    assert set(shop.do(shop.store.find(name, ["a", "b", "c"], WORK))) == {"a", "b", "c"} - gone


def test_delete_without_a_condition_empties_the_collection(shop):
    name = shop.collection()
    shop.put(name, point("a"), point("b"))
    assert shop.do(shop.store.delete(name, (), WORK)) == 2
    assert shop.do(shop.store.collection(name, WORK)).chunks == 0


# Searching


def test_dense_search_orders_by_cosine_and_heeds_the_limit(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}", dense=unit(1, n)) for n in range(6)))
    found = shop.do(shop.store.search(name, ArmQuery(unit(1, 0), 4), WORK))
    assert [scored.point for scored in found] == [point_id(f"d{n}", 0) for n in range(4)]
    assert [scored.score for scored in found] == pytest.approx([(1 + n * n) ** -0.5 for n in range(4)], abs=1e-5)


def test_learned_sparse_vectors_score_by_their_weights_alone(shop):
    shop.do(shop.store.create(CollectionInfo("learned", 2, "m", sparse="splade"), WORK))
    shop.put("learned", point("common", terms=sparse(t1=2)), point("rare", terms=sparse(t2=2)))
    shop.put("learned", *[point(f"more-{n}", terms=sparse(t1=1)) for n in range(5)])
    found = shop.do(shop.store.search("learned", ArmQuery(sparse(t1=0.5, t2=0.5), 10), WORK))
    scores = {scored.point: scored.score for scored in found}
    assert scores[point_id("common", 0)] == pytest.approx(1.0)
    assert scores[point_id("rare", 0)] == pytest.approx(1.0)
    assert scores[point_id("more-0", 0)] == pytest.approx(0.5)
    assert shop.do(shop.store.collection("learned", WORK)).sparse == "splade"
    shop.do(shop.store.drop("learned", WORK))


def test_sparse_search_weighs_rare_terms_and_leaves_out_what_shares_none(shop):
    if not shop.features.rarity:
        pytest.skip("each shard weighs terms by their rarity in it")
    name = shop.fresh()
    shop.put(
        name,
        point("both", terms=sparse(t1=1, t2=1)),
        point("rare", terms=sparse(t2=1)),
        point("common", terms=sparse(t1=1)),
        point("again", terms=sparse(t1=1)),
        point("neither", terms=sparse(t3=9)),
        point("wordless", terms=sparse()),
    )
    found = shop.do(shop.store.search(name, ArmQuery(sparse(t1=1, t2=1), 10), WORK))
    names = {point_id(id, 0): id for id in ("both", "rare", "common", "again")}
    assert [names[s.point] for s in found[:2]] == ["both", "rare"]
    assert {names[s.point] for s in found[2:]} == {"common", "again"}
    # Five points have terms, a sixth has none; three hold t1, two hold t2.
    of_five, of_six = [1.41446, 0.87547, 0.53900, 0.53900], [1.72277, 1.02962, 0.69315, 0.69315]
    wanted = of_six if shop.features.wordless else of_five
    assert [s.score for s in found] == pytest.approx(wanted, abs=1e-4)


def test_a_sparse_query_without_a_term_finds_nothing(shop):
    name = shop.collection()
    shop.put(name, point("a"))
    assert shop.do(shop.store.search(name, ArmQuery(sparse(), 10), WORK)) == []


def test_searching_an_empty_collection_finds_nothing(shop):
    assert shop.found(shop.collection()) == set()


@pytest.mark.parametrize("query", [unit(1, 0), sparse(t1=1)], ids=["dense", "sparse"])
def test_among_scores_exactly_the_given_points(shop, query):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(5)))
    wanted = [point_id("d1", 0), point_id("d3", 0), point_id("absent", 0)]
    found = shop.do(shop.store.search(name, ArmQuery(query, 10, among=wanted), WORK))
    assert {scored.point for scored in found} == set(wanted[:2])
    everything = shop.do(shop.store.search(name, ArmQuery(query, 10), WORK))
    exact = {scored.point: scored.score for scored in everything}
    assert {s.point: s.score for s in found} == pytest.approx({place: exact[place] for place in wanted[:2]})
    assert shop.do(shop.store.search(name, ArmQuery(query, 10, among=[]), WORK)) == []


def tokens(*rows: tuple[float, ...]) -> np.ndarray:
    """Return token vectors that point along these rows, whose sums are zero."""
    return levels(np.array([unit(*row) for row in rows], np.float32))


LATE = 16
EAST, NORTH, WEST = (1, -1) * 4 + (0, 0) * 4, (0, 0) * 4 + (1, -1) * 4, (-1, 1) * 4 + (0, 0) * 4


def with_tokens(shop: Shop) -> str:
    """Return a collection of five points, the last without token vectors."""
    name = f"late{next(NUMBERS)}"
    shop.do(shop.store.create(CollectionInfo(name, 2, "m", late=LATE), WORK))
    shop.put(name, *with_tokens_points().values())
    return name


def with_tokens_points() -> dict[str, Point]:
    rows = {"both": (WEST, EAST, NORTH), "east": (EAST,), "mean": ((1, -1) * 8,), "west": (WEST, WEST)}
    made = {id: replace(point(id), late=tokens(*ones)) for id, ones in rows.items()}
    return {**made, "none": point("none")}


def kept(shop, name, *documents):
    """Return the token vectors that a store gives for documents, by their ids."""
    places = {point_id(document, 0): document for document in documents}
    found = shop.do(shop.store.tokens(name, list(places), WORK))
    return {places[place]: vectors.tolist() for place, vectors in found.items()}


def test_token_vectors_come_back_as_they_went_in(shop):
    name = with_tokens(shop)
    both, west = tokens(WEST, EAST, NORTH).tolist(), tokens(WEST, WEST).tolist()
    assert kept(shop, name, "both", "west", "none", "absent") == {"both": both, "west": west}


def test_a_head_that_is_sealed_keeps_its_token_vectors(shop):
    name = with_tokens(shop)
    shop.do(shop.store.seal(name, Head("east", "h", 1), WORK))
    assert kept(shop, name, "east") == {"east": tokens(EAST).tolist()}


def test_a_collection_without_token_vectors_takes_points_with_them_and_keeps_none(shop):
    name = shop.collection()
    shop.put(name, replace(point("a"), late=tokens(EAST)), point("b"))
    assert shop.do(shop.store.collection(name, WORK)).late == 0
    assert kept(shop, name, "a", "b") == {}
    assert shop.found(name) == {"a", "b"}


def test_a_collection_without_token_vectors_stays_as_it_is_when_it_is_made_again_with_them(shop):
    name = shop.collection()
    assert shop.do(shop.store.create(CollectionInfo(name, 2, "m", late=LATE), WORK)).late == 0


WANTED = Retrieval(10, 10, unit(1, 0.2), sparse(t1=1, t2=1), tokens(EAST, NORTH))


@pytest.mark.parametrize(
    "wanted",
    [
        WANTED,
        replace(WANTED, query="text of both", explain=True),
        replace(WANTED, limit=2),
        replace(WANTED, candidates=2),
        replace(WANTED, tokens=None),
        replace(WANTED, fusion="minmax", explain=True),
        replace(WANTED, rerank=False),
        replace(WANTED, rerank=False, limit=2, weights={"dense": 1.0, "sparse": 3.0}),
        replace(WANTED, rerank=False, explain=True),
        replace(WANTED, dense=None),
        replace(WANTED, sparse=None),
    ],
    ids=lambda wanted: " ".join(name for name in ("rerank", "explain", "query") if getattr(wanted, name)) or "plain",
)
@pytest.mark.parametrize("conditions", [(), (Match("id", ["both", "none", "west"]),)], ids=["all", "filtered"])
def test_a_search_is_answered_as_step_by_step(shop, wanted, conditions):
    name = with_tokens(shop)
    turned = {"both": 0.1, "east": 0.3, "mean": 0.6, "none": 1.0, "west": 1.5, "far": 3.0}
    for number, (id, angle) in enumerate(turned.items(), 1):
        late = tokens(EAST if number % 2 else NORTH) if id != "none" else None
        terms = sparse(t1=number, t2=1) if id != "far" else sparse(t3=1)
        shop.put(name, replace(point(id, dense=unit(np.cos(angle), np.sin(angle)), terms=terms), late=late))
    found = shop.do(shop.store.retrieve(name, wanted, conditions, WORK))
    expected = shop.do(driving.retrieve(shop.store, name, wanted, conditions, WORK))
    assert [hit.payload for hit in found.hits] == [hit.payload for hit in expected.hits]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], rel=1e-4)
    assert [hit.places for hit in found.hits] == [hit.places for hit in expected.hits]
    assert bool(found.hits[0].places) is wanted.explain
    assert (found.failures, len(found.hits) <= wanted.limit) == ({}, True)


def test_the_tokens_of_a_search_decide_between_texts_that_are_alike_otherwise(shop):
    found = shop.do(shop.store.retrieve(with_tokens(shop), replace(WANTED, limit=3), (), WORK))
    assert found.hits[0].payload.id == "both"


def test_a_search_of_an_empty_collection_finds_nothing(shop):
    assert shop.do(shop.store.retrieve(shop.collection(), WANTED, (), WORK)).hits == []


def test_several_queries_are_answered_each_in_its_place(shop):
    name = shop.collection()
    shop.put(name, point("a", terms=sparse(t1=1)), point("b", dense=unit(0, 1), terms=sparse(t2=1)))
    queries = [ArmQuery(sparse(t2=1), 5), ArmQuery(unit(1, 0), 1), ArmQuery(sparse(t9=1), 5)]
    answers = shop.do(shop.store.search_all(name, queries, WORK))
    assert [[scored.point for scored in one] for one in answers] == [[point_id("b", 0)], [point_id("a", 0)], []]
    assert answers == [shop.do(shop.store.search(name, query, WORK)) for query in queries]
    assert shop.do(shop.store.search_all(name, [], WORK)) == []


def test_among_and_filter_hold_together(shop):
    name = shop.collection()
    shop.put(name, point("a", language="go"), point("b", language="go"), point("c"))
    query = ArmQuery(unit(1, 0), 10, (Match("language", ["go"]),), [point_id("a", 0), point_id("c", 0)])
    assert [s.point for s in shop.do(shop.store.search(name, query, WORK))] == [point_id("a", 0)]


PATHS = {"root": "", "src": "src", "a": "src/a.py", "ab": "src/ab/c.py", "other": "srcs/d", "umlaut": "sör/é"}


@pytest.mark.parametrize("prefix", ["", "s", "src", "src/", "src/a", "src/ab/", "SRC", "sör", "src/a.py", "/"])
def test_a_path_prefix_is_plain_characters(shop, prefix):
    name = shop.collection()
    shop.put(name, *(point(id, path=path) for id, path in PATHS.items()))
    assert shop.found(name, Prefix("path", prefix)) == {id for id, path in PATHS.items() if path.startswith(prefix)}


FILTERS = [
    (Match("id", ["odd"]), {"odd"}),
    (Match("path", [""]), set(METADATA) - {"strings"}),
    (Match("language", ["go", "c"]), {"strings"}),
    (Match("metadata.team", ["core"]), {"strings"}),
    (Match("metadata.team", ["core", "other", 1, True]), {"strings"}),
    (Match("metadata.team", ["cor"]), set()),
    (Match("metadata.tags", ["b"]), {"strings"}),
    (Match("metadata.year", [2024]), {"numbers"}),
    (Match("metadata.year", [2024.0]), {"numbers"}),
    (Match("metadata.year", ["2024"]), set()),
    (Match("metadata.year", [True]), set()),
    (Match("metadata.share", [0.1]), {"numbers"}),
    (Match("metadata.whole", [3]), {"numbers"}),
    (Match("metadata.big", [2**63 + 1]), {"numbers"}),
    (Match("metadata.negative", [-5]), {"numbers"}),
    (Match("metadata.draft", [True]), {"flags"}),
    (Match("metadata.draft", [False]), set()),
    (Match("metadata.draft", [1]), set()),
    (Match("metadata.draft", ["true"]), set()),
    (Match("metadata.nested.done", [False]), {"flags"}),
    (Match("metadata.none", ["None"]), set()),
    (Match("metadata.list.x", [7]), {"times"}),
    (Match("metadata.list", [1]), {"times"}),
    (Match("metadata.a.b", [1]), {"odd"}),
    (Match("metadata.c[0]", [2]), {"odd"}),
    (Match('metadata.q"q', [3]), {"odd"}),
    (Match("metadata.back\\slash", [4]), {"odd"}),
    (Match("metadata.ключ", ["да"]), {"odd"}),
    (Match("metadata.per%cent", [5]), {"odd"}),
    (Match("metadata.per%25cent", [5]), set()),
    (Match("metadata. ", [7]), {"odd"}),
    (Match("metadata.facets", ["x"]), {"colliding"}),
    (Match("metadata.id", ["other"]), {"colliding"}),
    (Match("metadata.metadata.team", ["core"]), {"colliding"}),
    (Range("metadata.year", gte=2024), {"numbers"}),
    (Range("metadata.year", gt=2024), set()),
    (Range("metadata.year", lt=2024.5, gt=2023.5), {"numbers"}),
    (Range("metadata.share", lte=0.1), {"numbers"}),
    (Range("metadata.negative", lt=0), {"numbers"}),
    (Range("metadata.draft", gte=0), set()),
    (Range("metadata.team", gte=0), set()),
    (Range("metadata.team", gte="2000-01-01T00:00:00+00:00"), set()),
    (Range("metadata.at", gte="2024-05-01T10:00:00+00:00"), {"times"}),
    (Range("metadata.at", gt="2024-05-01T10:00:00+00:00"), set()),
    (Range("metadata.day", lt="2023-02-01T00:00:00+00:00", gte="2023-01-31T00:00:00+00:00"), {"times"}),
    (Range("metadata.day", gte=0), set()),
    (Range("metadata.list", gte=1), {"times"}),
    (Range("metadata.list", lt="2022-02-03T00:00:00+00:00"), {"times"}),
    (Range("metadata.a.b", gte=1), {"odd"}),
    (Range("metadata.c[0]", gte=2), {"odd"}),
    (Range('metadata.q"q', gte=3), {"odd"}),
    (Range("metadata.back\\slash", gte=4), {"odd"}),
    (Range("metadata.per%cent", gte=5), {"odd"}),
    (Range("metadata.scales.year", gte=1), {"colliding"}),
    (Range("metadata.absent", gte=1), set()),
]


@pytest.fixture(scope="module")
def shelf(shop):
    name = shop.fresh()
    for id, metadata in METADATA.items():
        fields = {"path": "p", "language": "go"} if id == "strings" else {}
        shop.put(name, point(id, metadata=metadata, **fields))
    return name


@pytest.mark.parametrize(("condition", "wanted"), FILTERS, ids=[repr(c) for c, _ in FILTERS])
def test_every_kind_of_condition_finds_what_it_says(shop, shelf, condition, wanted):
    assert shop.found(shelf, condition) == wanted


def test_conditions_hold_all_together(shop, shelf):
    year = Match("metadata.year", [2024])
    assert shop.found(shelf, year, Match("metadata.share", [0.1])) == {"numbers"}
    assert shop.found(shelf, year, Match("metadata.team", ["core"])) == set()


def test_a_long_value_is_found_and_not_confused_with_its_like(shop):
    name = shop.collection()
    shop.put(name, point("a", metadata={"k": "x" * 5000}), point("b", metadata={"k": "x" * 4999}))
    assert shop.found(name, Match("metadata.k", ["x" * 5000])) == {"a"}


def test_a_delete_of_ten_thousand_ids_is_one_operation(shop):
    name = shop.collection()
    shop.put(name, point("a"), point("b"))
    assert shop.do(shop.store.delete(name, (Match("id", [f"n{n}" for n in range(9999)] + ["a"]),), WORK)) == 1


# The store process


def edge(tmp_path: Path) -> EdgeStore:
    return EdgeStore(tmp_path, TimeoutSettings(), LoopClock())


def test_a_killed_store_process_fails_who_waits_and_loses_nothing_acknowledged(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            await store.create(CollectionInfo("c", 2, "m"), WORK)
            for n in range(20):
                await store.upsert("c", [point(f"d{n}")], WORK)
            pid = store.link.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            waiting = [asyncio.create_task(store.collection("c", WORK)) for _ in range(3)]
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, Unavailable)
                assert outcome.retryable
            assert (await store.collection("c", WORK)).documents == 20
            assert store.link.pid != pid
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_killed_store_process_comes_back_though_nobody_asks(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            os.kill(store.link.pid or 0, signal.SIGKILL)
            # The listener ends with the process and leaves a mender.
            await asyncio.wait_for(store.link._listener, 30)
            await asyncio.wait_for(store.link._mender, 30)
            assert store.link.alive
            assert await store.collections(WORK) == []
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_closed_store_stays_closed(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        await store.close()
        assert not store.link.alive
        with pytest.raises(Unavailable, match="closed"):
            await store.collections(WORK)
        await store.close()

    asyncio.run(scenario())


def test_what_was_stored_is_there_after_a_restart(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        await store.create(CollectionInfo("c", 2, "m"), WORK)
        await store.upsert("c", [point("a", metadata=METADATA["odd"])], WORK)
        await store.close()
        again = edge(tmp_path)
        await again.start()
        assert (await again.find("c", ["a"], WORK)).keys() == {"a"}
        await again.close()

    asyncio.run(scenario())


def test_two_stores_on_one_directory_are_told_apart_by_a_clear_code(tmp_path, monkeypatch):
    monkeypatch.setattr(link, "LOCKED_TRIES", 2)
    monkeypatch.setattr(link, "LOCKED_PAUSE_S", 0.01)

    async def scenario() -> None:
        first, second = edge(tmp_path), edge(tmp_path)
        await first.start()
        try:
            await first.create(CollectionInfo("c", 2, "m"), WORK)
            with pytest.raises(Unavailable, match="another process") as caught:
                await second.start()
            assert caught.value.code == "store_locked"
            assert not second.link.alive
            assert (await first.collection("c", WORK)).name == "c"
        finally:
            await first.close()
        await second.start()
        assert [info.name for info in await second.collections(WORK)] == ["c"]
        await second.close()

    asyncio.run(scenario())


def test_many_searches_at_once_are_answered_each_with_its_own(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            await store.create(CollectionInfo("c", 2, "m"), WORK)
            await store.upsert("c", [point(f"d{n}", language=f"l{n}") for n in range(50)], WORK)
            queries = [ArmQuery(unit(1, 0), 5, (Match("language", [f"l{n}"]),)) for n in range(50)]
            found = await asyncio.gather(*(store.search("c", query, WORK) for query in queries))
            assert [[s.point for s in hits] for hits in found] == [[point_id(f"d{n}", 0)] for n in range(50)]
            # One bad query among good ones spoils its own answer only.
            bad = ArmQuery(unit(1, 0, 0), 5)
            mixed = await asyncio.gather(
                store.search("c", queries[0], WORK),
                store.search("c", bad, WORK),
                store.search("c", queries[1], WORK),
                return_exceptions=True,
            )
            assert isinstance(mixed[1], Exception)
            assert [s.point for s in mixed[0]] == [point_id("d0", 0)]
            assert [s.point for s in mixed[2]] == [point_id("d1", 0)]
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_search_tells_the_time_of_its_stages(shop):
    name = with_tokens(shop)
    whole = shop.do(shop.store.retrieve(name, WANTED, (), WORK)).stages
    assert set(whole) == {"arms", "rerank", "fetch"}
    fused = shop.do(shop.store.retrieve(name, replace(WANTED, rerank=False), (), WORK)).stages
    assert "arms" in fused
    assert "rerank" not in fused
    assert all(took_ms >= 0 for took_ms in (whole | fused).values())
