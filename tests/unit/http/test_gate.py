import asyncio
import json
import logging
from typing import Any

import pytest

from penstock.http.gate import PIECE_BYTES, Gate
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics
from tests.clock import BEGIN_S, virtual
from tests.fakes.api import Caller, scope

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


def gate(app: Any = echo, **limits: Any) -> Gate:
    return Gate(app, HttpSettings(**limits), Metrics())


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
    assert answer.headers["connection"] == "close"
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
        return {"type": "http.disconnect"} if asyncio.get_running_loop().time() > BEGIN_S + 150 else {"body": b""}

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

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 10 * PIECE_BYTES}

    one = gate(write_timeout=10)
    await one(scope("POST", "/x"), receive, send)
    assert asyncio.get_running_loop().time() == BEGIN_S + 10
    assert len(sent) == 2
    assert caplog.messages == ["a client went away"]
    assert one.in_flight == 0


@virtual
async def test_a_reader_too_slow_for_a_problem_is_cut_off_quietly():
    async def send(_message: Any) -> None:
        await asyncio.sleep(60)

    one = gate(raises(Unavailable("x", dependency="y")), write_timeout=1)
    await one(scope("GET", "/x"), None, send)
    one.draining = True
    await one(scope("GET", "/x"), None, send)
    assert one.in_flight == 0


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
    one._release = release
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
    assert one.in_flight == 2
    one._release.set()
    assert [t.status for t in await asyncio.gather(*tasks)] == [200, 200]
    assert (await Caller(one).ask("GET", "/x")).status == 200
    assert refused(one, "too_many_requests_in_flight") == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
@virtual
async def test_probes_are_answered_when_full_and_when_draining(path):
    one = holding(max_concurrent=1)
    task = asyncio.create_task(Caller(one).ask("GET", "/x"))
    await asyncio.sleep(0)
    assert (await Caller(one).ask("GET", path)).status == 200
    one.draining = True
    assert (await Caller(one).ask("GET", path)).status == 200
    one._release.set()
    await task


@virtual
async def test_draining_refuses_new_requests_and_lets_running_ones_finish():
    one = holding()
    task = asyncio.create_task(Caller(one).ask("GET", "/x"))
    await asyncio.sleep(0)
    one.draining = True
    answer = await Caller(one).ask("GET", "/y")
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "draining", "5")
    assert await one.drained(1) is False
    one._release.set()
    assert await one.drained(1) is True
    assert task.done()
    assert (await task).status == 200


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
    assert (seen["penstock.request_id"], seen["penstock.traceparent"]) == ("mine-1", PARENT)


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
        (Rejected("busy", retry_after_s=2.2), 503, "overloaded", {"retry_after_s": 2.2, "retryable": True}),
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
    assert one.in_flight == 0
    held = holding()
    task = asyncio.create_task(Caller(held).ask("GET", "/x"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held.in_flight == 0


@virtual
async def test_a_problem_for_a_request_whose_body_was_read_keeps_the_connection():
    async def reads(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        raise Unavailable("x", dependency="y")

    assert "connection" not in (await Caller(gate(reads)).ask("POST", "/x", b"all of it")).headers
    assert "connection" not in (await Caller(gate(raises(Rejected("x")))).ask("GET", "/x")).headers
    unread = await Caller(gate(raises(Rejected("x")))).ask("POST", "/x", b"unread")
    assert unread.headers["connection"] == "close"
    assert json.loads(unread.body)["code"] == "overloaded"
