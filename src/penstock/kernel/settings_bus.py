"""Settings of the event bus and of the brokers that may carry it."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.kernel.redaction import redact_url
from penstock.kernel.setting_spec import address, count, duration, number, secret, size, switch, text


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
