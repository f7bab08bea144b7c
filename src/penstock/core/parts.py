"""What the core stands on. The app puts the real things here, a simulation puts fakes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bus.books import BusObserver
from penstock.bus.contract import Bus, Handler
from penstock.indexing.composition import sparse_text
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.settings import Settings
from penstock.models.contract import Unread
from penstock.models.used import InUse
from penstock.policies.jitter import Random
from penstock.pools.house import POOLS
from penstock.stores.cache import Cache, Remembering
from penstock.stores.contract import NoSnapshots, Snapshots, VectorStore
from penstock.stores.rates import TokenSource
from penstock.stores.records import Upkeep
from penstock.telemetry.memory import MemoryWatch

#: Makes a cache: its name, entries at most, bytes at most, age at most in seconds.
MakeCache = Callable[[str, int, int, float], Cache]
#: Makes the bus, given who watches it.
MakeBus = Callable[[BusObserver], Bus]
#: Makes the watch over memory, given what can give some back.
MakeMemoryWatch = Callable[[tuple[Remembering, ...]], MemoryWatch]


@dataclass(frozen=True, slots=True)
class Encoders:
    """What the core has to know of the models.

    Attributes:
        model: The dense model's name and fingerprint; a collection remembers it.
        dim: Its dimension.
        late: Components of its token vectors; 0 for a model without.
        sparse: The sparse model's name and settings.
        reads_whole: Whether the dense model reads the whole of a text.
        sparse_query: A query's text as the sparse model wants it.
        sparse_text: A chunk's text, path and symbol as the sparse model wants them.
        learned: Name of a model of learned sparse vectors; empty for BM25. A collection remembers it.
        crossed: Whether the reranker reads query and text together, so that searches have it read their best again.
        used: The models, for people.
        unread: Finds texts that a model does not read whole.
    """

    model: str
    dim: int
    sparse: str
    reads_whole: Callable[[str], bool]
    sparse_query: Callable[[str], str]
    sparse_text: Callable[[str, str, str], str] = sparse_text
    learned: str = ""
    crossed: bool = False
    used: tuple[InUse, ...] = ()
    late: int = 0
    unread: Unread = field(default_factory=Unread)


@dataclass(frozen=True, slots=True)
class Workers:
    """What each pool does with a message: the work itself, without guard or limit."""

    embed: Handler
    sparse: Handler
    rerank: Handler
    chunk: Handler


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the core is built of.

    Attributes:
        settings: Everything that can be set.
        data_dir: Where everything is kept.
        clock: The loop's clock.
        bus: Makes the bus.
        store: Holds the points.
        encoders: What is known of the models.
        workers: What the pools do.
        cache: Makes a cache.
        memory: Makes the watch over memory.
        remote: What is asked of another server, by the names of guards: ``embed``, ``sparse``, ``rerank``.
        snapshots: Makes and restores snapshots of the store.
        upkeep: How the upkeep of each collection stands.
        remembering: What the store remembers in this machine's memory.
        pools: Which pools work here; the topics of the others are served by other instances.
        answers: Whether callers are answered here; else there is work of others only, and how the process is.
        connections: Tells how many connections are open to each server elsewhere, by the name of its guard.
        look: Asks the store whether it is there.
        readiness: Why the parts themselves cannot work; empty when they can.
        warnings: What of them does not work though the server does.
        watch: Sees whether the store goes on; called about every second.
        shared_cache: Makes the cache of a name that is shared with other servers, if there is one.
        shared_rates: Clients' buckets that are shared with other servers, if they are.
        give_back: Gives memory back to the system that was freed; without it nothing does.
        luck: Draws for jitter.
    """

    settings: Settings
    data_dir: Path
    clock: Clock
    bus: MakeBus
    store: VectorStore
    encoders: Encoders
    workers: Workers
    cache: MakeCache
    memory: MakeMemoryWatch
    remote: frozenset[str] = frozenset()
    snapshots: Snapshots = field(default_factory=NoSnapshots)
    upkeep: Callable[[], list[Upkeep]] = list
    remembering: tuple[Remembering, ...] = ()
    pools: frozenset[str] = POOLS
    answers: bool = True
    connections: Callable[[], dict[str, int]] = dict
    look: Callable[[Context], Awaitable[None]] | None = None
    readiness: Callable[[], list[str]] = list
    warnings: Callable[[], list[str]] = list
    watch: Callable[[], None] = lambda: None
    shared_cache: Callable[[str], Cache | None] = lambda _: None
    shared_rates: TokenSource | None = None
    give_back: Callable[[], Awaitable[None]] | None = None
    luck: Random = random.random
