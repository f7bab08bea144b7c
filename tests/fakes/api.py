"""The whole HTTP room over fakes, and a caller that speaks bare ASGI to it: no socket, no thread."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.bus.local import LocalBus
from penstock.http import openapi, responses
from penstock.http.api_dependencies import ApiDependencies
from penstock.http.gate import Gate, GateInputs
from penstock.http.operations import Operations
from penstock.http.routes import ApiRouter
from penstock.indexing.chunk.outline import Chunk
from penstock.indexing.index_pipeline import ChunkBatchWriter, IndexPipeline
from penstock.kernel.context import Context, LoopClock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import HttpSettings, Settings
from penstock.models.contract import TruncationChecks
from penstock.pools.permits import Permits
from penstock.search.pipeline import SearchPipeline
from penstock.stores.commands import CreateCollection
from penstock.stores.data_model import CollectionInfo
from penstock.telemetry.metrics import Metrics
from tests.fakes.memory_snapshots import MemorySnapshots
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeReranker, FakeSparseEncoder

#: A chunk of a request's body is at most this long, as a server's would be.
PIECE = 65_536


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """One request to an ASGI application.

    Attributes:
        received: How many messages the application took.
        sent: The messages that the application sent.
        gone: Set when the caller hangs up.
        address: Where it calls from.
        pause_s: How long it takes for each piece of its body; infinity for one that never sends any.
        reads: Whether it reads its response.
    """

    app: Any
    received: int = 0
    sent: list[Any] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = "127.0.0.1"
    pause_s: float = 0.0
    reads: bool = True

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | Mapping[str, Any] | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        """Send a request and return the answer."""
        await self.call(method, path, body, headers, chunked=chunked)
        return self.answer()

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | str | Mapping[str, Any] | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> None:
        """Send a request and wait until the application is done with it; there may be no answer."""
        pieces = _pieces(body)
        said = {name.lower(): value for name, value in (headers or {}).items()}
        if body is not None:
            said.setdefault("content-type", "application/json")
        if body is not None and not chunked:
            said.setdefault("content-length", str(sum(map(len, pieces))))
        elif chunked:
            said["transfer-encoding"] = "chunked"
        messages = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]

        async def receive() -> Any:
            self.received += 1
            pause_s = self.pause_s if body is not None else 0.0
            if self.received <= len(messages) and not await self._gone_within(pause_s):
                return messages[self.received - 1]
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)
            if not self.reads:
                await asyncio.Event().wait()

        await self.app({**scope(method, path, said), "client": (self.address, 5)}, receive, send)

    async def _gone_within(self, pause_s: float) -> bool:
        """Let time pass; return whether the caller has hung up by then."""
        if pause_s and not self.gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), pause_s if pause_s < math.inf else None)
        return self.gone.is_set()

    def answer(self) -> Answer:
        """Return what was sent, as one answer."""
        start, *rest = self.sent
        assert start["type"] == "http.response.start"
        assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(message["body"] for message in rest))


def scope(method: str, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return an ASGI scope as a server makes it."""
    plain, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
    }


def _pieces(body: Any) -> list[bytes]:
    if body is None:
        return [b""]
    if isinstance(body, Mapping):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        return [body[first : first + PIECE] for first in range(0, len(body), PIECE)] or [b""]
    return list(body)


class Api:
    """Gate, routes, operations, a memory bus and both pipelines over a memory store and fake models.

    Attributes:
        reasons: Why it is not ready; tests fill it.
        foreign: Collections of another model; tests fill it.
        told: How often its state, readiness or alerts were worked out.
    """

    def __init__(self, http: HttpSettings | None = None, senses: GateInputs | None = None) -> None:
        self.settings = replace(Settings(), http=http or HttpSettings())
        self.store = MemoryStore()
        self.embedder = FakeEmbedder()
        self.sparse = FakeSparseEncoder()
        self.metrics = Metrics()
        self.reasons: list[str] = []
        self.foreign: dict[str, CollectionInfo] = {}
        self.told = 0
        clock = LoopClock()
        self.bus = LocalBus(self.settings.bus, {}, clock)
        search = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=self.settings.search,
            clock=clock,
            prepare_sparse=lambda text: text,
            fits_dense_model=lambda _: True,
        )
        writer = ChunkBatchWriter(self.embedder, self.sparse, self.store)
        index = IndexPipeline(
            store=self.store,
            chunk=_one_chunk,
            write=writer.write,
            settings=self.settings.index,
            timeouts=self.settings.timeouts,
            clock=clock,
        )
        self.bus.subscribe(Topic.SEARCH_REQUEST, search.run, Permits("search", 16))
        services = ApiDependencies(
            settings=self.settings,
            clock=clock,
            bus=self.bus,
            store=self.store,
            index=index,
            embedder=self.embedder,
            sparse=self.sparse,
            reranker=FakeReranker(),
            model="m",
            learned_sparse_model="",
            status=self._status,
            unready_reasons=self._reasons,
            alerts=self._alerts,
            snapshots=MemorySnapshots(self.store),
            incompatible=self.foreign,
            truncation=TruncationChecks(_endless, _endless, _endless_beside),
        )
        self.routes = ApiRouter(Operations(services), self.metrics, openapi.openapi_document())
        self.gate = Gate(self.routes, self.settings.http, self.metrics, senses)

    async def ask(self, method: str, path: str, body: Any = None, headers: Any = None, **how: Any) -> Answer:
        """Send one request through the gate."""
        return await Caller(self.gate).ask(method, path, body, headers, **how)

    async def with_collection(self, name: str = "default") -> "Api":
        """Create a collection without asking the API."""
        await self.store.run(CreateCollection(CollectionInfo(name, DIM, "m")), Context.background())
        return self

    def _reasons(self) -> list[str]:
        self.told += 1
        return self.reasons

    def _alerts(self) -> list[responses.AlertStatus]:
        self.told += 1
        return []

    def _status(self, collections: list[CollectionInfo]) -> responses.ServerStatus:
        self.told += 1
        return responses.ServerStatus(
            version="0",
            uptime_s=0.0,
            ready=not self.reasons,
            reasons=self.reasons,
            data_dir="",
            model="m",
            dim=DIM,
            in_flight=self.gate.in_flight,
            collections=collections,
            topics=[],
            pools=[],
        )


async def _endless(texts: Sequence[str]) -> list[int]:
    if "takes an hour to read" in texts:
        await asyncio.sleep(3600)
    return [number for number, text in enumerate(texts) if "endless" in text]


async def _endless_beside(query: str, texts: Sequence[str]) -> tuple[bool, list[int]]:
    return "endless" in query, await _endless(texts)


async def _one_chunk(message: Any, _ctx: Context) -> list[Chunk]:
    return [Chunk(message.text, 1, message.text.count("\n") + 1, "")] if message.text else []


async def slowly(pieces: Iterable[bytes], pause_s: float) -> AsyncIterator[bytes]:
    """Yield pieces with (virtual) time between them."""
    for piece in pieces:
        await asyncio.sleep(pause_s)
        yield piece
