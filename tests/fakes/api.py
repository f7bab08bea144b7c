"""The whole HTTP room over fakes, and a caller that speaks bare ASGI to it: no socket, no thread."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import msgspec

from penstock.bus.local import LocalBus
from penstock.core.dependencies import ModelTraits
from penstock.core.traffic import Traffic
from penstock.http.endpoints import ApiEndpoint
from penstock.http.error_formats import OPENAI
from penstock.http.gate import Gate, GateInputs
from penstock.http.problem import PROBLEM_DETAILS
from penstock.http.routes import Api as Routes
from penstock.indexing.chunk.outline import Chunk
from penstock.indexing.embedding_backfill import EmbeddingBackfill
from penstock.indexing.index_pipeline import ChunkBatchWriter, IndexPipeline
from penstock.indexing.sources.source_watches import SourceWatches
from penstock.indexing.text_renewal import TextRenewal
from penstock.kernel.context import Context
from penstock.kernel.messages import Topic
from penstock.kernel.settings import HttpSettings, Settings, TaskSettings
from penstock.models.contract import TruncationChecks
from penstock.policies.alerts import RaisedAlert
from penstock.pools.guarded_store import VectorLayout
from penstock.pools.permits import Permits, PoolRegistry
from penstock.pools.text_versions import TextVersions
from penstock.search.degradation import LadderController
from penstock.search.pipeline import SearchPipeline
from penstock.search.result_cache import ResultCache
from penstock.stores.commands import CreateCollection
from penstock.stores.data_model import CollectionInfo
from penstock.stores.memory_cache import MemoryCache
from penstock.stores.server_keys import ServerKeys
from penstock.tasks.runner import TaskRunner
from penstock.telemetry.audit_log import AuditTrail
from penstock.telemetry.heartbeat import Heartbeat
from penstock.telemetry.memory_watch import MemoryLimit, MemoryWatch
from penstock.telemetry.metrics import Metrics
from tests.fakes.keys import MemoryKeyStore
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_snapshots import MemorySnapshots
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeReranker, FakeSparseEncoder
from tests.fakes.task_spool import MemorySpool, run_inline, virtual_now

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


def assert_refused(answer: Answer, endpoint: ApiEndpoint, status: int, field: str) -> None:
    """Check that an endpoint has refused in the form of its errors, with our status and the offending field."""
    form = endpoint.error_format
    assert answer.status == form.statuses.get(status, status), endpoint
    assert answer.headers["content-type"] == form.media_type, endpoint
    told = msgspec.json.decode(answer.body, type=form.record)
    named = {PROBLEM_DETAILS: lambda: told.field, OPENAI: lambda: told.error.param}.get(form, lambda: field)()
    assert named == field, endpoint
    assert ("x-should-retry" in answer.headers) is form.should_retry, endpoint


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
        "path": unquote(plain),
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


class FakeCore:
    """What operations see of a core: a memory bus and both pipelines over a memory store and fake models.

    Attributes:
        reasons: Why it is not ready; tests fill it.
        told: How often its reasons or alerts were read.
    """

    def __init__(self, settings: Settings, watches: SourceWatches | None = None, spool: Any = None) -> None:
        clock = LoopClock()
        self.spool = spool or MemorySpool()
        self.reasons: list[str] = []
        self.told = 0
        self.metrics = Metrics()
        self.traffic = Traffic()
        self.store = MemoryStore()
        self.embedder, self.sparse, self.reranker = FakeEmbedder(), FakeSparseEncoder(), FakeReranker()
        self.bus = LocalBus(settings.bus, {}, clock)
        traits = ModelTraits("m", DIM, "sparse", lambda _: True)
        self.deps = SimpleNamespace(
            settings=settings,
            clock=clock,
            data_dir="",
            models=replace(traits, truncation=TruncationChecks(_endless, _endless, _endless_beside)),
            snapshots=MemorySnapshots(self.store),
            warnings=list,
            serves_api=True,
            source_watches=watches or SourceWatches(),
            keys=ServerKeys([MemoryKeyStore()]),
            audit=AuditTrail(),
        )
        self.layout = VectorLayout("m", DIM)
        self.incompatible: dict[str, CollectionInfo] = {}
        self.results = ResultCache(MemoryCache("answers", 1, 1, clock))
        self.ladder = LadderController(settings.degradation, lambda _: False, float, clock)
        self.pools = PoolRegistry(settings)
        self.memory_watch = MemoryWatch(MemoryLimit(1_000, "setting"))
        self.heartbeat = Heartbeat(clock, 1.0)
        self.alert_monitor = self
        self.breakers: list[Any] = []
        self.all_caches: list[Any] = []
        self.started_at_s = 0.0
        self.text_versions = TextVersions(self.store, clock, shared=False)
        self.backfill = EmbeddingBackfill(self.store, self.embedder, settings, clock, model="m", shared=False)
        search = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=settings.search,
            clock=clock,
            prepare_sparse=traits.sparse_inputs.query,
            text_version=self.text_versions.version,
            fits_dense_model=traits.fits_dense_model,
            backfill=self.backfill,
        )
        writer = ChunkBatchWriter(self.embedder, self.sparse, self.store, self.text_versions.version)
        self.renewal = TextRenewal(self.store, self.sparse, traits.sparse_inputs.chunk, self.forget)
        self.index = IndexPipeline(
            store=self.store,
            backfill=self.backfill,
            chunk=_one_chunk,
            write=writer.write,
            settings=settings.index,
            timeouts=settings.timeouts,
            clock=clock,
        )
        self.tasks = TaskRunner(self.spool, settings.tasks, now=virtual_now, run_blocking=run_inline)
        self.bus.subscribe(Topic.SEARCH_REQUEST, search.run, Permits("search", 16))

    def forget(self, collection: str) -> None:
        self.results.invalidate(collection)
        self.text_versions.forget(collection)
        self.backfill.forget(collection)

    def unready_reasons(self) -> list[str]:
        self.told += 1
        return self.reasons

    def alerts(self) -> list[RaisedAlert]:
        self.told += 1
        return []


class Api:
    """Gate, routes and operations over a fake core.

    Attributes:
        reasons: Why it is not ready; tests fill it.
        foreign: Collections of another model; tests fill it.
    """

    def __init__(
        self,
        http: HttpSettings | None = None,
        senses: GateInputs | None = None,
        watches: SourceWatches | None = None,
        spool: Any = None,
        tasks: TaskSettings | None = None,
    ) -> None:
        self.settings = replace(Settings(), http=http or HttpSettings(), tasks=tasks or TaskSettings())
        self.core = FakeCore(self.settings, watches, spool)
        self.tasks = self.core.tasks
        self.watches = self.core.deps.source_watches
        self.store, self.bus, self.metrics = self.core.store, self.core.bus, self.core.metrics
        self.embedder, self.sparse = self.core.embedder, self.core.sparse
        self.reasons, self.foreign = self.core.reasons, self.core.incompatible
        self.routes = Routes(self.core)
        inputs = replace(senses or GateInputs(), traffic=self.core.traffic)
        self.gate = Gate(self.routes, self.settings.http, self.metrics, inputs)

    async def ask(self, method: str, path: str, body: Any = None, headers: Any = None, **how: Any) -> Answer:
        """Send one request through the gate."""
        return await Caller(self.gate).ask(method, path, body, headers, **how)

    async def with_collection(self, name: str = "default") -> "Api":
        """Create a collection without asking the API."""
        await self.store.run(CreateCollection(CollectionInfo(name, DIM, "m")), Context.background())
        return self


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
