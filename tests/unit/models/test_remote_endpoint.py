"""One HTTP endpoint: what is sent, what an answer means, and what never gets out."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import logging

import httpx
import pytest

from penstock.kernel.context import Context, enforce_deadline
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.models.remote_endpoint import BatchTooLarge, ModelEndpoint, ModelEndpointSettings, retry_after_s
from penstock.pools.remote_dependency import PAUSE_CODE
from tests.clock import quiet, virtual
from tests.fakes.endpoint import KEY, Dripping, FakeEndpoint, always, dead, hanging
from tests.fakes.loop_clock import LoopClock

WORK = Context.background()
MESSAGE = {"model": "m", "input": ["alpha"]}


def make(transport: FakeEndpoint, url: str = "http://models.test", key: str = KEY) -> ModelEndpoint:
    return ModelEndpoint(
        ModelEndpointSettings("embed", "models.dense", url, key), "/v1/embeddings", LoopClock(), transport
    )


async def post(transport: FakeEndpoint, bytes_max: int = 100_000, ctx: Context = WORK) -> bytes:
    endpoint = make(transport)
    try:
        return await endpoint.post(MESSAGE, bytes_max, ctx)
    finally:
        await endpoint.close()


@virtual
async def test_a_request_carries_the_message_the_key_and_the_time_left():
    transport = FakeEndpoint()
    assert b"embedding" in await post(transport, ctx=WORK.within(1.5, "embed", LoopClock().now()))
    (request,) = transport.asked
    assert (request.method, str(request.url)) == ("POST", "http://models.test/v1/embeddings")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-request-timeout-ms"] == "1500"
    assert request.headers["accept-encoding"] == "identity"
    assert transport.messages() == [MESSAGE]


@virtual
async def test_without_a_deadline_or_a_key_none_is_sent():
    transport = FakeEndpoint()
    endpoint = make(transport, key="")
    await endpoint.post(MESSAGE, 100_000, WORK)
    assert not {"authorization", "x-request-timeout-ms"} & set(transport.asked[0].headers)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://h", "http://h/v1/embeddings"),
        ("http://h/", "http://h/v1/embeddings"),
        ("http://h:81/v1", "http://h:81/v1/embeddings"),
        ("https://h/proxy/v1/", "https://h/proxy/v1/embeddings"),
        ("http://h/v1/embeddings", "http://h/v1/embeddings"),
        ("http://h/deep/er", "http://h/deep/er/v1/embeddings"),
        (" http://h/v1 ", "http://h/v1/embeddings"),
        ("http://[::1]:9/v1?api-version=3#x", "http://[::1]:9/v1/embeddings"),
    ],
)
def test_an_address_may_have_some_of_the_path_already(url, whole):
    assert make(FakeEndpoint(), url).url == whole


@pytest.mark.parametrize("url", ["", "models.test", "ftp://h", "http://", "http://u:p@h", "http://h:port", "http://\0"])
def test_what_is_no_address_is_refused_by_its_setting(url):
    with pytest.raises(Invalid, match=r"^models\.dense\.url: ") as caught:
        make(FakeEndpoint(), url)
    assert caught.value.field == "models.dense.url"


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key):
    with pytest.raises(Invalid, match=r"^models\.dense\.api_key: ") as caught:
        make(FakeEndpoint(), key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "family", "code", "said"),
    [
        (401, Broken, "endpoint_unauthorized", "models.dense.api_key"),
        (403, Broken, "endpoint_unauthorized", "models.dense.api_key"),
        (404, Broken, "endpoint_not_found", "models.dense.url"),
        (405, Broken, "endpoint_not_found", "models.dense.url"),
        (301, Broken, "endpoint_not_found", "models.dense.url"),
        (413, BatchTooLarge, "batch_too_large", "of this size"),
        (422, BatchTooLarge, "batch_too_large", "of this size"),
        (400, Invalid, "endpoint_refused", "texts"),
        (408, Unavailable, "endpoint_failed", "failed"),
        (500, Unavailable, "endpoint_failed", "failed"),
        (503, Unavailable, "endpoint_failed", "failed"),
        (599, Unavailable, "endpoint_failed", "failed"),
    ],
)
@virtual
async def test_a_refusal_is_translated(status, family, code, said):
    transport = FakeEndpoint()
    transport.behave = always(status, json={"error": {"message": "because\nof\x1b[31m this"}})
    with pytest.raises(family, match=said) as caught:
        await post(transport)
    assert caught.value.code == code
    assert type(caught.value) is family
    assert ("because of [31m this" in caught.value.detail) is (status not in {401, 403})


@pytest.mark.parametrize(
    ("header", "code", "after_s"),
    [("7", PAUSE_CODE, 7.0), ("0.5", PAUSE_CODE, 0.5), ("", "dependency_busy", 1.0), ("soon", "dependency_busy", 1.0)],
)
@virtual
async def test_an_endpoint_at_its_limit_says_when_to_come_back(header, code, after_s):
    transport = FakeEndpoint()
    transport.behave = always(429, headers={"retry-after": header} if header else {})
    with pytest.raises(Rejected) as caught:
        await post(transport)
    assert (caught.value.code, caught.value.retry_after_s, caught.value.by_client) == (code, after_s, False)


def test_a_date_is_a_time_to_come_back_too():
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert retry_after_s(email.utils.format_datetime(soon, usegmt=True)) == pytest.approx(60, abs=3)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    assert [retry_after_s(text) for text in ("", "-1", "nan", "inf", "-inf", "a day")] == [None] * 6


@virtual
async def test_a_refusal_need_not_be_json_nor_short_nor_come_to_its_end():
    transport = FakeEndpoint()
    endless = Dripping(*[b"<html>" * 1000] * 50)
    for stream in (endless, Dripping(b"{", httpx.ReadError("gone"))):
        transport.behave = always(500, stream=stream)
        with pytest.raises(Unavailable, match=r"failed \(500\)$"):
            await post(transport)
    assert endless.read <= 2 * 6000
    assert endless.closed


@virtual
async def test_an_answer_longer_than_makes_sense_is_not_read():
    transport = FakeEndpoint()
    stream = Dripping(*[b" " * 1000] * 1000)
    transport.behave = always(200, stream=stream)
    with pytest.raises(Broken, match="longer than 5000 bytes"):
        await post(transport, bytes_max=5000)
    assert stream.read == 6000
    assert stream.closed


@virtual
async def test_a_packed_answer_is_not_unpacked():
    transport = FakeEndpoint()
    transport.behave = always(200, headers={"content-encoding": "gzip"}, stream=Dripping(b"\x1f\x8b"))
    with pytest.raises(Broken, match="encoded as 'gzip'"):
        await post(transport)


@virtual
async def test_one_that_cannot_be_reached_or_dies_in_the_middle_is_unavailable():
    transport = FakeEndpoint()
    transport.behave = dead
    with pytest.raises(Unavailable, match="cannot be reached: All connection attempts failed") as caught:
        await post(transport)
    assert (caught.value.dependency, caught.value.code) == ("embed", "endpoint_unreachable")
    transport.behave = always(200, stream=Dripping(b"[", httpx.RemoteProtocolError("")))
    with pytest.raises(Unavailable, match="RemoteProtocolError"):
        await post(transport)


@virtual
async def test_one_that_hangs_is_left_at_the_deadline_and_told_so():
    transport = FakeEndpoint()
    transport.behave = hanging
    ctx = WORK.within(2.0, "embed", LoopClock().now())
    with pytest.raises(Expired):
        async with enforce_deadline(ctx.deadline):
            await post(transport, ctx=ctx)
    assert (transport.hung_up, transport.running) == (1, 0)


@virtual
async def test_a_caller_that_goes_while_the_answer_drips_closes_it():
    transport = FakeEndpoint()
    stream = Dripping(*[b" "] * 1000, pause_s=1.0)
    transport.behave = always(200, stream=stream)
    asked = asyncio.create_task(post(transport))
    await quiet()
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()
    assert stream.closed


@virtual
async def test_the_key_is_in_no_error_no_log_line_and_no_name(caplog):
    caplog.set_level(logging.DEBUG)
    transport = FakeEndpoint()
    seen = [repr(ModelEndpointSettings("embed", "models.dense", "http://h", KEY)), repr(make(transport))]
    echo = {"error": f"Incorrect API key provided: {KEY}"}
    for status in (400, 401, 403, 404, 413, 422, 429, 500):
        transport.behave = always(status, json=echo)
        with pytest.raises((Broken, Invalid, Rejected, Unavailable)) as caught:
            await post(transport)
        error: BaseException | None = caught.value
        while error is not None:
            seen += [str(error), repr(error), repr(error.__dict__)]
            error = error.__cause__
    transport.behave = dead
    with pytest.raises(Unavailable) as unreached:
        await post(transport)
    assert unreached.value.__cause__ is None
    assert not [text for text in [*seen, caplog.text] if KEY in text]
