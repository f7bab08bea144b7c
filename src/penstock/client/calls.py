"""Calls of the API: the request of each endpoint, and how its answer is read. No I/O.

Each function is a method of both clients (:mod:`penstock.client.client`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Literal, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from penstock.client.records import (
    Collection,
    DocumentListing,
    FullDocument,
    IndexReport,
    KeyListing,
    MadeKey,
    NewDocument,
    RootDirectory,
    RunSummary,
    SearchOptions,
    SearchResponse,
    ServerKey,
    Snapshot,
    Source,
    SparseEmbeddings,
    TextEmbeddings,
    TextRanking,
)
from penstock.client.status_records import Alert, Status
from penstock.client.task_records import ServerTask, TaskCancelled, TaskListing
from penstock.kernel.errors import DECODE_ERRORS, Broken, Invalid

T = TypeVar("T")

DEFAULT: Final = "default"
READ_TIMEOUT_S: Final = 60.0
#: A single file of a megabyte is more than a thousand chunks, some twenty seconds of two cores.
INDEX_READ_TIMEOUT_S: Final = 600.0
#: Gigabytes take a while to be copied and packed.
SNAPSHOT_READ_TIMEOUT_S: Final = 3600.0

ATTEMPTS_MAX: Final = 4
#: Bulk work waits longer for its turn.
BULK_ATTEMPTS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class ApiCall(Generic[T]):
    """A call of one endpoint.

    Attributes:
        method: HTTP method.
        path: Path, quoted.
        answer: Type of the answer, or of its ``member``.
        member: The answer's member that is wanted, empty for the whole.
        body: JSON of the request, ``None`` for no body.
        query: Query parameters.
        read_timeout_s: Seconds without a byte of the answer before the call is given up, without a deadline.
        attempts_max: Attempts in all, the first one included.
    """

    method: str
    path: str
    answer: Any
    member: str = ""
    body: bytes | None = None
    query: Mapping[str, str | list[str]] = field(default_factory=dict)
    read_timeout_s: float = READ_TIMEOUT_S
    attempts_max: int = ATTEMPTS_MAX

    def untyped(self) -> ApiCall[dict[str, Any]]:
        """Return the call whose answer is the JSON object as it came."""
        return replace(self, answer=dict[str, Any], member="")  # type: ignore[return-value]

    def read(self, body: bytes) -> T:
        """Return the answer.

        Raises:
            Broken: It cannot be read.
        """
        try:
            if self.member:
                body = msgspec.json.decode(body, type=dict[str, msgspec.Raw])[self.member]
            answer: T = msgspec.json.decode(body, type=self.answer)
        except (*DECODE_ERRORS, KeyError) as error:
            raise Broken(f"the server's answer cannot be read: {error}") from error
        return answer


def search(
    query: str | None, collection: str | Sequence[str] = DEFAULT, **options: Unpack[SearchOptions]
) -> ApiCall[SearchResponse]:
    """Search a collection, or several at once.

    Args:
        query: What to look for, in words or code; ``None`` with the option ``like``.
        collection: Its name, or the names of several.
        **options: See :class:`~penstock.client.records.SearchOptions`.
    """
    if isinstance(collection, str):
        return ApiCall("POST", f"{_collection(collection)}/search", SearchResponse, body=_json(query=query, **options))
    body = _json(query=query, collections=list(collection), **options)
    return ApiCall("POST", "/v1/search", SearchResponse, body=body)


def list_collections() -> ApiCall[list[Collection]]:
    """List collections."""
    return ApiCall("GET", "/v1/collections", list[Collection], "collections")


def create_collection(name: str) -> ApiCall[Collection]:
    """Create a collection, or return the one that is there."""
    return ApiCall("PUT", _collection(name), Collection, body=b"{}")


def get_collection(name: str) -> ApiCall[Collection]:
    """Describe a collection."""
    return ApiCall("GET", _collection(name), Collection)


def renew_collection(name: str) -> ApiCall[int]:
    """Renew the BM25 vectors of a collection of `text: 1`, and return how many chunks have new ones."""
    return ApiCall("POST", f"{_collection(name)}/renew", int, "renewed", read_timeout_s=SNAPSHOT_READ_TIMEOUT_S)


def delete_collection(name: str) -> ApiCall[int]:
    """Delete a collection with everything in it."""
    return ApiCall("DELETE", _collection(name), int, "deleted")


def index_documents(
    documents: Iterable[NewDocument | Mapping[str, Any] | msgspec.Raw],
    collection: str = DEFAULT,
    *,
    wait: Literal["words", "vectors"] = "vectors",
) -> ApiCall[IndexReport]:
    """Index documents; a document of the same id is replaced.

    Args:
        documents: At most 10 000 documents: records, mappings, or JSON objects as ``msgspec.Raw``.
        collection: The collection.
        wait: ``words`` for an answer as soon as the documents are found by words; their vectors follow.

    Cancellation:
        Documents that the server has finished stay.
    """
    return ApiCall(
        "POST",
        f"{_collection(collection)}/documents",
        IndexReport,
        body=_json(documents=list(documents), **({"wait": wait} if wait != "vectors" else {})),
        read_timeout_s=INDEX_READ_TIMEOUT_S,
        attempts_max=BULK_ATTEMPTS_MAX,
    )


def list_documents(
    collection: str = DEFAULT, *, limit: int = 1000, after: str | None = None, path_prefix: str | None = None
) -> ApiCall[DocumentListing]:
    """List a page of documents. ``after`` is the ``next`` of the page before."""
    query = {"limit": str(limit), "after": after, "path_prefix": path_prefix}
    told = {name: value for name, value in query.items() if value is not None}
    return ApiCall("GET", f"{_collection(collection)}/documents", DocumentListing, query=told)


def get_document(id: str, collection: str = DEFAULT, *, chunk: int = 0, limit: int = 100) -> ApiCall[FullDocument]:
    """Read a document by its id: so many of its chunks, from the one of a number on."""
    query = {"id": id, "chunk": str(chunk), "limit": str(limit)}
    return ApiCall("GET", f"{_collection(collection)}/document", FullDocument, query=query)


def delete_documents(
    collection: str = DEFAULT, *, ids: Sequence[str] | None = None, path_prefix: str | None = None
) -> ApiCall[int]:
    """Delete documents, either by ids or by the prefix of their paths, and return how many there were."""
    told = {"ids": ids, "path_prefix": path_prefix}
    return ApiCall(
        "DELETE",
        f"{_collection(collection)}/documents",
        int,
        "deleted",
        _json(**{name: value for name, value in told.items() if value is not None}),
        attempts_max=BULK_ATTEMPTS_MAX,
    )


def list_sources(collection: str | None = None) -> ApiCall[list[Source]]:
    """List the sources of a collection, or of every collection."""
    query = {} if collection is None else {"collection": collection}
    return ApiCall("GET", "/v1/sources", list[Source], "sources", query=query)


def put_source(  # noqa: PLR0913 - one for each member of the body
    name: str,
    collection: str = DEFAULT,
    *,
    root: RootDirectory | None = None,
    commit: str = "",
    run: RunSummary | None = None,
    include: Sequence[str] | None = None,
    watch: bool | None = None,
) -> ApiCall[Source]:
    """Register a source, or tell its directory on a host, the counts of a completed run, or what it includes.

    With ``watch`` the server indexes the directory itself, or no longer. A root without a host is on the server's.
    """
    directory = None if root is None else {"host": root.host, "path": root.path}
    # Servers of earlier releases refuse a member that they do not know.
    watching = {} if watch is None else {"watch": watch}
    body = _json(collection=collection, root=directory, commit=commit, run=run, include=include, **watching)
    return ApiCall("PUT", _source(name), Source, body=body)


def delete_source(name: str, collection: str = DEFAULT) -> ApiCall[int]:
    """Delete a source with its documents, and return how many there were."""
    return ApiCall("DELETE", _source(name), int, "deleted", query={"collection": collection})


def embed(texts: Sequence[str], kind: Literal["document", "query"] = "document") -> ApiCall[TextEmbeddings]:
    """Embed texts as dense vectors."""
    return ApiCall("POST", "/v1/embed", TextEmbeddings, body=_json(texts=texts, kind=kind))


def sparse(texts: Sequence[str], kind: Literal["document", "query"] = "document") -> ApiCall[SparseEmbeddings]:
    """Encode texts as sparse vectors."""
    return ApiCall("POST", "/v1/sparse", SparseEmbeddings, body=_json(texts=texts, kind=kind))


def rerank(query: str, texts: Sequence[str]) -> ApiCall[TextRanking]:
    """Order texts by relevance to a query."""
    return ApiCall("POST", "/v1/rerank", TextRanking, body=_json(query=query, texts=texts))


def make_snapshot() -> ApiCall[Snapshot]:
    """Make a snapshot of every collection in the data directory."""
    return ApiCall("POST", "/v1/snapshots", Snapshot, read_timeout_s=SNAPSHOT_READ_TIMEOUT_S)


def list_snapshots() -> ApiCall[list[Snapshot]]:
    """List the snapshots in the data directory."""
    return ApiCall("GET", "/v1/snapshots", list[Snapshot], "snapshots")


def delete_snapshot(name: str) -> ApiCall[int]:
    """Delete a snapshot in the data directory."""
    return ApiCall("DELETE", f"/v1/snapshots/{quote(name, safe='')}", int, "deleted")


def restore_snapshot(name: str, *, force: bool = False) -> ApiCall[list[Collection]]:
    """Restore a snapshot in the data directory. With ``force`` existing collections are replaced."""
    return ApiCall(
        "POST",
        f"/v1/snapshots/{quote(name, safe='')}/restore",
        list[Collection],
        "collections",
        _json(force=force),
        read_timeout_s=SNAPSHOT_READ_TIMEOUT_S,
    )


def list_keys() -> ApiCall[KeyListing]:
    """List the keys of the server, without their secrets."""
    return ApiCall("GET", "/v1/keys", KeyListing)


def create_key(
    name: str,
    scope: Literal["search", "write", "admin"] = "search",
    collections: Sequence[str] = (),
    *,
    expires_at: str | None = None,
    rate: int | None = None,
    close_server: bool = False,
) -> ApiCall[MadeKey]:
    """Make a key. Its secret is in this answer only. The first key of an open server closes it."""
    body = _json(
        name=name,
        scope=scope,
        collections=list(collections),
        expires_at=expires_at,
        rate=rate,
        close_server=close_server,
    )
    return ApiCall("POST", "/v1/keys", MadeKey, body=body)


def rotate_key(id: str, grace_s: int = 86_400) -> ApiCall[MadeKey]:
    """Make a new key like another one, which goes on for ``grace_s`` seconds. The secret is in this answer only."""
    return ApiCall("POST", f"/v1/keys/{quote(id, safe='')}/rotate", MadeKey, body=_json(grace_s=grace_s))


def revoke_key(id: str) -> ApiCall[ServerKey]:
    """End a key at once."""
    return ApiCall("DELETE", f"/v1/keys/{quote(id, safe='')}", ServerKey)


def submit(call: ApiCall[Any]) -> ApiCall[ServerTask]:
    """Have a task do what a call does: it goes on after the answer, and after a restart of the server.

    Args:
        call: Of :func:`index_documents`, :func:`renew_collection`, :func:`make_snapshot` or :func:`restore_snapshot`.
    """
    query = {**call.query, "wait": "false"}
    return replace(call, answer=ServerTask, member="", query=query, read_timeout_s=READ_TIMEOUT_S)


def list_tasks(
    *,
    status: Sequence[str] = (),
    kind: Sequence[str] = (),
    collection: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> ApiCall[TaskListing]:
    """List a page of tasks, the newest first. ``after`` is the ``next`` of the page before."""
    query = {"status": list(status), "kind": list(kind), "collection": collection, "limit": str(limit), "after": after}
    return ApiCall("GET", "/v1/tasks", TaskListing, query={name: value for name, value in query.items() if value})


def get_task(id: str) -> ApiCall[ServerTask]:
    """Show a task, with its result once it has ended."""
    return ApiCall("GET", f"/v1/tasks/{quote(id, safe='')}", ServerTask)


def cancel_task(id: str) -> ApiCall[TaskCancelled]:
    """Cancel a task. What it has written stays; one that has ended stays as it is."""
    return ApiCall("POST", f"/v1/tasks/{quote(id, safe='')}/cancel", TaskCancelled)


def status() -> ApiCall[Status]:
    """Show the server at a glance."""
    return ApiCall("GET", "/v1/status", Status)


def alerts() -> ApiCall[list[Alert]]:
    """List alerts, those active now first."""
    return ApiCall("GET", "/v1/alerts", list[Alert], "alerts")


def _json(**members: Any) -> bytes:
    return msgspec.json.encode(members)


def _source(name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        detail = f"{name!r} cannot be a source's name, which has no '/' and no dot at its beginning"
        raise Invalid(detail, field="source", code="invalid_source")
    return f"/v1/sources/{quote(name, safe='')}"


def _collection(name: str) -> str:
    # Quoted or not, these become other paths on the way: a search of `..` would ask the default collection.
    if "/" in name or name in (".", ".."):
        detail = f"{name!r} cannot be a collection's name, which has no '/' and begins with a letter or a digit"
        raise Invalid(detail, field="collection", code="invalid_name")
    return f"/v1/collections/{quote(name, safe='')}"
