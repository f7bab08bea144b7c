"""Which models are used, as the settings say: loaded into this process, or asked over HTTP and checked once.

Loading blocks and belongs in a thread; checking asks every endpoint one question, at the start. An endpoint that is
*wrong* (its key, its address, its answers) stops the start, whatever it is for. One that is merely *down* stops it only
where nothing can be done without it: the dense model, unless its dimension is set.

A model whose pool works on other instances is neither loaded, prepared nor asked here; what has to be known of it
(:class:`penstock.models.elsewhere.Elsewhere`) is read from its files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.deadline import Deadline
from penstock.kernel.errors import Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import DenseModelSettings, RerankModelSettings, Settings, SparseModelSettings
from penstock.kernel.together import together
from penstock.models.contract import DenseRunner, RerankRunner, SparseRunner
from penstock.models.dense import OnnxDense
from penstock.models.device import available, choose
from penstock.models.elsewhere import Elsewhere, LazyTokenizer
from penstock.models.onnx_dense import OnnxEncoder
from penstock.models.onnx_files import OnnxFiles, find_directory, find_on_hub
from penstock.models.onnx_rerank import OnnxCrossEncoder
from penstock.models.onnx_sparse import OnnxSparse
from penstock.models.prepare import describe, prepare
from penstock.models.remote import CosineReranker, Prefixes, RemoteEmbedder, RemoteReranker, RemoteSparseEncoder
from penstock.models.remote_check import CHECK_S, QUESTION, down
from penstock.models.remote_endpoint import Endpoint, EndpointSettings
from penstock.models.remote_shapes import CohereRerank, OpenAiDense, RerankShape, TeiDense, TeiRerank, TeiSparse
from penstock.models.rerank import CosineRunner, LateReranker
from penstock.models.rough import RoughCounter, TokenCounter
from penstock.models.source import SourceSettings, find_source
from penstock.models.sparse import Bm25Runner, Bm25Settings
from penstock.models.used import InUse

log = logging.getLogger(__name__)

DENSE: Final = "models.dense"
SPARSE: Final = "models.sparse"
RERANK: Final = "models.rerank"

#: The pools in which models work.
MODEL_POOLS: Final = frozenset({"embed", "sparse", "rerank"})

#: What is absent with a dense model other than the built-in one.
NO_LATE: Final = "no late interaction: the dense model gives no token vectors"

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Models:
    """The models in use. ``check`` them once, ``close`` them in the end.

    Attributes:
        dense: The dense model: a runner for this process's threads, what asks an endpoint, or what is known of one that
            runs elsewhere.
        sparse: The sparse one.
        rerank: The reranker.
        dim: Dimension of dense vectors; 0 until an endpoint has told it.
        tokenizer: Counts the tokens of chunks.
        used: What the status shows, in the order dense, sparse, rerank.
        runs: What is run or asked from here, by the names of guards.
    """

    dense: DenseRunner | RemoteEmbedder | Elsewhere
    sparse: SparseRunner | RemoteSparseEncoder | Elsewhere
    rerank: RerankRunner | RemoteReranker | CosineReranker | Elsewhere
    dim: int
    tokenizer: TokenCounter
    used: list[InUse]
    runs: frozenset[str]
    _endpoints: list[Endpoint] = field(default_factory=list)

    @property
    def late(self) -> int:
        """Components of the dense model's token vectors; 0 for one that gives none."""
        return self.dense.late if isinstance(self.dense, OnnxDense | Elsewhere) else 0

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of one message to the dense model that suit it; 0 where nothing is known."""
        if isinstance(self.dense, RemoteEmbedder):
            return self.dense.batch * self.tokenizer.tokens_max
        if isinstance(self.dense, Elsewhere):
            return self.dense.batch_tokens
        return self.dense.device.batch_tokens if isinstance(self.dense, OnnxDense) else 0

    @property
    def learned(self) -> bool:
        """Whether sparse vectors carry what a term is worth, so that the store is not to weigh them by IDF again."""
        return self.used[1].kind != "bm25"

    @property
    def crossed(self) -> bool:
        """Whether the reranker reads query and text together, so that searches have it read their best again."""
        return self.used[2].kind != "builtin"

    @property
    def remote(self) -> frozenset[str]:
        """Which parts other servers run, by the names of their guards."""
        asked = {"embed": self.dense, "sparse": self.sparse, "rerank": self.rerank}
        kinds = RemoteEmbedder | RemoteSparseEncoder | RemoteReranker | CosineReranker
        return frozenset(name for name, model in asked.items() if isinstance(model, kinds))

    def shrink(self) -> None:
        """Let the models that run here give back what they keep of memory between calls; blocks for some 20 ms."""
        for model in (self.dense, self.sparse, self.rerank):
            if isinstance(model, OnnxDense | OnnxEncoder | OnnxSparse | OnnxCrossEncoder):
                model.shrink()

    async def check(self, clock: Clock) -> None:
        """Ask every endpoint of a pool that works here one question, all at once.

        Raises:
            Invalid: One is wrong; the message names the setting.
            Unavailable: The dense model is down and its dimension is not set (``endpoint_down``).

        Bounds: ``CHECK_S``.
        """
        ctx = Context(Deadline.never().within(CHECK_S, "check", clock.now()))
        await together([self._check_dense(ctx), self._check_sparse(ctx), self._check_rerank(ctx)])

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._endpoints:
            await endpoint.close()

    async def _check_dense(self, ctx: Context) -> None:
        dense = self.dense
        if not isinstance(dense, RemoteEmbedder) or (dense.dim and "embed" not in self.runs):
            return

        async def ask() -> None:
            dense.dim = (await dense.embed([QUESTION], TextKind.DOCUMENT, ctx)).dense.shape[1]

        why = await down(ask, ctx, DENSE, self.used[0].url)
        self.dim = dense.dim
        if not self.dim:
            why = why or f"{DENSE}: {self.used[0].url} is at its limit"
            raise Unavailable(f"{why}; set {DENSE}.dim to start without it", dependency="embed", code="endpoint_down")
        self._note(0, why)

    async def _check_sparse(self, ctx: Context) -> None:
        sparse = self.sparse
        if isinstance(sparse, RemoteSparseEncoder) and "sparse" in self.runs:
            ask = lambda: sparse.encode([QUESTION], TextKind.DOCUMENT, ctx)  # noqa: E731 - needed here alone
            self._note(1, await down(ask, ctx, SPARSE, self.used[1].url))

    async def _check_rerank(self, ctx: Context) -> None:
        rerank = self.rerank
        if isinstance(rerank, RemoteReranker) and "rerank" in self.runs:
            ask = lambda: rerank.rerank(QUESTION, [QUESTION], ctx)  # noqa: E731 - needed here alone
            self._note(2, await down(ask, ctx, RERANK, self.used[2].url))

    def _note(self, place: int, why: str) -> None:
        if why:
            log.warning("%s; started without it", why)
            self.used[place] = replace(self.used[place], note="down at the start")


class Choice:
    """Makes the models that the settings ask for.

    Args:
        settings: The settings.
        cache: Where prepared models are kept.
        clock: The loop's clock.
        transport: Carries the requests to endpoints; the network by default.
        here: The pools that work here; models of the others are not loaded.
    """

    def __init__(
        self,
        settings: Settings,
        cache: Path,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
        here: frozenset[str] = MODEL_POOLS,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._transport = transport
        # The built-in reranker computes with the dense model.
        dense = {"embed"} if "rerank" in here and settings.rerank_model.kind == "builtin" else set()
        self._runs = (here & MODEL_POOLS) | dense
        self._endpoints: list[Endpoint] = []

    def load(self, progress: Progress) -> Models:
        """Find, prepare and load what runs in this process; blocks.

        Args:
            progress: Called with a stage's name, what is done of it and its total.

        Raises:
            PenstockError: A model is missing or cannot be used.
        """
        dense, tokenizer, dense_used = self._dense(progress)
        sparse, sparse_used = self._sparse()
        rerank, rerank_used = self._rerank(dense)
        used = [dense_used, sparse_used, rerank_used]
        return Models(dense, sparse, rerank, dense.dim, tokenizer, used, self._runs, self._endpoints)

    def _dense(self, progress: Progress) -> tuple[DenseRunner | RemoteEmbedder | Elsewhere, TokenCounter, InUse]:
        chosen = self._settings.dense_model
        if chosen.kind == "builtin":
            return self._builtin(progress)
        if chosen.kind == "onnx":
            encoder = OnnxEncoder(_files(chosen, DENSE))
            used = InUse("dense", chosen.kind, encoder.model)
            if "embed" in self._runs:
                return encoder, encoder.tokenizer, used
            # How many components its vectors have, only the graph tells.
            tokenizer = LazyTokenizer(encoder.tokenizer.path, encoder.tokenizer.tokens_max)
            return Elsewhere(encoder.model, encoder.dim), tokenizer, used
        shape = OpenAiDense(chosen.model) if chosen.kind == "openai" else TeiDense()
        endpoint = self._endpoint("embed", DENSE, chosen, shape.path)
        prefixes = Prefixes(chosen.query_prefix, chosen.document_prefix)
        embedder = RemoteEmbedder(endpoint, shape, chosen.dim, chosen.batch, prefixes)
        return embedder, RoughCounter(chosen.tokens), InUse("dense", chosen.kind, _remote_name(chosen), endpoint.url)

    def _builtin(self, progress: Progress) -> tuple[DenseRunner | Elsewhere, TokenCounter, InUse]:
        """Return the built-in model, or what is known of it where others run it."""
        wanted, runs = self._settings.model, "embed" in self._runs
        source = find_source(SourceSettings(Path(wanted.dir) if wanted.dir else None, wanted.hub, weights=runs))
        device = choose(wanted.device, available(), wanted.precision)
        if not runs:
            told = describe(source, device.precision)
            elsewhere = Elsewhere(told.model, told.dim, told.late, device.batch_tokens)
            return elsewhere, LazyTokenizer(told.tokenizer_path, told.tokens_max), InUse("dense", "builtin", told.model)
        model = OnnxDense(prepare(source, self._cache, progress, device.precision), device=device)
        return model, model.tokenizer, InUse("dense", "builtin", model.model)

    def _sparse(self) -> tuple[SparseRunner | RemoteSparseEncoder | Elsewhere, InUse]:
        chosen = self._settings.sparse_model
        if chosen.kind == "bm25":
            bm25 = Bm25Settings()
            return Bm25Runner(bm25), InUse("sparse", chosen.kind, f"bm25-{bm25!r}")
        if chosen.kind == "onnx":
            files = _files(chosen, SPARSE)
            if "sparse" not in self._runs:
                return Elsewhere(files.model), InUse("sparse", chosen.kind, files.model)
            encoder = OnnxSparse(files)
            return encoder, InUse("sparse", chosen.kind, encoder.model)
        shape = TeiSparse()
        endpoint = self._endpoint("sparse", SPARSE, chosen, shape.path)
        remote = RemoteSparseEncoder(endpoint, shape, chosen.batch)
        return remote, InUse("sparse", chosen.kind, f"{chosen.kind}/{chosen.model}", endpoint.url)

    def _rerank(
        self, dense: DenseRunner | RemoteEmbedder | Elsewhere
    ) -> tuple[RerankRunner | RemoteReranker | CosineReranker | Elsewhere, InUse]:
        chosen = self._settings.rerank_model
        if chosen.kind == "builtin":
            if isinstance(dense, RemoteEmbedder):
                return CosineReranker(dense), InUse("rerank", chosen.kind, "cosine of the dense model", note=NO_LATE)
            late = dense.late if isinstance(dense, OnnxDense | Elsewhere) else 0
            how, note = ("late interaction", "") if late else ("cosine", NO_LATE)
            used = InUse("rerank", chosen.kind, f"{how} of the dense model", note=note)
            if isinstance(dense, Elsewhere):
                return Elsewhere(used.name), used
            return (LateReranker(dense) if isinstance(dense, OnnxDense) else CosineRunner(dense)), used
        if chosen.kind == "onnx":
            files = _files(chosen, RERANK)
            if "rerank" not in self._runs:
                return Elsewhere(files.model), InUse("rerank", chosen.kind, files.model)
            encoder = OnnxCrossEncoder(files)
            return encoder, InUse("rerank", chosen.kind, encoder.model)
        shape: RerankShape = CohereRerank(chosen.model) if chosen.kind == "cohere" else TeiRerank()
        endpoint = self._endpoint("rerank", RERANK, chosen, shape.path)
        name = f"{chosen.kind}/{chosen.model}" if chosen.model else chosen.kind
        return RemoteReranker(endpoint, shape, chosen.batch), InUse("rerank", chosen.kind, name, endpoint.url)

    def _endpoint(
        self,
        dependency: str,
        section: str,
        chosen: DenseModelSettings | SparseModelSettings | RerankModelSettings,
        path: str,
    ) -> Endpoint:
        # No more calls are out than the pool has permits; a connection is never waited for.
        permits = getattr(self._settings.ml, f"{dependency}_workers")
        settings = EndpointSettings(dependency, section, chosen.url, chosen.api_key, permits)
        endpoint = Endpoint(settings, path, self._clock, self._transport)
        self._endpoints.append(endpoint)
        return endpoint


def _files(chosen: DenseModelSettings | SparseModelSettings | RerankModelSettings, section: str) -> OnnxFiles:
    if chosen.path:
        return find_directory(Path(chosen.path), section)
    return find_on_hub(chosen.model, chosen.revision, section)


def _remote_name(chosen: DenseModelSettings) -> str:
    """Return what the vectors are called: they are others with another prefix."""
    name = f"{chosen.kind}/{chosen.model}"
    if not chosen.document_prefix:
        return name
    return f"{name}-{hashlib.sha256(chosen.document_prefix.encode()).hexdigest()[:8]}"
