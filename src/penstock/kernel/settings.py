"""Settings records: frozen, one per room, each field with its names and its meaning.

:mod:`penstock.kernel.setting_spec` declares a field.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from penstock.kernel.redaction import redact_url
from penstock.kernel.setting_spec import address, count, duration, number, secret, size, switch, text


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Backend that stores the points, and the embedded engine's parameters."""

    backend: str = text(
        "edge", "STORE_BACKEND", "edge: the engine in processes of ours; qdrant: a server", "edge", "qdrant"
    )
    data_dir: str = text("", "PENSTOCK_DATA_DIR", "data directory; empty: ./.penstock if it exists, else the user's")
    shards: int = count(
        0, "STORE_SHARDS", "store processes over which new collections are spread; 0: by cores", least=0, most=64
    )
    optimize_points: int = count(
        10_000,
        "STORE_OPTIMIZE_POINTS",
        "a collection gets a new generation only once so many points are outside its graph; 0: never",
        least=0,
        most=1_000_000_000,
    )
    optimize_quiet: float = duration(5.0, "STORE_OPTIMIZE_QUIET", "without a write for so long it is worth it earlier")
    cache_bytes: int = size(
        128_000_000, "STORE_CACHE_BYTES", "memory for what has been read of points; 0: none", least=0
    )
    snapshots_keep: int = count(
        10, "PENSTOCK_SNAPSHOTS_KEEP", "newest of its own snapshots that it keeps; 0: all", least=0, most=10_000
    )


@dataclass(frozen=True, slots=True)
class QdrantSettings:
    """Qdrant as a server of its own (L3)."""

    url: str = address(
        "",
        "QDRANT_URL",
        "addresses of a Qdrant server, such as http://qdrant:6333, with commas between",
    )
    api_key: str = secret("QDRANT_API_KEY", "key of the Qdrant server")
    ca_file: str = text("", "QDRANT_CA_FILE", "certificate of the authority that signed the server's")
    prefix: str = text("", "QDRANT_PREFIX", "put in front of collections' names, where others use the server")
    pool_size: int = count(32, "QDRANT_POOL_SIZE", "connections to a Qdrant server (L3)", most=4096)
    shards: int = count(
        0, "QDRANT_SHARDS", "shards over which a cluster spreads a new collection; 0: its own", least=0, most=1024
    )
    replicas: int = count(
        0, "QDRANT_REPLICAS", "nodes on which each of its shards is kept; 0: its own", least=0, most=64
    )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Source, device and precision of the dense model."""

    dir: str = text("", "PENSTOCK_MODEL_DIR", "directory with model.safetensors, config.json, tokenizer.json")
    hub: bool = switch(False, "PENSTOCK_MODEL_HUB", "the built-in model may be fetched from the Hugging Face hub")
    device: str = text("cpu", "PENSTOCK_MODEL_DEVICE", "where the dense model runs", "cpu", "cuda", "auto")
    precision: str = text(
        "auto",
        "PENSTOCK_MODEL_PRECISION",
        "its products; auto: as suits the processor",
        "auto",
        "int8",
        "int7",
        "float32",
    )


@dataclass(frozen=True, slots=True)
class DenseModelSettings:
    """The dense model: the built-in one, a ready graph, or an endpoint."""

    kind: str = text("builtin", "DENSE_KIND", "where dense vectors come from", "builtin", "onnx", "openai", "tei")
    path: str = text("", "DENSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json")
    model: str = text("", "DENSE_MODEL", "onnx: repository on the hub; openai, tei: the model's name there")
    revision: str = text("", "DENSE_REVISION", "onnx: commit of the repository, all 40 digits")
    url: str = address("", "DENSE_URL", "openai, tei: address of the endpoint")
    api_key: str = secret("DENSE_API_KEY", "openai, tei: sent as a bearer token")
    dim: int = count(
        0, "DENSE_DIM", "openai, tei: dimension; where it is set, the endpoint may be down at the start", least=0
    )
    batch: int = count(32, "DENSE_BATCH", "openai, tei: texts in one request at most", most=2048)
    tokens: int = count(256, "DENSE_TOKENS", "openai, tei: tokens of a chunk, counted roughly", least=64, most=32_768)
    query_prefix: str = text(
        "", "DENSE_QUERY_PREFIX", "put in front of every query; empty: what the model's files or its name say"
    )
    document_prefix: str = text("", "DENSE_DOCUMENT_PREFIX", "put in front of every chunk; empty: as for queries")


@dataclass(frozen=True, slots=True)
class SparseModelSettings:
    """The sparse model: BM25, a ready graph of learned weights, or an endpoint."""

    kind: str = text("bm25", "SPARSE_KIND", "where sparse vectors come from", "bm25", "onnx", "tei")
    path: str = text("", "SPARSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json")
    model: str = text("", "SPARSE_MODEL", "onnx: repository on the hub; tei: the model's name")
    revision: str = text("", "SPARSE_REVISION", "onnx: commit of the repository, all 40 digits")
    url: str = address("", "SPARSE_URL", "tei: address of the endpoint")
    api_key: str = secret("SPARSE_API_KEY", "tei: sent as a bearer token")
    batch: int = count(32, "SPARSE_BATCH", "tei: texts in one request at most", most=2048)


@dataclass(frozen=True, slots=True)
class RerankModelSettings:
    """The reranker: late interaction of the dense model, or a cross-encoder as a ready graph or behind an endpoint."""

    kind: str = text(
        "builtin", "RERANK_KIND", "what reads the best candidates again", "builtin", "onnx", "tei", "cohere"
    )
    path: str = text("", "RERANK_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json")
    model: str = text("", "RERANK_MODEL", "onnx: repository on the hub; tei, cohere: the model's name there")
    revision: str = text("", "RERANK_REVISION", "onnx: commit of the repository, all 40 digits")
    url: str = address("", "RERANK_URL", "tei, cohere: address of the endpoint")
    api_key: str = secret("RERANK_API_KEY", "tei, cohere: sent as a bearer token")
    batch: int = count(32, "RERANK_BATCH", "tei, cohere: texts in one request at most", most=2048)
    texts: int = count(20, "RERANK_TEXTS", "best candidates of a search that a cross-encoder reads", most=1000)


#: The degradation ladder's rungs by name (:class:`penstock.policies.ladder.Rung`).
RUNGS: Final = ("full", "fewer_candidates", "no_rerank", "one_arm", "cached_only", "refuse")


@dataclass(frozen=True, slots=True)
class MlSettings:
    """Pools P1–P4 and the threads under them."""

    embed_workers: int = count(4, "ML_EMBED_WORKERS", "embedding batches admitted at once (P1)", most=1024)
    sparse_workers: int = count(4, "ML_SPARSE_WORKERS", "sparse batches admitted at once (P2)", most=1024)
    rerank_workers: int = count(2, "ML_RERANK_WORKERS", "rerank requests admitted at once (P3)", most=1024)
    max_inflight: int = count(8, "ML_MAX_INFLIGHT", "one budget over all ML pools together (P4)", most=4096)
    threads: int = count(0, "ML_THREADS", "threads that compute; 0: one per core", least=0, most=1024)
    batch_tokens: int = count(
        0, "ML_BATCH_TOKENS", "padded tokens in one run of the dense model; 0: what suits the device", least=0
    )


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Pool P5 and the ranking's constants."""

    workers: int = count(16, "SEARCH_WORKERS", "searches running at once (P5)", most=4096)
    queue_size: int = count(1000, "SEARCH_QUEUE_SIZE", "searches waiting at most (P5)", most=1_000_000)
    candidates: int = count(64, "SEARCH_CANDIDATES", "candidates taken from each arm", most=10_000)
    candidates_reduced: int = count(
        30, "SEARCH_CANDIDATES_REDUCED", "the same from the ladder's first rung on", most=10_000
    )


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Pools P6 and P7 and what the walk leaves out."""

    workers: int = count(8, "INDEX_WORKERS", "document segments indexed at once (P6)", most=1024)
    queue_size: int = count(10_000, "INDEX_QUEUE_SIZE", "document segments waiting at most (P6)", most=1_000_000)
    chunk_workers: int = count(
        4, "CHUNK_WORKERS", "documents chunked at once (P7); processes never exceed cores", most=256
    )
    segment_chunks: int = count(32, "INDEX_SEGMENT_CHUNKS", "chunks of one document written in one step", most=1024)
    max_file: int = size(1_000_000, "INDEX_MAX_FILE", "larger files are skipped")
    roots: str = text(
        "",
        "INDEX_ROOTS",
        "directories below which the server indexes and watches sources itself, with commas between; empty: none",
    )


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Bounds of tasks, which are operations that go on when their request has been answered (`wait=false`)."""

    waiting: int = count(10_000, "TASKS_WAITING", "tasks that have not ended; half of them for one client")
    spool: int = size(
        1_000_000_000, "TASKS_SPOOL", "bytes of their bodies in the data directory; half of them for one client"
    )
    keep: int = count(1_000, "TASKS_KEEP", "ended tasks that are remembered, the newest", least=0)
    keep_age: float = duration(
        604_800.0, "TASKS_KEEP_AGE", "how long an ended task is remembered at most", most=31_536_000
    )


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The gate's limits."""

    max_concurrent: int = count(1000, "HTTP_MAX_CONCURRENT", "requests in flight at most (D4)", most=1_000_000)
    read_timeout: float = duration(30.0, "HTTP_READ_TIMEOUT", "a whole request body (T1)")
    write_timeout: float = duration(30.0, "HTTP_WRITE_TIMEOUT", "a whole response (T2)")
    max_body: int = size(10_000_000, "PENSTOCK_MAX_BODY", "larger request bodies get 413 (D8)")
    max_batch: int = count(100, "PENSTOCK_MAX_BATCH", "documents worked in one sub-batch (D9)", most=10_000)
    drain_timeout: float = duration(30.0, "HTTP_DRAIN_TIMEOUT", "running requests may finish this long at shutdown")
    header_timeout: float = duration(
        10.0, "HTTP_HEADER_TIMEOUT", "a connection may take this long to send the head of a request"
    )
    large_request: int = size(256_000, "PENSTOCK_LARGE_REQUEST", "larger bodies get 503 while memory is short (D6)")
    rate_limit: int = count(100, "PENSTOCK_RATE_LIMIT", "requests a second for each client (D7); 0: no limit", least=0)
    rate_burst: int = count(200, "PENSTOCK_RATE_BURST", "requests a client may make at once (D7)", most=1_000_000)
    trusted_proxies: str = text(
        "", "PENSTOCK_TRUSTED_PROXIES", "addresses and networks whose X-Forwarded-For is believed, with commas between"
    )
    allowed_hosts: str = text(
        "",
        "PENSTOCK_ALLOWED_HOSTS",
        "names in `Host` that are answered beside loopback and the address listened on, with commas between;"
        " `.a.example` is all below a name, `*` any (A4)",
    )
    cors_origins: str = text(
        "",
        "PENSTOCK_CORS_ORIGINS",
        "origins whose pages may use the API, such as `https://app.example`, with commas between; `*`: any (A4)",
    )
    metrics_open: bool = switch(False, "PENSTOCK_METRICS_OPEN", "serve `/metrics` without a key too (A2)")
    docs_open: bool = switch(False, "PENSTOCK_DOCS_OPEN", "serve `/docs` and `/openapi.json` without a key too (A2)")


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """Limits of whole operations (SPEC §7)."""

    search: float = duration(10.0, "SEARCH_TIMEOUT", "a whole search (T3)")
    index_file: float = duration(30.0, "INDEX_FILE_TIMEOUT", "chunking a file, or writing one segment of it (T4)")
    embed: float = duration(30.0, "EMBED_TIMEOUT", "one embedding batch (T5)")
    rerank: float = duration(10.0, "RERANK_TIMEOUT", "one part of a rerank request (T6)")
    store: float = duration(10.0, "STORE_TIMEOUT", "one operation of the store")


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """The circuit breakers, one for each dependency (SPEC §5)."""

    failures: int = count(5, "BREAKER_FAILURES", "failures in a row that open a breaker", most=10_000)
    timeout: float = duration(30.0, "BREAKER_TIMEOUT", "a breaker stays open, at first")
    successes: int = count(2, "BREAKER_SUCCESSES", "successful probes that close a breaker", most=10_000)


@dataclass(frozen=True, slots=True)
class BusSettings:
    """The event bus (SPEC §3)."""

    backend: str = text("memory", "BUS_BACKEND", "what carries the bus (B6)", "memory", "redis", "kafka")
    buffer_size: int = count(1000, "BUS_BUFFER_SIZE", "events buffered per topic (B1)")
    publish_timeout: float = duration(5.0, "BUS_PUBLISH_TIMEOUT", "a publisher waits on a full topic (B2, T7)")
    request_timeout: float = duration(30.0, "BUS_REQUEST_TIMEOUT", "a requester waits for its reply (B3, T8)")
    handler_timeout: float = duration(60.0, "BUS_HANDLER_TIMEOUT", "a handler runs (B4, T9)")
    handlers_per_topic: int = count(100, "BUS_HANDLERS_PER_TOPIC", "handlers running per topic (P8)", most=100_000)
    discipline: str = text("fair", "BUS_DISCIPLINE", "order of a topic's messages", "fair", "fifo")
    client_share: float = number(0.25, "BUS_CLIENT_SHARE", "share of a buffer one client may fill", least=0.001, most=1)
    class_floor: float = number(
        0.1, "BUS_CLASS_FLOOR", "share of the service kept for each lower class that waits", least=0, most=0.3
    )
    classes: bool = switch(True, "BUS_CLASSES", "more urgent classes are served first")
    fair_clients: bool = switch(True, "BUS_FAIR_CLIENTS", "clients of a class get equal shares of its service")
    newest_first: bool = switch(
        True, "BUS_NEWEST_FIRST", "a congested queue serves the newest first, once waits are long"
    )
    discard: bool = switch(True, "BUS_DISCARD", "what can no longer end in time is not begun")
    refuse_hopeless: bool = switch(True, "BUS_REFUSE_HOPELESS", "what could not end in time is not let queue")
    tries: int = count(3, "BUS_TRIES", "redis, kafka: deliveries of one message, then it is a dead letter", most=1000)
    ahead: int = count(
        2, "BUS_AHEAD", "redis, kafka: messages taken beside those whose handlers run", least=0, most=10_000
    )
    record_max: int = size(16_000_000, "BUS_RECORD_MAX", "redis, kafka: larger messages are not sent")
    lease: float = duration(5.0, "BUS_LEASE", "redis, kafka: an instance silent for so long is dead", least=2, most=300)
    prefix: str = text("penstock", "BUS_PREFIX", "redis, kafka: begins all names there")


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Redis (L4)."""

    url: str = address(
        "redis://127.0.0.1:6379/0",
        "REDIS_URL",
        "where Redis is: redis://user:password@host:port/db, or rediss:// for TLS",
    )
    pool_size: int = count(20, "REDIS_POOL_SIZE", "connections to Redis (L4)", most=4096)
    shared_url: str = address(
        "", "REDIS_SHARED_URL", "where the Redis of REDIS_CACHE and REDIS_RATES is; empty: at REDIS_URL"
    )
    cache: bool = switch(False, "REDIS_CACHE", "share remembered vectors with other servers")
    rates: bool = switch(False, "REDIS_RATES", "hold clients to one rate over all servers")
    keys: bool = switch(False, "REDIS_KEYS", "keep keys there, for all servers, and serve only those who have one (A2)")

    @property
    def uses_shared_redis(self) -> bool:
        """True where servers share a cache or rate limits through Redis."""
        return self.cache or self.rates

    @property
    def has_own_shared_redis(self) -> bool:
        """True where the shared Redis is another one than the bus's."""
        return self.shared_url not in ("", self.url)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Kafka (L5)."""

    bootstrap: str = address(
        "127.0.0.1:9092", "KAFKA_BOOTSTRAP", "Kafka brokers to ask first: host:port, with commas between"
    )
    partitions: int = count(
        8, "KAFKA_PARTITIONS", "partitions of a new work topic; no more workers can share it", most=1000
    )
    mailboxes: int = count(16, "KAFKA_MAILBOXES", "partitions for replies, over which instances spread", most=1000)
    replication: int = count(
        0, "KAFKA_REPLICATION", "copies of a new topic; 0: three, or as many as brokers", least=0, most=100
    )
    session_timeout: float = duration(
        6.0, "KAFKA_SESSION_TIMEOUT", "a worker not heard of for so long loses its partitions to others"
    )
    tls: bool = switch(False, "KAFKA_TLS", "talk to Kafka by TLS")
    ca: str = text("", "KAFKA_CA", "file of certificates to believe; empty: the system's")
    sasl: str = text("none", "KAFKA_SASL", "how to log in to Kafka", "none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    user: str = text("", "KAFKA_USER", "name to log in to Kafka with")
    password: str = secret("KAFKA_PASSWORD", "password to log in to Kafka with")

    @property
    def display_address(self) -> str:
        """Addresses of the Kafka brokers without secrets, for display."""
        return redact_url(self.bootstrap)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Sizes of the caches of vectors (L1, L2) and answers, and the memory they may take."""

    embed_size: int = count(
        100_000, "EMBED_CACHE_SIZE", "dense vectors remembered (L1); 0: none", least=0, most=100_000_000
    )
    embed_bytes: int = size(256_000_000, "EMBED_CACHE_BYTES", "memory for them")
    sparse_size: int = count(
        100_000, "SPARSE_CACHE_SIZE", "sparse vectors remembered (L2); 0: none", least=0, most=100_000_000
    )
    sparse_bytes: int = size(128_000_000, "SPARSE_CACHE_BYTES", "memory for them")
    answer_size: int = count(
        10_000, "ANSWER_CACHE_SIZE", "answers remembered for the ladder; 0: none", least=0, most=100_000_000
    )
    answer_bytes: int = size(64_000_000, "ANSWER_CACHE_BYTES", "memory for them")
    answer_ttl: float = duration(60.0, "ANSWER_CACHE_TTL", "age of a remembered answer at most")


@dataclass(frozen=True, slots=True)
class DegradationSettings:
    """The ladder: what searches give up while they wait too long (SPEC §4)."""

    up: float = duration(0.3, "DEGRADATION_UP", "it climbs one rung in so long at most")
    down: float = duration(3.0, "DEGRADATION_DOWN", "while no search waits, it comes down one rung in so long")
    highest: str = text("refuse", "DEGRADATION_HIGHEST", "the last rung; full: never degrade", *RUNGS)


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Memory limit of the server's processes (D5, D6)."""

    limit: int = size(
        0, "PENSTOCK_MEMORY_LIMIT", "memory for all processes; 0: the control group's or machine's", least=0, most=2**50
    )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Listening address and log of the server."""

    host: str = text("127.0.0.1", "PENSTOCK_HOST", "address to listen on")
    insecure: bool = switch(
        False,
        "PENSTOCK_INSECURE",
        "listen beyond loopback, where anyone who reaches the address may do everything (A3)",
    )
    api_key: str = secret(
        "PENSTOCK_API_KEY",
        "key of scope admin that a server accepts, and that clients send; 32 characters or more (A2)",
    )
    keys_file: str = text("", "PENSTOCK_KEYS_FILE", "file of keys beside those of the data directory (A2)")
    tls_cert: str = text("", "PENSTOCK_TLS_CERT", "file of the certificate chain (PEM) to serve HTTPS with (A5)")
    tls_key: str = text("", "PENSTOCK_TLS_KEY", "file of its private key (PEM); empty: in the same file (A5)")
    port: int = count(8080, "PENSTOCK_PORT", "port to listen on; 0: any free one", least=0, most=65_535)
    log_level: str = text("info", "PENSTOCK_LOG_LEVEL", "least severe line logged", "debug", "info", "warning", "error")
    log_format: str = text(
        "logfmt", "PENSTOCK_LOG_FORMAT", "form of a log line: sentence and facts, or JSON", "logfmt", "json"
    )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Listening address of a worker's health and metrics endpoints, the only ones that a worker serves."""

    host: str = text("127.0.0.1", "PENSTOCK_WORKER_HOST", "address on which a worker tells how it is")
    port: int = count(
        0, "PENSTOCK_WORKER_PORT", "port on which a worker tells how it is; 0: on none", least=0, most=65_535
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Sections not in ``TOP_LEVEL_SECTIONS`` stand under ``concurrency:``."""

    ml: MlSettings = dataclasses.field(default_factory=MlSettings)
    search: SearchSettings = dataclasses.field(default_factory=SearchSettings)
    index: IndexSettings = dataclasses.field(default_factory=IndexSettings)
    tasks: TaskSettings = dataclasses.field(default_factory=TaskSettings)
    http: HttpSettings = dataclasses.field(default_factory=HttpSettings)
    bus: BusSettings = dataclasses.field(default_factory=BusSettings)
    timeouts: TimeoutSettings = dataclasses.field(default_factory=TimeoutSettings)
    qdrant: QdrantSettings = dataclasses.field(default_factory=QdrantSettings)
    redis: RedisSettings = dataclasses.field(default_factory=RedisSettings)
    kafka: KafkaSettings = dataclasses.field(default_factory=KafkaSettings)
    breaker: GuardSettings = dataclasses.field(default_factory=GuardSettings)
    cache: CacheSettings = dataclasses.field(default_factory=CacheSettings)
    degradation: DegradationSettings = dataclasses.field(default_factory=DegradationSettings)
    memory: MemorySettings = dataclasses.field(default_factory=MemorySettings)
    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    worker: WorkerSettings = dataclasses.field(default_factory=WorkerSettings)
    store: StoreSettings = dataclasses.field(default_factory=StoreSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    dense_model: DenseModelSettings = dataclasses.field(default_factory=DenseModelSettings)
    sparse_model: SparseModelSettings = dataclasses.field(default_factory=SparseModelSettings)
    rerank_model: RerankModelSettings = dataclasses.field(default_factory=RerankModelSettings)


#: Sections written outside of ``concurrency:`` (SPEC §9), and by what name.
TOP_LEVEL_SECTIONS: Final = {
    "server": "server",
    "worker": "worker",
    "store": "store",
    "model": "model",
    "dense_model": "models.dense",
    "sparse_model": "models.sparse",
    "rerank_model": "models.rerank",
}
