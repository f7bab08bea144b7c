"""Dependencies of the API operations: bus, store, models, snapshots and server state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.bus.contract import Bus
from penstock.http import responses
from penstock.indexing.index_pipeline import IndexPipeline
from penstock.kernel.context import Clock
from penstock.kernel.settings import Settings
from penstock.models.contract import Embedder, Reranker, SparseEncoder, TruncationChecks
from penstock.stores.contract import SnapshotStore, VectorStore
from penstock.stores.data_model import CollectionInfo


@dataclass(frozen=True, slots=True)
class ApiDependencies:
    """Everything that the API operations use.

    Attributes:
        settings: Everything that can be set.
        clock: The loop's clock.
        bus: Message bus that queues the work.
        store: Vector store.
        index: Pipeline that turns documents into points.
        embedder: Makes dense vectors.
        sparse: Makes sparse vectors.
        reranker: Compares texts with a query.
        model: The dense model's name and fingerprint.
        learned_sparse_model: Name of a model of learned sparse vectors; empty for BM25.
        status: Returns the server's status, given its collections.
        unready_reasons: Returns why the server is not ready, empty when it is.
        warnings: Returns warnings about parts that do not work while the server does.
        alerts: Returns active and recently resolved alerts.
        snapshots: Makes and restores snapshots of the store.
        invalidate_results: Drops a collection's cached results.
        incompatible: Collections of another model than the server's, by name.
        truncation: Finds texts that are longer than a model's input.
    """

    settings: Settings
    clock: Clock
    bus: Bus
    store: VectorStore
    index: IndexPipeline
    embedder: Embedder
    sparse: SparseEncoder
    reranker: Reranker
    model: str
    learned_sparse_model: str
    status: Callable[[list[CollectionInfo]], responses.ServerStatus]
    unready_reasons: Callable[[], list[str]]
    warnings: Callable[[], list[str]] = list
    alerts: Callable[[], list[responses.AlertStatus]] = list
    snapshots: SnapshotStore = field(default_factory=SnapshotStore)
    invalidate_results: Callable[[str], object] = len
    incompatible: dict[str, CollectionInfo] = field(default_factory=dict)
    truncation: TruncationChecks = field(default_factory=TruncationChecks)
