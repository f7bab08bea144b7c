"""Settings records: frozen, one per room, each field with its names and its meaning.

A field made by :func:`setting` knows its environment name, its bounds and one line of
documentation; ``penstock config``, the reference page and the loader
(:mod:`penstock.cli.configuration`) are all driven by that one declaration. YAML names follow
from the record's section and the field's name: the seed's keys, under ``concurrency:``.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Final

from penstock.kernel.cores import cores as cores  # noqa: PLC0414 - known by this name here too

KEY: Final = "penstock"


class Unit(enum.StrEnum):
    """How a value is written by people."""

    COUNT = "count"
    DURATION = "duration"
    SIZE = "size"
    TEXT = "text"
    SECRET = "secret"  # noqa: S105 - the unit's name
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known about one setting besides its default.

    Attributes:
        env: Environment name.
        doc: One line for a person.
        unit: How the value is written (``30s``, ``10MB``, …).
        at_least: Smallest value allowed, in the unit's base (seconds, bytes, items).
        at_most: Largest value allowed.
        choices: The words allowed, empty for any.
    """

    env: str
    doc: str
    unit: Unit = Unit.COUNT
    at_least: float = 1
    at_most: float = 1_000_000
    choices: tuple[str, ...] = ()


#: The degradation ladder's rungs by name (:class:`penstock.policies.ladder.Rung`).
RUNGS: Final = ("full", "fewer_candidates", "no_rerank", "one_arm", "cached_only", "refuse")


def setting(default: object, spec: Spec) -> Any:
    """Return a dataclass field that carries ``spec``; a secret is no part of the record's ``repr``."""
    return dataclasses.field(default=default, metadata={KEY: spec}, repr=spec.unit is not Unit.SECRET)


def _count(env: str, doc: str, most: float = 1_000_000) -> Spec:
    return Spec(env, doc, Unit.COUNT, 1, most)


def _entries(env: str, doc: str) -> Spec:
    return Spec(env, doc, Unit.COUNT, 0, 100_000_000)


def _duration(env: str, doc: str) -> Spec:
    return Spec(env, doc, Unit.DURATION, 0.001, 86_400)


def _size(env: str, doc: str) -> Spec:
    return Spec(env, doc, Unit.SIZE, 1, 2**40)


def _switch(env: str, doc: str) -> Spec:
    return Spec(env, doc, Unit.FLAG, 0, 1)


def _text(env: str, doc: str, *choices: str) -> Spec:
    return Spec(env, doc, Unit.TEXT, 0, 4096, choices)


def _secret(env: str, doc: str) -> Spec:
    return Spec(env, doc, Unit.SECRET, 0, 4096)


@dataclass(frozen=True, slots=True)
class MlSettings:
    """Pools P1–P4 and the threads under them."""

    embed_workers: int = setting(4, _count("ML_EMBED_WORKERS", "embedding batches admitted at once (P1)", 1024))
    sparse_workers: int = setting(4, _count("ML_SPARSE_WORKERS", "sparse batches admitted at once (P2)", 1024))
    rerank_workers: int = setting(2, _count("ML_RERANK_WORKERS", "rerank requests admitted at once (P3)", 1024))
    max_inflight: int = setting(8, _count("ML_MAX_INFLIGHT", "one budget over all ML pools together (P4)", 4096))
    threads: int = setting(
        0,
        Spec("ML_THREADS", "threads that compute; 0: one per core", Unit.COUNT, 0, 1024),
    )
    batch_tokens: int = setting(
        0,
        Spec(
            "ML_BATCH_TOKENS",
            "padded tokens in one run of the dense model; 0: what suits the device",
            Unit.COUNT,
            0,
            1_000_000,
        ),
    )


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Pool P5 and the ranking's constants."""

    workers: int = setting(16, _count("SEARCH_WORKERS", "searches running at once (P5)", 4096))
    queue_size: int = setting(1000, _count("SEARCH_QUEUE_SIZE", "searches waiting at most (P5)", 1_000_000))
    candidates: int = setting(100, _count("SEARCH_CANDIDATES", "candidates taken from each arm", 10_000))
    candidates_reduced: int = setting(
        30, _count("SEARCH_CANDIDATES_REDUCED", "the same from the ladder's first rung on", 10_000)
    )


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Pools P6 and P7 and what the walk leaves out."""

    workers: int = setting(8, _count("INDEX_WORKERS", "document segments indexed at once (P6)", 1024))
    queue_size: int = setting(10_000, _count("INDEX_QUEUE_SIZE", "document segments waiting at most (P6)", 1_000_000))
    chunk_workers: int = setting(
        4, _count("CHUNK_WORKERS", "documents chunked at once (P7); processes never exceed cores", 256)
    )
    segment_chunks: int = setting(
        32, _count("INDEX_SEGMENT_CHUNKS", "chunks of one document written in one step", 1024)
    )
    max_file: int = setting(1_000_000, _size("INDEX_MAX_FILE", "larger files are skipped"))


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The gate's limits."""

    max_concurrent: int = setting(1000, _count("HTTP_MAX_CONCURRENT", "requests in flight at most (D4)", 1_000_000))
    read_timeout: float = setting(30.0, _duration("HTTP_READ_TIMEOUT", "a whole request body (T1)"))
    write_timeout: float = setting(30.0, _duration("HTTP_WRITE_TIMEOUT", "a whole response (T2)"))
    max_body: int = setting(10_000_000, _size("MAX_BODY", "larger request bodies get 413 (D8)"))
    max_batch: int = setting(100, _count("MAX_BATCH", "documents worked in one sub-batch (D9)", 10_000))
    drain_timeout: float = setting(
        30.0, _duration("HTTP_DRAIN_TIMEOUT", "running requests may finish this long at shutdown")
    )
    header_timeout: float = setting(
        10.0, _duration("HTTP_HEADER_TIMEOUT", "a connection may take this long to send the head of a request")
    )
    large_request: int = setting(256_000, _size("LARGE_REQUEST", "larger bodies get 503 while memory is short (D6)"))
    rate_limit: int = setting(
        100,
        Spec("RATE_LIMIT", "requests a second for each client (D7); 0: no limit", Unit.COUNT, 0, 1_000_000),
    )
    rate_burst: int = setting(200, _count("RATE_BURST", "requests a client may make at once (D7)", 1_000_000))
    trusted_proxies: str = setting(
        "", _text("TRUSTED_PROXIES", "addresses and networks whose X-Forwarded-For is believed, with commas between")
    )


@dataclass(frozen=True, slots=True)
class BusSettings:
    """The event bus (SPEC §3)."""

    backend: str = setting("memory", _text("BUS_BACKEND", "memory", "memory"))
    buffer_size: int = setting(1000, _count("BUS_BUFFER_SIZE", "events buffered per topic (B1)"))
    publish_timeout: float = setting(
        5.0, _duration("BUS_PUBLISH_TIMEOUT", "a publisher waits on a full topic (B2, T7)")
    )
    request_timeout: float = setting(30.0, _duration("BUS_REQUEST_TIMEOUT", "a requester waits for its reply (B3, T8)"))
    handler_timeout: float = setting(60.0, _duration("BUS_HANDLER_TIMEOUT", "a handler runs (B4, T9)"))
    handlers_per_topic: int = setting(100, _count("BUS_HANDLERS_PER_TOPIC", "handlers running per topic (P8)", 100_000))
    discipline: str = setting("fair", _text("BUS_DISCIPLINE", "order of a topic's messages", "fair", "fifo"))
    client_share: float = setting(
        0.25, Spec("BUS_CLIENT_SHARE", "share of a buffer one client may fill", Unit.NUMBER, 0.001, 1)
    )
    class_floor: float = setting(
        0.1, Spec("BUS_CLASS_FLOOR", "share of the service kept for each lower class that waits", Unit.NUMBER, 0, 0.3)
    )
    classes: bool = setting(True, _switch("BUS_CLASSES", "more urgent classes are served first"))
    fair_clients: bool = setting(
        True, _switch("BUS_FAIR_CLIENTS", "clients of a class get equal shares of its service")
    )
    newest_first: bool = setting(True, _switch("BUS_NEWEST_FIRST", "a congested queue serves the newest first"))
    discard: bool = setting(True, _switch("BUS_DISCARD", "what can no longer end in time is not begun"))
    refuse_hopeless: bool = setting(True, _switch("BUS_REFUSE_HOPELESS", "what could not end in time is not let queue"))


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """Limits of whole operations (SPEC §7)."""

    search: float = setting(10.0, _duration("SEARCH_TIMEOUT", "a whole search (T3)"))
    index_file: float = setting(
        30.0, _duration("INDEX_FILE_TIMEOUT", "chunking a file, or writing one segment of it (T4)")
    )
    embed: float = setting(30.0, _duration("EMBED_TIMEOUT", "one embedding batch (T5)"))
    rerank: float = setting(10.0, _duration("RERANK_TIMEOUT", "one rerank request (T6)"))
    store: float = setting(10.0, _duration("STORE_TIMEOUT", "one operation of the store"))


@dataclass(frozen=True, slots=True)
class QdrantSettings:
    """Qdrant as a server of its own (L3)."""

    pool_size: int = setting(32, _count("QDRANT_POOL_SIZE", "connections to a Qdrant server (L3)", 4096))


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Redis (L4)."""

    pool_size: int = setting(20, _count("REDIS_POOL_SIZE", "connections to Redis (L4)", 4096))


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """The circuit breakers, one for each dependency (SPEC §5)."""

    failures: int = setting(5, _count("BREAKER_FAILURES", "failures in a row that open a breaker", 10_000))
    timeout: float = setting(30.0, _duration("BREAKER_TIMEOUT", "a breaker stays open, at first"))
    successes: int = setting(2, _count("BREAKER_SUCCESSES", "successful probes that close a breaker", 10_000))


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What is remembered (L1, L2), and how much memory that may take."""

    embed_size: int = setting(100_000, _entries("EMBED_CACHE_SIZE", "dense vectors remembered (L1); 0: none"))
    embed_bytes: int = setting(256_000_000, _size("EMBED_CACHE_BYTES", "memory for them"))
    sparse_size: int = setting(100_000, _entries("SPARSE_CACHE_SIZE", "sparse vectors remembered (L2); 0: none"))
    sparse_bytes: int = setting(128_000_000, _size("SPARSE_CACHE_BYTES", "memory for them"))
    answer_size: int = setting(10_000, _entries("ANSWER_CACHE_SIZE", "answers remembered for the ladder; 0: none"))
    answer_bytes: int = setting(64_000_000, _size("ANSWER_CACHE_BYTES", "memory for them"))
    answer_ttl: float = setting(60.0, _duration("ANSWER_CACHE_TTL", "age of a remembered answer at most"))


@dataclass(frozen=True, slots=True)
class DegradationSettings:
    """The ladder: what searches give up while they are congested (SPEC §4)."""

    up: float = setting(0.3, _duration("DEGRADATION_UP", "congested for so long: one rung up"))
    down: float = setting(3.0, _duration("DEGRADATION_DOWN", "clear for so long: one rung down"))
    highest: str = setting("refuse", _text("DEGRADATION_HIGHEST", "the last rung; full: never degrade", *RUNGS))


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much memory the process may take (D5, D6)."""

    limit: int = setting(
        0,
        Spec("MEMORY_LIMIT", "memory for all processes; 0: the control group's or machine's", Unit.SIZE, 0, 2**50),
    )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and what it writes to its log."""

    host: str = setting("127.0.0.1", _text("HOST", "address to listen on"))
    port: int = setting(8080, Spec("PORT", "port to listen on; 0: any free one", Unit.COUNT, 0, 65_535))
    log_level: str = setting(
        "info", _text("LOG_LEVEL", "least severe line logged", "debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The embedded store."""

    data_dir: str = setting(
        "", _text("PENSTOCK_DATA_DIR", "data directory; empty: ./.penstock if it exists, else the user's")
    )
    shards: int = setting(
        0,
        Spec("STORE_SHARDS", "store processes over which new collections are spread; 0: by cores", Unit.COUNT, 0, 64),
    )
    optimize_points: int = setting(
        10_000,
        Spec(
            "STORE_OPTIMIZE_POINTS",
            "a collection gets a new generation only once so many points are outside its graph; 0: never",
            Unit.COUNT,
            0,
            1_000_000_000,
        ),
    )
    optimize_quiet: float = setting(
        5.0, _duration("STORE_OPTIMIZE_QUIET", "without a write for so long it is worth it earlier")
    )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Where the dense model comes from, and where it runs."""

    dir: str = setting("", _text("MODEL_DIR", "directory with model.safetensors, config.json, tokenizer.json"))
    device: str = setting("cpu", _text("MODEL_DEVICE", "where the dense model runs", "cpu", "cuda", "auto"))


@dataclass(frozen=True, slots=True)
class DenseModelSettings:
    """The dense model: the built-in one, a ready graph, or an endpoint."""

    kind: str = setting(
        "builtin", _text("DENSE_KIND", "where dense vectors come from", "builtin", "onnx", "openai", "tei")
    )
    path: str = setting("", _text("DENSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", _text("DENSE_MODEL", "onnx: repository on the hub; openai, tei: the model's name there"))
    revision: str = setting("", _text("DENSE_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", _text("DENSE_URL", "openai, tei: address of the endpoint"))
    api_key: str = setting("", _secret("DENSE_API_KEY", "openai, tei: sent as a bearer token"))
    dim: int = setting(
        0,
        Spec("DENSE_DIM", "openai, tei: dimension; where it is set, the endpoint may be down at the start", at_least=0),
    )
    batch: int = setting(32, _count("DENSE_BATCH", "openai, tei: texts in one request at most", 2048))
    tokens: int = setting(
        256, Spec("DENSE_TOKENS", "openai, tei: tokens of a chunk, counted roughly", Unit.COUNT, 64, 32_768)
    )
    query_prefix: str = setting("", _text("DENSE_QUERY_PREFIX", "openai, tei: put in front of every query"))
    document_prefix: str = setting("", _text("DENSE_DOCUMENT_PREFIX", "openai, tei: put in front of every chunk"))


@dataclass(frozen=True, slots=True)
class SparseModelSettings:
    """The sparse model: BM25, a ready graph of learned weights, or an endpoint."""

    kind: str = setting("bm25", _text("SPARSE_KIND", "where sparse vectors come from", "bm25", "onnx", "tei"))
    path: str = setting("", _text("SPARSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", _text("SPARSE_MODEL", "onnx: repository on the hub; tei: the model's name"))
    revision: str = setting("", _text("SPARSE_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", _text("SPARSE_URL", "tei: address of the endpoint"))
    api_key: str = setting("", _secret("SPARSE_API_KEY", "tei: sent as a bearer token"))
    batch: int = setting(32, _count("SPARSE_BATCH", "tei: texts in one request at most", 2048))


@dataclass(frozen=True, slots=True)
class RerankModelSettings:
    """The reranker: late interaction of the dense model, or a cross-encoder as a ready graph or behind an endpoint."""

    kind: str = setting(
        "builtin", _text("RERANK_KIND", "what reads the best candidates again", "builtin", "onnx", "tei", "cohere")
    )
    path: str = setting("", _text("RERANK_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", _text("RERANK_MODEL", "onnx: repository on the hub; tei, cohere: the model's name there"))
    revision: str = setting("", _text("RERANK_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", _text("RERANK_URL", "tei, cohere: address of the endpoint"))
    api_key: str = setting("", _secret("RERANK_API_KEY", "tei, cohere: sent as a bearer token"))
    batch: int = setting(32, _count("RERANK_BATCH", "tei, cohere: texts in one request at most", 2048))
    texts: int = setting(20, _count("RERANK_TEXTS", "best candidates of a search that a cross-encoder reads", 1000))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Sections not in ``TOP_LEVEL`` stand under ``concurrency:``."""

    ml: MlSettings = dataclasses.field(default_factory=MlSettings)
    search: SearchSettings = dataclasses.field(default_factory=SearchSettings)
    index: IndexSettings = dataclasses.field(default_factory=IndexSettings)
    http: HttpSettings = dataclasses.field(default_factory=HttpSettings)
    bus: BusSettings = dataclasses.field(default_factory=BusSettings)
    timeouts: TimeoutSettings = dataclasses.field(default_factory=TimeoutSettings)
    qdrant: QdrantSettings = dataclasses.field(default_factory=QdrantSettings)
    redis: RedisSettings = dataclasses.field(default_factory=RedisSettings)
    breaker: GuardSettings = dataclasses.field(default_factory=GuardSettings)
    cache: CacheSettings = dataclasses.field(default_factory=CacheSettings)
    degradation: DegradationSettings = dataclasses.field(default_factory=DegradationSettings)
    memory: MemorySettings = dataclasses.field(default_factory=MemorySettings)
    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    store: StoreSettings = dataclasses.field(default_factory=StoreSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    dense_model: DenseModelSettings = dataclasses.field(default_factory=DenseModelSettings)
    sparse_model: SparseModelSettings = dataclasses.field(default_factory=SparseModelSettings)
    rerank_model: RerankModelSettings = dataclasses.field(default_factory=RerankModelSettings)


#: Sections written outside of ``concurrency:`` (SPEC §9), and by what name.
TOP_LEVEL: Final = {
    "server": "server",
    "store": "store",
    "model": "model",
    "dense_model": "models.dense",
    "sparse_model": "models.sparse",
    "rerank_model": "models.rerank",
}
