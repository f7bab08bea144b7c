"""Records of the API's requests and answers. Fields of a newer server are ignored, those of an older one are empty."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """Problem details (RFC 9457) of a request, or of one document in it.

    Attributes:
        title: The status in words.
        detail: What is wrong and what to do.
        code: Stable machine-readable code.
        field: Path of the offending field, such as ``documents[3].text`` or ``line 3: id``.
        operation: The operation whose time ran out.
        dependency: The unavailable dependency.
        request_id: The request's id, as in the server's log.
        retryable: Whether the same request may succeed later.
    """

    title: str = ""
    detail: str = ""
    code: str = ""
    field: str = ""
    operation: str = ""
    dependency: str = ""
    request_id: str = ""
    retryable: bool = False

    @property
    def message(self) -> str:
        """The detail, or else what there is instead of it."""
        return self.detail or self.title or self.code or "failed"


class Collection(msgspec.Struct, frozen=True):
    """A collection.

    Attributes:
        name: Its name.
        documents: Number of its documents.
        chunks: Number of their chunks.
        dim: Dimension of its dense vectors.
        model: Name of the model that made them.
        created_at: RFC 3339, UTC.
        disk_bytes: Bytes that its files take up.
        indexed: Chunks that its generation has indexed.
        upkeep: Stage of its index build, empty if none runs.
        state: ``open``, ``closed`` (its next use opens it) or ``damaged``.
        reason: Why it is damaged.
        token_dim: Dimension of its token vectors; 0 for none, and then no late interaction.
        text: Version of the text of which its BM25 vectors are made; 2 is searchable by words in every script.
        renewing: Whether a renewal to the newest version has begun and not ended.
        pending: Chunks that are found by words only, since their vectors are still being made.
    """

    name: str
    documents: int = 0
    chunks: int = 0
    dim: int = 0
    model: str = ""
    created_at: str | float = ""
    disk_bytes: int = 0
    indexed: int = 0
    upkeep: str = ""
    state: str = "open"
    reason: str = ""
    token_dim: int = msgspec.field(default=0, name="late")
    text: int = 1
    renewing: bool = False
    pending: int = 0


class StoredDocument(msgspec.Struct, frozen=True):
    """A document in a listing. ``hash`` is empty where it was written incompletely, ``source`` where it has none."""

    id: str
    hash: str = ""
    chunks: int = 0
    path: str = ""
    source: str = ""


class DocumentListing(msgspec.Struct, frozen=True):
    """A page of a collection's documents. ``next`` is the ``after`` of the next page, ``None`` on the last."""

    documents: list[StoredDocument]
    next: str | None = None


class NewDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document to index.

    Attributes:
        id: Any text. A document of the same id is replaced.
        text: The whole text.
        path: Path shown with its hits, and matched by ``path_prefix``.
        language: Its language; guessed from the path when empty.
        metadata: JSON object to filter by, returned with hits.
        source: Name of the source that it belongs to; its id is then the source, a colon and a path.
        replaces: Id of a document that this one takes the place of; the vectors are kept where the contents are equal.
        same_as: Id of another document, whose vectors are taken where the contents, or those of chunks, are equal.
    """

    id: str
    text: str
    path: str = ""
    language: str = ""
    metadata: dict[str, Any] = {}
    source: str = ""
    replaces: str = ""
    same_as: str = ""


class IndexedDocument(msgspec.Struct, frozen=True):
    """Outcome of indexing one document.

    Attributes:
        id: Its id.
        status: ``indexed`` (durable from now on), ``searchable`` (durable and found by words; its vectors follow),
            ``unchanged`` or ``failed``.
        chunks: Number of its chunks.
        error: Why it failed.
        same_as: Id of the document whose vectors it has taken; empty for none.
    """

    id: str = ""
    status: str = ""
    chunks: int = 0
    error: Problem | None = None
    same_as: str = ""


class IndexReport(msgspec.Struct, frozen=True):
    """Outcome of each document, in the order of the request, and their counts."""

    documents: list[IndexedDocument]
    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    chunks: int = 0
    took_ms: float = 0.0
    searchable: int = 0


class DocumentChunk(msgspec.Struct, frozen=True):
    """A chunk of a document that was read: its number from 0, its lines, its symbol and its text."""

    chunk: int
    text: str
    start_line: int = 0
    end_line: int = 0
    symbol: str = ""


class FullDocument(msgspec.Struct, frozen=True):
    """A document with its chunks.

    Attributes:
        id: Its id.
        chunks: Those that were asked for, in their order.
        path: Its path.
        language: Name of the language.
        metadata: Its metadata.
        hash: Content hash; empty while it is being written.
        total: How many chunks it has.
        next: Number of the chunk that follows.
    """

    id: str
    chunks: list[DocumentChunk]
    path: str = ""
    language: str = ""
    metadata: dict[str, Any] = {}
    hash: str = ""
    total: int = 0
    next: int | None = None


class SearchOptions(TypedDict, total=False):
    """Options of a search. Those left out have the server's default.

    Attributes:
        limit: Hits at most.
        filter: Conditions that all must hold, as ``docs/api.md`` lists them.
        rerank: Whether candidates are rescored.
        explain: Whether each hit tells its rank and score at every stage.
        weights: Weights of ``dense`` and ``sparse``.
        fusion: ``rrf`` or ``minmax``.
        strict: Whether a degraded answer is refused.
        group: ``document``: the best chunk of each document alone, the others in :attr:`Hit.others`.
        offset: Hits left out at the beginning, or after the cursor.
        cursor: The ``next`` of an answer to the same search.
        highlights: Whether each hit tells where its text holds words of the query.
        facets: Names of facets to count: ``language``, ``source``, ``folder``, ``collection``, ``metadata.<key>``.
        like: A document (``id``) or a chunk of it (``chunk``) to which similar ones are wanted; the query is ``None``.
    """

    limit: int
    filter: dict[str, Any]
    rerank: bool
    explain: bool
    weights: dict[str, float]
    fusion: Literal["rrf", "minmax"]
    strict: bool
    group: Literal["document"]
    offset: int
    cursor: str
    highlights: bool
    facets: list[str]
    like: dict[str, str | int]


class OtherHit(msgspec.Struct, frozen=True):
    """Another chunk of a document whose best chunk is a hit: its number, its lines and its score."""

    chunk: int
    score: float = 0.0
    start_line: int = 0
    end_line: int = 0


class Hit(msgspec.Struct, frozen=True):
    """A chunk that matches the query.

    Attributes:
        id: The document's id.
        score: Comparable within one answer only.
        text: The chunk.
        path: The document's path.
        start_line: First line, from 1.
        end_line: Last line, inclusive.
        symbol: Qualified enclosing symbol or heading trail.
        language: Name of the language.
        chunk: Number of the chunk in its document, from 0.
        metadata: The document's metadata.
        explain: Rank and score by stage, where they were asked for.
        collection: Its collection, where several were searched.
        others: The document's other chunks, 20 at most, where hits are grouped.
        others_total: How many there are.
        highlights: Ranges of the text that hold words of the query, for ``text[start:end]``, where they were asked for.
    """

    id: str
    score: float
    text: str = ""
    path: str = ""
    start_line: int = 0
    end_line: int = 0
    symbol: str = ""
    language: str = ""
    chunk: int = 0
    metadata: dict[str, Any] = {}
    explain: dict[str, Any] | None = None
    collection: str = ""
    others: list[OtherHit] = []
    others_total: int = 0
    highlights: list[tuple[int, int]] = []


class FacetCount(msgspec.Struct, frozen=True):
    """A value of a facet, and how often it occurs."""

    value: str | int | float | bool
    count: int


class FacetCounts(msgspec.Struct, frozen=True):
    """A facet: its most frequent values, over how many chunks or documents, and how many values there are besides."""

    field: str
    values: list[FacetCount]
    counted: int = 0
    more: int = 0


class MissingCollection(msgspec.Struct, frozen=True):
    """A collection that could not be searched: its name, the code of the problem, and what is wrong."""

    collection: str
    code: str = ""
    detail: str = ""


class SearchResponse(msgspec.Struct, frozen=True):
    """The answer to a search.

    Attributes:
        hits: Best first.
        took_ms: Milliseconds in the server.
        stages: Milliseconds by stage.
        degraded: What the answer had to do without. Empty means: as good as it gets.
        next: The cursor of the next page.
        left_out: Collections that could not be searched, where others could.
        facets: The facets that were asked for.
        coverage: Share of the collection's chunks that are found by meaning; the vectors of the others are being made.
    """

    hits: list[Hit]
    took_ms: float = 0.0
    stages: dict[str, float] = {}
    degraded: list[str] = []
    next: str | None = None
    left_out: list[MissingCollection] = []
    facets: list[FacetCounts] = []
    coverage: float = 1.0


class TextEmbeddings(msgspec.Struct, frozen=True):
    """Dense vectors, L2-normalised, in the order of the texts.

    Attributes:
        model: Name of the model.
        dim: Dimension.
        embeddings: The vectors.
        truncated: Positions of the texts of which the model has read the beginning alone.
    """

    model: str
    dim: int
    embeddings: list[list[float]]
    truncated: list[int] = []


class SparseTerms(msgspec.Struct, frozen=True):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class SparseEmbeddings(msgspec.Struct, frozen=True):
    """Sparse vectors in the order of the texts."""

    vectors: list[SparseTerms]
    truncated: list[int] = []


class TextScore(msgspec.Struct, frozen=True):
    """A text's number in the request and its score."""

    index: int
    score: float


class TextRanking(msgspec.Struct, frozen=True):
    """Texts, best first."""

    results: list[TextScore]
    truncated: list[int] = []
    query_truncated: bool = False


class ServerKey(msgspec.Struct, frozen=True):
    """A key of the server, without its secret.

    Attributes:
        id: Its id.
        name: Its name.
        scope: ``search``, ``write`` or ``admin``.
        collections: Patterns of its collections; empty for all.
        rate: Requests a second; ``None`` for the server's limit.
        created_at: RFC 3339, UTC.
        expires_at: RFC 3339, UTC; ``None`` for never.
        expired: Whether its time is over.
        place: Where it is kept: ``store``, ``file`` or ``environment``.
        used_at: When the server has seen it last; ``None`` for not since its start.
    """

    id: str
    name: str
    scope: str = ""
    collections: list[str] = []
    rate: float | None = None
    created_at: str = ""
    expires_at: str | None = None
    expired: bool = False
    place: str = ""
    used_at: str | None = None


class KeyListing(msgspec.Struct, frozen=True):
    """Keys of the server; ``own`` is the id of the request's, and ``open`` says that the server has none."""

    keys: list[ServerKey]
    own: str | None = None
    open: bool = False


class MadeKey(msgspec.Struct, frozen=True):
    """A new key, and its secret, which is told this one time."""

    key: ServerKey
    secret: str


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot in the data directory.

    Attributes:
        name: Its file.
        bytes: The file's size.
        made_at: RFC 3339, UTC.
        collections: Names of its collections.
        reason: Why it cannot be restored.
        left_out: Names of damaged collections that it does not hold; told only when it is made.
    """

    name: str
    bytes: int = 0
    made_at: str = ""
    collections: list[str] = []
    reason: str = ""
    left_out: list[str] = []


class RootDirectory(msgspec.Struct, frozen=True):
    """Directory of a source on one host: when it was last indexed, and whether a server there watches it."""

    host: str = ""
    path: str = ""
    seen_at: str = ""
    watch: bool = False


class Watch(msgspec.Struct, frozen=True):
    """A server's watch over a source.

    Attributes:
        state: ``starting``, ``indexing``, ``watching``, ``waiting`` (its directory is gone) or ``failed``.
        detail: What is wrong, or what else there is to say.
    """

    state: str = ""
    detail: str = ""


class RunFailure(msgspec.Struct, frozen=True):
    """A file that could not be indexed: its path below the source's root, and the code of the reason."""

    path: str = ""
    code: str = ""


class RunSummary(msgspec.Struct, frozen=True):
    """Counts of an index run over a source, and the first of the files that failed."""

    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    kept: int = 0
    failures: list[RunFailure] = []


class Source(msgspec.Struct, frozen=True):
    """A source: a named tree in a collection.

    Attributes:
        name: Its name.
        collection: Its collection.
        documents: Number of its documents.
        roots: Its directory on each host that has fed it, the latest first.
        commit: Commit of its git repository at the last completed run.
        completed_at: When a run was last completed, RFC 3339 in UTC; empty for never.
        run: Counts of the last completed run.
        include: Patterns of what is indexed although it is left out elsewhere.
        watch: The server's own watch over it, ``None`` where there is none.
    """

    name: str
    collection: str = ""
    documents: int = 0
    roots: list[RootDirectory] = []
    commit: str = ""
    completed_at: str = ""
    run: RunSummary = RunSummary()
    include: list[str] = []
    watch: Watch | None = None

    def root_on(self, host: str) -> str:
        """Return the source's directory on a host; empty where that host has not fed it."""
        return next((one.path for one in self.roots if one.host == host), "")
