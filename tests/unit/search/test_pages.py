"""Pages of an answer: what a cursor continues, and what it refuses."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.search.grouping import group_by_document, ranked_groups
from penstock.search.pages import Page, make_cursor, requested_page
from penstock.search.request import CURSOR, LIMIT_MAX, SearchRequest
from penstock.stores.commands import DeleteDocuments, UpsertPoints
from penstock.stores.data_model import ChunkPayload, Match, Point, RetrievedHit
from tests.clock import virtual
from tests.fakes.models import embedding, terms, token_vectors
from tests.unit.search.test_pipeline import House

WORK = Context.background()
REQUEST = SearchRequest("c", query="cat")
POINTS = [f"point-{number}" for number in range(20)]


def point(id: str, text: str, chunk: int = 0) -> Point:
    return Point(ChunkPayload(id, chunk, text), embedding(text), terms(text), token_vectors(text))


async def house_of(documents: int, chunks: int = 1) -> House:
    house = await House(candidates=8).fill()
    text = "cat number {} of {}"
    points = [point(f"d{n:02}", text.format(n % 7, part), part) for n in range(documents) for part in range(chunks)]
    await house.store.run(UpsertPoints("c", points), WORK)
    return house


async def pages(house: House, **wishes):
    """Return the hits of every page, by document and chunk."""
    found, cursor = [], None
    while True:
        result = await house.search("cat", cursor=cursor, **wishes)
        found.append([(hit.id, hit.chunk) for hit in result.hits])
        assert "page_shifted" not in result.degraded
        cursor = result.next
        if cursor is None:
            return found


def test_a_cursor_names_the_next_page():
    cursor = make_cursor(REQUEST, 10, POINTS[9])
    page = requested_page(msgspec.structs.replace(REQUEST, cursor=cursor, limit=3, explain=True, strict=True))
    assert page.begin == 10
    assert page.find_begin(POINTS) == (10, False)


def test_a_page_goes_on_after_the_last_hit_shown_wherever_that_is_now():
    page = requested_page(msgspec.structs.replace(REQUEST, cursor=make_cursor(REQUEST, 10, POINTS[9])))
    assert page.find_begin(["new", *POINTS]) == (11, True)
    assert page.find_begin(POINTS[3:]) == (7, True)
    assert page.find_begin(POINTS[:5]) == (10, True)
    assert page.find_begin([]) == (10, True)
    assert Page(0).find_begin([]) == (0, False)


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c[1:] + "A", lambda c: c + "AAAA", lambda c: "é" + c[1:]]
)
def test_a_cursor_that_was_cut_or_changed_is_refused(change):
    cursor = change(make_cursor(REQUEST, 10, "p"))
    with pytest.raises(Invalid, match="cut or changed") as caught:
        requested_page(msgspec.structs.replace(REQUEST, cursor=cursor))
    assert (caught.value.code, caught.value.field) == ("invalid_cursor", "cursor")


@pytest.mark.parametrize(
    "wishes",
    [{"query": "dog"}, {"rerank": False}, {"group": "document"}, {"fusion": "minmax"}, {"collection": "d"}],
    ids=str,
)
def test_a_cursor_of_another_search_is_refused(wishes):
    other = msgspec.structs.replace(REQUEST, **wishes)
    with pytest.raises(Invalid, match="another search"):
        requested_page(msgspec.structs.replace(other, cursor=make_cursor(REQUEST, 10, "p")))


@pytest.mark.parametrize(
    "wishes", [{}, {"group": "document"}, {"rerank": False}, {"group": "document", "rerank": False}]
)
@virtual
async def test_pages_neither_repeat_nor_skip_a_hit(wishes):
    house = await house_of(40, chunks=3)
    whole = [(hit.id, hit.chunk) for hit in (await house.search("cat", limit=1000, **wishes)).hits]
    found = await pages(house, limit=7, **wishes)
    assert [one for page in found for one in page] == whole
    assert len(set(whole)) == len(whole) == (44 if "group" in wishes else 124)
    assert {len(page) for page in found[:-1]} == {7}


@virtual
async def test_an_offset_leaves_out_hits_and_adds_to_a_cursor():
    house = await house_of(20)
    whole = (await house.search("cat", limit=20)).hits
    assert (await house.search("cat", limit=5, offset=3)).hits == whole[3:8]
    cursor = (await house.search("cat", limit=5)).next
    assert (await house.search("cat", limit=5, cursor=cursor, offset=2)).hits == whole[7:12]
    assert (await house.search("cat", offset=999)).hits == []


@virtual
async def test_no_hit_is_given_below_the_last_place():
    house = await house_of(LIMIT_MAX + 20)
    answer = await house.search("cat", limit=LIMIT_MAX)
    assert (len(answer.hits), answer.next) == (LIMIT_MAX, None)
    assert len((await house.search("cat", limit=50, offset=990)).hits) == 10


@virtual
async def test_a_page_of_a_collection_that_has_changed_is_told():
    house = await house_of(20)
    first = await house.search("cat", limit=5)
    await house.store.run(DeleteDocuments("c", (Match("id", [first.hits[0].id]),)), WORK)
    second = await house.search("cat", limit=5, cursor=first.next)
    assert second.degraded == ["page_shifted"]
    assert not {hit.id for hit in first.hits} & {hit.id for hit in second.hits}
    await house.store.run(DeleteDocuments("c", (Match("id", [hit.id for hit in first.hits]),)), WORK)
    assert (await house.search("cat", limit=5, cursor=first.next)).degraded == ["page_shifted"]


@virtual
async def test_the_other_chunks_of_a_document_are_folded_into_its_best():
    house = await House().fill()
    texts = ["cat cat", "a cat of cats", "cat", *(f"dog {n}" for n in range(60))]
    await house.store.run(UpsertPoints("c", [point("big", text, n) for n, text in enumerate(texts)]), WORK)
    grouped = await house.search("cat", group="document", limit=4)
    assert len({hit.id for hit in grouped.hits}) == len(grouped.hits)
    big = next(hit for hit in grouped.hits if hit.id == "big")
    assert len(big.others) == 20 < big.others_total
    assert big.chunk not in [other.chunk for other in big.others]
    scores = [big.score, *(other.score for other in big.others)]
    assert scores == sorted(scores, reverse=True)
    plain = await house.search("cat", limit=4)
    assert all(hit.others is msgspec.UNSET for hit in plain.hits)


def ranked(*documents: str) -> list[RetrievedHit]:
    return [RetrievedHit(str(n), -float(n), ChunkPayload(id, n, ""), {}) for n, id in enumerate(documents)]


@given(st.text(max_size=40) | st.from_regex(CURSOR))
def test_whatever_is_given_for_a_cursor_is_refused(cursor):
    with pytest.raises(Invalid) as caught:
        requested_page(msgspec.structs.replace(REQUEST, cursor=cursor))
    assert caught.value.code == "invalid_cursor"


def test_a_group_is_the_same_however_many_chunks_were_looked_at():
    order = ranked(*(["a", "b"] * 32), *(["a", "c"] * 32))
    shorter, longer = group_by_document(order[:64]), group_by_document(order)
    assert [(group.best, len(group.others)) for group in longer[:2]] == [
        (group.best, len(group.others)) for group in shorter
    ]
    assert len(longer[2].others) == 31


def test_more_chunks_are_looked_at_until_there_are_as_many_documents_as_wanted():
    order, depths = ranked(*(["a"] * 100), *(str(n) for n in range(2000))), []

    async def rank(depth: int) -> list[RetrievedHit]:
        depths.append(depth)
        return order[:depth]

    assert len(asyncio.run(ranked_groups(rank, 10))) == 29
    assert depths == [64, 128]
    assert len(asyncio.run(ranked_groups(rank, 1000))) == 925
    assert depths[2:] == [1024]
