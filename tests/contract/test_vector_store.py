"""One suite over the contract of ``VectorStore``: collections, writing, listing, deleting.

Searching has a module of its own. What it runs over is told by ``tests/contract/shop.py``.
"""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from penstock.kernel.context import Deadline, point_id
from penstock.kernel.errors import Expired, Invalid, Unavailable
from penstock.stores.commands import (
    AddVectors,
    CountDocuments,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    DropSource,
    FetchPayloads,
    FetchPoints,
    FetchTokenVectors,
    GetDocuments,
    ListCollections,
    ListDocuments,
    ListPending,
    ListSources,
    PutSource,
    ReplaceSparse,
    Retrieve,
    ScrollPoints,
    SealDocument,
    SearchBatch,
    SetTextVersion,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.data_model import (
    TEXT_FOLDED,
    TEXT_PLAIN,
    ArmQuery,
    ChunkPayload,
    ChunkVectors,
    CollectionInfo,
    DocumentInfo,
    Match,
    PendingChunk,
    Point,
    Prefix,
    Range,
    SparseReplacement,
)
from penstock.stores.sources import SourceFailure, SourceRecord, SourceRoot, SourceRun
from tests.contract.shop import (
    METADATA,
    WANTED,
    WORK,
    point,
    with_tokens,
    with_tokens_points,
)
from tests.fakes.memory_store import sparse, unit

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

# Collections


def test_a_new_collection_is_empty_and_dated(shop):
    info = shop.do(shop.store.run(CreateCollection(CollectionInfo("fresh", 2, "m", token_dim=8)), WORK))
    assert (info.name, info.dim, info.token_dim, info.model) == ("fresh", 2, 8, "m")
    assert (info.documents, info.chunks) == (0, 0)
    assert info.created_at.endswith("+00:00")
    assert info in shop.do(shop.store.run(ListCollections(), WORK))


def test_creating_twice_returns_the_collection_that_is_there(shop):
    name = shop.collection()
    shop.put(name, point("a"))
    assert shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK)).documents == 1


@pytest.mark.parametrize("version", [TEXT_PLAIN, TEXT_FOLDED])
def test_a_collection_keeps_the_version_of_its_text(shop, version):
    name = shop.fresh()
    shop.do(shop.store.run(DropCollection(name), WORK))
    shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m", text=version)), WORK))
    again = CreateCollection(CollectionInfo(name, 2, "m", text=TEXT_FOLDED))
    assert shop.do(shop.store.run(again, WORK)).text == version
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).text == version


def test_the_version_of_a_text_is_recorded(shop):
    name = shop.fresh()
    for text, renewing in ((TEXT_PLAIN, True), (TEXT_FOLDED, False)):
        for _ in range(2):
            shop.do(shop.store.run(SetTextVersion(name, text, renewing), WORK))
        info = shop.do(shop.store.run(DescribeCollection(name), WORK))
        assert (info.text, info.renewing, info.model, info.dim) == (text, renewing, "m", 2)


def test_sparse_vectors_are_replaced_and_nothing_else(shop):
    name = shop.collection()
    one, other = point("a"), point("b")
    shop.put(name, one, other)
    replaced = [SparseReplacement("a", 0, sparse(t77=2.0)), SparseReplacement("gone", 3, sparse(t77=1.0))]
    shop.do(shop.store.run(ReplaceSparse(name, replaced), WORK))
    found = {p.payload.id: p for p in shop.do(shop.store.run(ScrollPoints(name, None, 10), WORK)).points}
    assert sorted(found) == ["a", "b"]
    assert (found["a"].sparse.indices.tolist(), found["a"].sparse.values.tolist()) == ([77], [2.0])
    assert found["b"].sparse.indices.tolist() == other.sparse.indices.tolist()
    assert found["a"].payload == one.payload
    assert found["a"].dense.tolist() == pytest.approx(one.dense.tolist())
    (hits,) = shop.do(shop.store.run(SearchBatch(name, [ArmQuery(sparse(t77=1.0), 5)]), WORK))
    assert [hit.point for hit in hits] == [point_id("a", 0)]


# Chunks without dense vectors


def pending(document: str, chunk: int = 0, *, digest: str = "h1") -> Point:
    whole = point(document, chunk)
    payload = msgspec.structs.replace(whole.payload, pending=digest)
    return replace(whole, payload=payload, dense=None, token_vectors=None)


def vectors_for(one: Point, *, digest: str = "") -> ChunkVectors:
    payload = one.payload
    return ChunkVectors(payload.id, payload.chunk, digest or payload.pending, unit(1.0, 0.0))


def listed(shop: Any, name: str, limit: int = 10) -> list[tuple[str, int]]:
    found, after = [], None
    while True:
        page = shop.do(shop.store.run(ListPending(name, (), after, limit), WORK))
        found += [(one.document_id, one.chunk) for one in page.chunks]
        after = page.next
        if after is None:
            return sorted(found)


def test_a_chunk_without_a_dense_vector_is_found_by_words_and_listed_until_it_has_one(shop):
    name = shop.collection()
    one, other = pending("a"), point("b")
    shop.put(name, one, other)
    info = shop.do(shop.store.run(DescribeCollection(name), WORK))
    assert (info.documents, info.chunks, info.pending) == (2, 2, 1)
    by_words = ArmQuery(one.sparse, 5)
    by_meaning = ArmQuery(unit(1.0, 0.0), 5)
    words, meaning = shop.do(shop.store.run(SearchBatch(name, [by_words, by_meaning]), WORK))
    assert point_id("a", 0) in {hit.point for hit in words}
    assert {hit.point for hit in meaning} == {point_id("b", 0)}
    (read,) = shop.do(shop.store.run(FetchPoints(name, [point_id("a", 0)]), WORK))
    assert (read.dense, read.token_vectors, read.payload) == (None, None, one.payload)
    page = shop.do(shop.store.run(ListPending(name, (), None, 5), WORK))
    assert page.chunks == [PendingChunk("a", 0, one.payload.path, one.payload.language)]
    shop.do(shop.store.run(AddVectors(name, [vectors_for(one)]), WORK))
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).pending == 0
    assert listed(shop, name) == []
    (meaning,) = shop.do(shop.store.run(SearchBatch(name, [by_meaning]), WORK))
    assert {hit.point for hit in meaning} == {point_id("a", 0), point_id("b", 0)}
    (read,) = shop.do(shop.store.run(FetchPoints(name, [point_id("a", 0)]), WORK))
    assert read.payload == msgspec.structs.replace(one.payload, pending="")
    assert read.sparse.indices.tolist() == one.sparse.indices.tolist()


def test_vectors_of_a_text_that_has_changed_or_gone_are_not_taken(shop):
    name = shop.collection()
    shop.put(name, pending("a", digest="h2"), point("b"))
    stale = [vectors_for(pending("a"), digest="h1"), vectors_for(pending("b")), vectors_for(pending("gone"))]
    shop.do(shop.store.run(AddVectors(name, stale), WORK))
    shop.do(shop.store.run(AddVectors(name, []), WORK))
    info = shop.do(shop.store.run(DescribeCollection(name), WORK))
    assert (info.chunks, info.pending) == (2, 1)
    (kept,) = shop.do(shop.store.run(FetchPoints(name, [point_id("b", 0)]), WORK))
    assert kept.dense.tolist() == pytest.approx(point("b").dense.tolist())


def test_pending_chunks_are_counted_through_every_kind_of_write(shop):
    name = shop.collection()

    def count() -> int:
        return shop.do(shop.store.run(DescribeCollection(name), WORK)).pending

    assert count() == 0
    shop.put(name, *[pending("a", number) for number in range(5)], pending("b"), point("c"))
    assert count() == 6
    shop.put(name, pending("a", 1), point("a", 2), pending("c"))
    assert count() == 6
    shop.do(shop.store.run(AddVectors(name, [vectors_for(pending("a", 1)), vectors_for(pending("a", 2))]), WORK))
    assert count() == 5
    shop.do(shop.store.run(TrimDocument(name, "a", 4), WORK))
    assert count() == 4
    shop.do(shop.store.run(DeleteDocuments(name, (Match("id", ["b", "c"]),)), WORK))
    assert count() == 2
    assert listed(shop, name, limit=1) == [("a", 0), ("a", 3)]
    some = shop.do(shop.store.run(ListPending(name, (Match("id", ["b"]),), None, 5), WORK))
    assert (some.chunks, some.next) == ([], None)


def test_sealing_a_document_leaves_its_chunks_pending(shop):
    name = shop.collection()
    shop.put(name, pending("a"))
    shop.do(shop.store.run(SealDocument(name, DocumentInfo("a", "h1", 1)), WORK))
    shop.do(shop.store.run(AddVectors(name, [vectors_for(pending("a"))]), WORK))
    head = shop.do(shop.store.run(GetDocuments(name, ["a"]), WORK))["a"]
    assert (head.hash, head.chunks) == ("h1", 1)


def test_replacing_sparse_vectors_of_points_that_are_gone_does_nothing(shop):
    name = shop.collection()
    shop.do(shop.store.run(ReplaceSparse(name, [SparseReplacement("gone", 3, sparse(t77=1.0))]), WORK))
    shop.do(shop.store.run(ReplaceSparse(name, []), WORK))
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).chunks == 0


@pytest.mark.parametrize(
    "other",
    [CollectionInfo("", 3, "m"), CollectionInfo("", 2, "n"), CollectionInfo("", 2, "m", sparse="splade")],
    ids=["dim", "model", "sparse model"],
)
def test_another_layout_is_a_conflict(shop, other):
    name = shop.collection()
    with pytest.raises(Invalid) as caught:
        shop.do(shop.store.run(CreateCollection(msgspec.structs.replace(other, name=name)), WORK))
    assert (caught.value.code, caught.value.field) == ("collection_conflict", "collection")


@pytest.mark.parametrize("name", ["", ".", "..", ".new-x", "a/b", "a b", "ä", "-a", "x" * 65, "a\0", "a\n"])
def test_bad_names_are_refused(shop, name):
    with pytest.raises(Invalid) as caught:
        shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK))
    assert (caught.value.code, caught.value.field) == ("invalid_name", "collection")


def test_collections_are_listed_by_name(shop):
    shop.fresh()
    shop.collection()
    names = [info.name for info in shop.do(shop.store.run(ListCollections(), WORK))]
    assert names == sorted(names)


def test_a_dropped_collection_is_gone_and_may_be_made_anew(shop):
    name = shop.fresh()
    shop.put(name, point("a"))
    shop.do(shop.store.run(DropCollection(name), WORK))
    with pytest.raises(Invalid):
        shop.do(shop.store.run(DescribeCollection(name), WORK))
    assert shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 5, "other")), WORK)).chunks == 0


@pytest.mark.parametrize(
    "command",
    [
        DescribeCollection("absent"),
        DropCollection("absent"),
        UpsertPoints("absent", [point("a")]),
        TrimDocument("absent", "a", 0),
        SealDocument("absent", DocumentInfo("a", "h", 1)),
        DeleteDocuments("absent", ()),
        SearchBatch("absent", [ArmQuery(unit(1, 0), 1)]),
        FetchTokenVectors("absent", []),
        Retrieve("absent", WANTED, ()),
        FetchPayloads("absent", []),
        ListDocuments("absent", (), None, 1),
        GetDocuments("absent", []),
        ScrollPoints("absent", None, 1),
        CountDocuments("absent", ()),
        FetchPoints("absent", [point_id("a", 0)]),
        ListSources("absent"),
        PutSource("absent", SourceRecord("s")),
        DropSource("absent", "s"),
    ],
    ids=lambda command: command.operation,
)
def test_an_unknown_collection_is_named(shop, command):
    with pytest.raises(Invalid, match="absent") as caught:
        shop.do(shop.store.run(command, WORK))
    assert (caught.value.code, caught.value.field) == ("collection_not_found", "collection")


def test_a_passed_deadline_expires(shop):
    late = replace(WORK, deadline=Deadline(0.0, "search"))
    with pytest.raises(Expired) as caught:
        shop.do(shop.store.run(ListCollections(), late))
    assert caught.value.operation == "search"


# Writing


def test_a_point_of_the_same_place_is_replaced(shop):
    name = shop.collection()
    shop.put(name, point("a", text="old", metadata={"v": 1}))
    shop.put(name, point("a", text="new"))
    stored = shop.do(shop.store.run(FetchPayloads(name, [point_id("a", 0)]), WORK))[point_id("a", 0)]
    assert (stored.text, stored.metadata) == ("new", {})
    assert shop.found(name, Match("metadata.v", [1])) == set()


def test_what_is_stored_comes_back_whole(shop):
    name = shop.collection()
    payload = ChunkPayload("a", 2, "t\0 \U0001f600", "p/q.py", 3, 9, "A.b", "python", METADATA["odd"], "h", 4)
    shop.put(name, Point(payload, unit(1, 1), sparse(t1=1, t7=2)))
    assert shop.do(shop.store.run(FetchPayloads(name, [point_id("a", 2), point_id("b", 0)]), WORK)) == {
        point_id("a", 2): payload
    }


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_comes_back_as_it_went_in(shop, kind):
    name = shop.collection()
    shop.put(name, point("a", metadata=METADATA[kind]))
    stored = shop.do(shop.store.run(FetchPayloads(name, [point_id("a", 0)]), WORK))[point_id("a", 0)]
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
    shop.do(shop.store.run(TrimDocument(name, "a", 2), WORK))
    left = shop.do(
        shop.store.run(FetchPayloads(name, [point_id(id, chunk) for id in ("a", "b") for chunk in range(4)]), WORK)
    )
    assert sorted((payload.id, payload.chunk) for payload in left.values()) == [
        *(("a", chunk) for chunk in range(2)),
        *(("b", chunk) for chunk in range(4)),
    ]


def test_seal_completes_a_head_and_touches_nothing_else(shop):
    name = shop.collection()
    shop.put(name, point("a", path="p", metadata={"k": "v"}), point("a", 1))
    assert shop.do(shop.store.run(GetDocuments(name, ["a"]), WORK)) == {"a": DocumentInfo("a", "", 0, "p")}
    shop.do(shop.store.run(SealDocument(name, DocumentInfo("a", "hash", 2, "p")), WORK))
    assert shop.do(shop.store.run(GetDocuments(name, ["a"]), WORK)) == {"a": DocumentInfo("a", "hash", 2, "p")}
    stored = shop.do(shop.store.run(FetchPayloads(name, [point_id("a", 0)]), WORK))[point_id("a", 0)]
    assert (stored.metadata, stored.path, stored.text) == ({"k": "v"}, "p", "text of a")


def test_sealing_a_document_that_was_deleted_meanwhile_is_a_conflict(shop):
    name = shop.collection()
    with pytest.raises(Unavailable) as caught:
        shop.do(shop.store.run(SealDocument(name, DocumentInfo("a", "hash", 2)), WORK))
    assert caught.value.code == "write_conflict"
    assert shop.do(shop.store.run(GetDocuments(name, ["a"]), WORK)) == {}


@pytest.mark.parametrize("id", ODD_IDS, ids=[str(n) for n in range(len(ODD_IDS))])
def test_ids_may_be_any_unicode(shop, id):
    name = shop.collection()
    shop.put(name, point(id), point("other"))
    assert set(shop.do(shop.store.run(GetDocuments(name, [id, "absent"]), WORK))) == {id}
    assert shop.found(name, Match("id", [id])) == {id}
    assert shop.do(shop.store.run(DeleteDocuments(name, (Match("id", [id]),)), WORK)) == 1
    assert shop.found(name) == {"other"}


# Listing


def test_heads_come_in_pages_that_miss_and_repeat_nothing(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}", chunk, path=f"{n % 2}/") for n in range(10) for chunk in range(2)))
    seen, after = [], None
    for _ in range(10):
        page = shop.do(shop.store.run(ListDocuments(name, (Prefix("path", "0/"),), after, 2), WORK))
        assert len(page.documents) <= 2
        seen += [head.id for head in page.documents]
        after = page.next
        if after is None:
            break
    assert sorted(seen) == ["d0", "d2", "d4", "d6", "d8"]


def test_a_page_begins_where_it_should_though_its_first_document_is_gone(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(6)))
    first = shop.do(shop.store.run(ListDocuments(name, (), None, 2), WORK))
    order = [head.id for head in shop.do(shop.store.run(ListDocuments(name, (), None, 100), WORK)).documents]
    shop.do(shop.store.run(DeleteDocuments(name, (Match("id", [order[2]]),)), WORK))
    second = shop.do(shop.store.run(ListDocuments(name, (), first.next, 100), WORK))
    assert [head.id for head in second.documents] == order[3:]


def test_points_come_whole_in_pages_in_the_order_of_their_ids(shop):
    name = with_tokens(shop)
    wanted, seen, after = with_tokens_points(), [], None
    for _ in range(5):
        page = shop.do(shop.store.run(ScrollPoints(name, after, 2), WORK))
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
        assert (one.token_vectors is None) is (first.token_vectors is None)
        assert first.token_vectors is None or one.token_vectors.tolist() == first.token_vectors.tolist()


def test_a_page_of_points_may_begin_where_there_is_none(shop):
    name = shop.collection()
    shop.put(name, *(point(f"d{n}") for n in range(20)))
    places = sorted(point_id(f"d{n}", 0) for n in range(20))
    middle = "80000000-0000-0000-0000-000000000000"
    page = shop.do(shop.store.run(ScrollPoints(name, middle, 100), WORK))
    assert [point_id(one.payload.id, 0) for one in page.points] == [place for place in places if place >= middle]
    assert page.next is None


def test_points_are_fetched_whole_by_their_ids(shop):
    name = with_tokens(shop)
    wanted = with_tokens_points()["both"]
    (one,) = shop.do(shop.store.run(FetchPoints(name, [point_id("both", 0), point_id("absent", 0)]), WORK))
    assert (one.payload, one.dense.tolist()) == (wanted.payload, wanted.dense.tolist())
    assert one.sparse.indices.tolist() == wanted.sparse.indices.tolist()
    assert one.token_vectors.tolist() == wanted.token_vectors.tolist()


def test_a_head_tells_its_source(shop):
    name = shop.collection()
    shop.put(name, point("s:a", source="s"), point("s:b"))
    heads = shop.do(shop.store.run(GetDocuments(name, ["s:a", "s:b"]), WORK))
    assert {id: head.source for id, head in heads.items()} == {"s:a": "s", "s:b": ""}
    assert shop.found(name, Match("source", ["s"])) == {"s:a"}


# Sources


def test_records_of_sources_are_kept_by_name_and_go_with_the_collection(shop):
    name = shop.fresh()
    run = SourceRun(1, 2, 3, 4, 5, [SourceFailure("a/\u202eb", "too_large")])
    first = SourceRecord("π r²", [SourceRoot("host", "/p/q", "2026-01-01")], "c0ffee", "2026-01-02", run)
    for source in (SourceRecord("s"), first, SourceRecord("s", commit="new")):
        shop.do(shop.store.run(PutSource(name, source), WORK))
    assert shop.do(shop.store.run(ListSources(name), WORK)) == [SourceRecord("s", commit="new"), first]
    shop.do(shop.store.run(DropSource(name, "s"), WORK))
    shop.do(shop.store.run(DropSource(name, "absent"), WORK))
    assert shop.do(shop.store.run(ListSources(name), WORK)) == [first]
    shop.put(name, point("a"))
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).documents == 1
    shop.do(shop.store.run(DropCollection(name), WORK))
    shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK))
    assert shop.do(shop.store.run(ListSources(name), WORK)) == []


# Deleting


@pytest.mark.parametrize(
    ("condition", "gone"),
    [
        (Match("id", ["a", "c", "absent"]), {"a", "c"}),
        (Match("path", ["x/1"]), {"a"}),
        (Prefix("path", "x/"), {"a", "b"}),
        (Match("language", ["go"]), {"c"}),
        (Match("source", ["s"]), {"a"}),
        (Match("metadata.k", [1]), {"a"}),
        (Range("metadata.k", gte=2), {"b", "c"}),
        (Match("id", ["absent"]), set()),
    ],
    ids=["ids", "path", "prefix", "language", "source", "metadata", "range", "nothing"],
)
def test_delete_takes_every_chunk_and_counts_documents(shop, condition, gone):
    name = shop.collection()
    for chunk in range(3):
        shop.put(
            name,
            point("a", chunk, path="x/1", source="s", metadata={"k": 1}),
            point("b", chunk, path="x/2", metadata={"k": 2}),
            point("c", chunk, path="y", language="go", metadata={"k": 3}),
        )
    assert shop.do(shop.store.run(CountDocuments(name, (condition,)), WORK)) == len(gone)
    assert shop.do(shop.store.run(DeleteDocuments(name, (condition,)), WORK)) == len(gone)
    info = shop.do(shop.store.run(DescribeCollection(name), WORK))
    assert (info.documents, info.chunks) == (3 - len(gone), 9 - 3 * len(gone))
    assert set(shop.do(shop.store.run(GetDocuments(name, ["a", "b", "c"]), WORK))) == {"a", "b", "c"} - gone


def test_delete_without_a_condition_empties_the_collection(shop):
    name = shop.collection()
    shop.put(name, point("a"), point("b"))
    assert shop.do(shop.store.run(DeleteDocuments(name, ()), WORK)) == 2
    assert shop.do(shop.store.run(DescribeCollection(name), WORK)).chunks == 0
