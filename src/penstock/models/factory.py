"""Factory of the models that the settings name: loaded into this process, or called over HTTP and checked once.

Loading blocks and belongs in a thread. The check sends one request to every endpoint, at the start. An endpoint that is
*wrong* (its key, its address, its answers) stops the start, whatever it is for. One that is merely *down* stops it only
where nothing can be done without it: the dense model, unless its dimension is set.

A model whose pool works on other instances is neither loaded, prepared nor called here. Its description
(:class:`penstock.models.contract.OffloadedModel`) is read from its files.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import msgspec
import numpy as np

from penstock.kernel.context import Clock, Context, Deadline, enforce_deadline, run_all
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.late_interaction import maxsim
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import DenseModelSettings, RerankModelSettings, Settings, SparseModelSettings
from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import (
    DenseRunner,
    Floats,
    LateInteractionRunner,
    ModelInfo,
    OffloadedModel,
    RerankRunner,
    SparseRunner,
)
from penstock.models.device import available_providers, choose_device
from penstock.models.model_source import find_source
from penstock.models.onnx_files import OnnxFiles, find_directory, find_on_hub
from penstock.models.onnx_models import OnnxCrossEncoder, OnnxDenseEncoder, OnnxSparseEncoder
from penstock.models.prepare import describe_model, prepare_model
from penstock.models.prompts import NO_PROMPTS, Prompts, find_prompts
from penstock.models.remote_endpoint import ModelEndpoint, ModelEndpointSettings
from penstock.models.remote_formats import DENSE_FORMATS, RERANK_FORMATS, SPARSE_FORMATS
from penstock.models.remote_models import RemoteCosineReranker, RemoteEmbedder, RemoteReranker, RemoteSparseEncoder
from penstock.models.token_estimate import LazyTokenizer, TokenCounter, TokenEstimator
from penstock.models.tokenizer import TextTokenizer

log = logging.getLogger(__name__)

DENSE_SECTION: Final = "models.dense"

#: Seconds after which an endpoint that has not answered its first request is down.
CHECK_TIMEOUT_S: Final = 4.0
#: The text of that request.
PROBE_TEXT: Final = "penstock"

#: The pools in which models work.
MODEL_POOLS: Final = frozenset({"embed", "sparse", "rerank"})

#: What is absent with a dense model other than the built-in one.
NO_LATE_INTERACTION: Final = "no late interaction: the dense model gives no token vectors"

ProgressCallback = Callable[[str, int, int], None]
T = TypeVar("T", OnnxSparseEncoder, OnnxCrossEncoder)
_ModelSettings = DenseModelSettings | SparseModelSettings | RerankModelSettings


@dataclass(slots=True)
class Models:
    """The models in use. Call ``check_endpoints`` once at the start, ``close`` at the end.

    Attributes:
        dense: The dense model: a runner for this process's threads, a client of an endpoint, or the description of a
            model that other instances run.
        sparse: The sparse one.
        rerank: The reranker.
        dim: Dimension of dense vectors; 0 until it is known from an endpoint's answer.
        tokenizer: Counts the tokens of chunks.
        infos: The models as the status shows them, in the order dense, sparse, rerank.
        local_pools: The parts that are run or called from this process, by the names of guards.
        prompts: What the dense model wants in front of its texts, if it runs in this process.
    """

    dense: DenseRunner | RemoteEmbedder | OffloadedModel
    sparse: SparseRunner | RemoteSparseEncoder | OffloadedModel
    rerank: RerankRunner | RemoteReranker | RemoteCosineReranker | OffloadedModel
    dim: int
    tokenizer: TokenCounter
    infos: list[ModelInfo]
    local_pools: frozenset[str]
    prompts: Prompts = NO_PROMPTS
    _endpoints: list[ModelEndpoint] = field(default_factory=list)

    @property
    def token_dim(self) -> int:
        """Components of the dense model's token vectors; 0 for one that gives none."""
        return self.dense.token_dim if isinstance(self.dense, BuiltinDenseEncoder | OffloadedModel) else 0

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of one message to the dense model that suit it; 0 where nothing is known."""
        if isinstance(self.dense, RemoteEmbedder):
            return self.dense.batch * self.tokenizer.tokens_max
        if isinstance(self.dense, OffloadedModel):
            return self.dense.batch_tokens
        return self.dense.device.batch_tokens if isinstance(self.dense, BuiltinDenseEncoder) else 0

    @property
    def has_learned_sparse(self) -> bool:
        """True if sparse vectors carry learned term weights, so that the store must not apply IDF to them."""
        return self.infos[1].kind != "bm25"

    @property
    def has_cross_encoder(self) -> bool:
        """True if the reranker is a cross-encoder, by which searches reorder their best hits."""
        return self.infos[2].kind != "builtin"

    @property
    def remote_pools(self) -> frozenset[str]:
        """The parts that other servers run, by the names of their guards."""
        asked = {"embed": self.dense, "sparse": self.sparse, "rerank": self.rerank}
        kinds = RemoteEmbedder | RemoteSparseEncoder | RemoteReranker | RemoteCosineReranker
        return frozenset(name for name, model in asked.items() if isinstance(model, kinds))

    def shrink(self) -> None:
        """Free the memory that models in this process keep between calls; blocks for some 20 ms."""
        for model in (self.dense, self.sparse, self.rerank):
            if isinstance(model, BuiltinDenseEncoder | OnnxDenseEncoder | OnnxSparseEncoder | OnnxCrossEncoder):
                model.shrink()

    async def check_endpoints(self, clock: Clock) -> None:
        """Send one request to every endpoint of a pool that works here, all at once.

        Raises:
            Invalid: One is wrong; the message names the setting.
            Unavailable: The dense model is down and its dimension is not set (``endpoint_down``).

        Bounds: ``CHECK_TIMEOUT_S``.
        """
        ctx = Context(Deadline.never().within(CHECK_TIMEOUT_S, "check", clock.now()))
        sparse, rerank, checks = self.sparse, self.rerank, [self._check_dense(ctx)]
        if isinstance(sparse, RemoteSparseEncoder) and "sparse" in self.local_pools:
            checks.append(self._check(1, lambda: sparse.encode([PROBE_TEXT], TextKind.DOCUMENT, ctx), ctx))
        if isinstance(rerank, RemoteReranker) and "rerank" in self.local_pools:
            checks.append(self._check(2, lambda: rerank.rerank(PROBE_TEXT, [PROBE_TEXT], ctx), ctx))
        await run_all(checks)

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._endpoints:
            await endpoint.close()

    async def _check_dense(self, ctx: Context) -> None:
        dense = self.dense
        if not isinstance(dense, RemoteEmbedder) or (dense.dim and "embed" not in self.local_pools):
            return

        async def ask() -> None:
            dense.dim = (await dense.embed([PROBE_TEXT], TextKind.DOCUMENT, ctx)).dense.shape[1]

        why = await self._outage(0, ask, ctx)
        self.dim = dense.dim
        if not self.dim:
            why = why or f"{DENSE_SECTION}: {self.infos[0].url} is at its limit"
            raise Unavailable(
                f"{why}; set {DENSE_SECTION}.dim to start without it", dependency="embed", code="endpoint_down"
            )
        self._note(0, why)

    async def _check(self, place: int, ask: Callable[[], Awaitable[Any]], ctx: Context) -> None:
        self._note(place, await self._outage(place, ask, ctx))

    async def _outage(self, place: int, ask: Callable[[], Awaitable[Any]], ctx: Context) -> str:
        """Send a request to an endpoint; return why it is down, empty if it is not. One at its limit is up.

        Raises:
            Invalid: It is there, and it is wrong: its key, its address, its answers.
        """
        section, url = _section(self.infos[place].part), self.infos[place].url
        try:
            async with enforce_deadline(ctx.deadline):
                await ask()
        except Rejected:
            return ""
        except Expired:
            return f"{section}: {url} has not answered within {CHECK_TIMEOUT_S:g} s"
        except Unavailable as error:
            return f"{section}: {url}: {error.detail}"
        except (Broken, Invalid) as error:
            detail = f"{section}: {url} cannot be used: {error.detail}"
            raise Invalid(detail, field=section, code=error.code) from error
        return ""

    def _note(self, place: int, why: str) -> None:
        if why:
            log.warning("%s; started without it", why)
            self.infos[place] = msgspec.structs.replace(self.infos[place], note="down at the start")


class ModelFactory:
    """Factory of the models that the settings name.

    Args:
        settings: The settings.
        cache: Where prepared models are kept.
        clock: The loop's clock.
        transport: Carries the requests to endpoints; the network by default.
        local_pools: The pools that work here; models of the others are not loaded.
    """

    def __init__(
        self,
        settings: Settings,
        cache: Path,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
        local_pools: frozenset[str] = MODEL_POOLS,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._transport = transport
        # The built-in reranker computes with the dense model.
        dense = {"embed"} if "rerank" in local_pools and settings.rerank_model.kind == "builtin" else set()
        self._runs = (local_pools & MODEL_POOLS) | dense
        self._endpoints: list[ModelEndpoint] = []
        self._prompts = NO_PROMPTS

    def load(self, progress: ProgressCallback) -> Models:
        """Find, prepare and load what runs in this process; blocks.

        Args:
            progress: Called with a stage's name, the amount done and the total.

        Raises:
            PenstockError: A model is missing or cannot be used.
        """
        dense, tokenizer, dense_used = self._dense(progress)
        sparse, sparse_used = self._sparse()
        rerank, rerank_used = self._rerank(dense)
        used = [dense_used, sparse_used, rerank_used]
        return Models(
            dense, sparse, rerank, dense.dim, tokenizer, used, self._runs, self._prompts, _endpoints=self._endpoints
        )

    def _dense(
        self, progress: ProgressCallback
    ) -> tuple[DenseRunner | RemoteEmbedder | OffloadedModel, TokenCounter, ModelInfo]:
        chosen = self._settings.dense_model
        if chosen.kind == "builtin":
            return self._builtin(progress)
        if chosen.kind == "onnx":
            return self._onnx_dense(chosen)
        wire_format = DENSE_FORMATS[chosen.kind]
        endpoint = self._endpoint("dense", chosen, wire_format.path)
        prompts = Prompts(chosen.query_prefix, chosen.document_prefix)
        embedder = RemoteEmbedder(endpoint, wire_format, chosen.batch, chosen.model, dim=chosen.dim, prompts=prompts)
        info = ModelInfo("dense", chosen.kind, prompts.named(f"{chosen.kind}/{chosen.model}"), endpoint.url)
        return embedder, TokenEstimator(chosen.tokens), info

    def _found_prompts(self, directory: Path, name: str) -> Prompts:
        """Return the prompts of a model that runs here: those set, else its own."""
        chosen, own = self._settings.dense_model, find_prompts(directory, name)
        self._prompts = Prompts(chosen.query_prefix or own.query, chosen.document_prefix or own.document)
        return self._prompts

    def _onnx_dense(self, chosen: DenseModelSettings) -> tuple[DenseRunner | OffloadedModel, TokenCounter, ModelInfo]:
        files = _files("dense", chosen)
        encoder, prompts = OnnxDenseEncoder(files), self._found_prompts(files.tokenizer.parent, files.name)
        name, tokenizer = prompts.named(encoder.model), prompts.leave_room(encoder.tokenizer)
        info = ModelInfo("dense", chosen.kind, name)
        if "embed" in self._runs:
            return encoder, tokenizer, info
        # Only the graph gives the number of components of its vectors.
        return OffloadedModel(name, encoder.dim), LazyTokenizer(tokenizer.path, tokenizer.tokens_max), info

    def _builtin(self, progress: ProgressCallback) -> tuple[DenseRunner | OffloadedModel, TokenCounter, ModelInfo]:
        """Return the built-in model, or its description where other instances run it."""
        wanted, runs = self._settings.model, "embed" in self._runs
        source = find_source(wanted, needs_weights=runs)
        device = choose_device(wanted.device, available_providers(), wanted.precision)
        prompts = self._found_prompts(source.config.parent, source.name)
        if not runs:
            told = describe_model(source, device.precision)
            name = prompts.named(told.model)
            model = OffloadedModel(name, told.dim, told.token_dim, device.batch_tokens)
            tokens_max = told.tokens_max
            if prompts != NO_PROMPTS:
                tokens_max = prompts.leave_room(TextTokenizer(told.tokenizer_path, tokens_max)).tokens_max
            return model, LazyTokenizer(told.tokenizer_path, tokens_max), ModelInfo("dense", "builtin", name)
        loaded = BuiltinDenseEncoder(prepare_model(source, self._cache, progress, device.precision), device=device)
        return loaded, prompts.leave_room(loaded.tokenizer), ModelInfo("dense", "builtin", prompts.named(loaded.model))

    def _sparse(self) -> tuple[SparseRunner | RemoteSparseEncoder | OffloadedModel, ModelInfo]:
        chosen = self._settings.sparse_model
        if chosen.kind == "bm25":
            bm25 = Bm25Settings()
            return Bm25Runner(bm25), ModelInfo("sparse", chosen.kind, f"bm25-{bm25!r}")
        if chosen.kind == "onnx":
            return self._graph("sparse", chosen, OnnxSparseEncoder)
        wire_format = SPARSE_FORMATS[chosen.kind]
        endpoint = self._endpoint("sparse", chosen, wire_format.path)
        info = ModelInfo("sparse", chosen.kind, f"{chosen.kind}/{chosen.model}", endpoint.url)
        return RemoteSparseEncoder(endpoint, wire_format, chosen.batch), info

    def _rerank(
        self, dense: DenseRunner | RemoteEmbedder | OffloadedModel
    ) -> tuple[RerankRunner | RemoteReranker | RemoteCosineReranker | OffloadedModel, ModelInfo]:
        chosen = self._settings.rerank_model
        if chosen.kind == "onnx":
            return self._graph("rerank", chosen, OnnxCrossEncoder)
        if chosen.kind != "builtin":
            wire_format = RERANK_FORMATS[chosen.kind]
            endpoint = self._endpoint("rerank", chosen, wire_format.path)
            name = f"{chosen.kind}/{chosen.model}" if chosen.model else chosen.kind
            remote = RemoteReranker(endpoint, wire_format, chosen.batch, chosen.model)
            return remote, ModelInfo("rerank", chosen.kind, name, endpoint.url)
        late = dense.token_dim if isinstance(dense, BuiltinDenseEncoder | OffloadedModel) else 0
        how, note = ("late interaction", "") if late else ("cosine", NO_LATE_INTERACTION)
        info = ModelInfo("rerank", chosen.kind, f"{how} of the dense model", note=note)
        if isinstance(dense, RemoteEmbedder):
            return RemoteCosineReranker(dense), info
        if isinstance(dense, OffloadedModel):
            return OffloadedModel(info.name), info
        if isinstance(dense, BuiltinDenseEncoder):
            return LateInteractionReranker(dense, self._prompts), info
        return CosineRerankRunner(dense, self._prompts), info

    def _graph(
        self, part: str, chosen: _ModelSettings, load: Callable[[OnnxFiles], T]
    ) -> tuple[T | OffloadedModel, ModelInfo]:
        """Return an exported graph, loaded if its pool works here."""
        files = _files(part, chosen)
        model = load(files) if part in self._runs else OffloadedModel(files.model)
        return model, ModelInfo(part, chosen.kind, model.model)

    def _endpoint(self, part: str, chosen: _ModelSettings, path: str) -> ModelEndpoint:
        dependency = "embed" if part == "dense" else part
        # No more calls are out than the pool has permits; a connection is never waited for.
        permits = getattr(self._settings.ml, f"{dependency}_workers")
        settings = ModelEndpointSettings(dependency, _section(part), chosen.url, chosen.api_key, permits)
        endpoint = ModelEndpoint(settings, path, self._clock, self._transport)
        self._endpoints.append(endpoint)
        return endpoint


def _section(part: str) -> str:
    return f"models.{part}"


def _files(part: str, chosen: _ModelSettings) -> OnnxFiles:
    if chosen.path:
        return find_directory(Path(chosen.path), _section(part))
    return find_on_hub(chosen.model, chosen.revision, _section(part))


@dataclass(frozen=True, slots=True)
class LateInteractionReranker:
    """Late interaction: cosine and MaxSim of query and text, half and half.

    The same two numbers by which a search ranks what it has indexed, for texts that were never indexed.
    """

    runner: LateInteractionRunner
    prompts: Prompts = NO_PROMPTS

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return the scores, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        asked = self.runner.run_with_token_vectors(self.prompts.applied([query], TextKind.QUERY), TextKind.QUERY, stop)
        documents = self.prompts.applied(texts, TextKind.DOCUMENT)
        told = self.runner.run_with_token_vectors(documents, TextKind.DOCUMENT, stop)
        if asked.late is None or told.late is None:
            raise ValueError("the model gave no token vectors")
        cosines = told.dense @ asked.dense[0]
        late = np.array([maxsim(asked.late[0], tokens) for tokens in told.late], np.float32)
        scores: Floats = (cosines + late) / 2
        return scores


@dataclass(frozen=True, slots=True)
class CosineRerankRunner:
    """Cosine of query and text, by a dense model that gives no token vectors.

    It adds nothing to a dense search with the same model. It gives a score to texts that were never indexed.
    """

    runner: DenseRunner
    prompts: Prompts = NO_PROMPTS

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return the cosines, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        asked, documents = (
            self.prompts.applied(part, kind) for part, kind in (([query], TextKind.QUERY), (texts, TextKind.DOCUMENT))
        )
        vectors = self.runner.run([*asked, *documents], stop)
        scores: Floats = vectors[1:] @ vectors[0]
        return scores
