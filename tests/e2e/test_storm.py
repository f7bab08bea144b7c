"""What a storm meets before the gate: the accept queue, the age of what waits to be read, refusals without parsing."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from penstock.http.request_context import SENT_KEY
from penstock.http.socket_age import unread_s
from tests.rigs.toys import GET, Serving, echo, real, serving

SEARCH = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def fill(serves: Serving) -> None:
    """Let the loop be late until nothing more is admitted."""
    shedder = serves.gate.traffic.shedder
    for _ in range(20):
        shedder.begin("busy")
    now_s = asyncio.get_running_loop().time()
    for n in range(400):
        shedder.observe(10.0, now_s - 200.0 + 0.5 * n)
    assert shedder.full


def drain(serves: Serving) -> None:
    for _ in range(20):
        serves.gate.traffic.shedder.end("busy")


@real
async def test_connections_that_wait_are_accepted_with_the_one_before_them():
    async with serving(echo) as serves:
        clients = [socket.create_connection(("127.0.0.1", serves.port)) for _ in range(40)]
        for _ in range(8):  # turns of the loop: it accepts one connection in each
            await asyncio.sleep(0)
        assert len(serves.server.connections.connections) == 40
        for one in clients:
            one.sendall(GET)
        for one in clients:
            one.setblocking(False)
            assert (await asyncio.get_running_loop().sock_recv(one, 100)).startswith(b"HTTP/1.1 200")
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels tell it otherwise")
@real
async def test_the_time_that_a_request_has_waited_to_be_read_counts():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope[SENT_KEY])
        await echo(scope, receive, send)

    async with serving(app) as serves:
        client = socket.create_connection(("127.0.0.1", serves.port))
        for _ in range(8):
            await asyncio.sleep(0)
        client.sendall(GET)
        sent_s = time.monotonic()
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is to be late
        client.setblocking(False)
        assert (await asyncio.get_running_loop().sock_recv(client, 100)).startswith(b"HTTP/1.1 200")
        client.close()
        assert seen == [pytest.approx(sent_s, abs=0.1)]
        assert serves.gate.traffic.shedder.limit == 1000, "a loop that stood still once is not overloaded"


@real
async def test_a_client_s_own_slowness_is_no_wait_for_the_loop():
    waits = []

    async def app(scope, receive, send):
        waits.append(time.monotonic() - scope[SENT_KEY])
        await asyncio.sleep(0.2)
        await echo(scope, receive, send)

    async with serving(app) as serves:
        reader, writer = await serves.connect()
        writer.write(GET[:10])
        await asyncio.sleep(0.2)
        writer.write(GET[10:] + GET)
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    assert max(waits) < 0.15, "neither a head in pieces, nor what is sent behind another request"


def test_what_is_no_connection_has_no_age():
    left, right = socket.socketpair()
    assert unread_s(left) == unread_s(None) == 0.0
    left.close()
    right.close()
    assert unread_s(left) == 0.0


@real
async def test_a_request_is_refused_without_being_parsed_and_its_connection_goes_on():
    async with serving(echo) as serves:
        reader, writer = await serves.connect()
        fill(serves)
        for _ in range(3):
            writer.write(SEARCH)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert b"too_many_requests_in_flight" in await reader.readexactly(length)
        drain(serves)
        writer.write(SEARCH)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"{}"
        writer.close()


@real
async def test_a_connection_that_is_to_end_ends_behind_the_refusal():
    async with serving(echo) as serves:
        fill(serves)
        assert (await serves.ask(SEARCH)).startswith(b"HTTP/1.1 503")
        await serves.until(lambda: not serves.server.connections.connections)
        drain(serves)


@real
async def test_what_comes_in_pieces_or_together_is_refused_by_the_gate():
    async with serving(echo) as serves:
        fill(serves)
        reader, writer = await serves.connect()
        writer.write(SEARCH[:40])
        await asyncio.sleep(0.05)
        writer.write(SEARCH[40:] + SEARCH)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()
        drain(serves)


@real
async def test_probes_are_answered_while_nothing_else_is():
    async with serving(echo) as serves:
        fill(serves)
        assert (await serves.ask(GET.replace(b"/x", b"/livez"))).startswith(b"HTTP/1.1 200")
        assert (await serves.ask(GET)).startswith(b"HTTP/1.1 503")
        drain(serves)
