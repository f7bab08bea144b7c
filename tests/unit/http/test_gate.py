import asyncio
import json
import logging
import random
from typing import Any

import pytest

from penstock.bus.contract import TopicRefusal
from penstock.http.exchange import DISCONNECT_WATCH_DELAY_S, PIECE_BYTES, UNREAD_BYTES_MAX
from penstock.http.gate import Gate, GateInputs
from penstock.http.request_context import request_state
from penstock.kernel.context import Criticality, current_request_id
from penstock.kernel.errors import Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import HttpSettings
from penstock.policies.levels import Level
from penstock.telemetry.metrics import Metrics
from tests.clock import BEGIN_S, virtual
from tests.fakes.api import Caller, scope

FULL = TopicRefusal("topic_full", 1.0, by_client=False)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body and send it back."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": body})


def gate(app: Any = echo, senses: GateInputs | None = None, **limits: Any) -> Gate:
    return Gate(app, HttpSettings(**limits), Metrics(), senses or GateInputs(rng=lambda: 0.0))


def raises(error: Exception) -> Any:
    async def app(*_: Any) -> None:
        raise error

    return app


def refused(one: Gate, reason: str) -> float:
    return one._metrics.registry.get_sample_value("requests_refused_total", {"reason": reason}) or 0.0


# Bodies


@virtual
async def test_a_body_passes_through_with_the_applications_headers():
    answer = await Caller(gate()).ask("POST", "/x", b"hello")
    assert (answer.status, answer.body, answer.headers["x-own"]) == (200, b"hello", "1")


@pytest.mark.parametrize("length", ["11", "011", "9" * 5000])
@virtual
async def test_an_announced_body_too_large_is_refused_before_any_of_it_is_read(length):
    caller = Caller(gate(max_body=10))
    answer = await caller.ask("POST", "/x", b"", {"content-length": length})
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert caller.received == 0
    assert refused(caller.app, "body_too_large") == 1


@pytest.mark.parametrize("length", ["10", "0010", "0", "nonsense", ""])
@virtual
async def test_an_announced_body_that_fits_is_read(length):
    caller = Caller(gate(max_body=10))
    assert (await caller.ask("POST", "/x", b"", {"content-length": length})).status == 200


@virtual
async def test_a_streamed_body_too_large_is_refused_at_the_first_byte_too_many():
    caller = Caller(gate(max_body=10))
    answer = await caller.ask("POST", "/x", [b"12345", b"67890", b"1", b"never read"], chunked=True)
    assert (answer.status, answer.json["code"], caller.received) == (413, "body_too_large", 3)
    assert "10 bytes" in answer.json["detail"]


@virtual
async def test_a_body_longer_than_announced_is_refused_too():
    answer = await Caller(gate(max_body=10)).ask("POST", "/x", b"x" * 11, {"content-length": "3"})
    assert answer.status == 413


@virtual
async def test_a_streamed_body_of_exactly_the_limit_passes():
    answer = await Caller(gate(max_body=10)).ask("POST", "/x", [b"12345", b"67890"], chunked=True)
    assert (answer.status, answer.body) == (200, b"1234567890")


async def _trickle(pauses: list[float]) -> Any:
    """Return a ``receive`` that pauses before each piece."""
    rest = list(pauses)

    async def receive() -> Any:
        await asyncio.sleep(rest.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": bool(rest)}

    return receive


@virtual
async def test_a_body_that_does_not_arrive_in_time_is_408():
    caller = Caller(gate(read_timeout=5))
    await caller.app(scope("POST", "/x", {"content-length": "9"}), await _trickle([3, 3, 3]), _sender(caller))
    answer = caller.answer()
    assert (answer.status, answer.json["code"], answer.json["operation"]) == (408, "read_timeout", "read")
    assert answer.headers["connection"] == "close"
    assert asyncio.get_running_loop().time() == BEGIN_S + 5


@virtual
async def test_a_slow_body_within_its_time_passes():
    caller = Caller(gate(read_timeout=10))
    await caller.app(scope("POST", "/x", {"content-length": "3"}), await _trickle([3, 3, 3]), _sender(caller))
    assert caller.answer().body == b"xxx"


def _sender(caller: Caller) -> Any:
    async def send(message: Any) -> None:
        caller.sent.append(message)

    return send


@virtual
async def test_waiting_for_the_end_of_a_request_without_a_body_has_no_limit():
    """An application that listens for a disconnect must not be told that a body is late."""

    async def listens(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        await asyncio.sleep(100)
        late = asyncio.get_running_loop().time() > BEGIN_S + 150
        return {"type": "http.disconnect"} if late else {"type": "http.request", "body": b""}

    caller = Caller(gate(listens, read_timeout=5))
    await caller.app(scope("GET", "/x"), receive, _sender(caller))
    assert caller.answer().status == 200


# Responses


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 5])
@virtual
async def test_a_response_goes_out_in_pieces_and_whole(size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    caller = Caller(gate())
    assert (await caller.ask("POST", "/x", body)).body == body
    assert max(len(message.get("body", b"")) for message in caller.sent) <= PIECE_BYTES
    assert len(caller.sent) == 1 + max(1, -(-size // PIECE_BYTES))


@virtual
async def test_a_reader_too_slow_is_cut_off(caplog):
    caplog.set_level(logging.INFO)
    sent = []

    async def send(message: Any) -> None:
        await asyncio.sleep(4)
        sent.append(message)

    body = [{"type": "http.request", "body": b"x" * 10 * PIECE_BYTES}]

    async def receive() -> Any:
        return body.pop() if body else await asyncio.get_running_loop().create_future()

    one = gate(write_timeout=10)
    await one(scope("POST", "/x"), receive, send)
    assert asyncio.get_running_loop().time() == BEGIN_S + 10
    assert len(sent) == 2
    assert caplog.messages == ["a client was cut off"]
    assert one.traffic.in_flight == 0


@virtual
async def test_a_reader_too_slow_for_a_problem_is_cut_off_quietly():
    async def send(_message: Any) -> None:
        await asyncio.sleep(60)

    one = gate(raises(Unavailable("x", dependency="y")), write_timeout=1)
    await one(scope("GET", "/x"), None, send)
    one.traffic.draining = True
    await one(scope("GET", "/x"), None, send)
    assert one.traffic.in_flight == 0


@virtual
async def test_a_client_that_goes_away_is_no_error(caplog):
    await gate(raises(ConnectionAbortedError("gone")))(scope("POST", "/x"), None, _sender(Caller(None)))
    assert all(record.levelno <= logging.INFO for record in caplog.records)


# Admission


def holding(**limits: Any) -> Gate:
    """Return a gate whose application waits until it is released."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/x":
            await release.wait()
        await echo(scope, receive, send)

    one = gate(app, **limits)
    one._may_answer = release
    return one


@virtual
async def test_too_many_at_once_are_refused_until_one_is_done():
    one = holding(max_concurrent=2)
    tasks = [asyncio.create_task(Caller(one).ask("GET", "/x")) for _ in range(2)]
    await asyncio.sleep(0)
    answer = await Caller(one).ask("POST", "/x", b"never read")
    assert (answer.status, answer.json["code"]) == (503, "too_many_requests_in_flight")
    assert answer.headers["retry-after"] == "1"
    assert answer.json["retryable"] is True
    assert one.traffic.in_flight == 2
    one._may_answer.set()
    assert [t.status for t in await asyncio.gather(*tasks)] == [200, 200]
    assert (await Caller(one).ask("GET", "/x")).status == 200
    assert refused(one, "too_many_requests_in_flight") == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics", "/v1/status", "/v1/alerts"])
@virtual
async def test_probes_are_answered_when_full_and_when_draining(path):
    one = holding(max_concurrent=1)
    task = asyncio.create_task(Caller(one).ask("GET", "/x"))
    await asyncio.sleep(0)
    assert (await Caller(one).ask("GET", path)).status == 200
    one.traffic.draining = True
    assert (await Caller(one).ask("GET", path)).status == 200
    one._may_answer.set()
    await task


@virtual
async def test_draining_refuses_new_requests_and_lets_running_ones_finish():
    one = holding()
    task = asyncio.create_task(Caller(one).ask("GET", "/x"))
    await asyncio.sleep(0)
    one.traffic.draining = True
    answer = await Caller(one).ask("GET", "/y")
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "draining", "5")
    asyncio.get_running_loop().call_later(5, one._may_answer.set)
    assert await one.wait_drained(6) is True
    assert (task.done(), asyncio.get_running_loop().time()) == (True, BEGIN_S + 5)
    assert ((await task).status, (await task).headers["connection"]) == (200, "close")


@virtual
async def test_other_kinds_of_connection_are_not_served():
    caller = Caller(gate())
    await caller.app({"type": "websocket"}, None, _sender(caller))
    assert caller.sent == []


# Identity


@virtual
async def test_request_id_and_trace_context_are_echoed_and_handed_on():
    seen = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await echo(scope, receive, send)

    answer = await Caller(gate(app)).ask("GET", "/x", headers={"X-Request-Id": "mine-1", "traceparent": PARENT})
    assert (answer.headers["x-request-id"], answer.headers["traceparent"]) == ("mine-1", PARENT)
    assert (request_state(seen).request_id, request_state(seen).traceparent) == ("mine-1", PARENT)


@pytest.mark.parametrize("bad", [None, "", "with space", "x" * 129, "ümlaut", "tab\t", "a\r\nset-cookie: x"])
@virtual
async def test_a_missing_or_unusable_request_id_is_replaced(bad):
    headers = {} if bad is None else {"x-request-id": bad}
    first = (await Caller(gate()).ask("GET", "/x", headers=headers)).headers["x-request-id"]
    second = (await Caller(gate()).ask("GET", "/x", headers=headers)).headers["x-request-id"]
    assert len(first) == 32
    assert int(first, 16) != int(second, 16)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-more",
        PARENT.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
@virtual
async def test_an_invalid_trace_context_is_not_echoed(bad):
    assert "traceparent" not in (await Caller(gate()).ask("GET", "/x", headers={"traceparent": bad})).headers


# Errors


@pytest.mark.parametrize(
    ("error", "status", "code", "more"),
    [
        (Rejected("busy", retry_after_s=2.2), 503, "overloaded", {"retry_after_s": 3.0, "retryable": True}),
        (Rejected("slow down", by_client=True), 429, "overloaded", {"retryable": True}),
        (Expired("search"), 504, "timeout", {"operation": "search", "retryable": True}),
        (Unavailable("down", dependency="store"), 503, "unavailable", {"dependency": "store", "retryable": True}),
    ],
)
@virtual
async def test_errors_become_problem_details(error, status, code, more):
    answer = await Caller(gate(raises(error))).ask("GET", "/x", headers={"x-request-id": "me"})
    assert (answer.status, answer.json["status"], answer.json["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.json["request_id"] == "me"
    assert more.items() <= answer.json.items()
    assert ("retry-after" in answer.headers) is (status in (429, 503))


@virtual
async def test_retry_after_is_whole_seconds_rounded_up():
    answer = await Caller(gate(raises(Rejected("busy", retry_after_s=2.2)))).ask("GET", "/x")
    assert answer.headers["retry-after"] == "3"


@virtual
async def test_an_unexpected_error_is_500_without_its_innards(caplog):
    answer = await Caller(gate(raises(KeyError("secret path /etc")))).ask("GET", "/x")
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (500, "internal", False)
    assert b"secret" not in answer.body
    assert b"KeyError" not in answer.body
    assert "secret path" in caplog.text


@virtual
async def test_an_error_after_the_response_began_leaves_it_incomplete(caplog):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    caller = Caller(gate(app))
    await caller.app(scope("GET", "/x"), None, _sender(caller))
    assert [message["type"] for message in caller.sent] == ["http.response.start"]


@virtual
async def test_the_gate_counts_down_whatever_happens():
    one = gate(raises(KeyError("x")))
    for _ in range(3):
        await Caller(one).ask("GET", "/x")
    assert one.traffic.in_flight == 0
    held = holding()
    task = asyncio.create_task(Caller(held).ask("GET", "/x"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held.traffic.in_flight == 0


@virtual
async def test_a_problem_for_a_request_whose_body_was_read_keeps_the_connection():
    async def reads(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        raise Unavailable("x", dependency="y")

    assert "connection" not in (await Caller(gate(reads)).ask("POST", "/x", b"all of it")).headers
    assert "connection" not in (await Caller(gate(raises(Rejected("x")))).ask("GET", "/x")).headers


@pytest.mark.parametrize(
    ("body", "headers", "chunked", "kept"),
    [
        (b"short", {}, False, True),
        (b"x" * UNREAD_BYTES_MAX, {}, False, True),
        (b"x" * (UNREAD_BYTES_MAX + 1), {}, False, False),
        (b"short", {}, True, False),
        (b"short", {"expect": "100-continue"}, False, False),
        (b"", {"content-length": "nonsense"}, False, False),
    ],
)
@virtual
async def test_a_short_unread_body_is_left_to_the_server_and_for_another_the_connection_is_closed(
    body, headers, chunked, kept
):
    unread = await Caller(gate(raises(Rejected("x")))).ask("POST", "/x", body, headers, chunked=chunked)
    assert json.loads(unread.body)["code"] == "overloaded"
    assert unread.headers.get("connection") == (None if kept else "close")


# The rate of each client


@virtual
async def test_a_client_over_its_rate_gets_429_and_is_told_when_to_come_back():
    one = gate(rate_limit=2, rate_burst=4)
    told = [await Caller(one).ask("GET", "/x") for _ in range(4)]
    assert [answer.status for answer in told] == [200] * 4
    assert [answer.headers["ratelimit"] for answer in told] == [
        '"default";r=3;t=1',
        '"default";r=2;t=1',
        '"default";r=1;t=2',
        '"default";r=0;t=2',
    ]
    assert {answer.headers["ratelimit-policy"] for answer in told} == {'"default";q=4;w=2'}
    caller = Caller(one)
    refusal = await caller.ask("POST", "/x", b"never read")
    assert (refusal.status, refusal.json["code"], refusal.json["retryable"]) == (429, "rate_limited", True)
    assert (refusal.headers["retry-after"], refusal.headers["ratelimit"]) == ("1", '"default";r=0;t=2')
    assert caller.received == 0
    assert refused(one, "rate_limited") == 1
    await asyncio.sleep(1)
    assert (await Caller(one).ask("GET", "/x")).status == 200


@virtual
async def test_one_clients_rate_is_not_anothers():
    one = gate(rate_limit=1, rate_burst=1)
    assert (await Caller(one).ask("GET", "/x")).status == 200
    assert (await Caller(one).ask("GET", "/x")).status == 429
    assert (await Caller(one, address="127.0.0.2").ask("GET", "/x")).status == 200
    assert (await Caller(one).ask("GET", "/x", headers={"x-api-key": "k"})).status == 200
    assert (
        await Caller(one, address="127.0.0.3").ask("GET", "/x", headers={"authorization": "Bearer k"})
    ).status == 429


@virtual
async def test_without_a_limit_nothing_is_told():
    one = gate(rate_limit=0)
    answers = [await Caller(one).ask("GET", "/x") for _ in range(500)]
    assert {answer.status for answer in answers} == {200}
    assert "ratelimit" not in answers[0].headers


@virtual
async def test_probes_have_no_rate():
    one = gate(rate_limit=1, rate_burst=1)
    answers = [await Caller(one).ask("GET", "/livez") for _ in range(5)]
    assert [(answer.status, "ratelimit" in answer.headers) for answer in answers] == [(200, False)] * 5


@virtual
async def test_a_flood_of_strangers_is_remembered_within_bounds():
    one = gate(rate_limit=1, rate_burst=1)
    for number in range(12_000):
        scoped = {**scope("GET", "/x", {"x-api-key": "k" * 100 + str(number)})}
        one._limiter.decide(one._clients.client_id(scoped, dict(scoped["headers"])), BEGIN_S)
    assert len(one._limiter) == 10_000
    assert all(len(client) < 48 for client in one._limiter._buckets)


@virtual
async def test_the_client_is_handed_on():
    seen = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await echo(scope, receive, send)

    one = gate(app, trusted_proxies="127.0.0.0/8")
    await Caller(one).ask("GET", "/x", headers={"x-forwarded-for": "203.0.113.9"})
    assert (request_state(seen).client, request_state(seen).arrived_s) == ("203.0.113.9", BEGIN_S)


def test_a_proxy_that_cannot_be_read_is_told_at_the_start():
    with pytest.raises(Invalid, match="nonsense"):
        gate(trusted_proxies="nonsense")


# Full topics, short memory


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (TopicRefusal("topic_full", 1.0, by_client=False), 503, "topic_full"),
        (TopicRefusal("client_share", 1.0, by_client=True), 429, "client_share"),
        (TopicRefusal("hopeless", 1.0, by_client=False), 503, "hopeless"),
    ],
)
@virtual
async def test_a_topic_nearly_full_takes_nothing_more_from_outside(refusal, status, code):
    one = gate(
        senses=GateInputs(backpressure=lambda _m, path, *_: refusal if path == "/full" else None, rng=lambda: 0.0)
    )
    caller = Caller(one)
    answer = await caller.ask("POST", "/full", b"x")
    assert (answer.status, caller.received) == (status, 0)
    assert (answer.json["code"], answer.headers["retry-after"]) == (code, "1")
    assert (await Caller(one).ask("POST", "/other", b"x")).status == 200


@virtual
async def test_the_topics_are_asked_with_what_the_head_says():
    seen = []
    one = gate(senses=GateInputs(backpressure=lambda *asked: seen.append(asked)))
    said = {"x-criticality": " Bulk", "x-api-key": "k", "x-request-timeout-ms": "250"}
    assert (await Caller(one).ask("POST", "/x", b"x", said)).status == 200
    ((method, path, head),) = seen
    assert (method, path, head.criticality, head.deadline.at_s) == ("POST", "/x", Criticality.BULK, BEGIN_S + 0.25)
    assert head.client.startswith("key:")


@virtual
async def test_what_is_logged_for_a_request_has_its_id():
    seen = []

    async def app(scope, receive, send):
        seen.append(current_request_id.get())
        await echo(scope, receive, send)

    for name in ("r-1", "r-2"):
        await Caller(gate(app)).ask("POST", "/x", b"hello", {"x-request-id": name})
    assert seen == ["r-1", "r-2"]


@virtual
async def test_what_is_refused_behind_the_gate_is_counted_by_its_reason_too():
    one = gate(raises(Rejected("no", code="hopeless")))
    assert (await Caller(one).ask("GET", "/x")).status == 503
    assert (refused(one, "hopeless"), one.traffic.in_time) == (1, 0)
    other = gate(raises(Invalid("no")))
    assert (await Caller(other).ask("GET", "/x")).status == 422
    assert refused(other, "invalid") == 0


@virtual
async def test_those_refused_together_do_not_come_back_together():
    one = gate(senses=GateInputs(backpressure=lambda *_: FULL, rng=random.Random(7).random))
    answers = [await Caller(one).ask("GET", "/x") for _ in range(50)]
    assert {answer.headers["retry-after"] for answer in answers} == {"2", "3"}
    assert all(float(answer.headers["retry-after"]) == answer.json["retry_after_s"] for answer in answers)


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    ("level", "size", "status"),
    [
        (Level.CRITICAL, 101, 503),
        (Level.CRITICAL, 100, 200),
        (Level.HIGH, 101, 200),
    ],
)
@virtual
async def test_a_large_body_is_refused_while_memory_is_short(level, size, status, chunked):
    one = gate(senses=GateInputs(memory_level=lambda: level, rng=lambda: 0.0), large_request=100)
    caller = Caller(one)
    answer = await caller.ask("POST", "/x", [b"x" * 60, b"x" * (size - 60), b""], chunked=chunked)
    assert answer.status == status
    if status == 503:
        assert (answer.json["code"], answer.headers["retry-after"]) == ("memory_short", "1")
        assert caller.received == (2 if chunked else 0)


@virtual
async def test_a_body_is_refused_when_memory_gets_short_while_it_streams():
    level = [Level.CALM]

    async def receive() -> Any:
        await asyncio.sleep(1)
        if asyncio.get_running_loop().time() > BEGIN_S + 3.5:
            level[0] = Level.CRITICAL
        return {"type": "http.request", "body": b"x" * 50, "more_body": True}

    caller = Caller(gate(senses=GateInputs(memory_level=lambda: level[0]), large_request=100))
    await caller.app(scope("POST", "/x", {"transfer-encoding": "chunked"}), receive, _sender(caller))
    assert (caller.answer().status, asyncio.get_running_loop().time()) == (503, BEGIN_S + 4)
    assert caller.answer().headers["connection"] == "close"


# Callers who hang up


def working(seen: list[str]) -> Any:
    """Return an application that works a hundred seconds, and says how that ended."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        seen.append("done")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize("after_s", [0, 0.001, DISCONNECT_WATCH_DELAY_S, 10, 99.99])
@virtual
async def test_work_for_a_caller_who_hung_up_is_cancelled_at_once(after_s):
    seen, loop = [], asyncio.get_running_loop()
    one = gate(working(seen))
    caller = Caller(one)
    loop.call_later(after_s, caller.gone.set)
    with pytest.raises(ValueError, match="unpack"):
        await caller.ask("POST", "/x", b"x")
    assert (seen, caller.sent) == (["cancelled"], [])
    assert loop.time() - BEGIN_S == pytest.approx(max(after_s, DISCONNECT_WATCH_DELAY_S), abs=0.002)
    assert (one.traffic.client_gone, one.traffic.in_time, one.traffic.in_flight) == (1, 0, 0)
    assert asyncio.current_task().cancelling() == 0


@virtual
async def test_a_caller_who_stays_has_its_answer_and_no_watcher_is_left():
    seen = []
    one = gate(working(seen))
    assert (await Caller(one).ask("POST", "/x", b"x")).status == 200
    await asyncio.sleep(0)
    assert (seen, one.traffic.client_gone, one.traffic.in_time) == (["done"], 0, 1)
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_a_quick_answer_needs_no_watcher():
    caller = Caller(gate())
    before = len(asyncio.all_tasks())
    await caller.ask("POST", "/x", b"x")
    assert (caller.received, len(asyncio.all_tasks())) == (1, before)
    await asyncio.sleep(1)
    assert caller.received == 1


@virtual
async def test_an_application_that_listens_late_shares_the_watcher():
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        await asyncio.sleep(1)
        await receive()

    one = gate(app)
    caller = Caller(one)
    asyncio.get_running_loop().call_later(5, caller.gone.set)
    with pytest.raises(ValueError, match="unpack"):
        await caller.ask("POST", "/x", b"x")
    assert (caller.received, one.traffic.client_gone, one.traffic.in_flight) == (2, 1, 0)


@virtual
async def test_a_reader_too_slow_has_its_connection_torn_down_where_the_server_allows_it():
    torn = asyncio.Event()

    async def send(_message: Any) -> None:
        await asyncio.sleep(100)

    async def receive() -> Any:
        await torn.wait()
        return {"type": "http.disconnect"}

    one = gate(raises(Rejected("x")), write_timeout=1)
    await one({**scope("GET", "/x"), "penstock.abort": torn.set}, receive, send)
    assert torn.is_set()
    assert (one.traffic.cut_off, one.traffic.in_flight) == (1, 0)


@virtual
async def test_a_server_that_says_disconnect_because_the_answer_is_out_means_nobody_gone():
    """Uvicorn does, as soon as the last piece is written; the task may still have something to do."""
    out = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await asyncio.sleep(1)

    first = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if first:
            return first.pop()
        await out.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            out.set()

    one = gate(app)
    await one(scope("GET", "/x"), receive, send)
    assert (one.traffic.client_gone, one.traffic.in_time) == (0, 1)


@virtual
async def test_a_caller_who_hangs_up_while_its_body_comes_counts_as_gone():
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        raise ConnectionAbortedError("the caller hung up")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    one = gate(app)
    await one(scope("POST", "/x", {"content-length": "9"}), receive, None)
    assert (one.traffic.client_gone, one.traffic.in_flight) == (1, 0)


@virtual
async def test_a_cancellation_from_elsewhere_beside_a_hang_up_stands():
    seen = []
    caller = Caller(gate(working(seen)))
    task = asyncio.create_task(caller.ask("POST", "/x", b"x"))
    await asyncio.sleep(1)
    caller.gone.set()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


# The end


@virtual
async def test_what_runs_when_the_drain_is_over_gets_a_typed_refusal():
    seen = []
    one = gate(working(seen))
    callers = [Caller(one) for _ in range(20)]
    tasks = [asyncio.create_task(caller.ask("POST", "/x", b"x")) for caller in callers]
    await asyncio.sleep(1)
    one.traffic.draining = True
    assert await one.wait_drained(5) is False
    told = await asyncio.gather(*tasks)
    assert {(answer.status, answer.json["code"], answer.headers["connection"]) for answer in told} == {
        (503, "draining", "close")
    }
    assert (one.traffic.in_flight, len(seen), repr(one)) == (0, 20, repr(one))
    assert "draining" in repr(one)


@virtual
async def test_one_that_swallows_its_cancellation_does_not_hold_up_the_end():
    async def app(*_: Any) -> None:
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                if stubborn.is_set():
                    raise

    stubborn = asyncio.Event()
    one = gate(app)
    task = asyncio.create_task(Caller(one).ask("GET", "/x"))
    await asyncio.sleep(1)
    one.traffic.draining = True
    assert await one.wait_drained(5) is False
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 7)
    stubborn.set()
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


# What it counts


@pytest.mark.parametrize(("status", "counts"), [(200, 1), (207, 1), (404, 1), (408, 0), (429, 0), (500, 0), (503, 0)])
@virtual
async def test_goodput_is_what_came_in_time_and_was_no_fault_of_the_servers(status, counts):
    late = False

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        request_state(scope).deadline_s = 0.0 if late else BEGIN_S + 5
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    one = gate(app)
    await Caller(one).ask("GET", "/x")
    assert (one.traffic.in_time, one.traffic.too_late) == (counts, 0)
    late = True
    await Caller(one).ask("GET", "/x")
    assert (one.traffic.in_time, one.traffic.too_late) == (counts, 1)


@virtual
async def test_an_answer_after_its_deadline_is_not_goodput():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        request_state(scope).deadline_s = BEGIN_S + 5
        await asyncio.sleep(4)
        await echo(scope, receive, send)

    one = gate(app)
    await Caller(one).ask("POST", "/x", b"x")
    assert (one.traffic.in_time, one.traffic.too_late) == (1, 0)
    await Caller(one).ask("POST", "/x", b"x")
    assert (one.traffic.in_time, one.traffic.too_late) == (1, 1)


@virtual
async def test_its_gauges_tell_the_most_in_flight_even_after_the_burst():
    one = holding()
    one._metrics.register_callbacks(one.traffic.callback_metrics())
    tasks = [asyncio.create_task(Caller(one).ask("GET", "/x")) for _ in range(7)]
    await asyncio.sleep(0)
    one._may_answer.set()
    await asyncio.gather(*tasks)
    await asyncio.sleep(5)
    value = one._metrics.registry.get_sample_value
    assert value("http_concurrent_requests") == 0
    assert value("http_concurrent_requests_max") == 7
    assert value("http_responses_total", {"in_time": "true"}) == 7
    assert value("http_client_disconnects_total", {"how": "client_gone"}) == 0
    await asyncio.sleep(60)
    assert value("http_concurrent_requests_max") == 0
