"""Connections: endless heads, trailers and pipelines, slow bodies, floods; what RFC 9112 says of broken ones."""

from __future__ import annotations

import contextlib
import gzip
import resource
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.hostile.attack import Attack, Got
from bench.hostile.target import Target, head, post, statuses, told

FLOOD_S: Final = 4.0
TEXTS: Final = b'{"texts":["a"]}'
CHUNKED: Final = head("POST", "/v1/embed", "Content-Type: application/json", "Transfer-Encoding: chunked")
#: What is sent of a flood. A server that has answered reads on for a while and forgets, so that its answer is seen.
FLOOD_BYTES_MAX: Final = 160_000_000
#: What a server may take of a flood that it has not refused yet: a body of 10 MB in the smallest chunks.
TAKEN_BYTES_MAX: Final = 64_000_000
FILES_MAX: Final = 16_384


def _flood(opening: bytes, blob: bytes, target: Target) -> Got:
    """Send without end; count what the server takes before it closes or stops reading."""
    sent, until_s = 0, time.monotonic() + FLOOD_S
    with target.connected(1.0) as raw:
        try:
            raw.sendall(opening)
            while time.monotonic() < until_s and sent < FLOOD_BYTES_MAX:
                sent += raw.send(blob)
            said = "still open"
        except TimeoutError:
            said = "not read any more"
        except OSError:
            said = "closed"
        heard = statuses(told(raw))
    kept = sent <= TAKEN_BYTES_MAX or (bool(heard) and heard[0] in {400, 408, 413, 431})
    return Got(f"{said} after {sent / 1e6:.1f} MB, answers {heard or 'none'}", kept, FLOOD_BYTES_MAX // 10)


def _pipeline(target: Target) -> Got:
    """Requests without end, and answers that are read."""
    one = head("GET", "/livez")
    sent, heard = 0, bytearray()
    with target.connected(10.0) as raw:

        def listen() -> None:
            while True:
                try:
                    piece = raw.recv(1 << 18)
                except OSError:
                    return
                if not piece:
                    return
                heard.extend(piece[:0] or b"." * piece.count(b"HTTP/1.1 200"))

        listener = threading.Thread(target=listen)
        listener.start()
        until_s = time.monotonic() + FLOOD_S
        try:
            while time.monotonic() < until_s:
                sent += raw.send(one * 512)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        listener.join()
    return Got(f"{len(heard)} of {sent // len(one)} answered", len(heard) > 0, sent)


def _slow(target: Target) -> Got:
    """Requests whose bodies never come, from one caller, faster than they time out."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
    held: list[socket.socket] = []
    request = head("POST", "/v1/search", "Content-Type: application/json", "Content-Length: 13")
    for number in range(1_500):
        with_key = request.replace(b"\r\n\r\n", b"\r\nX-Api-Key: %d\r\n\r\n" % (number % 7))
        try:
            raw = socket.create_connection(("127.0.0.1", target.port), 5)
            raw.sendall(with_key)
            held.append(raw)
        except OSError:
            pass
        time.sleep(0.004)
    time.sleep(1)
    for raw in held:
        raw.close()
    return Got(f"{len(held)} opened", kept=True, sent_bytes=len(held) * len(request))


def _hammer(path: str, target: Target) -> Got:
    """Two hundred connections that ask one page again and again."""
    served = [0]

    def ask() -> None:
        request, until_s = head("GET", path), time.monotonic() + FLOOD_S
        with target.connected(10.0) as raw:
            try:
                while time.monotonic() < until_s:
                    raw.sendall(request)
                    if not raw.recv(1 << 20):
                        return
                    served[0] += 1
            except OSError:
                return

    callers = [threading.Thread(target=ask) for _ in range(200)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return Got(f"some {served[0]:,} answers", kept=True, sent_bytes=8_000_000)


def _bomb(target: Target) -> Got:
    """A body that is small only while it is packed."""
    packed = gzip.compress(b'{"query":"' + b"a" * 1_000_000_000 + b'"}', 9)
    request = head(
        "POST",
        "/v1/search",
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        f"Content-Length: {len(packed)}",
    )
    heard = statuses(target.say(request, packed, wait_s=20))
    return Got(f"{heard}", bool(heard) and heard[0] in {400, 413, 415, 422}, 10_000_000)


def _refused_upload(target: Target) -> Got:
    """Every client that sends too much sees the status, not a reset."""
    seen: list[int] = []
    for size in (70_000, 300_000, 1_000_000, 4_000_000):
        for _ in range(5):
            opening = head("POST", "/v1/search", "Content-Type: application/json", "Content-Length: 99999999")
            with target.connected(5.0) as raw:
                try:
                    raw.sendall(opening)
                    raw.sendall(b"x" * size)
                except OSError:
                    pass
                seen += statuses(told(raw, 2_000)) or [0]
    return Got(f"{sorted(set(seen))}", set(seen) == {413}, 20 * 1_400_000)


def _says(row: str, name: str, expected: str, *pieces: bytes, kept: Callable[[list[int]], bool]) -> Attack:
    return Attack(row, name, expected, partial(_say, pieces, kept), watched=False)


def _say(pieces: tuple[bytes, ...], kept: Callable[[list[int]], bool], target: Target) -> Got:
    heard = statuses(target.say(*pieces, wait_s=2))
    return Got(f"{heard or 'nothing'}", kept(heard))


def _only(*wanted: int) -> Callable[[list[int]], bool]:
    return lambda heard: heard == list(wanted)


def _first(*wanted: int) -> Callable[[list[int]], bool]:
    return lambda heard: bool(heard) and heard[0] in wanted


LIVE: Final = head("GET", "/livez")
UPGRADE: Final = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
CODINGS: Final = ("gzip, chunked", "chunked, gzip", "xchunked", "identity")

ATTACKS: Final = (
    Attack(
        "H1",
        "trailers without end",
        "refused; memory bounded",
        partial(_flood, CHUNKED + b"f\r\n" + TEXTS + b"\r\n0\r\n", b"a:b\r\n" * 13_000),
    ),
    Attack(
        "H1",
        "one trailer without end",
        "refused; memory bounded",
        partial(_flood, CHUNKED + b"f\r\n" + TEXTS + b"\r\n0\r\na: ", b"x" * 65_536),
    ),
    Attack(
        "H1",
        "an extension of a chunk without end",
        "refused; memory bounded",
        partial(_flood, CHUNKED + b"1;", b"x" * 65_536),
    ),
    Attack(
        "H1",
        "chunks of one byte without end",
        "refused; memory bounded",
        partial(_flood, CHUNKED, b"1\r\n \r\n" * 10_000),
    ),
    Attack("H1", "a head without end", "refused; memory bounded", partial(_flood, LIVE[:-2], b"a:b\r\n" * 13_000)),
    Attack("H1", "requests in one pipeline without end", "answered, bounded", _pipeline, flood=True),
    Attack(
        "H3",
        "1 500 requests whose bodies never come, from one address with seven keys",
        "others are answered",
        _slow,
        flood=True,
    ),
    Attack("H8", "200 connections on /metrics", "others are answered", partial(_hammer, "/metrics"), flood=True),
    Attack("H8", "200 connections on /v1/status", "others are answered", partial(_hammer, "/v1/status"), flood=True),
    Attack("H8", "200 connections on /readyz", "others are answered", partial(_hammer, "/readyz"), flood=True),
    Attack("H10", "1 GB of one letter, packed to 1 MB", "400, 413, 415 or 422", _bomb),
    Attack("H10", "uploads far over the limit", "every client sees 413", _refused_upload),
    _says("H10", "no Host", "400", b"GET /livez HTTP/1.1\r\n\r\n", kept=_only(400)),
    _says(
        "H10", "two Hosts", "400", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", kept=_only(400)
    ),
    _says("H10", "a Host with a space", "400", b"GET /livez HTTP/1.1\r\nHost: local host\r\n\r\n", kept=_only(400)),
    *(
        _says(
            "H10",
            f"Transfer-Encoding: {coding}",
            "400 or 501",
            head("POST", "/v1/embed", "Content-Type: application/json", f"Transfer-Encoding: {coding}")
            + b"f\r\n"
            + TEXTS
            + b"\r\n0\r\n\r\n",
            kept=_first(400, 501),
        )
        for coding in CODINGS
    ),
    _says(
        "H10",
        "a length and chunks",
        "400",
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"f\r\n" + TEXTS + b"\r\n0\r\n\r\n",
        kept=_only(400),
    ),
    _says("H10", "Upgrade: h2c with a body", "200", post("/v1/embed", TEXTS, *UPGRADE), kept=_only(200)),
    _says(
        "H10",
        "Upgrade: h2c, then another request",
        "200, 200",
        post("/v1/embed", TEXTS, *UPGRADE) + LIVE,
        kept=_only(200, 200),
    ),
    _says(
        "H10",
        "Upgrade: websocket",
        "200",
        head(
            "GET",
            "/livez",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        kept=_only(200),
    ),
    _says(
        "H10",
        "a request, then garbage",
        "200, 400",
        post("/v1/embed", TEXTS) + b"GARBAGE\r\n\r\n",
        kept=_only(200, 400),
    ),
    _says(
        "H10",
        "a request, its neighbour in the pipeline",
        "200, 200",
        post("/v1/embed", TEXTS) + LIVE,
        kept=_only(200, 200),
    ),
    _says(
        "H10",
        "a body packed with gzip",
        "200 or 415",
        head(
            "POST",
            "/v1/embed",
            "Content-Type: application/json",
            "Content-Encoding: gzip",
            f"Content-Length: {len(gzip.compress(TEXTS))}",
        )
        + gzip.compress(TEXTS),
        kept=_first(200, 415),
    ),
)
