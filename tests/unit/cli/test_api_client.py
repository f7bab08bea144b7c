import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.api_client import DELAY_S_MAX, ApiClient, RequestRetryPolicy
from penstock.cli.api_errors import error_from, hint_for
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable


def problem(status, **members):
    headers = {"content-type": "application/problem+json"}
    return httpx.Response(status, headers=headers, json={"title": "T", "status": status, **members})


def talk(answers, call):
    """Run one call against scripted answers; return its result, the requests and the naps."""
    requests, naps = [], []
    script = iter(answers)

    def answer(request):
        requests.append(request)
        one = next(script)
        if isinstance(one, Exception):
            raise one
        return one

    async def nap(seconds):
        naps.append(seconds)

    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://x") as client:
            return await call(ApiClient(client, "the server", nap))

    return asyncio.run(main()), requests, naps


def test_refusals_are_repeated_after_the_time_the_server_named():
    refusal = httpx.Response(503, headers={"retry-after": "2"}, json={"code": "overloaded"})
    answers = [refusal, refusal, httpx.Response(200, json={"collections": []})]
    found, requests, naps = talk(answers, lambda api: api.collections())
    assert found == []
    assert len(requests) == 3
    assert all(2 <= nap <= 3 for nap in naps)


def test_refusals_are_not_repeated_for_ever():
    with pytest.raises(Rejected) as caught:
        talk([problem(429, code="rate_limited", detail="slow down")] * 20, lambda api: api.collections())
    assert caught.value.by_client
    assert caught.value.detail == "slow down"


@pytest.mark.parametrize("name", [".", "..", "a/b", "../..", "/"])
def test_a_name_that_would_lead_to_another_route_is_refused_before_anything_is_sent(name):
    for call in (
        lambda api: api.create_collection(name),
        lambda api: api.index_batch(name, b"{}"),
        lambda api: api.search(name, {}),
    ):
        with pytest.raises(Invalid, match="cannot be a collection's name"):
            talk([], call)


def test_a_lost_server_is_told():
    with pytest.raises(Unavailable) as caught:
        talk([httpx.ConnectError("refused")], lambda api: api.collections())
    assert caught.value.code == "server_lost"
    assert "the server" in caught.value.detail
    assert hint_for(caught.value)


def test_a_silent_server_is_told():
    with pytest.raises(Expired):
        talk([httpx.ReadTimeout("")], lambda api: api.collections())


def test_an_unreadable_answer_is_a_bug():
    with pytest.raises(Broken):
        talk([httpx.Response(200, content=b"<html>")], lambda api: api.collections())


def test_the_listing_is_read_page_by_page():
    pages = [
        httpx.Response(200, json={"documents": [{"id": "a", "hash": "1", "chunks": 1, "path": "a"}], "next": "a"}),
        httpx.Response(
            200, json={"documents": [{"id": "b", "hash": "", "chunks": 0, "path": "b", "new": 1}], "next": None}
        ),
    ]

    async def ids(api):
        return [one.id async for page in api.documents("c?ü") for one in page.documents]

    found, requests, _ = talk(pages, ids)
    assert found == ["a", "b"]
    assert requests[0].url.raw_path == b"/v1/collections/c%3F%C3%BC/documents?limit=1000"
    assert requests[1].url.params["after"] == "a"


def test_ids_are_deleted_in_the_body():
    deleted, requests, _ = talk(
        [httpx.Response(200, json={"deleted": 2})], lambda api: api.delete_documents("c", ["a", "b"])
    )
    assert deleted == 2
    assert requests[0].method == "DELETE"
    assert json.loads(requests[0].content) == {"ids": ["a", "b"]}


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


def test_the_field_and_the_request_are_named():
    assert error_from(422, {}, b'{"detail":"must be more","field":"limit"}').detail == "limit: must be more"
    assert "r1" in error_from(500, {}, b'{"detail":"oops","request_id":"r1"}').detail
    assert error_from(504, {}, b'{"operation":"embed"}').operation == "embed"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b"<html>"])
def test_an_answer_without_a_problem_still_says_something(body):
    assert "418" in error_from(418, {}, body).detail


@given(st.integers(1, 30), st.one_of(st.none(), st.floats(0, 1e6)), st.floats(0, 0.999))
def test_patience_is_bounded(attempt, retry_after_s, chance):
    delay_s = RequestRetryPolicy(attempts_max=5).delay_s(attempt, retry_after_s, chance)
    if attempt >= 5:
        assert delay_s is None
    else:
        assert 0 < delay_s <= DELAY_S_MAX * 1.5
        assert delay_s >= min(retry_after_s or 0, DELAY_S_MAX)
