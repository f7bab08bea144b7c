"""Records of the routes that clients of other vendors use: what these send, and what they read."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from penstock.http.request_bodies import TEXTS_MAX, Texts
from penstock.kernel.records import NullAsDefault, OrNull, WholeNumber
from penstock.kernel.vectors import SparseVector
from penstock.stores.key_value_cache import Count

#: Name that stands for whichever model the server has.
ANY_MODEL: Final = "penstock"

#: Texts in one request of OpenAI's clients.
INPUTS_MAX: Final = 2048

NonEmpty = Annotated[str, Meta(min_length=1)]
Dimensions = Annotated[WholeNumber, Meta(ge=1)]


# --- OpenAI


class OpenAiEmbeddingsBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to embed, as OpenAI's clients send them.

    Attributes:
        input: A text or a list of texts. Token ids are not taken.
        model: Name of the model, or `penstock`. It may end with `:query` or `:document`, the role of the texts in a
            search; without one they are documents.
        encoding_format: `float`: numbers. `base64`: the bytes of little-endian float32 numbers.
        dimensions: The model's own number, if any: vectors are not shortened.
        user: Taken and not used.
    """

    input: NonEmpty | Annotated[list[NonEmpty], Meta(min_length=1, max_length=INPUTS_MAX)]
    model: str
    encoding_format: OrNull[Literal["float", "base64"]] = "float"
    dimensions: Dimensions | None = None
    user: str | None = None


class OpenAiEmbedding(msgspec.Struct, frozen=True):
    """A text's vector, L2-normalised.

    Attributes:
        index: The text's number in the request.
        embedding: Numbers, or base64 if it was asked for.
    """

    index: Count
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class OpenAiUsage(msgspec.Struct, frozen=True):
    """Tokens that the model has read. They are estimated where another server runs the model."""

    prompt_tokens: Count
    total_tokens: Count


class OpenAiEmbeddings(msgspec.Struct, frozen=True):
    """Vectors in the order of the texts.

    Attributes:
        truncated: Positions of the texts, from 0, of which the model reads only the beginning. Absent where another
            server runs the model.
    """

    data: list[OpenAiEmbedding]
    model: str
    usage: OpenAiUsage
    object: Literal["list"] = "list"
    truncated: list[int] | UnsetType = UNSET


class OpenAiModel(msgspec.Struct, frozen=True):
    """A model, as OpenAI describes one.

    Attributes:
        id: The name by which requests ask for it.
        created: 0: it is not known.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "penstock"


class OpenAiModelList(msgspec.Struct, frozen=True):
    """The models by themselves."""

    data: list[OpenAiModel]
    object: Literal["list"] = "list"


# --- Cohere


class CohereRerankBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Documents to score against a query, as Cohere's clients send them.

    Attributes:
        model: Name of the reranker, or `penstock`.
        query: The query that the documents should answer.
        documents: The documents' texts.
        top_n: Number of results at most.
        max_tokens_per_doc: Tokens of a document that are read at most; the model's window is the limit in any case.
        priority: How urgent it is: 0 as other requests, everything above as `bulk` work.
    """

    model: str
    query: NonEmpty
    documents: Texts
    top_n: Annotated[WholeNumber, Meta(ge=1)] | None = None
    max_tokens_per_doc: Annotated[WholeNumber, Meta(ge=1)] | None = None
    priority: OrNull[Annotated[WholeNumber, Meta(ge=0, le=999)]] = 0


class RelevantDocument(msgspec.Struct, frozen=True):
    """A document's number in the request, and its relevance from 0 to 1."""

    index: Count
    relevance_score: Annotated[float, Meta(ge=0, le=1)]


class CohereApiVersion(msgspec.Struct, frozen=True):
    """Version of the API."""

    version: str = "2"


class CohereMeta(msgspec.Struct, frozen=True):
    """Facts of an answer to a client of Cohere.

    Attributes:
        warnings: The documents that the model has not read whole, if any.
    """

    api_version: CohereApiVersion = CohereApiVersion()
    warnings: list[str] | UnsetType = UNSET


class CohereRanking(msgspec.Struct, frozen=True):
    """Documents, best first.

    Attributes:
        id: The request's id.
    """

    id: str
    results: list[RelevantDocument]
    meta: CohereMeta


# --- Jina


class JinaText(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """A document as an object."""

    text: str


class JinaRerankBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Documents to score against a query, as Jina's clients send them.

    Attributes:
        query: The query that the documents should answer.
        documents: The documents: texts, or objects with a `text`.
        model: Name of the reranker, or `penstock`.
        top_n: Number of results at most.
        return_documents: Whether the results hold the documents.
    """

    query: NonEmpty
    documents: Annotated[list[str | JinaText], Meta(min_length=1, max_length=TEXTS_MAX)]
    model: OrNull[str] = ANY_MODEL
    top_n: Annotated[WholeNumber, Meta(ge=1)] | None = None
    return_documents: OrNull[bool] = True


class JinaResult(msgspec.Struct, frozen=True):
    """A document's number in the request, its relevance from 0 to 1, and the document if it was asked for."""

    index: Count
    relevance_score: Annotated[float, Meta(ge=0, le=1)]
    document: JinaText | UnsetType = UNSET


class JinaUsage(msgspec.Struct, frozen=True):
    """Tokens of the query and the documents that the model has read, as ``OpenAiUsage``."""

    total_tokens: Count


class JinaRanking(msgspec.Struct, frozen=True):
    """Documents, best first.

    Attributes:
        truncated: As in ``RerankResponse``.
        query_truncated: As in ``RerankResponse``.
    """

    model: str
    usage: JinaUsage
    results: list[JinaResult]
    object: Literal["list"] = "list"
    truncated: list[int] | UnsetType = UNSET
    query_truncated: bool | UnsetType = UNSET


# --- Text-embeddings-inference

TeiInputs = NonEmpty | Annotated[list[NonEmpty], Meta(min_length=1, max_length=TEXTS_MAX)]
TeiPrompt = Literal["query", "document", "passage"]
#: Texts are cut at their end and nowhere else.
TruncationDirection = Literal["Right", "right"]


class TeiSparseBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to encode, as clients of text-embeddings-inference send them.

    Attributes:
        inputs: A text or a list of texts.
        truncate: Whether the part of a text beyond the model's input is left out; otherwise such a text is refused.
        truncation_direction: Texts are cut at their end.
        prompt_name: Role of the texts in a search: `query`, or `document` (also `passage`).
    """

    inputs: TeiInputs
    truncate: OrNull[bool] = True
    truncation_direction: OrNull[TruncationDirection] = "Right"
    prompt_name: OrNull[TeiPrompt] = "document"


class TeiEmbedBody(TeiSparseBody, frozen=True, forbid_unknown_fields=True):
    """Texts to embed, as clients of text-embeddings-inference send them.

    Attributes:
        normalize: Vectors are always of length 1.
        dimensions: The model's own number, if any: vectors are not shortened.
    """

    normalize: OrNull[Annotated[bool, Meta(extra_json_schema={"enum": [True]})]] = True
    dimensions: Dimensions | None = None


class TeiTerm(msgspec.Struct, frozen=True):
    """A term of a sparse vector and its weight."""

    index: Count
    value: float


class TeiVector:
    """A sparse vector that becomes a list of terms when it is encoded: the terms of many would take much memory."""

    __slots__ = ("_vector",)

    def __init__(self, vector: SparseVector) -> None:
        self._vector = vector

    def terms(self) -> list[TeiTerm]:
        """Return the terms."""
        return list(map(TeiTerm, self._vector.indices.tolist(), self._vector.values.tolist()))


class TeiRerankBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query, as clients of text-embeddings-inference send them.

    Attributes:
        query: The query that the texts should answer.
        texts: The texts.
        truncate: As for embeddings.
        truncation_direction: As for embeddings.
        raw_scores: Whether scores are as the model gives them, instead of from 0 to 1.
        return_text: Whether the answer holds the texts.
    """

    query: NonEmpty
    texts: Texts
    truncate: OrNull[bool] = True
    truncation_direction: OrNull[TruncationDirection] = "Right"
    raw_scores: OrNull[bool] = False
    return_text: OrNull[bool] = False


class TeiRank(msgspec.Struct, frozen=True):
    """A text's number in the request, its score, and the text if it was asked for."""

    index: Count
    score: float
    text: str | UnsetType = UNSET


class TeiModelType(msgspec.Struct, frozen=True):
    """Kind of the model: it embeds texts. Of its pooling nothing is told."""

    embedding: dict[str, str] = {}


class TeiInfo(msgspec.Struct, frozen=True):
    """The dense model and its limits, as text-embeddings-inference tells them.

    Attributes:
        model_id: Its name.
        model_dtype: Type of the vectors' numbers.
        model_type: Kind of model.
        max_concurrent_requests: Requests in flight at most.
        max_input_length: Tokens of a text that are read at most.
        max_client_batch_size: Texts in one request at most.
        auto_truncate: Whether longer texts are cut.
        version: The server's version.
    """

    model_id: str
    max_concurrent_requests: Count
    max_input_length: Count
    version: str
    max_client_batch_size: Count = TEXTS_MAX
    auto_truncate: bool = True
    model_dtype: str = "float32"
    model_type: TeiModelType = TeiModelType()


class TeiHealth(msgspec.Struct, frozen=True):
    """Nothing: the server can do its work."""
