"""More like this: a document's own vectors in the place of a query's."""

import numpy as np
import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.search.likeness import CHUNKS_MAX, TERMS_MAX, read_vectors
from penstock.search.request import ArmWeights, Like, SearchRequest
from penstock.stores.commands import UpsertPoints
from penstock.stores.data_model import ChunkPayload, Match, Point
from tests.clock import virtual
from tests.fakes.models import embedding, terms, token_vectors
from tests.unit.search.test_pipeline import House, ids

WORK = Context.background()


def points_of(id: str, *texts: str) -> list[Point]:
    whole = {"hash": "h", "chunks": len(texts)}
    return [
        Point(ChunkPayload(id, n, text, **(whole if n == 0 else {})), embedding(text), terms(text), token_vectors(text))
        for n, text in enumerate(texts)
    ]


async def house_with(*points: Point) -> House:
    house = await House().fill()
    await house.store.run(UpsertPoints("c", list(points)), WORK)
    house.store.asked.clear()
    return house


@virtual
async def test_similar_documents_are_found_and_never_the_document_itself():
    house = await house_with(*points_of("kitten", "the cat sat", "a kitten sat", "parse json"))
    answer = await house.search("", like=Like("kitten", 0))
    assert ids(answer)[0] == "cat"
    assert "kitten" not in ids(answer)
    assert (house.embedder.asked, house.sparse.asked) == ([], [])
    assert ids(await house.search("", like=Like("kitten", 2)))[0] == "parse"


@virtual
async def test_filters_pages_and_groups_apply():
    house = await house_with(*points_of("kitten", "the cat sat"))
    assert ids(await house.search("", like=Like("kitten"), filter=(Match("language", ["d"]),))) == ["dog"]
    first = await house.search("", like=Like("kitten"), limit=1, group="document")
    second = await house.search("", like=Like("kitten"), limit=1, group="document", cursor=first.next)
    assert [*ids(first), *ids(second)] == ids(await house.search("", like=Like("kitten"), limit=2))
    assert first.hits[0].others == []


@virtual
async def test_one_arm_is_enough():
    house = await house_with(*points_of("kitten", "the cat sat"))
    for weights in ({"dense": 0}, {"sparse": 0}):
        answer = await house.search("", like=Like("kitten"), weights=ArmWeights(**weights))
        assert ids(answer)[0] == "cat"


@virtual
async def test_a_document_counts_by_the_mean_of_its_first_chunks():
    texts = [f"word{n} common" for n in range(CHUNKS_MAX + 3)]
    house = await house_with(*points_of("big", *texts))
    found = await read_vectors(house.store, "c", Like("big"), WORK)
    mean = np.mean([embedding(text) for text in texts[:CHUNKS_MAX]], axis=0)
    assert found.dense == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    (common,) = set(terms("common").indices.tolist())
    assert dict(zip(found.sparse.indices.tolist(), found.sparse.values.tolist(), strict=True))[common] == 1.0
    assert found.sparse.indices.tolist() == sorted(found.sparse.indices.tolist())
    assert len(found.sparse.indices) == CHUNKS_MAX + 1


@virtual
async def test_the_terms_are_bounded():
    house = await house_with(*points_of("long", " ".join(f"w{n}" for n in range(500))))
    assert len((await read_vectors(house.store, "c", Like("long"), WORK)).sparse.indices) == TERMS_MAX


@pytest.mark.parametrize(
    ("like", "code", "field"),
    [(Like("absent"), "document_not_found", "like.id"), (Like("cat", 7), "chunk_not_found", "like.chunk")],
)
@virtual
async def test_what_is_not_there_is_refused(like, code, field):
    with pytest.raises(Invalid) as caught:
        await (await House().fill()).search("", like=like)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_a_query_and_a_document_exclude_each_other():
    with pytest.raises(Invalid, match="either query or like") as caught:
        SearchRequest("c", query="q", like=Like("a")).check()
    assert caught.value.field == "like"
