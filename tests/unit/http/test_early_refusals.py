"""Requests that are refused before they are parsed: plainly whole ones, and none that is served in a storm too."""

from __future__ import annotations

import json

import pytest

from penstock.core.traffic import build_load_shedder
from penstock.http.early_refusals import EarlyRefusal
from penstock.kernel.settings import HttpSettings
from tests.fakes.api import Api

BODY = b'{"query": "q"}'
NOW_S = 1000.0


def request(target: bytes = b"/v1/search", *fields: bytes, method: bytes = b"POST", body: bytes = BODY) -> bytes:
    named = fields if any(b"ontent-" in one for one in fields) else (*fields, b"Content-Length: %d" % len(body))
    head = b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: localhost", *named])
    return head + b"\r\n\r\n" + body


def full(api: Api) -> Api:
    """Fill the load shedder."""
    shedder = api.gate.traffic.shedder
    for _ in range(20):
        shedder.begin("a")
    for n in range(400):
        shedder.observe(10.0, NOW_S - 200.0 + 0.5 * n)
    assert shedder.full
    return api


def refused(api: Api, data: bytes) -> EarlyRefusal | None:
    return api.gate.early_refusals.refuse(data, "127.0.0.1", NOW_S - 0.5, NOW_S, [(b"date", b"today")])


def test_a_whole_request_is_refused_as_the_gate_does_it() -> None:
    api = full(Api())
    told = refused(api, request(b"/v1/search", b"X-Request-ID: Mine-7"))
    assert told is not None
    assert not told.closes
    head, _, body = told.response.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    fields = dict(line.split(b": ") for line in lines[1:])
    assert fields[b"date"] == b"today"
    assert fields[b"x-request-id"] == b"Mine-7"
    assert fields[b"content-type"] == b"application/problem+json"
    assert int(fields[b"content-length"]) == len(body)
    assert int(fields[b"retry-after"]) >= 1
    problem = json.loads(body)
    assert (problem["code"], problem["request_id"]) == ("too_many_requests_in_flight", "Mine-7")


def test_it_is_counted_and_the_ladder_sees_it() -> None:
    api = full(Api())
    assert refused(api, request()) is not None
    traffic = api.gate.traffic
    assert (traffic.clients.total.refused, traffic.clients.by_client["127.0.0.1"].refused) == (1, 1)
    assert set(traffic.overloaded_at_s.values()) == {NOW_S}
    reason = {"reason": "too_many_requests_in_flight"}
    assert api.core.metrics.registry.get_sample_value("requests_refused_total", reason) == 1.0


def test_a_vendor_s_route_has_its_own_form() -> None:
    told = refused(full(Api()), request(b"/v1/embeddings"))
    assert told is not None
    assert "error" in json.loads(told.response.partition(b"\r\n\r\n")[2])


def test_a_connection_that_is_to_end_ends() -> None:
    told = refused(full(Api()), request(b"/v1/search", b"Connection: close"))
    assert told is not None
    assert told.closes
    assert b"\r\nconnection: close\r\n" in told.response


def test_an_id_that_is_not_usable_is_replaced() -> None:
    told = refused(full(Api()), request(b"/v1/search", b"X-Request-ID: " + b"x" * 129))
    assert told is not None
    assert b"xxx" not in told.response


@pytest.mark.parametrize(
    "data",
    [
        request(method=b"GET"),
        request(b"/livez"),
        request(b"/mcp"),
        request(b"http://localhost/v1/search"),
        request().replace(b"1.1", b"1.0"),
        request()[:-1],
        request() + b"x",
        request() + request(),
        request(b"/v1/search", b"Content-Length: 14", b"Content-Length: 14"),
        request(b"/v1/search", b"Content-Length: +14"),
        request(b"/v1/search", b"Content-Length : 14"),
        request(b"/v1/search", b"Content-Length: 0000014"),
        request(b"/v1/search", b"Content-Length: 14", b"Transfer-Encoding: chunked"),
        request(b"/v1/search", b"X: 1\nTransfer-Encoding: chunked"),
        request(b"/v1/search", b"Expect: 100-continue"),
        request(b"/v1/search", b"Upgrade: h2c"),
        request(b"/v1/search", b"Connection: close, x"),
        request(b"/v1/search", b"Origin: https://elsewhere.example"),
        request(b"/v1/search", b"X: " + b"y" * 9000),
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n",
        b"\x16\x03\x01",
        b"",
    ],
)
def test_what_is_not_plainly_one_whole_request_is_left_to_the_parser(data: bytes) -> None:
    assert refused(full(Api()), data) is None


def test_nothing_is_refused_while_there_is_room_or_the_server_drains() -> None:
    assert refused(Api(), request()) is None
    api = full(Api())
    api.gate.traffic.draining = True
    assert refused(api, request()) is None, "a drain has its own refusal"


def test_a_server_that_takes_few_requests_has_a_limit_too() -> None:
    assert build_load_shedder(HttpSettings(max_concurrent=2)).limit == 2
