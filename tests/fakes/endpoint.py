"""A server of models that answers in every shape we speak: as a transport without a network, and on the loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.fakes.models import embedding, terms

KEY = "sk-a-secret-that-nobody-may-see"

#: Answers a request in the place of the real answer; ``None`` for that one after all.
Behave = Callable[[httpx.Request], Awaitable[httpx.Response | None]]


def answered(path: str, message: dict[str, Any]) -> Any:
    """Return what such a server answers, as JSON's objects.

    Raises:
        KeyError: It knows no such path.
    """
    return {
        "/v1/embeddings": _openai,
        "/embed": lambda m: [embedding(text).tolist() for text in m["inputs"]],
        "/embed_sparse": _sparse,
        "/rerank": lambda m: _ranked(m["query"], m["texts"], "score"),
        "/v2/rerank": lambda m: {"results": _ranked(m["query"], m["documents"], "relevance_score")},
    }[path](message)


def _openai(message: dict[str, Any]) -> Any:
    vectors = [{"index": i, "embedding": embedding(text).tolist()} for i, text in enumerate(message["input"])]
    # The order is told by the index, not by the place.
    return {"object": "list", "model": message["model"], "data": vectors[::-1], "usage": {"total_tokens": 1}}


def _sparse(message: dict[str, Any]) -> Any:
    vectors = [terms(text) for text in message["inputs"]]
    pairs = [zip(one.indices.tolist(), one.values.tolist(), strict=True) for one in vectors]
    return [[{"index": index, "value": value} for index, value in one] for one in pairs]


def _ranked(query: str, texts: list[str], name: str) -> list[dict[str, Any]]:
    scores = [float(embedding(query) @ embedding(text)) for text in texts]
    return sorted(({"index": i, name: score} for i, score in enumerate(scores)), key=lambda one: -one[name])


async def well(_request: httpx.Request) -> httpx.Response | None:
    """Answer as a server should."""
    return None


class FakeEndpoint(httpx.AsyncBaseTransport):
    """The transport.

    Args:
        takes_s: How long an answer takes, on the loop's clock.
        capacity: Requests worked on at once; the others wait in line.
        batch_max: Texts in a request at most; more get 413.

    Attributes:
        behave: What it does before it answers; may wait, raise, or answer itself.
        asked: Every request so far.
        running: Requests that are there now; ``most`` of them so far.
        hung_up: Requests whose caller went away.
    """

    def __init__(self, takes_s: float = 0.0, capacity: int = 1000, batch_max: int = 1000) -> None:
        self.takes_s = takes_s
        self.batch_max = batch_max
        self.behave: Behave = well
        self.asked: list[httpx.Request] = []
        self.running = self.most = self.hung_up = 0
        self._places = asyncio.Semaphore(capacity)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with self._places:
                await asyncio.sleep(self.takes_s)
                instead = await self.behave(request)
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        finally:
            self.running -= 1
        return _unread(instead or self._answer(request))

    def messages(self) -> list[dict[str, Any]]:
        """Return what was sent so far."""
        return [json.loads(request.content) for request in self.asked]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        texts = next(message[name] for name in ("input", "inputs", "texts", "documents") if name in message)
        if len(texts) > self.batch_max:
            return httpx.Response(413, json={"error": f"batch size {len(texts)} > {self.batch_max}"})
        try:
            return httpx.Response(200, json=answered(request.url.path, message))
        except KeyError:
            return httpx.Response(404, json={"error": "no such path"})


def _unread(response: httpx.Response) -> httpx.Response:
    """Return an answer as it comes from a network: its body is still to be read."""
    if isinstance(response.stream, Dripping):
        return response
    return httpx.Response(response.status_code, headers=response.headers, stream=Dripping(response.content))


class Dripping(httpx.AsyncByteStream):
    """A body that comes piece by piece, with time in between; an error among the pieces is raised."""

    def __init__(self, *pieces: bytes | Exception, pause_s: float = 0.0) -> None:
        self._pieces = pieces
        self._pause_s = pause_s
        self.read = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(self._pause_s)
            if isinstance(piece, Exception):
                raise piece
            self.read += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def always(status: int, **how: Any) -> Behave:
    """Return a behaviour: each request gets this answer."""

    async def behave(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, **how)

    return behave


async def hanging(_request: httpx.Request) -> None:
    """Never answer."""
    await asyncio.sleep(3600)


async def dead(_request: httpx.Request) -> None:
    """Refuse the connection."""
    raise httpx.ConnectError("All connection attempts failed")


@contextmanager
def loopback() -> Iterator[str]:
    """Serve on a free port of the loopback, each request in a thread; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(answered(self.path, message)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
