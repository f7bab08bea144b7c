"""Gate, routes and operations together, over fakes."""

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from starlette.datastructures import Headers

from penstock.bus.contract import TopicRefusal
from penstock.http.decoding import check_media_type
from penstock.http.operations import ENDPOINTS
from penstock.http.probes import TTL_S
from penstock.http.problem import MEDIA_TYPE, ProblemDetails, UnsupportedMediaType
from penstock.http.request_context import ANSWER_S_MAX, AdmissionContext
from penstock.http.routes import backpressure_check
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Broken, Expired, Unavailable
from penstock.kernel.messages import Topic
from penstock.kernel.settings import HttpSettings
from penstock.policies.levels import Level
from penstock.pools.permits import Permits
from penstock.stores.commands import CreateCollection
from penstock.stores.data_model import CollectionInfo
from tests.clock import BEGIN_S, quiet, virtual
from tests.fakes.api import Api, Caller, assert_refused, scope
from tests.fakes.models import DIM, fails_with, takes

DOCUMENTS = "/v1/collections/default/documents"
NDJSON = {"content-type": "application/x-ndjson"}


async def filled(*ids: str) -> Api:
    api = await Api().with_collection()
    documents = [{"id": id, "text": f"text about {id}", "path": f"src/{id}.py"} for id in ids or "abc"]
    answer = await api.ask("POST", DOCUMENTS, {"documents": documents})
    assert answer.status == 200, answer.body
    return api


def ndjson(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


# Collections


@virtual
async def test_a_collection_is_made_described_listed_and_deleted():
    api = Api()
    made = await api.ask("PUT", "/v1/collections/c")
    assert (made.status, made.json["name"], made.json["dim"], made.json["model"]) == (200, "c", 8, "m")
    assert (await api.ask("PUT", "/v1/collections/c", "{}")).json == made.json
    assert (await api.ask("GET", "/v1/collections/c")).json == made.json
    assert (await api.ask("GET", "/v1/collections")).json == {"collections": [made.json]}
    assert (await api.ask("DELETE", "/v1/collections/c")).json == {"deleted": 1}
    assert (await api.ask("DELETE", "/v1/collections/c")).status == 404


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/collections/%20", 422, "invalid_name"),
        ("/v1/collections/..", 422, "invalid_name"),
        ("/v1/collections/a/b", 404, "not_found"),
        ("/v1/collections/", 404, "not_found"),
    ],
)
@virtual
async def test_bad_collection_names_are_refused(path, status, code):
    answer = await Api().ask("PUT", path)
    assert (answer.status, answer.json["code"]) == (status, code)


@virtual
async def test_a_layout_cannot_be_chosen():
    answer = await Api().ask("PUT", "/v1/collections/c", {"dim": 3})
    assert (answer.status, answer.json["field"]) == (422, "dim")


# Documents


@virtual
async def test_documents_are_indexed_and_each_outcome_is_told():
    api = await Api().with_collection()
    documents = [{"id": "b", "text": "bee"}, {"id": "a", "text": ""}]
    answer = await api.ask("POST", DOCUMENTS, {"documents": documents})
    assert answer.status == 200
    assert answer.json["documents"] == [
        {"status": "indexed", "chunks": 1, "id": "b"},
        {"status": "indexed", "chunks": 1, "id": "a"},
    ]
    assert (answer.json["collection"], answer.json["indexed"], answer.json["chunks"]) == ("default", 2, 2)
    again = await api.ask("POST", DOCUMENTS, {"documents": [*documents, {"id": "c", "text": "sea"}]})
    assert [d["status"] for d in again.json["documents"]] == ["unchanged", "unchanged", "indexed"]
    assert (again.json["unchanged"], again.json["indexed"], again.json["chunks"]) == (2, 1, 1)


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", 'application/json;charset="UTF-8"'],
)
@virtual
async def test_json_is_taken_under_each_of_its_names(kind):
    api = await Api().with_collection()
    assert (await api.ask("POST", DOCUMENTS, {"documents": []}, {"content-type": kind})).status == 200


@pytest.mark.parametrize("kind", ["application/x-ndjson", "Application/X-NDJSON; charset=UTF-8"])
@virtual
async def test_ndjson_is_taken_under_each_of_its_names(kind):
    api = await Api().with_collection()
    answer = await api.ask("POST", DOCUMENTS, ndjson({"id": "a", "text": "t"}), {"content-type": kind})
    assert answer.json["documents"] == [{"status": "indexed", "chunks": 1, "id": "a", "line": 1}]


#: What a page may send without asking first, or what says nothing of itself.
FOREIGN_KINDS = (
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "",
    "application/jsonl",
    "application/ndjson",
    "application/json; charset=utf-16",
    "application/json, text/plain",
    "text/json",
)


@pytest.mark.parametrize("kind", FOREIGN_KINDS)
@virtual
async def test_no_route_reads_a_body_of_another_kind(kind):
    api = await Api().with_collection()
    for endpoint in ENDPOINTS:
        if endpoint.method == "GET":
            continue
        caller = Caller(api.gate)
        path = endpoint.path.format(name="default", id="a", task="0" * 20, key="0" * 12)
        answer = await caller.ask(endpoint.method, path, "{}", {"content-type": kind})
        assert_refused(answer, endpoint, 415, "content-type")
        assert caller.received == 0, path
        assert "application/json" in answer.headers["accept"]
        assert ("x-ndjson" in answer.headers["accept"]) is endpoint.ndjson


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((), "not without a type"),
        ((b"",), "not without a type"),
        ((b"text/plain",), "not as text/plain"),
        ((b"application/json", b"text/plain"), "not with 2 types"),
    ],
)
def test_what_a_body_came_as_is_told(said, told):
    headers = Headers(raw=[(b"content-length", b"2"), *((b"content-type", kind) for kind in said)])
    with pytest.raises(UnsupportedMediaType, match=f"must come as application/json in UTF-8, {told}$"):
        check_media_type(headers, ("application/json",))


@virtual
async def test_ndjson_is_for_the_routes_that_take_it():
    answer = await (await Api().with_collection()).ask("POST", "/v1/search", '{"query": "q"}', NDJSON)
    assert (answer.status, answer.headers["accept"]) == (415, "application/json")


@pytest.mark.parametrize("coding", ["gzip", "identity, gzip", "br"])
@virtual
async def test_a_packed_body_is_415(coding):
    caller = Caller((await Api().with_collection()).gate)
    answer = await caller.ask("POST", "/v1/search", b"x", {"content-encoding": coding})
    assert (answer.status, answer.json["field"], caller.received) == (415, "content-encoding", 0)
    assert answer.headers["accept-encoding"] == "identity"


@virtual
async def test_a_request_without_a_body_needs_no_kind():
    api = await Api().with_collection()
    for length in ({}, {"content-length": "0"}, {"content-length": "00"}):
        assert (await api.ask("DELETE", f"{DOCUMENTS}?ids=a", None, length)).status == 200
    assert (await api.ask("PUT", "/v1/collections/c")).status == 200


@virtual
async def test_a_byte_order_mark_is_passed_over():
    api = await Api().with_collection()
    assert (await api.ask("POST", DOCUMENTS, b'\xef\xbb\xbf{"documents":[]}')).status == 200


@virtual
async def test_line_three_of_five_broken_lets_the_others_land():
    api = await Api().with_collection()
    good = [{"id": id, "text": f"t {id}"} for id in "abde"]
    answer = await api.ask("POST", DOCUMENTS, ndjson(*good[:2], b'{"id":"c", broken', *good[2:]), NDJSON)
    assert answer.status == 207
    assert [d["status"] for d in answer.json["documents"]] == ["indexed", "indexed", "failed", "indexed", "indexed"]
    third = answer.json["documents"][2]
    assert (third["line"], third["chunks"], "id" in third) == (3, 0, False)
    assert third["error"]["field"] == "line 3"
    assert third["error"]["retryable"] is False
    assert third["error"]["status"] == 400
    assert (answer.json["indexed"], answer.json["failed"]) == (4, 1)
    listed = await api.ask("GET", DOCUMENTS)
    assert sorted(d["id"] for d in listed.json["documents"]) == list("abde")


@virtual
async def test_every_line_broken_is_still_told_line_by_line():
    api = await Api().with_collection()
    answer = await api.ask("POST", DOCUMENTS, b"{\n\xff\n", NDJSON)
    assert (answer.status, answer.json["failed"], answer.json["indexed"]) == (207, 2, 0)


@virtual
async def test_a_document_that_fails_says_whether_to_try_again():
    api = await Api().with_collection()

    async def hook(texts: Any) -> None:
        if any("bad" in text for text in texts):
            raise Unavailable("down", dependency="model")

    api.embedder.hook = hook
    documents = [{"id": "a", "text": "good"}, {"id": "b", "text": "bad"}]
    answer = await api.ask("POST", DOCUMENTS, {"documents": documents})
    assert answer.status == 207
    failed = answer.json["documents"][1]
    assert (failed["id"], failed["status"], failed["chunks"]) == ("b", "failed", 0)
    assert (failed["error"]["retryable"], failed["error"]["dependency"]) == (True, "model")


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("x", dependency="y"), 503), (Expired("embed"), 504), (Broken("x"), 500)]
)
@virtual
async def test_a_request_of_which_nothing_came_to_pass_fails_as_one(error, status):
    api = await Api().with_collection()
    api.embedder.hook = fails_with(error)
    answer = await api.ask("POST", DOCUMENTS, {"documents": [{"id": "a", "text": "t"}]})
    assert (answer.status, answer.headers["content-type"]) == (status, MEDIA_TYPE)


@virtual
async def test_a_bad_line_among_failing_ones_is_told_too():
    api = await Api().with_collection()
    api.embedder.hook = fails_with(Broken("x"))
    answer = await api.ask("POST", DOCUMENTS, ndjson({"id": "a", "text": "t"}, b"{"), NDJSON)
    assert (answer.status, answer.json["failed"]) == (207, 2)


@virtual
async def test_large_batches_are_split_and_keep_their_order():
    api = await Api(HttpSettings(max_batch=10)).with_collection()
    documents = [{"id": f"d{n}", "text": f"t{n}"} for n in range(35)]
    answer = await api.ask("POST", DOCUMENTS, {"documents": documents})
    assert [d["id"] for d in answer.json["documents"]] == [d["id"] for d in documents]
    assert answer.json["indexed"] == 35


@virtual
async def test_progress_and_completion_are_published():
    api = await Api().with_collection()
    heard: list[Any] = []

    async def hear(message: Any, _ctx: Any) -> None:
        heard.append(message)

    for topic in (Topic.INDEX_PROGRESS, Topic.INDEX_COMPLETE, Topic.SEARCH_COMPLETE, Topic.COLLECTION_DELETED):
        api.bus.subscribe(topic, hear, Permits(topic, 100))
    await api.ask("POST", DOCUMENTS, {"documents": [{"id": "a", "text": "t"}]})
    await api.ask("POST", "/v1/search", {"query": "t"})
    await api.ask("DELETE", "/v1/collections/default")
    await asyncio.sleep(0.001)
    assert [type(one).__name__ for one in heard] == [
        "IndexProgress",
        "IndexComplete",
        "SearchComplete",
        "CollectionDeleted",
    ]


@pytest.mark.parametrize(
    "path", [DOCUMENTS, "/v1/collections/default/search", "/v1/search", "/v1/collections/default/documents?limit=1"]
)
@virtual
async def test_an_absent_collection_is_404(path):
    body = {"documents": []} if path == DOCUMENTS else {"query": "q"}
    answer = await Api().ask("GET" if "?" in path else "POST", path, body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (404, "collection_not_found", "collection")


@virtual
async def test_a_page_of_very_long_ids_ends_early_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr("penstock.http.operations.HEADS_PER_READ", 2)
    monkeypatch.setattr("penstock.http.operations.PAGE_CHARACTERS_MAX", 20_000)
    api = await filled(*(letter * 4000 for letter in "abcdefg"))
    pages, after = [], ""
    while after is not None:
        page = (await api.ask("GET", f"{DOCUMENTS}?limit=5{after and '&after=' + after}")).json
        pages.append([head["id"][0] for head in page["documents"]])
        after = page["next"]
    assert [len(page) for page in pages] == [4, 3]
    assert sorted(letter for page in pages for letter in page) == list("abcdefg")


@virtual
async def test_documents_are_listed_page_by_page():
    api = await filled("a", "b", "c")
    first = (await api.ask("GET", f"{DOCUMENTS}?limit=2")).json
    second = (await api.ask("GET", f"{DOCUMENTS}?limit=2&after={first['next']}")).json
    assert second["next"] is None
    assert sorted(d["id"] for d in first["documents"] + second["documents"]) == ["a", "b", "c"]
    prefixed = (await api.ask("GET", f"{DOCUMENTS}?path_prefix=src/b")).json
    assert [(d["id"], d["path"], d["chunks"]) for d in prefixed["documents"]] == [("b", "src/b.py", 1)]


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=%C2%B2", "limit"), ("after=x", "after")],
)
@virtual
async def test_a_bad_page_names_its_parameter(query, field):
    answer = await (await filled()).ask("GET", f"{DOCUMENTS}?{query}")
    assert (answer.status, answer.json["field"]) == (422, field)


@pytest.mark.parametrize(
    ("query", "body", "gone"),
    [
        ("", {"ids": ["a", "c", "absent"]}, 2),
        ("?ids=a&ids=b", None, 2),
        ("", {"path_prefix": "src/"}, 3),
        ("?path_prefix=src/b", None, 1),
        ("", {"ids": []}, 0),
    ],
)
@virtual
async def test_documents_are_deleted_by_ids_or_prefix(query, body, gone):
    api = await filled("a", "b", "c")
    answer = await api.ask("DELETE", DOCUMENTS + query, body)
    assert (answer.status, answer.json) == (200, {"deleted": gone})
    assert len((await api.ask("GET", DOCUMENTS)).json["documents"]) == 3 - gone


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "ids"),
        ({}, "ids"),
        ({"ids": ["a"], "path_prefix": "p"}, "ids"),
        ({"path_prefix": ""}, "path_prefix"),
        ({"prefix": "p"}, "prefix"),
    ],
)
@virtual
async def test_a_deletion_that_does_not_say_what_deletes_nothing(body, field):
    api = await filled("a", "b")
    answer = await api.ask("DELETE", DOCUMENTS, body)
    assert (answer.status, answer.json["field"]) == (422, field)
    assert len((await api.ask("GET", DOCUMENTS)).json["documents"]) == 2


# Search


@virtual
async def test_a_search_finds_and_tells():
    api = await filled("cat", "dog")
    answer = await api.ask("POST", "/v1/search", {"query": "cat", "limit": 1, "explain": True})
    assert answer.status == 200
    assert set(answer.json) == {"hits", "took_ms", "stages", "degraded", "next"}
    (hit,) = answer.json["hits"]
    assert (hit["id"], hit["chunk"], hit["path"], hit["start_line"], hit["end_line"]) == ("cat", 0, "src/cat.py", 1, 1)
    assert hit["explain"]["dense"]["rank"] == 1
    plain = await api.ask("POST", "/v1/collections/default/search", {"query": "cat"})
    assert "explain" not in plain.json["hits"][0]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"query": ""}, 422, "empty_query", "query"),
        ({"query": "q", "limit": 0}, 422, "invalid", "limit"),
        ({"query": "q", "limit": 10**9}, 422, "invalid", "limit"),
        ({"query": "q", "limit": 10**30}, 422, "invalid", "limit"),
        ('{"query":"q","weights":{"dense":NaN}}', 400, "malformed", "weights.dense"),
        ({}, 422, "empty_query", "query"),
        ({"query": "q", "facets": ["languages"]}, 422, "invalid", "facets[0]"),
        ({"query": "q", "facets": ["language", "__proto__"]}, 422, "invalid", "facets[1]"),
        ({"query": "q", "facets": ["metadata."]}, 422, "invalid", "facets[0]"),
        ({"query": "q", "facets": ["metadata." + "k" * 1100]}, 422, "invalid", "facets[0]"),
        ({"query": "q", "facets": ["language", "language"]}, 422, "invalid", "facets[1]"),
        ({"query": "q", "facets": [f"metadata.{n}" for n in range(9)]}, 422, "invalid", "facets"),
        ({"query": "q", "facets": "language"}, 422, "invalid", "facets"),
        ({"query": "q", "facets": [7]}, 422, "invalid", "facets[0]"),
        ({"query": "q", "collections": []}, 422, "invalid", "collections"),
        ({"query": "q", "collections": "default"}, 422, "invalid", "collections"),
        ({"query": "q", "collections": ["default"] * 2}, 422, "invalid", "collections"),
        ({"query": "q", "collections": [f"c{n}" for n in range(17)]}, 422, "invalid", "collections"),
        ({"query": "q", "collections": [f"c{n}" for n in range(10_000)]}, 422, "invalid", "filter"),
        ({"query": "q", "collections": ["default", "absent"]}, 404, "collection_not_found", "collection"),
        ({"query": "q", "collections": ["default", "x" * 65]}, 404, "collection_not_found", "collection"),
        ({"query": "q", "collections": ["default", "a,b"]}, 404, "collection_not_found", "collection"),
        ({"query": "q", "collections": ["default", "../x"]}, 404, "collection_not_found", "collection"),
        ({"query": "q", "like": {"id": "a"}}, 422, "invalid", "like"),
        ({"like": {"id": ""}}, 422, "invalid", "like.id"),
        ({"like": {"id": "a", "chunk": -1}}, 422, "invalid", "like.chunk"),
        ({"like": {"id": "a", "chunk": 10**30}}, 422, "invalid", "like.chunk"),
        ({"like": {"id": "a", "text": "b"}}, 422, "invalid", "like.text"),
        ({"like": {"id": "absent"}}, 404, "document_not_found", "like.id"),
        ({"like": {"id": "a", "chunk": 9}}, 404, "chunk_not_found", "like.chunk"),
        ({"like": {"id": "a", "chunk": 9.0}}, 404, "chunk_not_found", "like.chunk"),
        ({"like": {"id": "a", "chunk": 0.5}}, 422, "invalid", "like.chunk"),
        ({"query": "q", "offset": -1}, 422, "invalid", "offset"),
        ({"query": "q", "offset": 1000}, 422, "invalid", "offset"),
        ({"query": "q", "offset": 10**30}, 422, "invalid", "offset"),
        ({"query": "q", "offset": "5"}, 422, "invalid", "offset"),
        ({"query": "q", "group": "language"}, 422, "invalid", "group"),
        ({"query": "q", "cursor": ""}, 422, "invalid_cursor", "cursor"),
        ({"query": "q", "cursor": "ä" * 32}, 422, "invalid_cursor", "cursor"),
        ({"query": "q", "cursor": "A" * 32}, 422, "invalid_cursor", "cursor"),
        ({"query": "q", "cursor": 7}, 422, "invalid", "cursor"),
        ({"query": "q", "weights": {"dense": 0, "sparse": 0}}, 422, "invalid", "weights"),
        ({"query": "q", "filter": {"paths": "a"}}, 422, "invalid", "filter.paths"),
        ({"query": "q", "filter": {"metadata.at": {"gte": "soon"}}}, 422, "invalid", "filter.metadata.at.gte"),
        (b"\xff", 400, "malformed", "body"),
        (b"", 400, "malformed", "body"),
    ],
)
@virtual
async def test_a_bad_search_is_refused_by_name(body, status, code, field):
    answer = await (await filled()).ask("POST", "/v1/search", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (status, code, field)


@virtual
async def test_several_collections_are_searched_by_the_route_without_one():
    api = await filled("cat", "dog")
    await api.ask("PUT", "/v1/collections/more")
    documents = {"documents": [{"id": "cat", "text": "text about cat"}]}
    await api.ask("POST", "/v1/collections/more/documents", documents)
    body = {"query": "cat", "collections": ["default", "more"], "limit": 2}
    answer = await api.ask("POST", "/v1/search", body)
    assert [(hit["id"], hit["collection"]) for hit in answer.json["hits"]] == [("cat", "default"), ("cat", "more")]
    single = await api.ask("POST", "/v1/search", {"query": "cat", "collections": ["more"]})
    assert [hit["collection"] for hit in single.json["hits"]] == ["more"]
    refused = await api.ask("POST", "/v1/collections/default/search", body)
    assert (refused.status, refused.json["field"]) == (422, "collections")
    refused = await api.ask("POST", "/v1/collections/default,more,/search", {"query": "cat"})
    assert (refused.status, refused.json["code"]) == (404, "collection_not_found")


@virtual
async def test_an_empty_collection_has_no_hits():
    answer = await (await Api().with_collection()).ask("POST", "/v1/search", {"query": "q"})
    assert (answer.status, answer.json["hits"], answer.json["degraded"]) == (200, [], [])


@pytest.mark.parametrize("how", ["body", "header"])
@virtual
async def test_a_wish_for_less_time_is_heeded(how):
    api = await filled()
    api.embedder.hook = api.sparse.hook = takes(60)
    body = {"query": "q"} | ({"timeout_ms": 1500} if how == "body" else {})
    headers = {"X-Request-Timeout-Ms": "1500"} if how == "header" else {}
    answer = await api.ask("POST", "/v1/search", body, headers)
    assert (answer.status, answer.json["operation"], answer.json["retryable"]) == (504, "request", True)
    # In time to reach its caller before that gives up.
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 1.5 - ANSWER_S_MAX, abs=0.01)


@virtual
async def test_a_wish_for_more_time_than_a_search_may_take_is_not():
    api = await filled()
    api.embedder.hook = api.sparse.hook = takes(600)
    answer = await api.ask("POST", "/v1/search", {"query": "q", "timeout_ms": 3_600_000})
    assert (answer.status, answer.json["operation"]) == (504, "search")


@pytest.mark.parametrize("wish", ["abc", "0", "-5", "1.5", "99999999999", ""])
@virtual
async def test_a_bad_wish_names_its_header(wish):
    answer = await (await filled()).ask("POST", "/v1/search", {"query": "q"}, {"x-request-timeout-ms": wish})
    assert (answer.status, answer.json["field"]) == (422, "X-Request-Timeout-Ms")


@virtual
async def test_a_deadline_that_passed_while_the_body_came_is_504_without_waiting_in_line():
    api, seen = await filled(), []
    api.bus.request = lambda *asked: seen.append(asked)

    caller = Caller(api.gate)
    messages = iter([b'{"query":', b' "q"}'])

    async def receive():
        await asyncio.sleep(0.3)
        piece = next(messages)
        return {"type": "http.request", "body": piece, "more_body": b"}" not in piece}

    async def send(message):
        caller.sent.append(message)

    headers = {"content-length": "14", "content-type": "application/json", "x-request-timeout-ms": "500"}
    await api.gate(scope("POST", "/v1/search", headers), receive, send)
    answer = caller.answer()
    assert (answer.status, answer.json["operation"], seen) == (504, "request", [])


@pytest.mark.parametrize(
    ("path", "said", "became"),
    [
        ("/v1/search", None, Criticality.INTERACTIVE),
        ("/v1/search", "Standard", Criticality.STANDARD),
        ("/v1/search", " bulk ", Criticality.BULK),
        ("/v1/embed", None, Criticality.STANDARD),
        ("/v1/embed", "interactive", Criticality.STANDARD),
        ("/v1/embed", "bulk", Criticality.BULK),
    ],
)
@virtual
async def test_a_caller_may_lower_its_class_and_not_raise_it(path, said, became):
    api, seen = await filled(), []

    ask, embed = api.bus.request, api.embedder.embed

    async def request(topic, message, ctx):
        seen.append(ctx)
        return await ask(topic, message, ctx)

    async def embedding(texts, kind, ctx, *, late_interaction=False):
        seen.append(ctx)
        return await embed(texts, kind, ctx, late_interaction=late_interaction)

    api.bus.request, api.embedder.embed = request, embedding
    headers = {"x-api-key": "k"} | ({} if said is None else {"X-Criticality": said})
    body = {"query": "q"} if path == "/v1/search" else {"texts": ["q"]}
    assert (await api.ask("POST", path, body, headers)).status == 200
    assert seen[0].criticality is became
    assert seen[0].client.startswith("key:")


@pytest.mark.parametrize("said", ["urgent", "", "0"])
@virtual
async def test_a_class_that_is_none_is_refused(said):
    answer = await (await filled()).ask("POST", "/v1/search", {"query": "q"}, {"x-criticality": said})
    assert (answer.status, answer.json["field"]) == (422, "X-Criticality")


@pytest.mark.parametrize("strict", [True, False])
@virtual
async def test_a_strict_search_prefers_a_refusal_to_less_than_the_whole(strict):
    api = await filled()
    body = {"query": "q", "strict": strict}
    assert (await api.ask("POST", "/v1/search", body)).status == 200

    api.embedder.hook = fails_with(Unavailable("down", dependency="embed"))
    answer = await api.ask("POST", "/v1/search", body)
    assert answer.status == (503 if strict else 200)
    if strict:
        assert (answer.json["code"], answer.json["retryable"]) == ("degraded", True)
        assert "no_dense" in answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "topics"),
    [
        ("POST", "/v1/search", {Topic.SEARCH_REQUEST}),
        ("POST", "/v1/collections/a.b/search", {Topic.SEARCH_REQUEST}),
        ("POST", "/v1/collections/a/documents", {Topic.INDEX_CHUNK, Topic.INDEX_REQUEST}),
        ("GET", "/v1/collections/a/documents", set()),
        ("POST", "/v1/embed", {Topic.ML_EMBED}),
        ("POST", "/v1/sparse", {Topic.ML_SPARSE}),
        ("POST", "/v1/rerank", {Topic.ML_RERANK}),
        ("GET", "/v1/status", set()),
        ("POST", "/v1/search/", set()),
        ("POST", "/v1/collections/a/b/search", set()),
    ],
)
def test_a_route_leads_to_its_topics(method, path, topics):
    asked = set()
    pressed = backpressure_check(lambda topic, ctx, at: asked.add((topic, ctx.client, at)))
    assert pressed(method, path, AdmissionContext("me")) is None
    assert asked == {(topic, "me", Level.CRITICAL) for topic in topics}


@pytest.mark.parametrize("topic", [Topic.INDEX_CHUNK, Topic.INDEX_REQUEST])
def test_one_full_topic_of_a_route_is_enough(topic):
    full = TopicRefusal("topic_full", 1.0, by_client=False)
    pressed = backpressure_check(lambda asked, _ctx, _at: full if asked is topic else None)
    assert pressed("POST", DOCUMENTS, AdmissionContext("me")) is full


@pytest.mark.parametrize(
    ("path", "said", "counts", "at"),
    [
        ("/v1/search", None, Criticality.INTERACTIVE, Level.CRITICAL),
        ("/v1/search", Criticality.BULK, Criticality.BULK, Level.HIGH),
        ("/v1/search", Criticality.STANDARD, Criticality.STANDARD, Level.CRITICAL),
        ("/v1/embed", Criticality.INTERACTIVE, Criticality.STANDARD, Level.CRITICAL),
        ("/v1/embed", Criticality.BULK, Criticality.BULK, Level.HIGH),
        (DOCUMENTS, None, Criticality.BULK, Level.CRITICAL),
    ],
)
def test_those_that_can_wait_are_refused_earlier(path, said, counts, at):
    asked = set()
    pressed = backpressure_check(lambda _topic, ctx, at: asked.add((ctx.criticality, ctx.deadline.at_s, at)))
    pressed("POST", path, AdmissionContext("me", said, Deadline(7.0, "request")))
    assert asked == {(counts, 7.0, at)}


@virtual
async def test_who_hangs_up_has_its_search_stopped_and_its_place_given_back():
    api = await filled()
    api.embedder.hook = api.sparse.hook = takes(60)
    caller = Caller(api.gate)
    asyncio.get_running_loop().call_later(1, caller.gone.set)
    with pytest.raises(ValueError, match="unpack"):
        await caller.ask("POST", "/v1/search", {"query": "q"})
    await quiet()
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 1, abs=0.01)
    assert [(state.waiting, state.running) for state in api.bus.state()] == [(0, 0)]
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_who_hangs_up_while_documents_are_written_keeps_those_that_are():
    api = await Api(HttpSettings(max_batch=2)).with_collection()
    writes = 0

    async def hook(*_):
        nonlocal writes
        writes += 1
        await asyncio.sleep(0 if writes <= 2 else 60)

    api.embedder.hook = hook
    caller = Caller(api.gate)
    asyncio.get_running_loop().call_later(1, caller.gone.set)
    with pytest.raises(ValueError, match="unpack"):
        await caller.ask("POST", DOCUMENTS, {"documents": [{"id": id, "text": id} for id in "abcdef"]})
    heads = (await api.ask("GET", DOCUMENTS)).json["documents"]
    assert [head["id"] for head in heads] == ["a", "b"]
    assert api.gate.traffic.client_gone == 1


@virtual
async def test_documents_whose_turn_comes_after_the_deadline_are_told_at_once_and_nothing_of_them_is_begun():
    api = await Api(HttpSettings(max_batch=10)).with_collection()
    api.embedder.hook = takes(0.5)
    documents = [{"id": str(number), "text": "text"} for number in range(1000)]
    began_s = asyncio.get_running_loop().time()
    answer = await api.ask("POST", DOCUMENTS, {"documents": documents, "timeout_ms": 1800})
    assert asyncio.get_running_loop().time() - began_s <= 2.4
    assert answer.status == 207
    assert {d["status"] for d in answer.json["documents"][:10]} == {"indexed"}
    late = [d for d in answer.json["documents"] if d["status"] == "failed"]
    assert {d["error"]["code"] for d in late} == {"timeout"}
    assert answer.json["indexed"] + len(late) == 1000
    asked = len(api.embedder.asked)
    await asyncio.sleep(60)
    assert len(api.embedder.asked) == asked
    assert asked < 50


# Models


@virtual
async def test_the_models_answer_by_themselves():
    api = Api()
    embedded = (await api.ask("POST", "/v1/embed", {"texts": ["a b", "c"]})).json
    assert (embedded["model"], embedded["dim"], len(embedded["embeddings"])) == ("m", 8, 2)
    sparse = (await api.ask("POST", "/v1/sparse", {"texts": ["a b", ""]})).json
    assert [len(v["indices"]) for v in sparse["vectors"]] == [2, 0]
    ranked = (await api.ask("POST", "/v1/rerank", {"query": "cat", "texts": ["dog", "cat"]})).json
    assert [r["index"] for r in ranked["results"]] == [1, 0]


@virtual
async def test_texts_that_a_model_does_not_read_whole_are_told():
    api = Api()
    for path, body in (("/v1/embed", {}), ("/v1/sparse", {}), ("/v1/rerank", {"query": "cat"})):
        told = (await api.ask("POST", path, {"texts": ["short", "endless", "b"], **body})).json
        assert told["truncated"] == [1]
        assert told.get("query_truncated") == (False if body else None)


@virtual
async def test_finding_out_what_a_model_reads_ends_at_the_deadline():
    api = Api()
    for path, body in (("/v1/embed", {}), ("/v1/sparse", {}), ("/v1/rerank", {"query": "cat"})):
        texts = {"texts": ["takes an hour to read"], "timeout_ms": 1500}
        answer = await api.ask("POST", path, {**texts, **body})
        assert (answer.status, answer.json["code"]) == (504, "timeout")


# The server itself


@virtual
async def test_status_tells_the_server_at_a_glance():
    answer = await (await Api().with_collection()).ask("GET", "/v1/status")
    assert (answer.json["in_flight"], [c["name"] for c in answer.json["collections"]]) == (1, ["default"])


@pytest.mark.parametrize("error", [Unavailable("it hangs", dependency="store"), Expired("status")])
@virtual
async def test_status_is_told_without_the_collections_when_the_store_cannot_answer(error):
    api = await Api().with_collection()
    api.store.hook = fails_with(error)
    answer = await api.ask("GET", "/v1/status")
    assert (answer.status, answer.json["collections"]) == (200, [])
    assert answer.json["reasons"] == [f"no collections: {error.detail}"]


@virtual
async def test_alerts_are_told():
    assert (await Api().ask("GET", "/v1/alerts")).json == {"alerts": []}


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
@virtual
async def test_readiness_tells_its_reasons(path):
    api = Api()
    assert ((await api.ask("GET", path)).status, (await api.ask("GET", path)).json["reasons"]) == (200, [])
    api.reasons.append("the store process is not running")
    await asyncio.sleep(TTL_S)
    answer = await api.ask("GET", path)
    assert (answer.status, answer.json) == (503, {"ready": False, "reasons": ["the store process is not running"]})
    assert (await api.ask("GET", "/livez")).json == {"live": True}


@virtual
async def test_answers_are_counted_by_route_and_status():
    api = await filled()
    await api.ask("POST", "/v1/search", {"query": "a"})
    await api.ask("POST", "/v1/search", {"query": ""})
    text = (await api.ask("GET", "/metrics")).body.decode()
    assert 'http_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert 'http_requests_total{method="POST",route="/v1/search",status="422"} 1.0' in text
    assert 'documents_total{status="indexed"} 3.0' in text
    assert 'searches_total{degraded="false"} 1.0' in text


@virtual
async def test_a_get_route_answers_head():
    api = Api()
    for path in ("/v1/status", "/v1/collections", "/docs", "/livez"):
        assert (await api.ask("HEAD", path)).status == 200


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/search", "OPTIONS, POST"),
        ("/v1/collections", "GET, HEAD, OPTIONS"),
        ("/v1/collections/c", "DELETE, GET, HEAD, OPTIONS, PUT"),
        (DOCUMENTS, "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
@virtual
async def test_a_path_tells_its_methods(path, allow):
    api = Api()
    options = await api.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"], options.body) == (204, allow, b"")
    wrong = await api.ask("PATCH", path)
    assert (wrong.status, wrong.json["code"], wrong.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/status/", "/v1/search/", "/V1/search", "/docs/", "//", "/v1/collections//x"]
)
@virtual
async def test_a_path_that_is_not_there_is_404(path):
    answer = await Api().ask("GET", path)
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert (await Api().ask("OPTIONS", path)).status == 404


@virtual
async def test_a_client_that_hangs_up_while_it_sends_is_no_error(caplog):
    caller = Caller(Api().gate)
    answer = await _hangs_up(caller)
    assert answer == []
    assert caplog.records == []


async def _hangs_up(caller: Caller) -> list[Any]:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        caller.sent.append(message)

    headers = {"content-length": "50", "content-type": "application/json"}
    await caller.app(scope("POST", "/v1/search", headers), receive, send)
    return caller.sent


@virtual
async def test_ten_megabytes_and_one_byte_are_413():
    api = Api()
    body = [b" " * 1_000_000] * 10 + [b" "]
    for chunked in (False, True):
        answer = await api.ask("POST", "/v1/search", body, chunked=chunked)
        assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert (await api.ask("POST", "/v1/search", body[:-1])).json["detail"].endswith("it is empty")


@virtual
async def test_every_route_names_the_request_in_success_and_failure():
    api = Api(replace(HttpSettings(), max_body=100))
    for endpoint in ENDPOINTS:
        path = re.sub(r"{\w+}", "absent", endpoint.path)
        answer = await api.ask(endpoint.method, path, "{}" if endpoint.body else None, {"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine", endpoint
        if answer.status >= 400:
            told = msgspec.json.decode(answer.body, type=endpoint.error_format.record)
            assert getattr(told, "request_id", getattr(told, "id", "mine")) == "mine"
            retryable = told.retryable if isinstance(told, ProblemDetails) else answer.headers["x-should-retry"]
            assert retryable in (True, False, "true", "false")


@virtual
async def test_the_documentation_loads_nothing_but_itself():
    answer = await Api().ask("GET", "/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.body.decode()
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) == []
    assert re.findall(r'(?:src|href)="(?!#|data:,|/openapi.json)[^"]*"', text) == []
    assert "innerHTML" not in text
    assert ' style="' not in text


# Snapshots


@virtual
async def test_a_snapshot_is_made_and_restored_where_nothing_is_in_the_way_or_by_force():
    api = await Api().with_collection()
    told = await api.ask("POST", "/v1/snapshots")
    assert (told.status, told.json["collections"]) == (200, ["default"])
    path = f"/v1/snapshots/{told.json['name']}/restore"
    there = await api.ask("POST", path)
    assert (there.status, there.json["code"]) == (409, "collection_exists")
    assert (await api.ask("DELETE", "/v1/collections/default")).status == 200
    restored = await api.ask("POST", path, {"force": True})
    assert [one["name"] for one in restored.json["collections"]] == ["default"]
    assert (await api.ask("GET", "/v1/collections/default")).status == 200


@virtual
async def test_snapshots_are_listed_and_deleted():
    api = await Api().with_collection()
    assert (await api.ask("GET", "/v1/snapshots")).json == {"snapshots": []}
    told = await api.ask("POST", "/v1/snapshots")
    assert (await api.ask("GET", "/v1/snapshots")).json == {"snapshots": [told.json]}
    path = f"/v1/snapshots/{told.json['name']}"
    assert (await api.ask("DELETE", path)).json == {"deleted": 1}
    assert (await api.ask("GET", "/v1/snapshots")).json == {"snapshots": []}
    assert (await api.ask("DELETE", path)).json["code"] == "snapshot_not_found"


@virtual
async def test_a_snapshot_that_is_not_there_is_not_found():
    for method, path in (("POST", "/v1/snapshots/absent/restore"), ("DELETE", "/v1/snapshots/absent")):
        answer = await Api().ask(method, path)
        assert (answer.status, answer.json["code"]) == (404, "snapshot_not_found")


@virtual
@pytest.mark.parametrize("other", [CollectionInfo("c", DIM, "old"), CollectionInfo("c", DIM + 1, "m")])
async def test_a_collection_of_another_model_is_refused_with_both_named(other):
    api = Api()
    api.foreign["c"] = await api.store.run(CreateCollection(other), Context.background())
    for path, body in (("search", {"query": "x"}), ("documents", {"documents": [{"id": "a", "text": "x"}]})):
        answer = await api.ask("POST", f"/v1/collections/c/{path}", body)
        assert (answer.status, answer.json["code"]) == (409, "collection_conflict")
        assert f"{other.model} ({other.dim}-d)" in answer.json["detail"]
        assert f"m ({DIM}-d)" in answer.json["detail"]
    assert (await api.ask("DELETE", "/v1/collections/c")).status == 200
    assert (await api.ask("PUT", "/v1/collections/c")).status == 200
    assert (await api.ask("POST", "/v1/collections/c/search", {"query": "x"})).status == 200
