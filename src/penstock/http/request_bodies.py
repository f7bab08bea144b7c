"""Records of request bodies, and their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from penstock.indexing.document_records import PATH_CHARACTERS_MAX, Document, DocumentFields, Wait
from penstock.kernel.access import AGE_S_MAX, COLLECTIONS_PATTERN, KEY_NAME_PATTERN, PATTERNS_MAX, RATE_MAX
from penstock.kernel.messages import TextKind
from penstock.kernel.records import NullAsDefault, OrNull, TimeoutMs, WholeNumber
from penstock.stores.data_model import ID_CHARACTERS_MAX
from penstock.stores.key_store import GRACE_S
from penstock.stores.sources import FAILURES_MAX, Patterns, RootPath, ShortText, SourceFailure, SourceRun

#: Texts in one request to a model.
TEXTS_MAX: Final = 1000

#: Ids in one request to delete.
IDS_MAX: Final = 10_000

#: Documents in one request, and lines of NDJSON, blank ones included.
DOCUMENTS_MAX: Final = 10_000

#: A document's metadata is stored with each of its chunks, so it must stay small.
METADATA_BYTES_MAX: Final = 65_536
METADATA_DEPTH_MAX: Final = 32

Texts = Annotated[list[str], Meta(min_length=1, max_length=TEXTS_MAX)]
#: Their forms are the operation's to check: its errors say what a name and a pattern look like.
KeyName = Annotated[str, Meta(max_length=1000, extra_json_schema={"pattern": KEY_NAME_PATTERN})]
KeyPatterns = Annotated[
    list[Annotated[str, Meta(max_length=1000, extra_json_schema={"pattern": COLLECTIONS_PATTERN})]],
    Meta(max_length=PATTERNS_MAX),
]
KeyScope = Literal["search", "write", "admin"]
KeyRate = Annotated[WholeNumber, Meta(ge=1, le=RATE_MAX)]
Grace = Annotated[WholeNumber, Meta(ge=0, le=AGE_S_MAX)]
DocumentCount = Annotated[WholeNumber, Meta(ge=0, le=10**12)]
#: An empty one is refused by the operation, whose error says what to do instead.
Ids = Annotated[list[Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)]], Meta(max_length=IDS_MAX)]
PathPrefix = Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX, extra_json_schema={"minLength": 1})]


class RawDocument(DocumentFields, frozen=True, forbid_unknown_fields=True):
    """``Document`` with its metadata still encoded, since decoding takes up to twenty times its size."""

    metadata: msgspec.Raw = msgspec.Raw()


class DocumentsBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Documents to index, each id once.

    Attributes:
        documents: The documents.
        timeout_ms: Time limit in milliseconds for the whole request.
        wait: `vectors`: the answer comes when the documents are found by words and by meaning. `words`: it comes
            earlier, when they are found by words; their vectors are made after it.
    """

    documents: Annotated[list[Document], Meta(max_length=DOCUMENTS_MAX)]
    timeout_ms: TimeoutMs | None = None
    wait: Wait | None = None


class RawDocuments(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """``DocumentsBody`` with its documents still encoded."""

    documents: msgspec.Raw
    timeout_ms: TimeoutMs | None = None
    wait: Wait | None = None


class DeleteBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Selection of documents to delete: either by ids or by path prefix.

    Attributes:
        ids: Ids of the documents. Unknown ids are ignored.
        path_prefix: Prefix of the documents' paths. Not empty.
    """

    ids: Ids | None = None
    path_prefix: PathPrefix | None = None


class CollectionBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Options of a new collection. There are none yet."""


class HostDirectory(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """A directory on a host.

    Attributes:
        path: Its absolute path there.
        host: The host's name; the server's own unless it is told.
    """

    path: Annotated[RootPath, Meta(min_length=1)]
    host: OrNull[ShortText] = ""


class FailedFile(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """A file that could not be indexed: its path below the source's root, and the code of the reason."""

    path: RootPath
    code: OrNull[ShortText] = ""


class RunCounts(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Counts of an index run over a source.

    Attributes:
        indexed: Documents indexed.
        unchanged: Documents that were as the collection has them.
        removed: Documents removed.
        failed: Files that failed.
        kept: Documents kept although their files are gone, since too many are.
        failures: The first of the files that failed.
    """

    indexed: OrNull[DocumentCount] = 0
    unchanged: OrNull[DocumentCount] = 0
    removed: OrNull[DocumentCount] = 0
    failed: OrNull[DocumentCount] = 0
    kept: OrNull[DocumentCount] = 0
    failures: OrNull[Annotated[list[FailedFile], Meta(max_length=FAILURES_MAX)]] = msgspec.field(default_factory=list)

    def recorded(self) -> SourceRun:
        """Return the run as it is recorded."""
        # A client whose only number is a float writes 5.0.
        return SourceRun(
            int(self.indexed),
            int(self.unchanged),
            int(self.removed),
            int(self.failed),
            int(self.kept),
            [SourceFailure(one.path, one.code) for one in self.failures],
        )


class SourceBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """News of a source from an index run. Members that are left out stay as they are.

    Attributes:
        collection: The source's collection.
        root: The source's directory on the host that feeds it.
        commit: Commit of its git repository, told with `run`.
        run: Counts of a completed run.
        include: Patterns of what is indexed although it is left out elsewhere, as in `.gitignore`.
        watch: Whether the server indexes the directory itself and keeps the source up to date. Its `root` must be below
            a directory that the setting `INDEX_ROOTS` names.
    """

    collection: OrNull[str] = "default"
    root: HostDirectory | None = None
    commit: OrNull[ShortText] = ""
    run: RunCounts | None = None
    include: Patterns | None = None
    watch: bool | None = None


class RestoreBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Options for restoring a snapshot.

    Attributes:
        force: Whether existing collections may be replaced.
    """

    force: OrNull[bool] = False


class KeyBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """A key to make.

    Attributes:
        name: Its name: letters, digits, `.`, `_`, `@`, `-`. Each key has another.
        scope: `search`: read. `write`: also index and delete documents. `admin`: everything.
        collections: Patterns of the collections that it may use, such as `team-*`. Empty for every collection.
        expires_at: When it ends, RFC 3339. Null for never.
        rate: Requests a second that it may make. Null for the server's limit.
        close_server: Must be true for the first key of a server without keys, which it closes.
    """

    name: KeyName
    scope: OrNull[KeyScope] = "search"
    collections: OrNull[KeyPatterns] = msgspec.field(default_factory=list)
    expires_at: Annotated[str, Meta(max_length=40, extra_json_schema={"format": "date-time"})] | None = None
    rate: KeyRate | None = None
    close_server: OrNull[bool] = False


class RotateBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Options for rotating a key.

    Attributes:
        grace_s: Seconds that the former key goes on. 0 ends it at once.
    """

    grace_s: OrNull[Grace] = GRACE_S


class TextsBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to embed, or to encode as sparse vectors.

    Attributes:
        texts: The texts. The part of a text beyond the model's input is left out.
        kind: Role of the texts in a search: `query` or `document`. A sparse model weights the two differently.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    texts: Texts
    kind: OrNull[TextKind] = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class RerankBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query.

    Attributes:
        query: The query that the texts should answer.
        texts: The texts.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    query: Annotated[str, Meta(min_length=1)]
    texts: Texts
    timeout_ms: TimeoutMs | None = None


#: Rules between a record's fields, in JSON Schema.
SCHEMA_RULES: Final[dict[str, Any]] = {
    "DeleteBody": {
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array"}, "path_prefix": {"type": "null"}}},
            {"required": ["path_prefix"], "properties": {"path_prefix": {"type": "string"}, "ids": {"type": "null"}}},
        ]
    },
    "SearchBody": {
        "oneOf": [
            {"required": ["query"], "properties": {"query": {"type": "string"}, "like": {"type": "null"}}},
            {"required": ["like"], "properties": {"like": {"type": "object"}, "query": {"type": "null"}}},
        ]
    },
    "ArmWeights": {
        "anyOf": [
            {"properties": {"dense": {"exclusiveMinimum": 0}}},
            {"properties": {"sparse": {"exclusiveMinimum": 0}}},
        ]
    },
}
