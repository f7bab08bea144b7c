"""The rooms below, as the operations use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.bus.contract import Bus
from penstock.http import answers
from penstock.indexing.pipeline import IndexPipeline
from penstock.kernel.clock import Clock
from penstock.kernel.settings import Settings
from penstock.models.contract import Embedder, Reranker, SparseEncoder, Unread
from penstock.stores.contract import NoSnapshots, Snapshots, VectorStore
from penstock.stores.records import CollectionInfo


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms below, and what is told of the server.

    Attributes:
        settings: Everything that can be set.
        clock: The loop's clock.
        bus: Where work waits.
        store: The points.
        index: A document becomes points.
        embedder: Makes dense vectors.
        sparse: Makes sparse vectors.
        reranker: Compares texts with a query.
        model: The dense model's name and fingerprint.
        learned: Name of a model of learned sparse vectors; empty for BM25.
        status: The server's state, given its collections.
        readiness: Why the server cannot work now; empty when it can.
        warnings: What does not work though the server does.
        alerts: What is, or was, wrong.
        snapshots: Makes and restores snapshots of the store.
        forget: Forgets the answers of a collection.
        foreign: Collections of another model than the server's, by name.
        unread: Finds texts that a model does not read whole.
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
    learned: str
    status: Callable[[list[CollectionInfo]], answers.ServerStatus]
    readiness: Callable[[], list[str]]
    warnings: Callable[[], list[str]] = list
    alerts: Callable[[], list[answers.AlertStatus]] = list
    snapshots: Snapshots = field(default_factory=NoSnapshots)
    forget: Callable[[str], object] = len
    foreign: dict[str, CollectionInfo] = field(default_factory=dict)
    unread: Unread = field(default_factory=Unread)
