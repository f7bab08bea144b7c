"""A Qdrant server of our own: the official client's local mode behind the HTTP that a server speaks.

So the adapter's requests are really written, parsed by the client's own models, and answered. What the local mode does
not do as a server does is in ``SHORTCOMINGS``; where it matters it is made good here.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import httpx
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from qdrant_client import AsyncQdrantClient, models

from penstock.kernel.context import Context
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.stores.backends.qdrant.server import QdrantServer
from penstock.stores.commands import DropCollection, ListCollections
from tests.fakes.loop_clock import LoopClock

#: What tells the local mode from a server, as seen with qdrant-client 1.20.
SHORTCOMINGS = (
    "it counts points without a term when it tells how rare a term is",
    "it compares everything with everything: graphs, quantisation and rescoring are not shown",
    "it has no payload indexes: that they are asked for is shown, not that they help",
    "it knows no cluster: write ordering, shards and replicas are taken and forgotten",
)

HEADERS = {"content-type": "application/json"}

_SERVERS = itertools.count()

#: Called with each request before it is answered; may raise, wait, or answer itself.
Hook = Callable[[str, str, dict[str, str]], Awaitable["httpx.Response | None"]]


async def nothing(_method: str, _path: str, _headers: dict[str, str]) -> None:
    """Let every request pass."""


class FakeQdrant(httpx.AsyncBaseTransport):
    """The server; as a transport it is asked in process, :meth:`answer` serves others.

    Args:
        key: The key that it wants.
        version: Its version.
        beside: Another node of the same cluster, with the same points.

    Attributes:
        hook: Where a test takes hold.
        asked: Every request so far: method, path, parameters, body.
        fields: The payload indexes by collection.
        hang_after: So many writes of points are answered, the next one never; ``None``: all are.
        hanging: Set once one hangs.
        has_leader: Whether the cluster has one; before that ``/readyz`` says no and nothing is written.
        replicas: Nodes on which each shard is, as the collections say.
        sent: Bytes of the answers so far, before they are compressed.
        compressed: Answers that were compressed, as a client had allowed. A real server sends them in small pieces,
            and so does :class:`Listening`.
    """

    def __init__(self, key: str = "", version: tuple[int, int] = (1, 20), *, beside: FakeQdrant | None = None) -> None:
        self.hook: Hook = nothing
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.fields: dict[str, dict[str, Any]] = {}
        self.hang_after: int | None = None
        self.hanging = threading.Event()
        self.compressed = 0
        self.sent = 0
        self.has_leader = True
        self.replicas = 1
        self._key = key
        self._version = version
        self._local = AsyncQdrantClient(":memory:") if beside is None else beside._local
        self.fields = self.fields if beside is None else beside.fields

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        params = dict(request.url.params)
        headers = dict(request.headers)
        return self.encoded(await self.answer(request.method, request.url.path, params, headers, body), headers)

    def encoded(self, answer: httpx.Response, headers: dict[str, str]) -> httpx.Response:
        """Return an answer compressed where the client allows it."""
        self.sent += len(answer.content)
        if "gzip" not in headers.get("accept-encoding", ""):
            return answer
        self.compressed += 1
        told = dict(answer.headers) | {"content-encoding": "gzip"}
        told.pop("content-length", None)
        return httpx.Response(answer.status_code, headers=told, stream=Pieces(gzip.compress(answer.content)))

    async def answer(
        self, method: str, path: str, params: dict[str, str], headers: dict[str, str], body: bytes
    ) -> httpx.Response:
        said = json.loads(body) if body else None
        self.asked.append((method, path, params, said))
        taken = await self.hook(method, path, headers)
        if taken is not None:
            return taken
        refused = self._refused(method, path, headers, body)
        if refused is not None:
            return refused
        for pattern, operation in _ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return await self._run(operation, found.groupdict().get("name", ""), said)
        return refusal(404, "")

    def _refused(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response | None:
        """Return the answer to what concerns no collection, or cannot be done by this server now."""
        if path == "/readyz":
            return httpx.Response(200 if self.has_leader else 503, content=b"all shards are ready")
        if not self.has_leader and method in ("PUT", "PATCH", "DELETE"):
            return refusal(500, "Service internal error: no leader of the consensus")
        if path == "/":
            return told({"title": "qdrant - vector search engine", "version": ".".join(map(str, (*self._version, 0)))})
        if self._key and headers.get("api-key") != self._key:
            return refusal(401 if "api-key" not in headers else 403, "Invalid API key or JWT")
        if self._version < (1, 19) and b'"prefix":"' in body:
            return refusal(400, "Format error in JSON body: data did not match any variant of untagged enum Match")
        return None

    async def _run(self, operation: Callable[..., Awaitable[Any]], name: str, said: Any) -> httpx.Response:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if name and operation is not _create and not await self._local.collection_exists(name):
                    return refusal(404, f"Not found: Collection `{name}` doesn't exist!")
                result = await operation(self, name, said)
            except (ValueError, AssertionError) as error:
                return refusal(400, str(error))
            except KeyError as missing:
                return refusal(404, f"Not found: No point with id {missing} found")
        return told({"result": to_jsonable_python(result, exclude_none=True), "status": "ok", "time": 0.0})


def qdrant_server(version: tuple[int, int] = (1, 20)) -> QdrantServer:
    """Return the server at ``QDRANT_URL`` where that is set, else one of our own of this version."""
    url = os.environ.get("QDRANT_URL", "")
    key = os.environ.get("QDRANT_API_KEY", "")
    # Names of this process alone: others may test on the same server.
    prefix = f"test-{os.getpid()}-{next(_SERVERS)}-"
    # A cluster weighs terms by their rarity in each shard: with one shard it ranks as a single node.
    settings = QdrantSettings(url=url or "http://qdrant", api_key=key, prefix=prefix, shards=1 if url else 0)
    fake = None if url else FakeQdrant(version=version)
    return QdrantServer(settings, TimeoutSettings(), LoopClock(), fake, cache_bytes=10_000_000)


class Pieces(httpx.AsyncByteStream):
    """A body in small pieces."""

    def __init__(self, body: bytes, size: int = 512) -> None:
        self.body = body
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for first in range(0, len(self.body), self._size):
            yield self.body[first : first + self._size]


async def remove_all(server: QdrantServer) -> None:
    """Delete every collection of this server's prefix, and close it."""
    for one in await server.store.run(ListCollections(), Context.background()):
        await server.store.run(DropCollection(one.name), Context.background())
    await server.close()


def told(what: Any) -> httpx.Response:
    return httpx.Response(200, headers=HEADERS, content=json.dumps(what).encode())


def refusal(status: int, said: str) -> httpx.Response:
    content = json.dumps({"status": {"error": said}, "time": 0.0}).encode() if said else b""
    return httpx.Response(status, headers=HEADERS, content=content)


async def _collections(server: FakeQdrant, _name: str, _said: Any) -> Any:
    return await server._local.get_collections()


async def _create(server: FakeQdrant, name: str, said: Any) -> Any:
    if await server._local.collection_exists(name):
        raise ValueError(f"Wrong input: Collection `{name}` already exists!")
    asked = _read(models.CreateCollection, said)
    server.fields[name] = {}
    return await server._local.create_collection(
        name, asked.vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
    )


async def _describe(server: FakeQdrant, name: str, _said: Any) -> Any:
    found = to_jsonable_python(await server._local.get_collection(name), exclude_none=True)
    found["config"]["params"]["replication_factor"] = server.replicas
    return {**found, "payload_schema": server.fields[name]}


async def _update(server: FakeQdrant, name: str, said: Any) -> Any:
    """Merge metadata as a server does: a key whose value is null is removed."""
    kept = server._local._client.collections[name].config.metadata
    for key, value in said["metadata"].items():
        kept.pop(key, None)
        if value is not None:
            kept[key] = value
    return True


async def _drop(server: FakeQdrant, name: str, _said: Any) -> Any:
    return await server._local.delete_collection(name)


async def _index(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.CreateFieldIndex, said)
    server.fields[name][asked.field_name] = {"data_type": "keyword", "params": said["field_schema"], "points": 0}
    return _UPDATED


async def _upsert(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.PointsList, said)
    if server.hang_after is not None:
        if server.hang_after == 0:
            server.hanging.set()
            await asyncio.sleep(3600)
        server.hang_after -= 1
    await server._local.upsert(name, asked.points, asked.update_filter, asked.update_mode)
    return _UPDATED


async def _retrieve(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.PointRequest, said)
    return await server._local.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)


async def _query(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = TypeAdapter(list[models.QueryRequest]).validate_python(said["searches"])
    return await server._local.query_batch_points(name, asked)


async def _scroll(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.ScrollRequest, said)
    found, following = await server._local.scroll(
        name,
        asked.filter,
        asked.limit,
        offset=asked.offset,
        with_payload=asked.with_payload,
        with_vectors=asked.with_vector,
    )
    return {"points": found, "next_page_offset": following}


async def _count(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.CountRequest, said)
    return await server._local.count(name, asked.filter, exact=True)


async def _facet(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.FacetRequest, said)
    return await server._local.facet(name, asked.key, asked.filter, asked.limit)


async def _delete(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.FilterSelector, said)
    await server._local.delete(name, asked)
    return _UPDATED


async def _payload(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.SetPayload, said)
    await server._local.set_payload(name, asked.payload, asked.points)
    return _UPDATED


async def _vectors(server: FakeQdrant, name: str, said: Any) -> Any:
    asked = _read(models.UpdateVectors, said)
    await server._local.update_vectors(name, asked.points)
    return _UPDATED


def _read(model: Any, said: Any) -> Any:
    return model.model_validate(said)


_UPDATED = {"operation_id": 1, "status": "completed"}

_NAME = "/collections/(?P<name>[^/]+)"
_ROUTES: dict[str, Callable[..., Awaitable[Any]]] = {
    "GET /collections": _collections,
    f"GET {_NAME}": _describe,
    f"PUT {_NAME}": _create,
    f"PATCH {_NAME}": _update,
    f"DELETE {_NAME}": _drop,
    f"PUT {_NAME}/points/vectors": _vectors,
    f"PUT {_NAME}/index": _index,
    f"PUT {_NAME}/points": _upsert,
    f"POST {_NAME}/points": _retrieve,
    f"POST {_NAME}/points/query/batch": _query,
    f"POST {_NAME}/points/scroll": _scroll,
    f"POST {_NAME}/facet": _facet,
    f"POST {_NAME}/points/count": _count,
    f"POST {_NAME}/points/delete": _delete,
    f"POST {_NAME}/points/payload": _payload,
}


class Listening:
    """A :class:`FakeQdrant` in a thread of its own, on a free loopback port unless said; enter it to start it.

    Attributes:
        url: Where it is.
        open: Connections that are open now.
        most: As many as were ever open at once.
        accepted: Connections so far.
    """

    def __init__(
        self, server: FakeQdrant, port: int = 0, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1"
    ) -> None:
        self.url = ""
        self.open = self.most = self.accepted = 0
        self._server = server
        self._host = host
        self._port = port
        self._tls = tls
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Stop listening and cut every connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set_result, None)
            self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._over = asyncio.get_running_loop().create_future()
        listener = await asyncio.start_server(self._converse, self._host, self._port, ssl=self._tls)
        self.url = f"{'https' if self._tls else 'http'}://{self._host}:{listener.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over
        listener.close()
        talking = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        for _ in range(3):  # a transport is gone in the loop's next turns
            await asyncio.sleep(0)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.accepted += 1
        self.most = max(self.most, self.open)
        try:
            while await self._answer_one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = first.split(" ")
        url = httpx.URL(f"http://x{target}")
        answer = await self._server.answer(method, url.path, dict(url.params), headers, body)
        head = f"HTTP/1.1 {answer.status_code} x\r\ncontent-type: application/json\r\n"
        sent = self._server.encoded(answer, headers)
        if sent is answer:
            writer.write(f"{head}content-length: {len(answer.content)}\r\n\r\n".encode() + answer.content)
            return True
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        writer.write(f"{head}content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        async for piece in sent.stream:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        writer.write(b"0\r\n\r\n")
        return True
