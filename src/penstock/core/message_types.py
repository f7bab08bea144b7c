"""Message and reply types of each topic, for (de)serialisation between processes (SPEC B7)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.bus.record_codec import MessageTypes
from penstock.indexing.chunk import Chunk
from penstock.indexing.document_records import ChunkBatch
from penstock.kernel import messages
from penstock.kernel.messages import Topic
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.search.request import SearchRequest, SearchResult

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
