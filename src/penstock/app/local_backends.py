"""Factories of the backends within this process: the bus and the caches."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.app.external_backends import topic_capacities
from penstock.bus.broker import Broker
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.counters import BusObserver
from penstock.bus.distributed import BrokerBus
from penstock.bus.local import LocalBus
from penstock.bus.management import ManagedBus
from penstock.bus.record_codec import MessageTypes, RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.indexing.chunk import Chunk
from penstock.indexing.document_records import ChunkBatch
from penstock.kernel import messages
from penstock.kernel.context import Clock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import Settings
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.search.request import SearchRequest, SearchResult

#: Message and reply types of each topic, for (de)serialisation between processes (SPEC B7).
MESSAGE_TYPES: Final[dict[str, MessageTypes]] = {
    Topic.ML_EMBED: MessageTypes(messages.EmbedBatch, Embeddings),
    Topic.ML_SPARSE: MessageTypes(messages.SparseBatch, list[SparseVector]),
    Topic.ML_RERANK: MessageTypes(messages.RerankTexts, NDArray[np.float32]),
    Topic.SEARCH_REQUEST: MessageTypes(SearchRequest, SearchResult),
    Topic.INDEX_REQUEST: MessageTypes(ChunkBatch, None),
    Topic.INDEX_CHUNK: MessageTypes(messages.ChunkText, list[Chunk]),
    Topic.INDEX_PROGRESS: MessageTypes(messages.IndexProgress, None),
    Topic.INDEX_COMPLETE: MessageTypes(messages.IndexComplete, None),
    Topic.COLLECTION_CREATED: MessageTypes(messages.CollectionCreated, None),
    Topic.COLLECTION_DELETED: MessageTypes(messages.CollectionDeleted, None),
    Topic.ALERT_TRIGGERED: MessageTypes(messages.AlertTriggered, None),
    Topic.SEARCH_COMPLETE: MessageTypes(messages.SearchComplete, None),
}


def build_bus(
    broker: Broker | None, settings: Settings, clock: Clock, observer: BusObserver, compatibility_keys: dict[str, str]
) -> ManagedBus:
    """Return the bus: within this process alone, or over a broker to others.

    Args:
        broker: From :func:`penstock.app.external_backends.build_broker`.
        settings: Its buffers, limits and breaker.
        clock: The loop's clock.
        observer: Observer of waits, fills and losses.
        compatibility_keys: What instances must have in common to do each other's work, by topic.
    """
    if broker is None:
        return LocalBus(settings.bus, topic_capacities(settings), clock, observer)
    codec, breaker = RecordCodec(MESSAGE_TYPES, settings.bus.record_max), BrokerBreaker(broker.name, settings.breaker)
    return BrokerBus(
        BrokerTransport(broker, codec, breaker),
        settings.bus,
        topic_capacities(settings),
        clock,
        observer,
        compatibility_keys,
    )
