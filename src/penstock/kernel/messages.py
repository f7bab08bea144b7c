"""Messages: commands and questions that travel on topics, facts that are published.

Names of topics are in :class:`Topic` (SPEC B7). Arrays inside replies give shape and dtype
where they are produced, in :mod:`penstock.models.contract`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import msgspec


class Topic(enum.StrEnum):
    """Every topic, the same in one process and over a broker (SPEC B7)."""

    ML_EMBED = "ml.embed"
    ML_SPARSE = "ml.sparse"
    ML_RERANK = "ml.rerank"
    SEARCH_REQUEST = "search.request"
    INDEX_REQUEST = "index.request"
    INDEX_CHUNK = "index.chunk"
    INDEX_PROGRESS = "index.progress"
    INDEX_COMPLETE = "index.complete"
    COLLECTION_CREATED = "collection.created"
    COLLECTION_DELETED = "collection.deleted"
    ALERT_TRIGGERED = "alert.triggered"
    SEARCH_COMPLETE = "search.complete"


#: Topics where a requester waits for a reply.
REQUEST_TOPICS: Final = (
    Topic.ML_EMBED,
    Topic.ML_SPARSE,
    Topic.ML_RERANK,
    Topic.SEARCH_REQUEST,
    Topic.INDEX_REQUEST,
    Topic.INDEX_CHUNK,
)


#: Topics of these whose handlers write nothing: a request may be handled twice.
REPEATABLE_TOPICS: Final = frozenset(REQUEST_TOPICS) - {Topic.INDEX_REQUEST}


class TextKind(enum.StrEnum):
    """Role of a text, query or document; some models encode the two differently."""

    QUERY = "query"
    DOCUMENT = "document"


class EmbedBatch(msgspec.Struct, frozen=True):
    """Embed these texts in one run of the model; the reply is :class:`penstock.kernel.vectors.Embeddings`."""

    texts: list[str]
    kind: TextKind
    late: bool = False


class SparseBatch(msgspec.Struct, frozen=True):
    """Encode these texts; the reply is one sparse vector each."""

    texts: list[str]
    kind: TextKind


class RerankTexts(msgspec.Struct, frozen=True):
    """Score these texts against the query; the reply is ``float32 [n]``."""

    query: str
    texts: list[str]


class ChunkText(msgspec.Struct, frozen=True):
    """Cut this text into chunks that the dense model can read whole.

    Attributes:
        text: The whole text.
        language: Lower-case language name.
        tokens_reserved: Tokens to leave free in each chunk for what is put in front of it.
    """

    text: str
    language: str
    tokens_reserved: int = 0


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """A document was written, or failed; published while an index request is handled."""

    collection: str
    document: str
    status: str
    chunks: int


@dataclass(frozen=True, slots=True)
class IndexComplete:
    """A request to index documents has ended."""

    collection: str
    indexed: int
    unchanged: int
    failed: int
    chunks: int


@dataclass(frozen=True, slots=True)
class CollectionCreated:
    """A collection is there now."""

    name: str


@dataclass(frozen=True, slots=True)
class CollectionDeleted:
    """A collection is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class SearchComplete:
    """A search was answered."""

    collection: str
    hits: int
    took_ms: float
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlertTriggered:
    """An alert was raised or called off (SPEC §10).

    Attributes:
        name: Its rule.
        severity: ``warning`` or ``critical``.
        subject: The topic, dependency or class concerned.
        detail: One sentence for a person.
        active: Whether it was raised; else it was called off.
    """

    name: str
    severity: str
    subject: str
    detail: str
    active: bool
