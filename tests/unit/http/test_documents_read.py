"""One document by its id, one chunk by its number."""

from urllib.parse import quote, urlencode

import pytest

from penstock.kernel.context import Context
from penstock.stores.commands import UpsertPoints
from penstock.stores.data_model import ID_CHARACTERS_MAX, ChunkPayload, Point
from tests.clock import virtual
from tests.fakes.api import Api
from tests.fakes.models import embedding, terms

WORK = Context.background()
COLLECTION = "/v1/collections/default"


async def api_with(id: str, chunks: int = 3, text: str = "text {}", *, whole: bool = True) -> Api:
    api = await Api().with_collection()
    points = [
        Point(
            ChunkPayload(
                id,
                n,
                text.format(n),
                path="src/a.py",
                start_line=10 * n + 1,
                end_line=10 * n + 9,
                symbol=f"f{n}",
                language="python",
                metadata={"k": 1},
                hash="h" if whole and n == 0 else "",
                chunks=chunks if whole and n == 0 else 0,
            ),
            embedding("x"),
            terms("x"),
        )
        for n in range(chunks)
    ]
    await api.store.run(UpsertPoints("default", points), WORK)
    return api


async def read(api: Api, id: str, **query):
    answer = await api.ask("GET", f"{COLLECTION}/document?{urlencode({'id': id, **query})}")
    assert answer.status == 200, answer.body
    return answer.json


@virtual
async def test_a_document_comes_with_its_chunks_in_order():
    api = await api_with("a")
    answer = await api.ask("GET", f"{COLLECTION}/documents/a")
    assert answer.status == 200
    told = answer.json
    chunks = told.pop("chunks")
    assert told == {
        "id": "a",
        "path": "src/a.py",
        "language": "python",
        "metadata": {"k": 1},
        "hash": "h",
        "total": 3,
        "next": None,
    }
    assert [chunk["text"] for chunk in chunks] == ["text 0", "text 1", "text 2"]
    assert chunks[1] == {"chunk": 1, "start_line": 11, "end_line": 19, "symbol": "f1", "text": "text 1"}


@virtual
async def test_a_document_is_read_chunk_by_chunk():
    api = await api_with("a", 250)
    single = await read(api, "a", chunk=7, limit=1)
    assert ([chunk["chunk"] for chunk in single["chunks"]], single["next"]) == ([7], 8)
    found, following = [], 0
    while following is not None:
        page = await read(api, "a", chunk=following)
        found += [chunk["chunk"] for chunk in page["chunks"]]
        following = page["next"]
    assert found == list(range(250))


@virtual
async def test_an_answer_holds_four_megabytes_of_a_document():
    api = await api_with("a", 8, "x" * 1_000_000 + "{}")
    page = await read(api, "a")
    assert (len(page["chunks"]), page["next"], page["total"]) == (4, 4, 8)
    assert len((await read(api, "a", chunk=7))["chunks"]) == 1


@pytest.mark.parametrize(
    "id",
    ["repo:src/a.py", "/srv/a b/ü.py", "a//b", "a?b#c&d=e", "100%", "%2F", "..", ".", "x" * 4096, "😀\n\t", "chunk"],
)
@virtual
async def test_an_id_may_hold_any_characters(id):
    api = await api_with(id, 1)
    assert (await read(api, id))["id"] == id
    if len(id) < 4096 and "\n" not in id:
        assert (await api.ask("GET", f"{COLLECTION}/documents/{quote(id, safe='')}")).json["id"] == id
        assert (await api.ask("GET", f"{COLLECTION}/documents/{quote(id)}")).json["id"] == id


@virtual
async def test_a_document_that_is_being_written_is_read_as_far_as_it_is():
    page = await read(await api_with("a", 3, whole=False), "a", limit=2)
    assert (page["hash"], page["total"], len(page["chunks"]), page["next"]) == ("", 0, 2, 2)


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/documents/b", 404, "document_not_found", "id"),
        ("/documents/", 404, "document_not_found", "id"),
        ("/document?id=b", 404, "document_not_found", "id"),
        ("/documents/a?chunk=3", 404, "chunk_not_found", "chunk"),
        ("/documents/a?chunk=2147483647&limit=1000", 404, "chunk_not_found", "chunk"),
        ("/documents/a?chunk=-1", 422, "invalid", "chunk"),
        (f"/documents/a?chunk={10**30}", 422, "invalid", "chunk"),
        ("/documents/a?limit=0", 422, "invalid", "limit"),
        ("/documents/a?limit=1001", 422, "invalid", "limit"),
        ("/documents/a?id=b", 422, "invalid", "id"),
        ("/document", 422, "invalid", "id"),
        ("/document?id=", 422, "invalid", "id"),
        (f"/document?id={'x' * (ID_CHARACTERS_MAX + 1)}", 422, "invalid", "id"),
        ("/document?id=a&id=b", 422, "invalid", "id"),
    ],
)
@virtual
async def test_what_is_not_there_or_not_asked_rightly_is_told(path, status, code, field):
    answer = await (await api_with("a")).ask("GET", COLLECTION + path)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (status, code, field)


@virtual
async def test_a_document_of_no_collection_is_not_found():
    answer = await Api().ask("GET", "/v1/collections/absent/documents/a")
    assert (answer.status, answer.json["code"]) == (404, "collection_not_found")
