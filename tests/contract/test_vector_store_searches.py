"""The contract of ``VectorStore`` where it is searched: arms, whole searches, conditions."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from msgspec.structs import replace

from penstock.kernel.context import point_id
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores import program_runner
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    FetchPayloads,
    FetchTokenVectors,
    Retrieve,
    SealDocument,
    SearchBatch,
)
from penstock.stores.data_model import (
    INTEGER_MAX,
    INTEGER_MIN,
    ArmQuery,
    CollectionInfo,
    DocumentInfo,
    Except,
    Match,
    Prefix,
    Range,
)
from tests.contract.shop import (
    EAST,
    LATE,
    METADATA,
    NORTH,
    WANTED,
    WEST,
    WORK,
    point,
    tokens,
    with_tokens,
)
from tests.fakes.memory_store import search_arm, sparse, unit


def test_dense_search_orders_by_cosine_and_heeds_the_limit(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}", dense=unit(1, n)) for n in range(6)))
    found = shop.do(search_arm(shop.store, name, ArmQuery(unit(1, 0), 4), WORK))
    assert [scored.point for scored in found] == [point_id(f"d{n}", 0) for n in range(4)]
    assert [scored.score for scored in found] == pytest.approx([(1 + n * n) ** -0.5 for n in range(4)], abs=1e-5)


def test_learned_sparse_vectors_score_by_their_weights_alone(shop):
    shop.do(shop.store.run(CreateCollection(CollectionInfo("learned", 2, "m", sparse="splade")), WORK))
    shop.put("learned", point("common", terms=sparse(t1=2)), point("rare", terms=sparse(t2=2)))
    shop.put("learned", *[point(f"more-{n}", terms=sparse(t1=1)) for n in range(5)])
    found = shop.do(search_arm(shop.store, "learned", ArmQuery(sparse(t1=0.5, t2=0.5), 10), WORK))
    scores = {scored.point: scored.score for scored in found}
    assert scores[point_id("common", 0)] == pytest.approx(1.0)
    assert scores[point_id("rare", 0)] == pytest.approx(1.0)
    assert scores[point_id("more-0", 0)] == pytest.approx(0.5)
    assert shop.do(shop.store.run(DescribeCollection("learned"), WORK)).sparse == "splade"
    shop.do(shop.store.run(DropCollection("learned"), WORK))


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
    found = shop.do(search_arm(shop.store, name, ArmQuery(sparse(t1=1, t2=1), 10), WORK))
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
    assert shop.do(search_arm(shop.store, name, ArmQuery(sparse(), 10), WORK)) == []


def test_searching_an_empty_collection_finds_nothing(shop):
    assert shop.found(shop.collection()) == set()


@pytest.mark.parametrize("query", [unit(1, 0), sparse(t1=1)], ids=["dense", "sparse"])
def test_among_scores_exactly_the_given_points(shop, query):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(5)))
    wanted = [point_id("d1", 0), point_id("d3", 0), point_id("absent", 0)]
    found = shop.do(search_arm(shop.store, name, ArmQuery(query, 10, among=wanted), WORK))
    assert {scored.point for scored in found} == set(wanted[:2])
    everything = shop.do(search_arm(shop.store, name, ArmQuery(query, 10), WORK))
    exact = {scored.point: scored.score for scored in everything}
    assert {s.point: s.score for s in found} == pytest.approx({place: exact[place] for place in wanted[:2]})
    assert shop.do(search_arm(shop.store, name, ArmQuery(query, 10, among=[]), WORK)) == []


def kept(shop, name, *documents):
    """Return the token vectors that a store gives for documents, by their ids."""
    places = {point_id(document, 0): document for document in documents}
    found = shop.do(shop.store.run(FetchTokenVectors(name, list(places)), WORK))
    return {places[place]: vectors.tolist() for place, vectors in found.items()}


def test_token_vectors_come_back_as_they_went_in(shop):
    name = with_tokens(shop)
    both, west = tokens(WEST, EAST, NORTH).tolist(), tokens(WEST, WEST).tolist()
    assert kept(shop, name, "both", "west", "none", "absent") == {"both": both, "west": west}


def test_a_head_that_is_sealed_keeps_its_token_vectors(shop):
    name = with_tokens(shop)
    shop.do(shop.store.run(SealDocument(name, DocumentInfo("east", "h", 1)), WORK))
    assert kept(shop, name, "east") == {"east": tokens(EAST).tolist()}


def test_a_collection_without_token_vectors_takes_points_with_them_and_keeps_none(shop):
    name = shop.collection()
    shop.put(name, dataclasses.replace(point("a"), token_vectors=tokens(EAST)), point("b"))
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).token_dim == 0
    assert kept(shop, name, "a", "b") == {}
    assert shop.found(name) == {"a", "b"}


def test_a_collection_without_token_vectors_stays_as_it_is_when_it_is_made_again_with_them(shop):
    name = shop.collection()
    assert shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m", token_dim=LATE)), WORK)).token_dim == 0


@pytest.mark.parametrize(
    "wanted",
    [
        WANTED,
        replace(WANTED, text="text of both", explain=True),
        replace(WANTED, limit=2),
        replace(WANTED, candidates=2),
        replace(WANTED, token_vectors=None),
        replace(WANTED, fusion="minmax", explain=True),
        replace(WANTED, rerank=False),
        replace(WANTED, rerank=False, limit=2, weights={"dense": 1.0, "sparse": 3.0}),
        replace(WANTED, rerank=False, explain=True),
        replace(WANTED, dense=None),
        replace(WANTED, sparse=None),
    ],
    ids=lambda wanted: " ".join(name for name in ("rerank", "explain", "text") if getattr(wanted, name)) or "plain",
)
@pytest.mark.parametrize("conditions", [(), (Match("id", ["both", "none", "west"]),)], ids=["all", "filtered"])
def test_a_search_is_answered_as_step_by_step(shop, wanted, conditions):
    name = with_tokens(shop)
    turned = {"both": 0.1, "east": 0.3, "mean": 0.6, "none": 1.0, "west": 1.5, "far": 3.0}
    for number, (id, angle) in enumerate(turned.items(), 1):
        late = tokens(EAST if number % 2 else NORTH) if id != "none" else None
        terms = sparse(t1=number, t2=1) if id != "far" else sparse(t3=1)
        shop.put(
            name,
            dataclasses.replace(point(id, dense=unit(np.cos(angle), np.sin(angle)), terms=terms), token_vectors=late),
        )
    found = shop.do(shop.store.run(Retrieve(name, wanted, conditions), WORK))
    expected = shop.do(program_runner.run_retrieval(shop.store, Retrieve(name, wanted, conditions), WORK))
    assert [hit.payload for hit in found.hits] == [hit.payload for hit in expected.hits]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], rel=1e-4)
    assert [hit.stage_ranks for hit in found.hits] == [hit.stage_ranks for hit in expected.hits]
    assert bool(found.hits[0].stage_ranks) is wanted.explain
    assert (found.failures, len(found.hits) <= wanted.limit) == ({}, True)


def test_the_tokens_of_a_search_decide_between_texts_that_are_alike_otherwise(shop):
    found = shop.do(shop.store.run(Retrieve(with_tokens(shop), replace(WANTED, limit=3), ()), WORK))
    assert found.hits[0].payload.id == "both"


def test_a_search_of_an_empty_collection_finds_nothing(shop):
    assert shop.do(shop.store.run(Retrieve(shop.collection(), WANTED, ()), WORK)).hits == []


def test_several_queries_are_answered_each_in_its_place(shop):
    name = shop.collection()
    shop.put(name, point("a", terms=sparse(t1=1)), point("b", dense=unit(0, 1), terms=sparse(t2=1)))
    queries = [ArmQuery(sparse(t2=1), 5), ArmQuery(unit(1, 0), 1), ArmQuery(sparse(t9=1), 5)]
    answers = shop.do(shop.store.run(SearchBatch(name, queries), WORK))
    assert [[scored.point for scored in one] for one in answers] == [[point_id("b", 0)], [point_id("a", 0)], []]
    assert answers == [shop.do(search_arm(shop.store, name, query, WORK)) for query in queries]
    assert shop.do(shop.store.run(SearchBatch(name, []), WORK)) == []


def test_among_and_filter_hold_together(shop):
    name = shop.collection()
    shop.put(name, point("a", language="go"), point("b", language="go"), point("c"))
    query = ArmQuery(unit(1, 0), 10, (Match("language", ["go"]),), [point_id("a", 0), point_id("c", 0)])
    assert [s.point for s in shop.do(search_arm(shop.store, name, query, WORK))] == [point_id("a", 0)]


PATHS = {"root": "", "src": "src", "a": "src/a.py", "ab": "src/ab/c.py", "other": "srcs/d", "umlaut": "sör/é"}


@pytest.mark.parametrize("prefix", ["", "s", "src", "src/", "src/a", "src/ab/", "SRC", "sör", "src/a.py", "/"])
def test_a_path_prefix_is_plain_characters(shop, prefix):
    name = shop.collection()
    shop.put(name, *(point(id, path=path) for id, path in PATHS.items()))
    assert shop.found(name, Prefix("path", prefix)) == {id for id, path in PATHS.items() if path.startswith(prefix)}


#: The integers that are kept exactly, at their borders and where doubles begin to round.
BORDERS = (INTEGER_MIN, -(2**53) - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, INTEGER_MAX)


@pytest.mark.parametrize("rerank", [True, False])
def test_a_longer_answer_begins_as_the_shorter_though_many_chunks_are_equal(shop, rerank):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}", dense=unit(1, n % 5), terms=sparse(t1=1, t2=n % 3 + 1)) for n in range(90)))
    query = RetrievalQuery(1, 8, unit(1, 0), sparse(t1=1, t2=1), rerank=rerank)
    answers = []
    for limit in (1, 5, 8, 9, 16, 30, 90):
        found = shop.do(shop.store.run(Retrieve(name, replace(query, limit=limit)), WORK)).hits
        assert len(found) == limit
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        answers.append([hit.point for hit in found])
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(answers))
    assert len(set(answers[-1])) == 90


def test_documents_can_be_left_out(shop):
    name = shop.collection()
    odd = "/srv/a b:ü\n"
    shop.put(name, point("a"), point("b"), point(odd))
    assert shop.found(name, Except("id", ["a"])) == {"b", odd}
    assert shop.found(name, Except("id", ["a", odd]), Match("id", ["a", "b"])) == {"b"}
    assert shop.found(name, Except("id", ["absent"])) == {"a", "b", odd}


def test_integers_of_64_bits_come_back_and_are_found_as_they_went_in(shop):
    name = shop.collection()
    kept = {f"n{place}": {"v": number, "in": [{"v": number}]} for place, number in enumerate(BORDERS)}
    shop.put(name, *(point(id, metadata=metadata) for id, metadata in kept.items()))
    # Some stores compare ranges as doubles: only what is exact there is the same everywhere.
    exact = {id for id, metadata in kept.items() if float(metadata["v"]) == metadata["v"]}
    for id, metadata in kept.items():
        assert shop.found(name, Match("metadata.v", [metadata["v"]])) == {id}
        place = point_id(id, 0)
        assert shop.do(shop.store.run(FetchPayloads(name, [place]), WORK))[place].metadata == metadata
        if id in exact:
            above = {other for other in exact if kept[other]["v"] >= metadata["v"]}
            assert shop.found(name, Range("metadata.v", gte=metadata["v"])) & exact == above


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
    assert (
        shop.do(shop.store.run(DeleteDocuments(name, (Match("id", [f"n{n}" for n in range(9999)] + ["a"]),)), WORK))
        == 1
    )


def test_a_search_tells_the_time_of_its_stages(shop):
    name = with_tokens(shop)
    whole = shop.do(shop.store.run(Retrieve(name, WANTED, ()), WORK)).stages
    assert set(whole) == {"arms", "rerank", "fetch"}
    fused = shop.do(shop.store.run(Retrieve(name, replace(WANTED, rerank=False), ()), WORK)).stages
    assert "arms" in fused
    assert "rerank" not in fused
    assert all(took_ms >= 0 for took_ms in (whole | fused).values())
