"""Of which types the topics' messages and replies are, where they travel between processes (SPEC B7)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.bus.wire import Shape
from penstock.indexing.chunk import Chunk
from penstock.indexing.records import Segment
from penstock.kernel import messages
from penstock.kernel.messages import Topic
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.search.records import SearchRequest, SearchResult

SHAPES: Final[dict[str, Shape]] = {
    Topic.ML_EMBED: Shape(messages.EmbedBatch, Embeddings),
    Topic.ML_SPARSE: Shape(messages.SparseBatch, list[SparseVector]),
    Topic.ML_RERANK: Shape(messages.RerankTexts, NDArray[np.float32]),
    Topic.SEARCH_REQUEST: Shape(SearchRequest, SearchResult),
    Topic.INDEX_REQUEST: Shape(Segment, None),
    Topic.INDEX_CHUNK: Shape(messages.ChunkText, list[Chunk]),
    Topic.INDEX_PROGRESS: Shape(messages.IndexProgress, None),
    Topic.INDEX_COMPLETE: Shape(messages.IndexComplete, None),
    Topic.COLLECTION_CREATED: Shape(messages.CollectionCreated, None),
    Topic.COLLECTION_DELETED: Shape(messages.CollectionDeleted, None),
    Topic.ALERT_TRIGGERED: Shape(messages.AlertTriggered, None),
    Topic.SEARCH_COMPLETE: Shape(messages.SearchComplete, None),
}
