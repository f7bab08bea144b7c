"""The gate behind real sockets: clients that mean harm, or simply leave. The applications are toys."""

import asyncio
import contextlib
import resource
import socket
import struct
import time
from typing import Any

import pytest

from penstock.bus.contract import TopicRefusal
from penstock.http.gate import GateInputs
from penstock.http.protocol import HEAD_BYTES_MAX
from tests.rigs.toys import GET, LIMIT_S, POST, echo, endless, real, serving


@real
async def test_a_client_that_sends_a_byte_now_and_then_gets_408_and_is_cut_off():
    async with serving(echo, read_timeout=LIMIT_S) as serves:
        reader, writer = await serves.connect()
        writer.write(POST % 1000)
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        began_s = time.monotonic()
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait({answer}, timeout=0.05)
        assert (await answer).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began_s < 10 * LIMIT_S
        assert serves.gate.traffic.in_flight == 0
        writer.close()


@pytest.mark.parametrize("first", [b"", GET])
@real
async def test_a_client_that_sends_its_head_for_ever_is_cut_off(first):
    async with serving(echo, header_timeout=LIMIT_S) as serves:
        reader, writer = await serves.connect()
        writer.write(first)
        if first:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        writer.write(b"GET /x HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"x-more: 1\r\n")
            await asyncio.wait({answer}, timeout=0.05)
        assert (await answer).startswith(b"HTTP/1.1 408")
        await serves.until(lambda: not serves.server.connections.connections)
        assert len(serves.server.connections.awaiting_head) == 0
        writer.close()


@pytest.mark.parametrize("tail", [b"\r\n", b""])
@real
async def test_a_client_that_sends_nothing_or_empty_lines_is_cut_off(tail):
    async with serving(echo, header_timeout=LIMIT_S) as serves:
        reader, writer = await serves.connect()
        writer.write(GET + tail if tail else b"")
        if tail:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(tail)
        await serves.until(lambda: not serves.server.connections.connections)
        assert (await reader.read()).startswith(b"HTTP/1.1 408" if tail else b"")
        writer.close()


@real
async def test_a_head_without_end_is_refused_before_it_fills_the_memory():
    async with serving(echo) as serves:
        reader, writer = await serves.connect()
        answer = asyncio.create_task(reader.read(64))
        writer.write(b"GET /x HTTP/1.1\r\n")
        sent = 0
        while not answer.done() and sent < 50 * HEAD_BYTES_MAX:
            writer.write(b"x-more: " + b"y" * 8000 + b"\r\n")
            sent += 8010
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionResetError):
            assert (await answer).startswith(b"HTTP/1.1 431")
        await serves.until(lambda: not serves.server.connections.connections)
        assert serves.server.connections.dropped == 1
        writer.close()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("size", [60_000, 30_000_000])
@real
async def test_a_client_that_reads_nothing_is_cut_off_and_nothing_of_it_stays(size, kept):
    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(size).encode())] + [(b"connection", b"close")] * (not kept)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with serving(large, write_timeout=LIMIT_S) as serves:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", serves.port))
        await loop.sock_sendall(client, GET)
        # Each is lost in its own way: while it is written, after it with the connection kept, after it without.
        await serves.until(lambda: serves.server.server_state.total_requests + serves.gate.traffic.in_flight > 0)
        [connection] = serves.server.connections.connections
        assert connection.transport.get_write_buffer_size() > 0
        await serves.until(lambda: not serves.server.connections.connections and not serves.gate.traffic.in_flight)
        assert serves.gate.traffic.cut_off == (1 if size > 60_000 else 0)
        client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@real
async def test_a_caller_who_hangs_up_has_its_work_cancelled(how, caplog):
    ended = asyncio.Event()

    async def works(scope: Any, receive: Any, send: Any) -> None:
        try:
            await endless(scope, receive, send)
        except asyncio.CancelledError:
            ended.set()
            raise

    async with serving(works) as serves:
        _, writer = await serves.connect()
        writer.write(POST % 3 + b"abc")
        await serves.until(lambda: serves.gate.traffic.in_flight == 1)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        await ended.wait()
        await serves.until(lambda: serves.gate.traffic.in_flight == 0)
        assert serves.gate.traffic.client_gone == 1
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


@real
async def test_a_refused_request_with_a_short_body_leaves_its_connection_in_order():
    full = True
    refusal = TopicRefusal("topic_full", 1.0, by_client=False)
    async with serving(echo, GateInputs(backpressure=lambda *_: refusal if full else None)) as serves:
        reader, writer = await serves.connect()
        for full, status in ((True, b"503"), (False, b"200"), (True, b"503"), (False, b"200")):
            writer.write(POST % 5)
            if full:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(b"hello")
            else:
                writer.write(b"hello")
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert (body == b"hello") is (status == b"200")
        writer.close()


@real
async def test_thousands_of_idle_connections_do_not_hurt_the_others():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(echo) as serves:
        idle = [await serves.connect() for _ in range(min(4000, soft // 5))]
        times_s = []
        for _ in range(50):
            began_s = time.monotonic()
            assert (await serves.ask()).startswith(b"HTTP/1.1 200")
            times_s.append(time.monotonic() - began_s)
        assert sorted(times_s)[25] < 0.05
        assert len(serves.server.connections.awaiting_head) == len(idle)
        for _, writer in idle:
            writer.close()


@real
async def test_when_there_are_too_many_connections_the_longest_idle_gives_way():
    async with serving(echo) as serves:
        serves.server.connections.connections_max = 3
        readers = []
        for _ in range(3):
            reader, writer = await serves.connect()
            readers.append((reader, writer))
            await serves.until(lambda: len(serves.server.connections.connections) == len(readers))
        assert (await serves.ask()).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionResetError):
            assert await readers[0][0].read() == b""
        readers[2][1].write(GET)
        assert (await readers[2][0].readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in readers:
            writer.close()


@real
async def test_a_flood_of_idle_connections_from_one_address_pushes_out_its_own():
    async with serving(echo) as serves:
        crowd = serves.server.connections
        crowd.connections_max = 20
        reader, writer = await serves.connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        elsewhere = {"local_addr": ("127.0.0.2", 0)}
        flood = [await asyncio.open_connection("127.0.0.1", serves.port, **elsewhere) for _ in range(100)]
        await serves.until(lambda: crowd.dropped >= 81 and len(crowd.connections) == 20)
        assert {address: len(idle) for address, idle in crowd.idle.items()} == {"127.0.0.1": 1, "127.0.0.2": 19}
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        for _, one in [*flood, (reader, writer)]:
            one.close()


@real
async def test_at_the_end_every_accepted_request_has_an_answer_or_a_refusal(caplog):
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/never":
            await endless(scope, receive, send)
        await release.wait()
        await echo(scope, receive, send)

    async with serving(app) as serves:
        asked = [asyncio.create_task(serves.ask(POST % 2 + b"ok")) for _ in range(100)]
        never = [asyncio.create_task(serves.ask(GET.replace(b"/x", b"/never"))) for _ in range(20)]
        await serves.until(lambda: serves.gate.traffic.in_flight == 120)
        serves.gate.traffic.draining = True
        drained = asyncio.create_task(serves.gate.wait_drained(LIMIT_S))
        late = await serves.ask()
        release.set()
        assert await drained is False
        assert {(await one).partition(b"\r\n")[0] for one in asked} == {b"HTTP/1.1 200 OK"}
        for one in [*never, asyncio.create_task(serves.ask())]:
            assert b'"code":"draining"' in await one
        assert b'"code":"draining"' in late
        assert b"connection: close" in late
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []
