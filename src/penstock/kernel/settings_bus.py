"""Settings of the event bus and of the brokers that may carry it."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.kernel.redaction import redact_url
from penstock.kernel.setting_spec import (
    SettingSpec,
    SettingUnit,
    address,
    count,
    duration,
    secret,
    setting,
    size,
    switch,
    text,
)


@dataclass(frozen=True, slots=True)
class BusSettings:
    """The event bus (SPEC §3)."""

    backend: str = setting("memory", text("BUS_BACKEND", "what carries the bus (B6)", "memory", "redis", "kafka"))
    buffer_size: int = setting(1000, count("BUS_BUFFER_SIZE", "events buffered per topic (B1)"))
    publish_timeout: float = setting(5.0, duration("BUS_PUBLISH_TIMEOUT", "a publisher waits on a full topic (B2, T7)"))
    request_timeout: float = setting(30.0, duration("BUS_REQUEST_TIMEOUT", "a requester waits for its reply (B3, T8)"))
    handler_timeout: float = setting(60.0, duration("BUS_HANDLER_TIMEOUT", "a handler runs (B4, T9)"))
    handlers_per_topic: int = setting(100, count("BUS_HANDLERS_PER_TOPIC", "handlers running per topic (P8)", 100_000))
    discipline: str = setting("fair", text("BUS_DISCIPLINE", "order of a topic's messages", "fair", "fifo"))
    client_share: float = setting(
        0.25, SettingSpec("BUS_CLIENT_SHARE", "share of a buffer one client may fill", SettingUnit.NUMBER, 0.001, 1)
    )
    class_floor: float = setting(
        0.1,
        SettingSpec(
            "BUS_CLASS_FLOOR", "share of the service kept for each lower class that waits", SettingUnit.NUMBER, 0, 0.3
        ),
    )
    classes: bool = setting(True, switch("BUS_CLASSES", "more urgent classes are served first"))
    fair_clients: bool = setting(True, switch("BUS_FAIR_CLIENTS", "clients of a class get equal shares of its service"))
    newest_first: bool = setting(
        True, switch("BUS_NEWEST_FIRST", "a congested queue serves the newest first, once waits are long")
    )
    discard: bool = setting(True, switch("BUS_DISCARD", "what can no longer end in time is not begun"))
    refuse_hopeless: bool = setting(True, switch("BUS_REFUSE_HOPELESS", "what could not end in time is not let queue"))
    tries: int = setting(
        3, count("BUS_TRIES", "redis, kafka: deliveries of one message, then it is a dead letter", 1000)
    )
    ahead: int = setting(
        2,
        SettingSpec(
            "BUS_AHEAD", "redis, kafka: messages taken beside those whose handlers run", SettingUnit.COUNT, 0, 10_000
        ),
    )
    record_max: int = setting(16_000_000, size("BUS_RECORD_MAX", "redis, kafka: larger messages are not sent"))
    lease: float = setting(
        5.0,
        SettingSpec("BUS_LEASE", "redis, kafka: an instance silent for so long is dead", SettingUnit.DURATION, 2, 300),
    )
    prefix: str = setting("penstock", text("BUS_PREFIX", "redis, kafka: begins all names there"))


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Redis (L4)."""

    url: str = setting(
        "redis://127.0.0.1:6379/0",
        address("REDIS_URL", "where Redis is: redis://user:password@host:port/db, or rediss:// for TLS"),
    )
    pool_size: int = setting(20, count("REDIS_POOL_SIZE", "connections to Redis (L4)", 4096))
    shared_url: str = setting(
        "", address("REDIS_SHARED_URL", "where the Redis of REDIS_CACHE and REDIS_RATES is; empty: at REDIS_URL")
    )
    cache: bool = setting(False, switch("REDIS_CACHE", "share remembered vectors with other servers"))
    rates: bool = setting(False, switch("REDIS_RATES", "hold clients to one rate over all servers"))

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

    bootstrap: str = setting(
        "127.0.0.1:9092", address("KAFKA_BOOTSTRAP", "Kafka brokers to ask first: host:port, with commas between")
    )
    partitions: int = setting(
        8, count("KAFKA_PARTITIONS", "partitions of a new work topic; no more workers can share it", 1000)
    )
    mailboxes: int = setting(16, count("KAFKA_MAILBOXES", "partitions for replies, over which instances spread", 1000))
    replication: int = setting(
        0,
        SettingSpec(
            "KAFKA_REPLICATION", "copies of a new topic; 0: three, or as many as brokers", SettingUnit.COUNT, 0, 100
        ),
    )
    session_timeout: float = setting(
        6.0, duration("KAFKA_SESSION_TIMEOUT", "a worker not heard of for so long loses its partitions to others")
    )
    tls: bool = setting(False, switch("KAFKA_TLS", "talk to Kafka by TLS"))
    ca: str = setting("", text("KAFKA_CA", "file of certificates to believe; empty: the system's"))
    sasl: str = setting(
        "none", text("KAFKA_SASL", "how to log in to Kafka", "none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    )
    user: str = setting("", text("KAFKA_USER", "name to log in to Kafka with"))
    password: str = setting("", secret("KAFKA_PASSWORD", "password to log in to Kafka with"))

    @property
    def display_address(self) -> str:
        """Addresses of the Kafka brokers without secrets, for display."""
        return redact_url(self.bootstrap)
