"""Which models are used: as the settings say, checked at the start, and told to people."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import (
    DenseModelSettings,
    ModelSettings,
    RerankModelSettings,
    Settings,
    SparseModelSettings,
)
from penstock.models.contract import OffloadedModel
from penstock.models.factory import CHECK_TIMEOUT_S, MODEL_POOLS, ModelFactory, Models
from penstock.models.prompts import Prompts
from penstock.models.quantise import Precision
from tests.clock import BEGIN_S, run, virtual
from tests.fakes import graphs
from tests.fakes.endpoint import KEY, FakeEndpoint, always, dead, hanging
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM

WORK = Context.background()
OPENAI = DenseModelSettings(kind="openai", url="http://models.test", model="m", api_key=KEY)
TEI = DenseModelSettings(kind="tei", url="http://models.test", model="m")
REMOTE = Settings(
    dense_model=TEI,
    sparse_model=SparseModelSettings(kind="tei", url="http://models.test", model="s"),
    rerank_model=RerankModelSettings(kind="cohere", url="http://models.test", model="r"),
)


def load(
    settings: Settings,
    transport: FakeEndpoint | None = None,
    cache: Path = Path("nowhere"),
    here: frozenset[str] = MODEL_POOLS,
) -> Models:
    return ModelFactory(settings, cache, LoopClock(), transport or FakeEndpoint(), here).load(lambda *_: None)


def dense(**changed: object) -> Settings:
    return Settings(dense_model=replace(TEI, **changed))


# --- In this process


def test_by_default_everything_is_built_in(tiny, tmp_path):
    models = load(Settings(model=ModelSettings(dir=str(tiny.config.parent))), cache=tmp_path)
    assert [(one.part, one.kind, one.url) for one in models.infos] == [
        ("dense", "builtin", ""),
        ("sparse", "bm25", ""),
        ("rerank", "builtin", ""),
    ]
    assert models.remote_pools == frozenset()
    assert (models.has_learned_sparse, models.has_cross_encoder) == (False, False)
    assert models.dim == models.dense.dim
    run(models.check_endpoints(LoopClock()))


def told(models: Models) -> tuple[object, ...]:
    return (
        models.infos,
        models.dim,
        models.token_dim,
        models.batch_tokens,
        models.has_learned_sparse,
        models.has_cross_encoder,
        models.remote_pools,
    )


@pytest.mark.parametrize("here", [frozenset(), frozenset({"search", "index", "chunk"}), frozenset({"sparse"})])
def test_a_model_of_others_is_known_as_they_know_it_and_is_neither_loaded_nor_prepared(tiny, tmp_path, here):
    settings = Settings(model=ModelSettings(dir=str(tiny.config.parent)))
    elsewhere, loaded = load(settings, cache=tmp_path / "no", here=here), load(settings, cache=tmp_path / "yes")
    assert told(elsewhere) == told(loaded)
    assert isinstance(elsewhere.dense, OffloadedModel)
    assert not (tmp_path / "no").exists()
    assert elsewhere.tokenizer.tokens_max == loaded.tokenizer.tokens_max
    for text in ("one two three", "word " * 600):
        assert elsewhere.tokenizer.count([text]) == loaded.tokenizer.count([text])
        assert elsewhere.tokenizer.truncated(text) == loaded.tokenizer.truncated(text)
    travelled = pickle.loads(pickle.dumps(elsewhere.tokenizer))
    assert travelled.count(["one two three"]) == loaded.tokenizer.count(["one two three"])


def test_the_same_precision_everywhere_gives_the_same_model_everywhere(tiny, tmp_path):
    settings = Settings(model=ModelSettings(dir=str(tiny.config.parent), precision="int7"))
    models, others = load(settings, cache=tmp_path), load(settings, here=frozenset())
    assert models.dense.device.precision is Precision.INT7
    assert others.dense.model == models.dense.model
    plain = load(replace(settings, model=replace(settings.model, precision="float32")), cache=tmp_path)
    assert plain.dense.model != models.dense.model


def test_the_builtin_reranker_needs_the_dense_model_where_it_works(tiny, tmp_path):
    settings = Settings(model=ModelSettings(dir=str(tiny.config.parent)))
    models = load(settings, cache=tmp_path, here=frozenset({"rerank"}))
    assert not isinstance(models.dense, OffloadedModel)
    assert not isinstance(models.rerank, OffloadedModel)


def test_ready_graphs_of_others_are_known_by_their_files(tmp_path):
    paths = {kind: str(graphs.write(tmp_path / kind, kind)) for kind in ("dense", "splade", "cross")}
    settings = Settings(
        dense_model=DenseModelSettings(kind="onnx", path=paths["dense"]),
        sparse_model=SparseModelSettings(kind="onnx", path=paths["splade"]),
        rerank_model=RerankModelSettings(kind="onnx", path=paths["cross"]),
    )
    elsewhere, loaded = load(settings, here=frozenset()), load(settings)
    assert told(elsewhere) == told(loaded)
    assert all(isinstance(one, OffloadedModel) for one in (elsewhere.dense, elsewhere.sparse, elsewhere.rerank))


@virtual
async def test_endpoints_of_others_are_not_asked_where_the_dimension_is_set():
    fake = FakeEndpoint()
    models = load(replace(REMOTE, dense_model=replace(TEI, dim=DIM)), fake, here=frozenset({"search"}))
    await models.check_endpoints(LoopClock())
    assert (fake.asked, models.dim) == ([], DIM)
    learning = load(REMOTE, fake, here=frozenset({"search"}))
    await learning.check_endpoints(LoopClock())
    assert learning.dim == DIM


def test_ready_graphs_are_read_from_their_directories(tmp_path):
    paths = {kind: str(graphs.write(tmp_path / kind, kind)) for kind in ("dense", "splade", "cross")}
    models = load(
        Settings(
            dense_model=DenseModelSettings(kind="onnx", path=paths["dense"]),
            sparse_model=SparseModelSettings(kind="onnx", path=paths["splade"]),
            rerank_model=RerankModelSettings(kind="onnx", path=paths["cross"]),
        )
    )
    assert [one.name.rpartition("-")[0] for one in models.infos] == ["dense", "splade", "cross"]
    assert (models.has_learned_sparse, models.has_cross_encoder, models.dim, models.remote_pools) == (
        True,
        True,
        graphs.WIDTH,
        frozenset(),
    )
    assert models.tokenizer.count(["alpha beta"]) == [2]


def test_a_named_model_has_its_prompts_and_its_chunks_leave_room_for_them(tmp_path):
    def use(name, **settings):
        path = str(graphs.write(tmp_path / name, "dense"))
        return load(Settings(dense_model=DenseModelSettings(kind="onnx", path=path, **settings)))

    plain, named = use("plain"), use("e5-small")
    assert (plain.prompts, named.prompts) == (Prompts(), Prompts("query: ", "passage: "))
    assert named.tokenizer.tokens_max < plain.tokenizer.tokens_max
    assert plain.infos[0].name.removeprefix("plain") in named.infos[0].name
    assert named.infos[0].name != f"e5-small{plain.infos[0].name.removeprefix('plain')}"
    assert use("e5-small", document_prefix="text: ").prompts == Prompts("query: ", "text: ")


def test_a_graph_without_a_directory_comes_from_the_hub_at_a_commit():
    settings = Settings(rerank_model=RerankModelSettings(kind="onnx", model="a/b", revision="main"), dense_model=TEI)
    with pytest.raises(Invalid, match=r"models\.rerank\.revision"):
        load(settings)


# --- Behind endpoints


@virtual
async def test_endpoints_are_asked_once_each_and_the_dimension_is_learnt():
    transport = FakeEndpoint()
    models = load(REMOTE, transport)
    assert models.dim == 0
    await models.check_endpoints(LoopClock())
    assert sorted(request.url.path for request in transport.asked) == ["/embed", "/embed_sparse", "/v2/rerank"]
    assert (models.dim, models.remote_pools) == (DIM, {"embed", "sparse", "rerank"})
    assert [one.name for one in models.infos] == ["tei/m", "tei/s", "cohere/r"]
    assert {one.note for one in models.infos} == {""}
    assert models.infos[0].url == "http://models.test/embed"
    await models.close()


@virtual
async def test_another_prefix_for_documents_makes_other_vectors_and_has_another_name():
    names = {load(dense(document_prefix=prefix)).infos[0].name for prefix in ("", "passage: ", "doc: ")}
    assert len(names) == 3
    assert load(dense(query_prefix="query: ")).infos[0].name == "tei/m"


@virtual
async def test_without_token_vectors_a_remote_model_reranks_by_its_cosine():
    transport = FakeEndpoint()
    models = load(dense(), transport)
    await models.check_endpoints(LoopClock())
    assert "rerank" in models.remote_pools
    scores = await models.rerank.rerank("alpha", ["beta", "alpha"], WORK)
    assert scores.argmax() == 1
    assert not models.has_cross_encoder
    assert models.infos[2].note == "no late interaction: the dense model gives no token vectors"


@pytest.mark.parametrize(
    ("behave", "said"),
    [(dead, "cannot be reached"), (hanging, f"not answered within {CHECK_TIMEOUT_S:g} s"), (always(500), "500")],
)
@virtual
async def test_a_dense_model_that_is_down_stops_the_start_within_five_seconds(behave, said):
    transport = FakeEndpoint()
    transport.behave = behave
    with pytest.raises(Unavailable, match=f"models.dense: http://models.test/embed.*{said}.*set models.dense.dim"):
        await load(dense(), transport).check_endpoints(LoopClock())
    assert asyncio.get_running_loop().time() - BEGIN_S < 5


@virtual
async def test_with_its_dimension_set_the_server_starts_while_the_dense_model_is_down():
    transport = FakeEndpoint()
    transport.behave = dead
    models = load(dense(dim=DIM), transport)
    await models.check_endpoints(LoopClock())
    assert (models.dim, models.infos[0].note) == (DIM, "down at the start")
    transport.behave = always(200, json=[[1.0] * DIM])
    assert (await models.dense.embed(["a"], TextKind.QUERY, WORK)).dense.shape == (1, DIM)


@virtual
async def test_what_is_optional_may_be_down_at_the_start():
    transport = FakeEndpoint()

    async def only_dense(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/embed":
            return None
        raise httpx.ConnectError("refused")

    transport.behave = only_dense
    models = load(REMOTE, transport)
    await models.check_endpoints(LoopClock())
    assert [one.note for one in models.infos] == ["", "down at the start", "down at the start"]


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "endpoint_unauthorized", "models.dense.api_key"),
        (404, "endpoint_not_found", "models.dense.url"),
        (400, "endpoint_refused", "texts"),
    ],
)
@virtual
async def test_one_that_is_wrong_stops_the_start_whatever_is_set(status, code, said):
    transport = FakeEndpoint()
    transport.behave = always(status, json={"error": KEY})
    with pytest.raises(Invalid, match=said) as caught:
        await load(Settings(dense_model=replace(OPENAI, dim=DIM)), transport).check_endpoints(LoopClock())
    assert (caught.value.code, caught.value.field) == (code, "models.dense")
    assert KEY not in str(caught.value)


@virtual
async def test_a_reranker_with_a_wrong_key_stops_the_start_too():
    transport = FakeEndpoint()

    async def locked(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(401) if "rerank" in request.url.path else None

    transport.behave = locked
    with pytest.raises(Invalid, match=r"models\.rerank\.api_key"):
        await load(REMOTE, transport).check_endpoints(LoopClock())


@virtual
async def test_a_model_of_another_dimension_than_the_one_set_stops_the_start():
    with pytest.raises(Invalid, match=f"{DIM} dimensions, not 99"):
        await load(dense(dim=99)).check_endpoints(LoopClock())


@virtual
async def test_one_at_its_limit_is_there():
    transport = FakeEndpoint()
    transport.behave = always(429)
    await load(dense(dim=DIM), transport).check_endpoints(LoopClock())
    with pytest.raises(Unavailable, match=r"at its limit; set models\.dense\.dim"):
        await load(dense(), transport).check_endpoints(LoopClock())


@virtual
async def test_tokens_are_counted_roughly_where_the_tokenizer_is_elsewhere():
    models = load(dense(tokens=128))
    assert models.tokenizer.tokens_max == 128
    assert models.tokenizer.count(["def parse(text):", "", "internationalisation", "漢字"]) == [6, 0, 4, 2]
    assert not models.tokenizer.truncated("a" * 100_000)
    assert models.tokenizer.tokens_max == 128
