"""Table of the API's endpoints, from which the router, the OpenAPI document and the backpressure check are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from penstock.http import request_bodies, responses
from penstock.http.decoding import DeleteQuery, NoQuery, PageQuery
from penstock.kernel.context import Criticality
from penstock.kernel.messages import Topic
from penstock.search.request import SearchResult
from penstock.stores.data_model import CollectionInfo, SnapshotInfo


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """A route of the API.

    Attributes:
        method: HTTP method.
        path: Path with ``{parameters}``.
        operation: Name of the method of :class:`penstock.http.operations.Operations`.
        summary: One line for the documentation.
        response: Record of a 200.
        body: Record of the request's body, if it has one.
        body_required: Whether a request must have a body, or else query parameters in its place.
        ndjson: Whether the body may also be NDJSON.
        query: Record of its query parameters. Where there is a body too, they may replace it.
        topics: Topics that queue its work. When one of them is nearly full, the gate refuses (D2).
        criticality: Class of its work. Callers may ask for a lower one.
        error_statuses: Statuses of problems that only some endpoints have. Any request may get the others.
    """

    method: str
    path: str
    operation: str
    summary: str
    response: type
    body: type | None = None
    body_required: bool = True
    ndjson: bool = False
    query: type[msgspec.Struct] = NoQuery
    topics: tuple[Topic, ...] = ()
    criticality: Criticality = Criticality.STANDARD
    error_statuses: tuple[int, ...] = ()


_DOCUMENTS: Final = "/v1/collections/{name}/documents"
_COLLECTION: Final = "/v1/collections/{name}"

ENDPOINTS: Final = (
    ApiEndpoint(
        "POST",
        "/v1/search",
        "search",
        "Search the collection `default`",
        SearchResult,
        body=request_bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
        error_statuses=(404, 409),
    ),
    ApiEndpoint(
        "POST",
        f"{_COLLECTION}/search",
        "search",
        "Search a collection",
        SearchResult,
        body=request_bodies.SearchBody,
        topics=(Topic.SEARCH_REQUEST,),
        criticality=Criticality.INTERACTIVE,
        error_statuses=(404, 409),
    ),
    ApiEndpoint("GET", "/v1/collections", "list_collections", "List collections", responses.CollectionList),
    ApiEndpoint(
        "PUT",
        _COLLECTION,
        "create_collection",
        "Create a collection, or return the one that is there",
        CollectionInfo,
        body=request_bodies.CollectionBody,
        body_required=False,
        error_statuses=(409, 507),
    ),
    ApiEndpoint("GET", _COLLECTION, "get_collection", "Describe a collection", CollectionInfo, error_statuses=(404,)),
    ApiEndpoint(
        "DELETE",
        _COLLECTION,
        "delete_collection",
        "Delete a collection",
        responses.DeleteResponse,
        error_statuses=(404, 507),
    ),
    ApiEndpoint(
        "POST",
        _DOCUMENTS,
        "index_documents",
        "Index documents",
        responses.IndexResponse,
        body=request_bodies.DocumentsBody,
        ndjson=True,
        topics=(Topic.INDEX_CHUNK, Topic.INDEX_REQUEST),
        criticality=Criticality.BULK,
        error_statuses=(404, 409, 507),
    ),
    ApiEndpoint(
        "GET",
        _DOCUMENTS,
        "list_documents",
        "List documents, a page at a time",
        responses.DocumentPage,
        query=PageQuery,
        error_statuses=(404,),
    ),
    ApiEndpoint(
        "DELETE",
        _DOCUMENTS,
        "delete_documents",
        "Delete documents by ids or by path prefix",
        responses.DeleteResponse,
        body=request_bodies.DeleteBody,
        query=DeleteQuery,
        error_statuses=(404, 507),
    ),
    ApiEndpoint(
        "POST",
        "/v1/embed",
        "embed",
        "Embed texts",
        responses.EmbedResponse,
        body=request_bodies.EmbedBody,
        topics=(Topic.ML_EMBED,),
    ),
    ApiEndpoint(
        "POST",
        "/v1/sparse",
        "sparse",
        "Encode texts as sparse vectors",
        responses.SparseResponse,
        body=request_bodies.SparseBody,
        topics=(Topic.ML_SPARSE,),
    ),
    ApiEndpoint(
        "POST",
        "/v1/rerank",
        "rerank",
        "Order texts by relevance to a query",
        responses.RerankResponse,
        body=request_bodies.RerankBody,
        topics=(Topic.ML_RERANK,),
    ),
    ApiEndpoint(
        "POST",
        "/v1/snapshots",
        "make_snapshot",
        "Make a snapshot of every collection",
        SnapshotInfo,
        error_statuses=(507,),
    ),
    ApiEndpoint("GET", "/v1/snapshots", "list_snapshots", "List the snapshots", responses.SnapshotList),
    ApiEndpoint(
        "DELETE",
        "/v1/snapshots/{name}",
        "delete_snapshot",
        "Delete a snapshot",
        responses.DeleteResponse,
        error_statuses=(404,),
    ),
    ApiEndpoint(
        "POST",
        "/v1/snapshots/{name}/restore",
        "restore_snapshot",
        "Take in what a snapshot holds",
        responses.CollectionList,
        body=request_bodies.RestoreBody,
        body_required=False,
        error_statuses=(404, 409, 507),
    ),
    ApiEndpoint("GET", "/v1/status", "status", "The server at a glance", responses.ServerStatus),
    ApiEndpoint("GET", "/v1/alerts", "alerts", "Alerts, those active now first", responses.AlertList),
)
