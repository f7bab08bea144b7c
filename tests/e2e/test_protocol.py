"""HTTP as RFC 9110 and RFC 9112 have it, sent to a real socket: the answers, and the end of the connection."""

import asyncio
import contextlib
import random
import re
from typing import Any

import pytest

from penstock.http.protocol import FIELDS_MAX, HEAD_BYTES_MAX
from tests.rigs.toys import GET, LIMIT_S, POST, echo, endless, real, serving

#: The connection stays, or is closed behind the answer.
OPEN, SHUT = "open", "shut"

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
HOST = b"Host: localhost\r\n"
G = b"GET /x HTTP/1.1\r\n" + HOST
P = b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: 5\r\n\r\nhello"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"

TABLE = {
    # Host: RFC 9112 §3.2
    "no host": (b"GET /x HTTP/1.1\r\n\r\n", [400], SHUT),
    "two hosts": (G + HOST + b"\r\n", [400], SHUT),
    "two hosts in 1.0": (b"GET /x HTTP/1.0\r\n" + HOST + HOST + b"\r\n", [400], SHUT),
    "a host with a space": (b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", [400], SHUT),
    "a host with a path": (b"GET /x HTTP/1.1\r\nHost: localhost/x\r\n\r\n", [400], SHUT),
    "a host with a user": (b"GET /x HTTP/1.1\r\nHost: a@localhost\r\n\r\n", [400], SHUT),
    "a host with no number as a port": (b"GET /x HTTP/1.1\r\nHost: localhost:http\r\n\r\n", [400], SHUT),
    "two origins": (b"GET /x HTTP/1.1\r\n" + HOST + b"Origin: http://a\r\norigin: null\r\n\r\n", [400], SHUT),
    "an empty host": (b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", [400], SHUT),
    "no host in 1.0": (b"GET /x HTTP/1.0\r\n\r\n", [200], SHUT),
    # Targets: RFC 9112 §3.2
    "an absolute target": (b"GET http://localhost:1/x HTTP/1.1\r\nHost: a.example\r\n\r\n", [200], OPEN),
    "an absolute target without a host": (b"GET http://localhost/x HTTP/1.1\r\n\r\n", [400], SHUT),
    "an absolute target with a user": (b"GET http://localhost@a.example/x HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "a target of another scheme": (b"GET ftp://localhost/x HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "a target with a fragment": (b"GET /x#y HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "a target that is no path": (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "an asterisk": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "a target in UTF-8": ("GET /ü HTTP/1.1\r\n".encode() + HOST + b"\r\n", [400], SHUT),
    "no target": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", [400], SHUT),
    "a target without end": (b"GET /" + b"x" * 2 * HEAD_BYTES_MAX, [414], SHUT),
    # Methods and versions: RFC 9110 §2.5, §9.1
    "an unknown method": (b"BREW /x HTTP/1.1\r\n" + HOST + b"\r\n", [501], SHUT),
    "a method in lower case": (b"get /x HTTP/1.1\r\n" + HOST + b"\r\n", [501], SHUT),
    "a tunnel": (b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"\r\n", [501], SHUT),
    "HTTP/0.9": (b"GET /x\r\n\r\n", [400], SHUT),
    "HTTP/1.2": (b"GET /x HTTP/1.2\r\n" + HOST + b"\r\n", [200], OPEN),
    "HTTP/1.1x": (b"GET /x HTTP/1.1x\r\n" + HOST + b"\r\n", [400], SHUT),
    "HTTP/2.0": (b"GET /x HTTP/2.0\r\n" + HOST + b"\r\n", [505], SHUT),
    "HTTP/3.0": (b"GET /x HTTP/3.0\r\n" + HOST + b"\r\n", [505], SHUT),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505], SHUT),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(60), [400], SHUT),
    # Fields: RFC 9112 §5
    "a folded field": (G + b"X: a\r\n b\r\n\r\n", [400], SHUT),
    "a space before the colon": (G + b"X : a\r\n\r\n", [400], SHUT),
    "a field without a colon": (G + b"Xa\r\n\r\n", [400], SHUT),
    "a field without a name": (G + b": a\r\n\r\n", [400], SHUT),
    "a NUL in a value": (G + b"X: a\0b\r\n\r\n", [400], SHUT),
    "a CR in a value": (G + b"X: a\rb\r\n\r\n", [400], SHUT),
    "LF only": (b"GET /x HTTP/1.1\nHost: localhost\n\n", [400], SHUT),
    "as many fields as are taken": (G + b"x: 1\r\n" * (FIELDS_MAX - 1) + b"\r\n", [200], OPEN),
    "more fields than that": (G + b"x: 1\r\n" * FIELDS_MAX + b"\r\n", [431], SHUT),
    "a head too large": (G + b"x: " + b"1" * HEAD_BYTES_MAX + b"\r\n\r\n", [431], SHUT),
    # Framing: RFC 9112 §6
    "a length": (P + LENGTH, [200], OPEN),
    "two lengths": (P + b"Content-Length: 5\r\n" + LENGTH, [400], SHUT),
    "two lengths in one": (P + b"Content-Length: 5, 5\r\n\r\nhello", [400], SHUT),
    "a length with a sign": (P + b"Content-Length: +5\r\n\r\nhello", [400], SHUT),
    "an empty length": (P + b"Content-Length: \r\n\r\nhello", [400], SHUT),
    "a length of 20 digits": (P + b"Content-Length: 99999999999999999999\r\n\r\nhello", [400], SHUT),
    "a length and chunks": (P + b"Content-Length: 5\r\n" + CHUNKED + CHUNKS, [400], SHUT),
    "chunks": (P + CHUNKED + CHUNKS, [200], OPEN),
    "chunks in two codings": (P + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, [501], SHUT),
    "chunks in two fields": (P + b"Transfer-Encoding: gzip\r\n" + CHUNKED + CHUNKS, [501], SHUT),
    "chunked twice": (P + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS, [400], SHUT),
    "chunked, but not last": (P + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS, [400], SHUT),
    "another coding": (P + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS, [400], SHUT),
    "chunks in 1.0": (P.replace(b"1.1", b"1.0") + CHUNKED + CHUNKS, [400], SHUT),
    "chunks with an extension": (P + CHUNKED + CHUNKS.replace(b"5", b"5;a=b"), [200], OPEN),
    "chunks with a trailer": (P + CHUNKED + CHUNKS[:-2] + b"X: 1\r\n\r\n", [200], OPEN),
    "a chunk's size with a prefix": (P + CHUNKED + b"0x" + CHUNKS, [400], SHUT),
    "a chunk's size with a sign": (P + CHUNKED + b"-" + CHUNKS, [400], SHUT),
    "a chunk's size with a space": (P + CHUNKED + CHUNKS.replace(b"5", b"5 "), [400], SHUT),
    "a chunk's size of 17 digits": (P + CHUNKED + b"f" * 17 + b"\r\n", [400], SHUT),
    "a chunk that does not end": (P + CHUNKED + CHUNKS.replace(b"o\r\n", b"oXX"), [400], SHUT),
    # Upgrades and expectations: RFC 9110 §7.8, §10.1.1
    "an upgrade": (G + UPGRADE + b"\r\n" + GET, [200, 200], OPEN),
    "an upgrade with a length": (P + UPGRADE + LENGTH + GET, [200, 200], OPEN),
    "an upgrade with chunks": (P + UPGRADE + CHUNKED + CHUNKS + GET, [200, 200], OPEN),
    "an upgrade with a length and garbage": (P + UPGRADE + LENGTH + b"!", [200, 400], SHUT),
    "an expectation": (P + b"Expect: 100-continue\r\n" + LENGTH, [100, 200], OPEN),
    "an expectation in 1.0": (P.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\n" + LENGTH, [200], SHUT),
    # Pipelines: RFC 9112 §9.3.2
    "three requests": (G + b"\r\n" + P + LENGTH + P + CHUNKED + CHUNKS, [200, 200, 200], OPEN),
    "empty lines between": (G + b"\r\n\r\n\r\n" + GET, [200, 200], OPEN),
    "garbage behind a request": (GET + b"GARBAGE\r\n\r\n", [200, 400], SHUT),
    "garbage behind a length": (P + LENGTH + b"GARBAGE\r\n\r\n", [200, 400], SHUT),
    "garbage behind chunks": (P + CHUNKED + CHUNKS + b"GARBAGE\r\n\r\n", [200, 400], SHUT),
    "no host in the second": (GET + b"GET /x HTTP/1.1\r\n\r\n" + GET, [200, 400], SHUT),
    "requests behind the last": (G + b"Connection: close\r\n\r\n" + GET + GET, [200], SHUT),
    "a body in two of them": (P + LENGTH + P + LENGTH.replace(b"5", b"3").replace(b"hello", b"abc"), [200, 200], OPEN),
}


async def told(port: int, pieces: list[bytes]) -> tuple[list[int], bytes, str]:
    """Send the pieces; return the answers' statuses, all that came, and what became of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came, state = b"", SHUT
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        while True:
            try:
                more = await asyncio.wait_for(reader.read(65_536), LIMIT_S)
            except TimeoutError:
                state = OPEN
                break
            if not more:
                break
            came += more
    except ConnectionResetError:
        state = "reset"
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(came)], came, state


@real
async def test_every_line_of_the_table_is_answered_as_the_rfcs_have_it():
    async with serving(echo) as serves:
        serves.server.config.timeout_keep_alive = 60
        ends = await asyncio.gather(*(told(serves.port, [data]) for data, _, _ in TABLE.values()))
    wrong = {}
    for (name, (_, statuses, state)), (got, came, became) in zip(TABLE.items(), ends, strict=True):
        problem = max(statuses) < 400 or b"content-type: application/problem+json" in came
        if (got, became, problem) != (statuses, state, True):
            wrong[name] = (got, became, came[:300])
    assert wrong == {}


@real
async def test_an_answer_does_not_depend_on_how_the_bytes_come():
    draw = random.Random(12)
    async with serving(echo) as serves:
        serves.server.config.timeout_keep_alive = 60
        ends = await asyncio.gather(*(told(serves.port, cut(data, draw)) for data, _, _ in TABLE.values()))
    wrong = {}
    for (name, (_, statuses, state)), (got, came, became) in zip(TABLE.items(), ends, strict=True):
        # A request line in pieces may be given up before its end is known.
        same = got == statuses or (len(got) == len(statuses) and got[-1] == 400 and statuses[-1] > 500)
        if not same or became != state:
            wrong[name] = (got, became, came[:300])
    assert wrong == {}


def cut(data: bytes, draw: random.Random) -> list[bytes]:
    """Return the data in up to seven pieces."""
    cuts = sorted(draw.sample(range(1, len(data)), min(6, len(data) - 1)))
    return [data[first:end] for first, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("mode", ["trailers", "one trailer", "an extension", "extensions", "empty lines", "requests"])
@real
async def test_what_is_sent_without_end_is_refused_or_not_read(mode):
    """Sixteen megabytes of each; the connection keeps none of them."""
    begin, again = {
        "trailers": (P + CHUNKED + b"5\r\nhello\r\n0\r\n", b"a: b\r\n" * 10_000),
        "one trailer": (P + CHUNKED + b"5\r\nhello\r\n0\r\na: ", b"x" * 65_536),
        "an extension": (P + CHUNKED + b"5;", b"x" * 65_536),
        "extensions": (P + CHUNKED, (b"1;" + b"x" * 1000 + b"\r\n \r\n") * 60),
        "empty lines": (b"", b"\r\n" * 30_000),
        "requests": (b"", GET * 1500),
    }[mode]
    async with serving(endless if mode == "requests" else echo) as serves:
        reader, writer = await serves.connect()
        writer.write(begin)
        sent = 0
        while sent < 16_000_000 and not reader.at_eof():
            writer.write(again)
            sent += len(again)
            try:
                await asyncio.wait_for(writer.drain(), LIMIT_S)
            except (TimeoutError, ConnectionError):
                break
            for connection in serves.server.connections.connections:
                assert kept_by(connection) < 1_000_000
        if mode == "requests":
            assert serves.gate.traffic.in_flight == 1
        else:
            assert _STATUS.findall(await reader.read(64)) == [b"431"]
            await serves.until(lambda: serves.gate.traffic.in_flight == 0)
        writer.close()


def kept_by(connection: Any) -> int:
    """Return the bytes that a connection keeps of its requests."""
    cycle = connection.cycle
    fields = sum(len(name) + len(value) for name, value in connection.headers or ())
    return len(connection._data) + fields + (len(cycle.body) if cycle is not None else 0)


@pytest.mark.parametrize("size", [70_000, 1_000_000, 12_000_000])
@real
async def test_a_client_whose_upload_is_refused_sees_the_status_not_a_reset(size):
    async with serving(echo, max_body=50_000) as serves:
        for _ in range(5):
            reader, writer = await serves.connect()
            # As most clients do: all of the body first, then the answer.
            writer.write(POST % size + bytes(size))
            await writer.drain()
            assert (await reader.read()).startswith(b"HTTP/1.1 413")
            writer.close()


def mutated(draw: random.Random) -> bytes:
    """Return a few valid requests with a few bytes lost, doubled, swapped or made up."""
    good = [data for data, statuses, _ in TABLE.values() if max(statuses) < 300 and len(data) < 500]
    data = bytearray(b"".join(draw.choices(good, k=draw.randint(1, 4))))
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        at, other = draw.randrange(len(data)), draw.randrange(len(data))
        match draw.randrange(5):
            case 0:
                del data[at]
            case 1:
                data.insert(at, draw.randrange(256))
            case 2:
                data[at] = draw.choice(b"\r\n\0 :;0159afx,\xff/")
            case 3:
                data[at:at] = data[min(at, other) : max(at, other)][:40]
            case _:
                data[at], data[other] = data[other], data[at]
    return bytes(data)


@real
async def test_no_mutation_of_good_requests_leaves_a_connection_without_an_answer_or_an_end(caplog):
    draw = random.Random(20_260_727)
    async with serving(echo, header_timeout=LIMIT_S, read_timeout=LIMIT_S) as serves:

        async def one(data: bytes) -> None:
            reader, writer = await serves.connect()
            for first in range(0, len(data), step := draw.randint(1, len(data))):
                # The transport says so in its own way when the server has closed already.
                with contextlib.suppress(RuntimeError):
                    writer.write(data[first : first + step])
                await asyncio.sleep(0)
            # Whatever it was: answered, refused or given up within the time limits, and closed in the end.
            came = await asyncio.wait_for(reader.read(), 20)
            assert came == b"" or came.startswith(b"HTTP/1.1 "), (data, came)
            writer.close()

        for _ in range(20):
            await asyncio.gather(*(one(mutated(draw)) for _ in range(50)))
        await serves.until(lambda: not serves.server.connections.connections)
        assert serves.gate.traffic.in_flight == 0
        crowd = serves.server.connections
        assert (len(crowd.awaiting_head), len(crowd.closing), len(crowd.lingering), crowd.idle) == (0, 0, 0, {})
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []
