"""The public client of the HTTP API: typed, synchronous and asynchronous, on httpx and msgspec alone.

Enters: a call. Leaves: a record of its answer, or an error of the family that the server raised.
May refuse: a name that cannot be a collection's, and a retry beyond the deadline or the budget.
Read next: :mod:`penstock.client.client`, then :mod:`penstock.client.calls`.
"""

from penstock.client import calls
from penstock.client.calls import ApiCall
from penstock.client.client import AsyncClient, CallOptions, Client
from penstock.client.errors import NotReachable
from penstock.client.records import (
    Collection,
    DocumentChunk,
    DocumentListing,
    FullDocument,
    Hit,
    IndexedDocument,
    IndexReport,
    NewDocument,
    OtherHit,
    Problem,
    RootDirectory,
    RunFailure,
    RunSummary,
    SearchOptions,
    SearchResponse,
    Snapshot,
    Source,
    SparseEmbeddings,
    SparseTerms,
    StoredDocument,
    TextEmbeddings,
    TextRanking,
    TextScore,
)
from penstock.client.status_records import (
    Alert,
    BreakerSummary,
    CacheSummary,
    LadderRung,
    MemorySummary,
    ModelSummary,
    PoolSummary,
    ProcessSummary,
    Status,
    TopicSummary,
    TrafficSummary,
)
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable

__all__ = [
    "Alert",
    "ApiCall",
    "AsyncClient",
    "BreakerSummary",
    "Broken",
    "CacheSummary",
    "CallOptions",
    "Client",
    "Collection",
    "DocumentChunk",
    "DocumentListing",
    "Expired",
    "FullDocument",
    "Hit",
    "IndexReport",
    "IndexedDocument",
    "Invalid",
    "LadderRung",
    "MemorySummary",
    "ModelSummary",
    "NewDocument",
    "NotReachable",
    "OtherHit",
    "PenstockError",
    "PoolSummary",
    "Problem",
    "ProcessSummary",
    "Rejected",
    "RootDirectory",
    "RunFailure",
    "RunSummary",
    "SearchOptions",
    "SearchResponse",
    "Snapshot",
    "Source",
    "SparseEmbeddings",
    "SparseTerms",
    "Status",
    "StoredDocument",
    "TextEmbeddings",
    "TextRanking",
    "TextScore",
    "TopicSummary",
    "TrafficSummary",
    "Unavailable",
    "calls",
]
