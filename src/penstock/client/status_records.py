"""Records of a server's status and alerts. Fields of a newer server are ignored, those of an older one are empty."""

from __future__ import annotations

import msgspec

from penstock.client.records import Collection


class TopicSummary(msgspec.Struct, frozen=True):
    """A topic's buffer now, and its counts."""

    name: str = ""
    waiting: int = 0
    capacity: int = 0
    running: int = 0
    blocked: int = 0
    level: str = "calm"
    congested: bool = False
    offered: int | None = None
    answered: int | None = None
    failed: int | None = None
    expired: int | None = None
    discarded: int | None = None
    late: int | None = None
    refused: dict[str, int] | None = None


class PoolSummary(msgspec.Struct, frozen=True):
    """A pool's permits now."""

    name: str = ""
    active: int = 0
    limit: int = 0


class BreakerSummary(msgspec.Struct, frozen=True):
    """A circuit breaker now."""

    dependency: str = ""
    state: str = ""
    retry_after_s: float = 0.0


class LadderRung(msgspec.Struct, frozen=True):
    """Rung of the degradation ladder for one class of requests."""

    criticality: str = ""
    rung: str = ""
    level: int = 0


class CacheSummary(msgspec.Struct, frozen=True):
    """A cache now, and its counts."""

    name: str = ""
    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0


class MemorySummary(msgspec.Struct, frozen=True):
    """Memory against its limit."""

    used_bytes: int = 0
    limit_bytes: int = 0
    source: str = ""
    level: str = "calm"


class TrafficSummary(msgspec.Struct, frozen=True):
    """HTTP requests, and their counts."""

    in_flight_max: int = 0
    in_time: int | None = None
    too_late: int | None = None
    client_gone: int | None = None
    cut_off: int | None = None
    refused: dict[str, int] | None = None
    degraded: dict[str, int] | None = None


class ProcessSummary(msgspec.Struct, frozen=True):
    """The server's main process."""

    tasks: int = 0
    threads: int = 0
    loop_lag_ms_max: float = 0.0


class Alert(msgspec.Struct, frozen=True):
    """An alert."""

    name: str = ""
    severity: str = ""
    subject: str = ""
    detail: str = ""
    active: bool = False
    since: str = ""
    until: str = ""


class ModelSummary(msgspec.Struct, frozen=True):
    """A model in use: its part, its kind and name, its endpoint, and what it lacks."""

    part: str = ""
    kind: str = ""
    name: str = ""
    url: str = ""
    note: str = ""


class Status(msgspec.Struct, frozen=True):
    """The server at a glance. Members that an older server leaves out have their default."""

    version: str = ""
    uptime_s: float = 0.0
    ready: bool = False
    reasons: list[str] = []
    in_flight: int = 0
    topics: list[TopicSummary] = []
    pools: list[PoolSummary] = []
    breakers: list[BreakerSummary] = []
    ladder: list[LadderRung] = []
    caches: list[CacheSummary] = []
    memory: MemorySummary | None = None
    traffic: TrafficSummary | None = None
    process: ProcessSummary | None = None
    alerts: list[Alert] = []
    data_dir: str = ""
    model: str = ""
    dim: int = 0
    models: list[ModelSummary] = []
    collections: list[Collection] = []
    warnings: list[str] = []
