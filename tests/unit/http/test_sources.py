"""The routes of sources: registered, listed, told of a run, forgotten."""

import asyncio
import functools
from pathlib import Path

import pytest

from penstock.indexing.sources.index_roots import IndexRoots
from penstock.indexing.sources.source_watches import SourceWatches
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


def threaded(test):
    """Make a test of an ``async def`` on a real loop: whether a root is below another is looked up in a thread."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory below which a server may index, with a tree and a link to it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    return tmp_path


async def with_index_roots(place: Path) -> Api:
    """Return an API whose server may index below a directory itself."""
    return await Api(watches=SourceWatches(IndexRoots(str(place), place / "data"))).with_collection()


@threaded
async def test_a_watch_is_recorded_for_this_host_and_shown_until_it_ends(place):
    api = await with_index_roots(place)
    told = (await api.ask("PUT", "/v1/sources/s", {"root": {"path": f"{place}/link"}, "watch": True})).json
    assert (told["roots"][0]["path"], told["roots"][0]["watch"]) == (f"{place}/tree", True)
    assert told["watch"] == {"state": "starting", "detail": ""}
    assert api.watches.changed.is_set()
    # A run tells of its source, and changes nothing of that.
    api.watches.changed.clear()
    root = {key: told["roots"][0][key] for key in ("host", "path")}
    told = (await api.ask("PUT", "/v1/sources/s", {"root": root, "run": {"indexed": 1}})).json
    assert (told["roots"][0]["watch"], api.watches.changed.is_set()) == (True, False)
    told = (await api.ask("PUT", "/v1/sources/s", {"watch": False})).json
    assert (told["roots"][0]["watch"], api.watches.changed.is_set()) == (False, True)
    # What is recorded is what is watched, unless another root is told.
    assert (await api.ask("PUT", "/v1/sources/s", {"watch": True})).json["roots"][0]["watch"] is True


@threaded
async def test_a_source_of_another_host_keeps_its_watch(place):
    api = await with_index_roots(place)
    await api.ask("PUT", "/v1/sources/s", ROOT)
    told = (await api.ask("PUT", "/v1/sources/s", {"root": {"path": f"{place}/tree"}, "watch": True})).json
    assert [one["watch"] for one in told["roots"]] == [True, False]
    told = (await api.ask("PUT", "/v1/sources/s", ROOT)).json
    assert [one["watch"] for one in told["roots"]] == [False, True]


@threaded
async def test_what_a_server_may_not_watch_is_refused_and_not_recorded(place):
    api = await with_index_roots(place)
    for body, status, code in (
        ({"root": {"path": "/etc"}}, 403, "root_not_allowed"),
        ({"root": {"path": "tree"}}, 403, "root_not_allowed"),
        ({"root": {"path": f"{place}/../"}}, 403, "root_not_allowed"),
        ({"root": {"path": f"{place}/tree\0"}}, 403, "root_not_allowed"),
        ({"root": {"path": f"{place}/data"}}, 403, "root_not_allowed"),
        ({"root": {"path": f"{place}/tree", "host": "elsewhere"}}, 403, "root_not_allowed"),
        ({"root": {"path": f"{place}/none"}}, 422, "root_not_found"),
        ({}, 422, "root_not_found"),
        ({"root": {"path": "/" + "a" * 5000}}, 422, "invalid"),
    ):
        answer = await api.ask("PUT", "/v1/sources/s", {**body, "watch": True})
        assert (answer.status, answer.json["code"]) == (status, code), body
    assert await sources(api) == []
    assert (await api.ask("PUT", "/v1/sources/s", {"root": {"path": f"{place}/tree"}, "watch": True})).status == 200
    answer = await api.ask("PUT", "/v1/sources/t", {"root": {"path": f"{place}/tree"}, "watch": True})
    assert (answer.status, answer.json["code"]) == (409, "source_conflict")
    off = await Api().with_collection()
    answer = await off.ask("PUT", "/v1/sources/s", {"root": {"path": f"{place}/tree"}, "watch": True})
    assert (answer.status, answer.json["code"]) == (403, "root_not_allowed")
    assert (await off.ask("PUT", "/v1/sources/s", {"watch": True})).status == 403
    assert (await off.ask("PUT", "/v1/sources/s", {**ROOT, "watch": False})).status == 200
