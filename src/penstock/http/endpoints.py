"""One table of the API's endpoints: the router, the OpenAPI document and the gate's view of topics are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from penstock.http import answers, bodies
from penstock.http.queries import DeletionQuery, NoQuery, PageQuery
from penstock.kernel.context import Criticality
from penstock.kernel.messages import Topic
from penstock.search.records import SearchResult
from penstock.stores.records import CollectionInfo, Snapshot


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of the API.

    Attributes:
        method: HTTP method.
        path: Path with ``{parameters}``.
        operation: Name of the method of :class:`penstock.http.operations.Operations`.
        summary: One line for the documentation.
        answer: Record of a 200.
        body: Record of the request's body, if it has one.
        body_required: Whether it must have one, or else a query that says the same.
        ndjson: Whether the body may also be NDJSON.
        query: Record of its query parameters; beside a body, they may stand for it.
        topics: Where its work waits; when one of them is nearly full, the gate refuses (D2).
        criticality: The class of its work; callers may ask for a lower one.
        problems: Statuses of problems that only some endpoints have; any request may meet with the others.
    """

    method: str
    path: str
    operation: str
    summary: str
    answer: type
    body: type | None = None
    body_required: bool = True
    ndjson: bool = False
    query: type[msgspec.Struct] = NoQuery
    topics: tuple[Topic, ...] = ()
    criticality: Criticality = Criticality.STANDARD
    problems: tuple[int, ...] = ()


_DOCUMENTS: Final = "/v1/collections/{name}/documents"
_COLLECTION: Final = "/v1/collections/{name}"

API: Final = (
    Endpoint(
        "POST",
        "/v1/search",
        "search",
        "Search the collection `default`",
        SearchResult,
        body=bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
        problems=(404, 409),
    ),
    Endpoint(
        "POST",
        f"{_COLLECTION}/search",
        "search",
        "Search a collection",
        SearchResult,
        body=bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
        problems=(404, 409),
    ),
    Endpoint("GET", "/v1/collections", "list_collections", "List collections", answers.Collections),
    Endpoint(
        "PUT",
        _COLLECTION,
        "create_collection",
        "Create a collection, or return the one that is there",
        CollectionInfo,
        body=bodies.CollectionBody,
        body_required=False,
        problems=(409, 507),
    ),
    Endpoint("GET", _COLLECTION, "get_collection", "Describe a collection", CollectionInfo, problems=(404,)),
    Endpoint("DELETE", _COLLECTION, "delete_collection", "Delete a collection", answers.Deleted, problems=(404, 507)),
    Endpoint(
        "POST",
        _DOCUMENTS,
        "index_documents",
        "Index documents",
        answers.IndexAnswer,
        body=bodies.DocumentsBody,
        ndjson=True,
        topics=(Topic.INDEX_CHUNK, Topic.INDEX_REQUEST),
        criticality=Criticality.BULK,
        problems=(404, 409, 507),
    ),
    Endpoint(
        "GET",
        _DOCUMENTS,
        "list_documents",
        "List documents, a page at a time",
        answers.Heads,
        query=PageQuery,
        problems=(404,),
    ),
    Endpoint(
        "DELETE",
        _DOCUMENTS,
        "delete_documents",
        "Delete documents by ids or by path prefix",
        answers.Deleted,
        body=bodies.DeleteBody,
        query=DeletionQuery,
        problems=(404, 507),
    ),
    Endpoint(
        "POST",
        "/v1/embed",
        "embed",
        "Embed texts",
        answers.Embeddings,
        body=bodies.EmbedBody,
        topics=(Topic.ML_EMBED,),
    ),
    Endpoint(
        "POST",
        "/v1/sparse",
        "sparse",
        "Encode texts as sparse vectors",
        answers.SparseVectors,
        body=bodies.SparseBody,
        topics=(Topic.ML_SPARSE,),
    ),
    Endpoint(
        "POST",
        "/v1/rerank",
        "rerank",
        "Order texts by relevance to a query",
        answers.Ranking,
        body=bodies.RerankBody,
        topics=(Topic.ML_RERANK,),
    ),
    Endpoint(
        "POST", "/v1/snapshots", "make_snapshot", "Make a snapshot of every collection", Snapshot, problems=(507,)
    ),
    Endpoint("GET", "/v1/snapshots", "list_snapshots", "List the snapshots", answers.SnapshotList),
    Endpoint(
        "DELETE", "/v1/snapshots/{name}", "delete_snapshot", "Delete a snapshot", answers.Deleted, problems=(404,)
    ),
    Endpoint(
        "POST",
        "/v1/snapshots/{name}/restore",
        "restore_snapshot",
        "Take in what a snapshot holds",
        answers.Collections,
        body=bodies.RestoreBody,
        body_required=False,
        problems=(404, 409, 507),
    ),
    Endpoint("GET", "/v1/status", "status", "The server at a glance", answers.ServerStatus),
    Endpoint("GET", "/v1/alerts", "alerts", "Alerts, those active now first", answers.Alerts),
)
