"""The routes of sources: registered, listed, told of a run, forgotten."""

import pytest

from tests.clock import virtual
from tests.fakes.api import Api

ROOT = {"root": {"host": "h", "path": "/p"}}


async def with_documents() -> Api:
    """Return an API with one document of the source `s`, one that only looks like it, and one of another source."""
    api = await Api().with_collection()
    documents = [
        {"id": "s:a.py", "text": "one", "path": "a.py", "source": "s"},
        {"id": "s:b.py", "text": "two", "path": "b.py"},
        {"id": "t:a.py", "text": "three", "path": "a.py", "source": "t"},
    ]
    assert (await api.ask("POST", "/v1/collections/default/documents", {"documents": documents})).json["indexed"] == 3
    return api


async def sources(api: Api, query: str = "") -> list[dict]:
    return (await api.ask("GET", f"/v1/sources{query}")).json["sources"]


@virtual
async def test_a_source_is_registered_and_told_of_a_run():
    api = await with_documents()
    answer = await api.ask("PUT", "/v1/sources/s", ROOT)
    assert (answer.status, answer.json["documents"], answer.json["completed_at"]) == (200, 1, "")
    run = {"indexed": 1, "failed": 1, "failures": [{"path": "x", "code": "too_large"}]}
    told = (await api.ask("PUT", "/v1/sources/s", {"run": run, "commit": "c0ffee"})).json
    assert (told["commit"], told["run"]["failures"], told["roots"][0]["path"]) == ("c0ffee", run["failures"], "/p")
    assert told["completed_at"].endswith("+00:00")
    assert await sources(api) == [told]
    moved = (await api.ask("PUT", "/v1/sources/s", {"root": {"host": "h", "path": "/q"}})).json
    assert ([one["path"] for one in moved["roots"]], moved["run"]) == (["/q"], told["run"])


@virtual
async def test_what_a_source_includes_stays_until_it_is_told_otherwise():
    api = await with_documents()
    await api.ask("PUT", "/v1/sources/s", {"include": ["vendor/", "*.svg"]})
    assert (await api.ask("PUT", "/v1/sources/s", ROOT)).json["include"] == ["vendor/", "*.svg"]
    most = {**ROOT, "include": ["x"] * 64, "commit": "c0ffee", "run": {"indexed": 1}}
    assert len((await api.ask("PUT", "/v1/sources/s", most)).json["include"]) == 64
    assert (await api.ask("PUT", "/v1/sources/s", {"include": []})).json["include"] == []


@virtual
async def test_sources_are_listed_of_one_collection_or_of_all():
    api = await (await with_documents()).with_collection("other")
    await api.ask("PUT", "/v1/sources/s", ROOT)
    await api.ask("PUT", "/v1/sources/s", {**ROOT, "collection": "other"})
    assert [(one["collection"], one["documents"]) for one in await sources(api)] == [("default", 1), ("other", 0)]
    assert [one["collection"] for one in await sources(api, "?collection=other")] == ["other"]
    assert (await api.ask("GET", "/v1/sources?collection=nope")).status == 404


@virtual
async def test_forgetting_takes_the_sources_own_documents_alone():
    api = await with_documents()
    await api.ask("PUT", "/v1/sources/s", ROOT)
    assert (await api.ask("DELETE", "/v1/sources/s")).json == {"deleted": 1}
    listed = (await api.ask("GET", "/v1/collections/default/documents")).json["documents"]
    assert sorted(one["id"] for one in listed) == ["s:b.py", "t:a.py"]
    assert await sources(api) == []
    again = await api.ask("DELETE", "/v1/sources/s")
    assert (again.status, again.json["code"]) == (404, "source_not_found")


@virtual
async def test_documents_without_a_record_can_be_forgotten():
    api = await with_documents()
    assert (await api.ask("DELETE", "/v1/sources/t?collection=default")).json == {"deleted": 1}


@virtual
@pytest.mark.parametrize("name", ["a:b", "a\\b", "a\nb", ".", ".hidden", " a", "a ", "x" * 129, "x" * 300, "\u202ex"])
async def test_a_name_that_no_source_can_have_is_refused(name):
    api = await Api().with_collection()
    answer = await api.ask("PUT", f"/v1/sources/{name}", ROOT)
    assert (answer.status, answer.json["code"]) == (422, "invalid_source")


@virtual
@pytest.mark.parametrize(
    "body",
    [
        {"root": {"path": "/p"}},
        {"root": {"host": "h", "path": ""}},
        {"root": {"host": "h" * 257, "path": "/p"}},
        {"root": {"host": "h", "path": "/" * 4097}},
        {"run": {"indexed": -1}},
        {"run": {"failures": [{"path": "x", "code": "y"}] * 6}},
        {"include": ["vendor/"] * 65},
        {"include": ["x" * 1025]},
        {"include": [""]},
    ],
    ids=str,
)
async def test_what_cannot_be_recorded_is_refused(body):
    api = await Api().with_collection()
    assert (await api.ask("PUT", "/v1/sources/s", body)).status == 422
    assert await sources(api) == []


@virtual
async def test_hits_can_be_narrowed_to_a_source():
    api = await with_documents()
    answer = await api.ask("POST", "/v1/search", {"query": "one", "filter": {"source": "t"}})
    assert [hit["id"] for hit in answer.json["hits"]] == ["t:a.py"]
