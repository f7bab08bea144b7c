"""Both clients make the same requests, read the same answers and give up at the same time."""

import asyncio
import inspect
import json
import subprocess
import sys

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock.client
from penstock.client import (
    AsyncClient,
    Broken,
    CallOptions,
    Client,
    Expired,
    Invalid,
    NewDocument,
    NotReachable,
    Rejected,
    Unavailable,
    calls,
)
from penstock.client.client import DELAY_S_MAX, delay_s
from penstock.client.errors import error_from
from penstock.http.decoding import JSON
from penstock.http.endpoints import record_types
from penstock.http.operations import ENDPOINTS
from penstock.http.problem import PROBLEM_DETAILS
from penstock.stores.data_model import DocumentPage


def problem(status, headers=None, **members):
    media = {"content-type": "application/problem+json", **(headers or {})}
    return httpx.Response(status, headers=media, json={"title": "T", "status": status, **members})


REFUSAL = {"headers": {"retry-after": "2"}, "code": "overloaded"}


class Script:
    """A server of scripted answers, which keeps what it was asked and how long a client waited."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.requests, self.naps = [], []

    def answer(self, request):
        self.requests.append(request)
        one = next(self.answers)
        if isinstance(one, Exception):
            raise one
        return one


def call_blocking(script, call, options):
    with Client("http://x", options, transport=httpx.MockTransport(script.answer), sleep=script.naps.append) as client:
        return client.send(call)


def call_awaited(script, call, options):
    async def nap(seconds):
        script.naps.append(seconds)

    async def main():
        transport = httpx.MockTransport(script.answer)
        async with AsyncClient("http://x", options, transport=transport, sleep=nap) as client:
            return await client.send(call)

    return asyncio.run(main())


@pytest.fixture(params=[call_blocking, call_awaited], ids=["Client", "AsyncClient"])
def talk(request):
    def run(answers, call, **options):
        script = Script(*answers)
        return request.param(script, call, CallOptions(**options)), script

    return run


def test_refusals_are_repeated_after_the_time_the_server_named(talk):
    answers = [problem(503, **REFUSAL), problem(503, **REFUSAL), httpx.Response(200, json={"collections": []})]
    found, script = talk(answers, calls.list_collections())
    assert found == []
    assert len(script.requests) == 3
    assert all(2 <= nap <= 3 for nap in script.naps)


def test_refusals_are_not_repeated_for_ever(talk):
    slow_down = [problem(429, {"retry-after": "1"}, code="rate_limited", detail="slow down") for _ in range(20)]
    with pytest.raises(Rejected) as caught:
        talk(slow_down, calls.list_collections())
    assert caught.value.by_client
    assert caught.value.detail == "slow down"
    assert caught.value.retry_after_s == 1
    assert caught.value.status == 429


def test_a_patient_call_waits_for_so_long_and_tells_of_each_wait(talk):
    busy = [problem(503, {"retry-after": "1"}, code="overloaded", detail="busy") for _ in range(40)]
    waits = []
    with pytest.raises(Rejected, match="busy"):
        talk(busy, calls.status(), patience_s=100.0, on_wait=lambda error, wait_s: waits.append((error.code, wait_s)))
    assert 100 <= sum(seconds for _, seconds in waits) <= 100 + 1.5 * DELAY_S_MAX
    assert {code for code, _ in waits} == {"overloaded"}


def test_a_patient_call_is_answered_when_the_server_has_room_again(talk):
    answers = [
        *(problem(429, {"retry-after": "1"}, code="rate_limited") for _ in range(8)),
        httpx.Response(200, json={}),
    ]
    with pytest.raises(Rejected):
        talk(list(answers), calls.list_sources().untyped())
    assert talk(answers, calls.list_sources().untyped(), patience_s=300.0)[0] == {}


@pytest.mark.parametrize("headers", [{}, {"retry-after": "3600"}])
def test_a_refusal_without_a_time_that_can_be_waited_for_is_told_at_once(talk, headers):
    with pytest.raises((Rejected, Unavailable)):
        talk([problem(503, headers, code="collection_damaged")], calls.status())


def test_no_retry_goes_beyond_the_deadline(talk):
    with pytest.raises(Rejected):
        talk([problem(503, **REFUSAL)], calls.status(), timeout_s=1.5)


def test_retries_have_a_budget_over_all_calls():
    refusals = Script(*(problem(503, {"retry-after": "0"}, code="overloaded") for _ in range(1000)))
    client = Client("http://x", transport=httpx.MockTransport(refusals.answer), sleep=refusals.naps.append)
    for _ in range(100):
        with pytest.raises(Rejected):
            client.status()
    assert len(refusals.naps) < 60, "three retries of each call would be 300"


def test_options_are_told_to_the_server(talk):
    answer = httpx.Response(200, json={"hits": []})
    _, script = talk([answer], calls.search("q"), timeout_s=2.0, criticality="bulk", api_key="k")
    headers = script.requests[0].headers
    assert 1900 <= int(headers["x-request-timeout-ms"]) <= 2000
    assert (headers["x-criticality"], headers["x-api-key"]) == ("bulk", "k")


def test_nothing_is_told_that_was_not_asked_for(talk):
    _, script = talk([httpx.Response(200, json={"hits": []})], calls.search("q", limit=3))
    assert not {"x-request-timeout-ms", "x-criticality", "x-api-key"} & set(script.requests[0].headers)
    assert json.loads(script.requests[0].content) == {"query": "q", "limit": 3}


def test_other_options_share_the_connections():
    script = Script(httpx.Response(200, json={}), httpx.Response(200, json={}))
    with Client("http://x", transport=httpx.MockTransport(script.answer)) as client:
        client.with_options(timeout_s=1).status()
        client.status()
    assert ["x-request-timeout-ms" in request.headers for request in script.requests] == [True, False]


@pytest.mark.parametrize("name", [".", "..", "a/b", "../..", "/"])
def test_a_name_that_would_lead_to_another_route_is_refused_before_anything_is_sent(name):
    for call in (
        lambda: calls.create_collection(name),
        lambda: calls.index_documents([], name),
        lambda: calls.search("q", name),
    ):
        with pytest.raises(Invalid, match="cannot be a collection's name"):
            call()


def test_a_lost_server_is_told(talk):
    with pytest.raises(NotReachable) as caught:
        talk([httpx.ConnectError("refused")], calls.list_collections())
    assert caught.value.code == "server_lost"
    assert "the server at http://x" in caught.value.detail


def test_a_silent_server_is_told(talk):
    with pytest.raises(Expired):
        talk([httpx.ReadTimeout("")], calls.list_collections())


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"collections": 1}', b"\xff", b"[" * 100_000])
def test_an_unreadable_answer_is_a_bug(talk, body):
    with pytest.raises(Broken, match="cannot be read"):
        talk([httpx.Response(200, content=body)], calls.list_collections())


def pages():
    documents = [{"id": "a", "hash": "1", "chunks": 1, "path": "a"}, {"id": "b", "hash": "", "new": 1}]
    return Script(
        httpx.Response(200, json={"documents": documents[:1], "next": "a"}),
        httpx.Response(200, json={"documents": documents[1:], "next": None}),
    )


def test_the_listing_is_read_page_by_page():
    script = pages()
    with Client("http://x", transport=httpx.MockTransport(script.answer)) as client:
        assert [one.id for one in client.iter_documents("c?ü")] == ["a", "b"]
    assert script.requests[0].url.raw_path == b"/v1/collections/c%3F%C3%BC/documents?limit=1000"
    assert script.requests[1].url.params["after"] == "a"


def test_the_listing_is_awaited_page_by_page():
    script = pages()

    async def ids():
        async with AsyncClient("http://x", transport=httpx.MockTransport(script.answer)) as client:
            return [one.id async for one in client.iter_documents("c")]

    assert asyncio.run(ids()) == ["a", "b"]
    assert len(script.requests) == 2


def answers():
    hits = [
        {"id": "a", "score": 1.0, "others": [{"chunk": 1, "score": 0.5}], "others_total": 1},
        {"id": "b", "score": 0},
    ]
    return Script(
        httpx.Response(200, json={"hits": hits[:1], "next": "x" * 32}), httpx.Response(200, json={"hits": hits[1:]})
    )


def test_hits_are_read_page_by_page():
    script = answers()
    with Client("http://x", transport=httpx.MockTransport(script.answer)) as client:
        found = list(client.iter_search("q", "c", limit=1, offset=2, group="document"))
    assert [(one.id, one.others_total) for one in found] == [("a", 1), ("b", 0)]
    first, second = (json.loads(request.content) for request in script.requests)
    assert first == {"query": "q", "limit": 1, "offset": 2, "group": "document"}
    assert second == {"query": "q", "limit": 1, "cursor": "x" * 32, "group": "document"}


def test_hits_are_awaited_page_by_page():
    script = answers()

    async def ids():
        async with AsyncClient("http://x", transport=httpx.MockTransport(script.answer)) as client:
            return [one.id async for one in client.iter_search("q")]

    assert asyncio.run(ids()) == ["a", "b"]
    assert json.loads(script.requests[1].content) == {"query": "q", "cursor": "x" * 32}


def test_several_collections_are_named_in_the_body(talk):
    answer = {"hits": [{"id": "a", "score": 1, "collection": "c"}], "left_out": [{"collection": "d", "code": "x"}]}
    found, script = talk([httpx.Response(200, json=answer)], calls.search("q", ["c", "d"], limit=3))
    assert (found.hits[0].collection, found.left_out[0].collection) == ("c", "d")
    assert script.requests[0].url.path == "/v1/search"
    assert json.loads(script.requests[0].content) == {"query": "q", "collections": ["c", "d"], "limit": 3}


def test_a_document_is_read_by_any_id(talk):
    answer = {"id": "../a b?#%2F//é", "chunks": [{"chunk": 3, "text": "t"}], "total": 9, "next": 4}
    found, script = talk([httpx.Response(200, json=answer)], calls.get_document(answer["id"], "c", chunk=3, limit=1))
    assert (found.id, found.chunks[0].text, found.next) == (answer["id"], "t", 4)
    assert script.requests[0].url.path == "/v1/collections/c/document"
    assert dict(script.requests[0].url.params) == {"id": answer["id"], "chunk": "3", "limit": "1"}


def test_ids_are_deleted_in_the_body(talk):
    deleted, script = talk([httpx.Response(200, json={"deleted": 2})], calls.delete_documents("c", ids=["a", "b"]))
    assert deleted == 2
    assert script.requests[0].method == "DELETE"
    assert json.loads(script.requests[0].content) == {"ids": ["a", "b"]}


def test_documents_are_records_mappings_or_json():
    documents = [NewDocument("a", "x"), {"id": "b", "text": "y"}, msgspec.Raw(b'{"id":"c","text":"z"}')]
    told = json.loads(calls.index_documents(documents).body)["documents"]
    assert told == [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "c", "text": "z"}]


@pytest.mark.parametrize(
    ("status", "members", "family"),
    [
        (400, {"code": "malformed"}, Invalid),
        (404, {"code": "collection_not_found"}, Invalid),
        (422, {"code": "invalid", "field": "limit"}, Invalid),
        (429, {"code": "rate"}, Rejected),
        (503, {"code": "store_down"}, Unavailable),
        (504, {"code": "timeout", "operation": "search"}, Expired),
        (507, {"code": "disk_full"}, Unavailable),
        (500, {"code": "internal", "request_id": "r1"}, Broken),
    ],
)
def test_problems_become_the_errors_they_were(status, members, family):
    error = error_from(status, {}, json.dumps({"detail": "words", **members}).encode())
    assert type(error) is family
    assert error.code == members["code"]
    assert "words" in error.detail
    assert error.status == status


def test_the_field_and_the_request_are_named():
    invalid = error_from(422, {"x-request-id": "r2"}, b'{"detail":"must be more","field":"limit"}')
    assert (invalid.detail, invalid.field, invalid.request_id) == ("limit: must be more", "limit", "r2")
    assert "r1" in error_from(500, {}, b'{"detail":"oops","request_id":"r1"}').detail
    assert error_from(504, {}, b'{"operation":"embed"}').operation == "embed"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b"<html>"])
def test_an_answer_without_a_problem_still_says_something(body):
    assert "418" in error_from(418, {}, body).detail


@given(st.integers(1, 30), st.floats(0, 60), st.floats(0, 0.999))
def test_no_retry_comes_before_the_time_the_server_named(attempt, asked_s, jitter):
    assert asked_s <= delay_s(attempt, asked_s, jitter) <= max(asked_s, DELAY_S_MAX) * 1.5


ROUTES = {
    (call.method, call.path.replace("/name", "/{name}").replace("/tasks/0", "/tasks/{task}").replace("/0", "/{key}"))
    for call in (
        calls.search("q", "name"),
        calls.list_collections(),
        calls.create_collection("name"),
        calls.get_collection("name"),
        calls.renew_collection("name"),
        calls.delete_collection("name"),
        calls.index_documents([], "name"),
        calls.list_documents("name"),
        calls.get_document("id", "name"),
        calls.delete_documents("name"),
        calls.list_sources(),
        calls.put_source("name"),
        calls.delete_source("name"),
        calls.embed([]),
        calls.sparse([]),
        calls.rerank("q", []),
        calls.make_snapshot(),
        calls.list_snapshots(),
        calls.delete_snapshot("name"),
        calls.restore_snapshot("name"),
        calls.list_keys(),
        calls.create_key("name"),
        calls.rotate_key("0"),
        calls.revoke_key("0"),
        calls.list_tasks(),
        calls.get_task("0"),
        calls.cancel_task("0"),
        calls.status(),
        calls.alerts(),
    )
}


#: The endpoints that are not for the clients of other vendors, nor streams: a client looks at a task now and then.
NATIVE = [one for one in ENDPOINTS if one.error_format is PROBLEM_DETAILS and one.media_type == JSON]


def test_every_endpoint_has_a_method_of_both_clients():
    # A search of the collection `default` has a second route, and so has a document whose id suits a path.
    second = {("POST", "/v1/search"), ("GET", "/v1/collections/{name}/documents/{id}")}
    assert {(one.method, one.path) for one in NATIVE} - second == ROUTES
    for operation in (one.operation for one in NATIVE):
        assert inspect.signature(getattr(Client, operation)) == inspect.signature(getattr(AsyncClient, operation))
        assert getattr(Client, operation).__doc__ == getattr(calls, operation).__doc__


def test_every_member_of_an_answer_is_one_that_the_server_tells():
    for one in NATIVE:
        call = getattr(calls, one.operation)
        answer = inspect.signature(call, eval_str=True).return_annotation.__args__[0]
        if isinstance(answer, type) and issubclass(answer, msgspec.Struct):
            told = {field.encode_name for field in msgspec.structs.fields(record_types(one.response)[0])}
            assert {field.encode_name for field in msgspec.structs.fields(answer)} <= told, one.operation


def test_an_answer_of_the_server_is_read():
    answer = DocumentPage([], "next")
    assert calls.list_documents().read(msgspec.json.encode(answer)).next == "next"


def test_the_client_needs_httpx_and_msgspec_alone():
    # httpx itself loads click and rich, where they are installed.
    heavy = {"onnxruntime", "numpy", "qdrant_client", "qdrant_edge", "uvloop", "redis", "tokenizers", "structlog"}
    script = (
        f"import sys, penstock.client; print(sorted({heavy} & set(sys.modules)));"
        "print(sorted(n for n in sys.modules if n.startswith('penstock.') and n.count('.') == 1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['penstock.client', 'penstock.kernel', 'penstock.policies']\n"


def test_all_names_are_there():
    assert all(hasattr(penstock.client, name) for name in penstock.client.__all__)
