"""Dependencies of the core: real ones made by the app, fakes made by a simulation."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bus.contract import Handler
from penstock.bus.counters import BusObserver
from penstock.bus.management import BreakerView, ManagedBus
from penstock.indexing.model_inputs import BM25_INPUTS, SparseInputs
from penstock.indexing.sources.source_watches import SourceWatches
from penstock.kernel.context import Clock, Context
from penstock.kernel.settings import Settings
from penstock.models.bm25 import Bm25Runner
from penstock.models.contract import NO_TOKEN_USAGE, ModelInfo, TokenUsage, TruncationChecks
from penstock.policies.jitter import Rng
from penstock.pools.permits import POOL_NAMES
from penstock.stores.contract import SnapshotStore, VectorStore
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import KeyValueCache, ShrinkableCache
from penstock.stores.server_keys import ServerKeys
from penstock.stores.store_service import SharedTokenBuckets
from penstock.telemetry.audit_log import AuditTrail
from penstock.telemetry.memory_watch import MemoryWatch

#: Makes the bus, given its observer.
MakeBus = Callable[[BusObserver], ManagedBus]
#: Makes the watch over memory, given the caches that can shrink.
MakeMemoryWatch = Callable[[tuple[ShrinkableCache, ...]], MemoryWatch]


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Traits of the models that the core depends on.

    Attributes:
        model: The dense model's name and fingerprint; a collection remembers it.
        dim: Its dimension.
        late: Components of its token vectors; 0 for a model without.
        sparse: The sparse model's name and settings.
        fits_dense_model: Whether the dense model reads the whole of a text.
        knows_letters: Whether the dense model's vocabulary has most of a text.
        sparse_inputs: Texts as the sparse model wants them.
        learned_sparse_model: Name of a model of learned sparse vectors; empty for BM25. A collection remembers it.
        has_cross_encoder: Whether the reranker reads query and text together, so that searches have it read their best
            again.
        infos: The models, for people.
        truncation: Finds texts that a model does not read whole.
        token_usage: Counts the dense model's tokens.
        bm25: The sparse model, where it is BM25: any process can run it.
    """

    model: str
    dim: int
    sparse: str
    fits_dense_model: Callable[[str], bool]
    sparse_inputs: SparseInputs = BM25_INPUTS
    knows_letters: Callable[[str], bool] = lambda _: True
    learned_sparse_model: str = ""
    has_cross_encoder: bool = False
    infos: tuple[ModelInfo, ...] = ()
    late: int = 0
    truncation: TruncationChecks = field(default_factory=TruncationChecks)
    token_usage: TokenUsage = NO_TOKEN_USAGE
    bm25: Bm25Runner | None = None


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything the core is built of.

    Attributes:
        settings: Everything that can be set.
        data_dir: The data directory.
        clock: The loop's clock.
        make_bus: Makes the bus.
        store: Holds the points.
        models: Traits of the models.
        handlers: Handlers of the model and chunk pools, by pool: the work itself, without guard or limit.
        make_memory_watch: Makes the watch over memory.
        remote_dependencies: Dependencies on other servers, by the names of their guards: ``embed``, ``sparse``,
            ``rerank``, ``store``.
        snapshots: Makes and restores snapshots of the store.
        upkeep: Returns the state of each collection's index builds.
        store_caches: The store's caches in this machine's memory.
        breakers: Breakers of the store's nodes, beside the one of the store.
        pools: Which pools work here; the topics of the others are served by other instances.
        serves_api: Whether the API is served here. Otherwise the process works for others and serves health checks.
        connections: Returns the number of open connections to each other server, by the name of its guard.
        probe_store: Probes the store.
        unready_reasons: Returns why the dependencies cannot work, empty when they can.
        warnings: Returns warnings about dependencies that do not work while the server does.
        watch_store: Checks that the store still runs. Called about every second.
        make_shared_cache: Makes the cache of a name that is shared with other servers, if there is one.
        token_buckets: Clients' buckets that are shared with other servers, if they are.
        release_memory: Returns freed memory to the system. ``None`` to keep it.
        rng: Draws for jitter.
        keys: The keys of the server: those that it accepts, and where they are kept.
        audit: Where administrative acts and refused attempts are written.
        source_watches: The sources that this server keeps up to date by itself.
    """

    settings: Settings
    data_dir: Path
    clock: Clock
    make_bus: MakeBus
    store: VectorStore
    models: ModelTraits
    handlers: Mapping[str, Handler]
    make_memory_watch: MakeMemoryWatch
    remote_dependencies: frozenset[str] = frozenset()
    snapshots: SnapshotStore = field(default_factory=SnapshotStore)
    upkeep: Callable[[], list[IndexBuildStatus]] = list
    store_caches: tuple[ShrinkableCache, ...] = ()
    breakers: Sequence[BreakerView] = ()
    pools: frozenset[str] = POOL_NAMES
    serves_api: bool = True
    connections: Callable[[], dict[str, int]] = dict
    probe_store: Callable[[Context], Awaitable[None]] | None = None
    unready_reasons: Callable[[], list[str]] = list
    warnings: Callable[[], list[str]] = list
    watch_store: Callable[[], None] = lambda: None
    make_shared_cache: Callable[[str], KeyValueCache | None] = lambda _: None
    token_buckets: SharedTokenBuckets | None = None
    release_memory: Callable[[], Awaitable[None]] | None = None
    rng: Rng = random.random
    keys: ServerKeys = field(default_factory=ServerKeys)
    audit: AuditTrail = field(default_factory=AuditTrail)
    source_watches: SourceWatches = field(default_factory=SourceWatches)
