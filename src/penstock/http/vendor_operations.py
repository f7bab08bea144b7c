"""Operations for the clients of other vendors: their requests, answers and errors over our models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
from msgspec import UNSET
from starlette.requests import Request

from penstock import __version__
from penstock.core.core import Core
from penstock.http.decoding import decode_body
from penstock.http.endpoints import ApiEndpoint
from penstock.http.error_formats import COHERE, OPENAI, TEI
from penstock.http.probes import CachedValue
from penstock.http.request_context import build_context, request_state
from penstock.http.vendor_records import (
    ANY_MODEL,
    CohereMeta,
    CohereRanking,
    CohereRerankBody,
    JinaRanking,
    JinaRerankBody,
    JinaResult,
    JinaText,
    JinaUsage,
    OpenAiEmbedding,
    OpenAiEmbeddings,
    OpenAiEmbeddingsBody,
    OpenAiModel,
    OpenAiModelList,
    OpenAiUsage,
    RelevantDocument,
    TeiEmbedBody,
    TeiHealth,
    TeiInfo,
    TeiRank,
    TeiRerankBody,
    TeiSparseBody,
    TeiTerm,
    TeiVector,
)
from penstock.kernel.access import Scope
from penstock.kernel.context import Context, enforce_deadline
from penstock.kernel.errors import Invalid, Rejected, Unavailable, truncated
from penstock.kernel.messages import TextKind, Topic
from penstock.kernel.vectors import DenseVectors
from penstock.policies.levels import Level

#: The role of texts in a search, as the end of a model's name.
_KINDS_BY_SUFFIX: Final = {f":{kind.value}": kind for kind in TextKind}

#: The beginning of token ids in a body. Within a string, the name's quotes would be escaped.
_TOKEN_IDS: Final = re.compile(rb'"input"\s*:\s*\[[\s\[]*[0-9]')
_SEND_TEXTS: Final = (
    "token ids are those of another model; send the texts themselves (LangChain's OpenAIEmbeddings does with"
    " check_embedding_ctx_length=False)"
)


class VendorOperations:
    """The operations, one method for each endpoint."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._models = core.deps.models
        self._unready_reasons = CachedValue(self._find_unready_reasons)

    # --- OpenAI

    @ApiEndpoint("GET", "/v1/models", scope=Scope.SEARCH, error_format=OPENAI)
    async def list_models(self, _request: Request) -> OpenAiModelList:
        """List the models that embed and rerank texts."""
        names = dict.fromkeys((self._dense_model, self._rerank_model, ANY_MODEL))
        return OpenAiModelList([OpenAiModel(name) for name in names])

    @ApiEndpoint("GET", "/v1/models/{model}", scope=Scope.SEARCH, error_format=OPENAI, error_statuses=(404,))
    async def get_model(self, request: Request) -> OpenAiModel:
        """Describe a model, whose name may end with the role of texts as for embeddings."""
        name = request.path_params["model"]
        if name != self._rerank_model:
            self._text_kind(name)
        return OpenAiModel(name)

    @ApiEndpoint(
        "POST",
        "/v1/embeddings",
        body=OpenAiEmbeddingsBody,
        scope=Scope.SEARCH,
        topics=(Topic.ML_EMBED,),
        error_format=OPENAI,
        error_statuses=(404,),
    )
    async def create_embeddings(self, request: Request) -> OpenAiEmbeddings:
        """Embed texts for clients of OpenAI.

        `model` may end with `:query` or `:document`, the role of the texts in a search. Without one they are documents.
        """
        body = await _decode_embeddings(await request.body())
        kind, ctx = self._text_kind(body.model), self._context(request)
        self._check_dimensions(body.dimensions)
        texts = [body.input] if isinstance(body.input, str) else body.input
        embedded = await self._core.embedder.embed(texts, kind, ctx)
        async with enforce_deadline(ctx.deadline):
            cut = await self._models.truncation.dense(texts)
            tokens = await self._models.token_usage.count_read(texts)
        # Rows stay arrays, or bytes, until they are encoded: JSON has bytes as base64.
        rows: Any = embedded.dense
        if body.encoding_format == "base64":
            rows = map(np.ndarray.tobytes, embedded.dense.astype("<f4", copy=False))
        return OpenAiEmbeddings(
            [OpenAiEmbedding(number, row) for number, row in enumerate(rows)],
            self._dense_model,
            OpenAiUsage(tokens, tokens),
            truncated=UNSET if cut is None else cut,
        )

    # --- Cohere

    @ApiEndpoint(
        "POST",
        "/v2/rerank",
        scope=Scope.SEARCH,
        topics=(Topic.ML_RERANK,),
        error_format=COHERE,
        error_statuses=(404,),
    )
    async def rerank_v2(self, request: Request, body: CohereRerankBody) -> CohereRanking:
        """Order documents by how well they answer a query, for clients of Cohere.

        A `priority` above 0 makes it `bulk` work, which is refused earlier than other work.
        """
        _check_model(body.model, self._rerank_model)
        ctx = self._context(request)
        if body.priority:
            ctx = self._lowered(ctx)
        texts: Sequence[str] = body.documents
        usage, tokens = self._models.token_usage, body.max_tokens_per_doc
        if tokens is not None and tokens < usage.tokens_max:
            texts = await usage.cut(texts, int(tokens))
        scores = await self._core.reranker.rerank(body.query, texts, ctx)
        cut = await self._truncation(body.query, texts, ctx)
        results = [RelevantDocument(place, score) for place, score in self._relevance(scores, body.top_n)]
        return CohereRanking(request_state(request.scope).request_id, results, CohereMeta(warnings=_warnings(cut)))

    # --- Jina; the endpoint is that of `Operations`

    async def rank_for_jina(self, request: Request, body: JinaRerankBody) -> JinaRanking:
        """Order documents by how well they answer a query, for clients of Jina."""
        _check_model(body.model, self._rerank_model)
        ctx = self._context(request)
        texts = [one if isinstance(one, str) else one.text for one in body.documents]
        scores = await self._core.reranker.rerank(body.query, texts, ctx)
        cut = await self._truncation(body.query, texts, ctx)
        async with enforce_deadline(ctx.deadline):
            tokens = await self._models.token_usage.count_read([body.query, *texts])
        told = body.return_documents
        return JinaRanking(
            self._rerank_model,
            JinaUsage(tokens),
            [
                JinaResult(place, score, JinaText(texts[place]) if told else UNSET)
                for place, score in self._relevance(scores, body.top_n)
            ],
            truncated=UNSET if cut is None else cut[1],
            query_truncated=UNSET if cut is None else cut[0],
        )

    # --- Text-embeddings-inference

    @ApiEndpoint("POST", "/embed", scope=Scope.SEARCH, topics=(Topic.ML_EMBED,), error_format=TEI)
    async def embed_inputs(self, request: Request, body: TeiEmbedBody) -> list[list[float]]:
        """Embed texts for clients of text-embeddings-inference."""
        if not body.normalize:
            raise Invalid("vectors are always of length 1; leave normalize out", field="normalize")
        self._check_dimensions(body.dimensions)
        texts, ctx = _listed(body.inputs), self._context(request)
        if not body.truncate:
            async with enforce_deadline(ctx.deadline):
                _refuse_truncated(await self._models.truncation.dense(texts), "inputs")
        embedded = await self._core.embedder.embed(texts, _kind(body), ctx)
        # Rows stay arrays until they are encoded.
        return cast("list[list[float]]", list(embedded.dense))

    @ApiEndpoint("POST", "/embed_sparse", scope=Scope.SEARCH, topics=(Topic.ML_SPARSE,), error_format=TEI)
    async def embed_sparse(self, request: Request, body: TeiSparseBody) -> list[list[TeiTerm]]:
        """Encode texts as sparse vectors for clients of text-embeddings-inference."""
        texts, kind, ctx = _listed(body.inputs), _kind(body), self._context(request)
        prepared = await self._models.sparse_inputs.prepare(texts, kind)
        if not body.truncate:
            async with enforce_deadline(ctx.deadline):
                _refuse_truncated(await self._models.truncation.sparse(prepared), "inputs")
        vectors = await self._core.sparse.encode(prepared, kind, ctx)
        return cast("list[list[TeiTerm]]", [TeiVector(vector) for vector in vectors])

    @ApiEndpoint("POST", "/rerank", scope=Scope.SEARCH, topics=(Topic.ML_RERANK,), error_format=TEI)
    async def rank_texts(self, request: Request, body: TeiRerankBody) -> list[TeiRank]:
        """Order texts by how well they answer a query, for clients of text-embeddings-inference."""
        ctx = self._context(request)
        if not body.truncate:
            cut = await self._truncation(body.query, body.texts, ctx)
            _refuse_truncated(None if cut is None else cut[1], "texts")
        scores = await self._core.reranker.rerank(body.query, body.texts, ctx)
        ranked = best_first(scores) if body.raw_scores else self._relevance(scores)
        told = body.return_text
        return [TeiRank(place, score, body.texts[place] if told else UNSET) for place, score in ranked]

    @ApiEndpoint("GET", "/info", scope=Scope.SEARCH, error_format=TEI)
    async def model_info(self, _request: Request) -> TeiInfo:
        """Describe the dense model and its limits for clients of text-embeddings-inference."""
        in_flight_max = self._core.deps.settings.http.max_concurrent
        return TeiInfo(self._dense_model, in_flight_max, self._models.token_usage.tokens_max, __version__)

    @ApiEndpoint("GET", "/health", scope=Scope.SEARCH, error_format=TEI)
    async def health(self, _request: Request) -> TeiHealth:
        """Tell whether the server can do its work, as text-embeddings-inference does; `/readyz` is for monitoring."""
        reasons = await self._unready_reasons.get()
        if reasons:
            raise Unavailable("; ".join(reasons), dependency="server")
        return TeiHealth()

    async def _find_unready_reasons(self) -> list[str]:
        return self._core.unready_reasons()

    # --- What they have in common

    @property
    def _dense_model(self) -> str:
        return self._core.layout.model

    @property
    def _rerank_model(self) -> str:
        """Name of the reranker; the dense model's, where that one reranks."""
        return self._dense_model if self._rerank_kind == "builtin" else self._models.infos[2].name

    @property
    def _rerank_kind(self) -> str:
        return self._models.infos[2].kind if self._models.infos else "builtin"

    def _text_kind(self, model: str) -> TextKind:
        """Return the role of texts that a dense model's name asks for.

        Raises:
            Invalid: There is no such model (``model_not_found``).
        """
        name, colon, role = model.rpartition(":")
        kind = _KINDS_BY_SUFFIX.get(colon + role)
        _check_model(model if kind is None else name, self._dense_model)
        return kind or TextKind.DOCUMENT

    def _check_dimensions(self, dimensions: float | None) -> None:
        """Refuse another number of components than the model's.

        Raises:
            Invalid: It is another.
        """
        dim = self._core.layout.dim
        if dimensions not in (None, dim):
            detail = f"{self._dense_model} has {dim} dimensions and is not made for fewer; leave dimensions out"
            raise Invalid(detail, field="dimensions")

    def _context(self, request: Request) -> Context:
        return build_context(request, self._core.deps.clock)

    def _lowered(self, ctx: Context) -> Context:
        """Return a context of bulk work, which the gate would have refused from a lower fill on had it known.

        Raises:
            Rejected: So much work waits already.
        """
        ctx = ctx.as_bulk()
        refusal = self._core.bus.check_admission(Topic.ML_RERANK, ctx, Level.HIGH)
        if refusal is not None:
            detail, after_s = "too much work of this kind is waiting", refusal.retry_after_s
            raise Rejected(detail, code=refusal.code, retry_after_s=after_s, by_client=refusal.by_client)
        return ctx

    async def _truncation(self, query: str, texts: Sequence[str], ctx: Context) -> tuple[bool, list[int]] | None:
        async with enforce_deadline(ctx.deadline):
            return await self._models.truncation.rerank(query, texts)

    def _relevance(self, scores: DenseVectors, top_n: float | None = None) -> list[tuple[int, float]]:
        """Return the numbers of texts, best first, each with its relevance from 0 to 1.

        Cross-encoders that run here give logits. A cosine below 0 counts as 0. Endpoints give what suits already.
        """
        ranked = best_first(scores)[: None if top_n is None else int(top_n)]
        values = np.array([score for _, score in ranked])
        values = 1 / (1 + np.exp(-values)) if self._rerank_kind == "onnx" else values.clip(0, 1)
        return [(place, value) for (place, _), value in zip(ranked, values.tolist(), strict=True)]


def best_first(scores: DenseVectors) -> list[tuple[int, float]]:
    """Return the numbers of texts with their scores, best first."""
    return sorted(enumerate(scores.tolist()), key=lambda item: (-item[1], item[0]))


def _check_model(name: str, known: str) -> None:
    """Refuse the name of another model.

    Raises:
        Invalid: It is neither the model in use nor ``penstock`` (``model_not_found``).
    """
    if name not in (known, ANY_MODEL):
        detail = f"there is no model {truncated(name)!r}; this server has {known}, which {ANY_MODEL} stands for"
        raise Invalid(detail, field="model", code="model_not_found")


async def _decode_embeddings(data: bytes) -> OpenAiEmbeddingsBody:
    """Decode a body; token ids are refused by what to do instead.

    Raises:
        Invalid: It is none.
    """
    try:
        return await decode_body(data, OpenAiEmbeddingsBody)
    except Invalid as error:
        if error.field.startswith("input") and _TOKEN_IDS.search(data):
            raise Invalid(_SEND_TEXTS, field="input") from None
        raise


def _listed(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _kind(body: TeiSparseBody) -> TextKind:
    return TextKind.QUERY if body.prompt_name == "query" else TextKind.DOCUMENT


def _refuse_truncated(cut: list[int] | None, field: str) -> None:
    """Refuse texts that would be truncated.

    Raises:
        Invalid: There are some.
    """
    if cut:
        detail = f"{field}[{cut[0]}] is longer than the model reads; send less of it, or truncate: true"
        raise Invalid(detail, field=field)


def _warnings(cut: tuple[bool, list[int]] | None) -> list[str] | Any:
    """Return what a client of Cohere is warned of, or that there is nothing."""
    if cut is None or cut == (False, []):
        return UNSET
    query, documents = cut
    told = ["the query is longer than the model reads"] if query else []
    if documents:
        told.append(f"documents {', '.join(map(str, documents))} are longer than the model reads")
    return told
