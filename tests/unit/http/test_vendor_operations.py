"""Requests of OpenAI's, Cohere's, Jina's and TEI's clients over fake models: answers, and refusals in their form."""

import asyncio
import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from penstock.bus.contract import TopicRefusal
from penstock.http.error_formats import COHERE, OPENAI, TEI
from penstock.http.operations import ENDPOINTS
from penstock.http.problem import PROBLEM_DETAILS
from penstock.http.vendor_records import INPUTS_MAX
from penstock.kernel.context import Criticality
from penstock.kernel.errors import Rejected, Unavailable
from penstock.kernel.messages import TextKind
from penstock.models.contract import ModelInfo, TokenUsage
from tests.clock import virtual
from tests.fakes.api import Api
from tests.fakes.models import DIM, embedding, fails_with

RERANKED = ["nothing like it", "parse JSON", "parse a tree"]


def api(**models) -> Api:
    """Return the API over fakes with other traits of the models."""
    made = Api()
    made.core.deps.models = replace(made.core.deps.models, **models)
    made.routes = type(made.routes)(made.core)
    made.gate._app = made.routes
    return made


def usage(tokens_max: int = 8) -> TokenUsage:
    """Return the tokens of a model whose tokens are words."""

    async def count_read(texts):
        return sum(min(tokens_max, len(text.split())) for text in texts)

    async def cut(texts, tokens):
        return [" ".join(text.split()[:tokens]) for text in texts]

    return TokenUsage(tokens_max, count_read, cut)


async def embedded(body, made=None, **headers):
    return await (made or api()).ask("POST", "/v1/embeddings", {"model": "penstock", **body}, headers or None)


# --- OpenAI


@pytest.mark.parametrize("texts", ["one text", ["one text"], ["one text", "two"], ["x"] * INPUTS_MAX])
@virtual
async def test_texts_are_embedded_in_their_order(texts):
    answer = await embedded({"input": texts}, api(token_usage=usage()))
    listed = [texts] if isinstance(texts, str) else texts
    assert answer.status == 200, answer.body
    assert (answer.json["object"], answer.json["model"]) == ("list", "m")
    assert [one["index"] for one in answer.json["data"]] == list(range(len(listed)))
    assert {one["object"] for one in answer.json["data"]} == {"embedding"}
    vectors = [one["embedding"] for one in answer.json["data"]]
    np.testing.assert_allclose(vectors, [embedding(text) for text in listed], rtol=1e-6)
    count = sum(len(text.split()) for text in listed)
    assert answer.json["usage"] == {"prompt_tokens": count, "total_tokens": count}


@virtual
async def test_base64_is_the_bytes_of_little_endian_floats():
    answer = await embedded({"input": ["a b", "c"], "encoding_format": "base64"})
    for one, text in zip(answer.json["data"], ["a b", "c"], strict=True):
        vector = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
        np.testing.assert_array_equal(vector, embedding(text))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("penstock", TextKind.DOCUMENT),
        ("m", TextKind.DOCUMENT),
        ("m:document", TextKind.DOCUMENT),
        ("m:query", TextKind.QUERY),
        ("penstock:query", TextKind.QUERY),
    ],
)
@virtual
async def test_the_end_of_a_model_s_name_is_the_role_of_the_texts(model, kind):
    made, asked = api(), []
    made.embedder.embed = _noting_kind(made.embedder.embed, asked)
    assert (await embedded({"input": "x", "model": model}, made)).status == 200
    assert asked == [kind]
    assert (await made.ask("GET", f"/v1/models/{model}")).json["id"] == model


def _noting_kind(embed, asked):
    async def noted(texts, kind, ctx, **more):
        asked.append(kind)
        return await embed(texts, kind, ctx, **more)

    return noted


@virtual
async def test_the_models_are_listed_with_the_name_that_stands_for_any():
    own = (ModelInfo("dense", "builtin", "m"), ModelInfo("sparse", "bm25", "b"), ModelInfo("rerank", "onnx", "a/cross"))
    made = api(infos=own)
    told = (await made.ask("GET", "/v1/models")).json
    assert [one["id"] for one in told["data"]] == ["m", "a/cross", "penstock"]
    assert (await made.ask("GET", "/v1/models/a/cross")).json["object"] == "model"
    assert (await made.ask("GET", "/v1/models/a%2Fcross")).json["id"] == "a/cross"
    assert [one["id"] for one in (await api().ask("GET", "/v1/models")).json["data"]] == ["m", "penstock"]


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"input": [1, 2, 3]}, 400, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, 400, "input", "check_embedding_ctx_length=False"),
        ({"input": [list(range(9000))]}, 400, "input", "check_embedding_ctx_length=False"),
        ({"input": ["a", 1]}, 400, "input[1]", "string"),
        ({"input": []}, 400, "input", ">= 1"),
        ({"input": ""}, 400, "input", ">= 1"),
        ({"input": ["a", ""]}, 400, "input[1]", ">= 1"),
        ({"input": ["x"] * (INPUTS_MAX + 1)}, 400, "input", "2048"),
        ({"input": ["x"] * 10_000}, 400, "input", "2048"),
        ({"input": None}, 400, "input", "string"),
        ({}, 400, "input", "missing"),
        ({"input": "x", "model": "text-embedding-3-small"}, 404, "model", "this server has m, which penstock"),
        ({"input": "x", "model": "m:role"}, 404, "model", "there is no model"),
        ({"input": "x", "model": ":query"}, 404, "model", "there is no model"),
        ({"input": "x", "dimensions": DIM + 1}, 400, "dimensions", "not made for fewer"),
        ({"input": "x", "dimensions": DIM - 1}, 400, "dimensions", f"{DIM} dimensions"),
        ({"input": "x", "dimensions": 0}, 400, "dimensions", ">= 1"),
        ({"input": "x", "encoding_format": "int8"}, 400, "encoding_format", "int8"),
        ({"input": "x", "misspelt": 1}, 400, "misspelt", "unknown"),
    ],
)
@virtual
async def test_what_is_wrong_is_told_as_openai_does(body, status, param, words):
    answer = await embedded(body)
    told = answer.json["error"]
    assert (answer.status, told["param"]) == (status, param), told
    assert words in told["message"]
    assert told["type"] == "invalid_request_error"
    assert told["code"] == ("model_not_found" if status == 404 else "invalid")
    assert answer.headers["x-should-retry"] == "false"


@virtual
async def test_a_text_that_looks_like_token_ids_is_a_text():
    assert (await embedded({"input": ['"input": [1, 2]']})).status == 200
    wrong = await embedded({"input": ['"input": [1, 2]', ""]})
    assert "token ids" not in wrong.json["error"]["message"]


@virtual
async def test_the_model_s_own_dimensions_and_a_user_are_taken():
    assert (await embedded({"input": "x", "dimensions": DIM, "user": "me"})).status == 200
    assert (await embedded({"input": "x", "dimensions": float(DIM), "user": None})).status == 200


@virtual
async def test_texts_that_are_not_read_whole_are_named():
    assert (await embedded({"input": ["short", "endless"]})).json["truncated"] == [1]


# --- Cohere


async def reranked(body, made=None):
    ask = {"model": "penstock", "query": "parse JSON", "documents": RERANKED, **body}
    return await (made or api()).ask("POST", "/v2/rerank", ask, {"x-request-id": "mine"})


@virtual
async def test_documents_are_ranked_with_a_relevance_from_0_to_1():
    answer = await reranked({})
    assert answer.status == 200, answer.body
    assert (answer.json["id"], answer.json["meta"]) == ("mine", {"api_version": {"version": "2"}})
    assert [one["index"] for one in answer.json["results"]] == [1, 2, 0]
    scores = [one["relevance_score"] for one in answer.json["results"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] < scores[0] <= 1
    first = (await reranked({"top_n": 1})).json["results"]
    assert first == answer.json["results"][:1]
    assert len((await reranked({"top_n": 99})).json["results"]) == 3


@pytest.mark.parametrize(("kind", "values"), [("onnx", [0.5, 0.2]), ("builtin", [0.0, 0.0]), ("tei", [0.0, 0.0])])
@virtual
async def test_logits_become_probabilities_and_what_is_below_0_becomes_0(kind, values):
    made = api(infos=(ModelInfo("dense", "x", "m"), ModelInfo("sparse", "x", "b"), ModelInfo("rerank", kind, "r")))

    async def rerank(_query, _texts, _ctx):
        return np.array([-1.3862944, 0.0], np.float32)

    made.core.reranker.rerank = rerank
    results = (await reranked({"documents": ["a", "b"]}, made)).json["results"]
    assert [one["index"] for one in results] == [1, 0]
    assert [one["relevance_score"] for one in results] == pytest.approx(values, abs=1e-6)
    raw = await made.ask("POST", "/rerank", {"query": "q", "texts": ["a", "b"], "raw_scores": True})
    assert [one["score"] for one in raw.json] == pytest.approx([0.0, -1.3862944])


@virtual
async def test_documents_are_cut_to_the_tokens_asked_for():
    made, asked = api(token_usage=usage(8)), []

    async def rerank(_query, texts, _ctx):
        asked.append(list(texts))
        return np.zeros(len(texts), np.float32)

    made.core.reranker.rerank = rerank
    for tokens, read in ((1, ["a", "d"]), (2, ["a b", "d"]), (8, ["a b c", "d"]), (4096, ["a b c", "d"])):
        answer = await reranked({"documents": ["a b c", "d"], "max_tokens_per_doc": tokens}, made)
        assert answer.status == 200, answer.body
        assert asked.pop() == read


@pytest.mark.parametrize(
    ("priority", "counts"), [(0, Criticality.STANDARD), (1, Criticality.BULK), (999, Criticality.BULK)]
)
@virtual
async def test_a_priority_above_0_is_bulk_work(priority, counts):
    made, asked = api(), []

    async def rerank(_query, texts, ctx):
        asked.append(ctx.criticality)
        return np.zeros(len(texts), np.float32)

    made.core.reranker.rerank = rerank
    assert (await reranked({"priority": priority}, made)).status == 200
    assert asked == [counts]


@virtual
async def test_low_priority_is_refused_before_the_topic_is_full():
    made = api()
    made.core.bus.check_admission = lambda _topic, _ctx, level: TopicRefusal("topic_full", 7.0, by_client=False)
    assert (await reranked({}, made)).status == 200
    refused = await reranked({"priority": 1}, made)
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
    assert int(refused.headers["retry-after"]) >= 7
    assert refused.json == {"id": "mine", "message": "too much work of this kind is waiting"}


@virtual
async def test_a_client_of_cohere_is_warned_of_what_is_not_read():
    answer = await reranked({"query": "endless", "documents": ["a", "endless"]})
    warnings = answer.json["meta"]["warnings"]
    assert warnings == ["the query is longer than the model reads", "documents 1 are longer than the model reads"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"documents": []}, 400, ">= 1"),
        ({"documents": ["x"] * 1001}, 400, "1000"),
        ({"documents": [{"text": "x"}]}, 400, "string"),
        ({"query": ""}, 400, ">= 1"),
        ({"top_n": 0}, 400, ">= 1"),
        ({"priority": 1000}, 400, "<= 999"),
        ({"model": "rerank-v3.5"}, 404, "there is no model 'rerank-v3.5'"),
        ({"misspelt": 1}, 400, "misspelt"),
    ],
)
@virtual
async def test_what_is_wrong_is_told_as_cohere_does(body, status, words):
    answer = await reranked(body)
    assert (answer.status, answer.json["id"]) == (status, "mine"), answer.body
    assert words in answer.json["message"]


# --- Jina


@virtual
async def test_a_body_with_documents_is_one_of_jina_s_clients():
    ask = {"query": "parse JSON", "documents": ["nothing", {"text": "parse JSON"}], "model": "m"}
    answer = await api(token_usage=usage()).ask("POST", "/v1/rerank", ask)
    assert answer.status == 200, answer.body
    assert (answer.json["object"], answer.json["model"]) == ("list", "m")
    assert answer.json["usage"] == {"total_tokens": 5}
    assert [one["index"] for one in answer.json["results"]] == [1, 0]
    assert answer.json["results"][0]["document"] == {"text": "parse JSON"}
    assert (answer.json["truncated"], answer.json["query_truncated"]) == ([], False)
    short = {"query": "q", "documents": ["a", "b"], "return_documents": False, "top_n": 1}
    results = (await api().ask("POST", "/v1/rerank", short)).json["results"]
    assert [set(one) for one in results] == [{"index", "relevance_score"}]
    many = {"query": "q", "documents": [{"text": "a"}] * 1000}
    assert (await api().ask("POST", "/v1/rerank", many)).status == 200


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"query": "q", "documents": []}, 422, "documents"),
        ({"query": "q", "documents": ["x"], "model": "other"}, 404, "model"),
        ({"query": "q", "documents": ["x"], "texts": ["x"]}, 422, "documents"),
        ({"query": "q", "documents": ["x"], "timeout_ms": 5}, 422, "timeout_ms"),
        ({"query": "q", "documents": ["x"] * 5000}, 422, "texts"),
        ({"documents": ["x"]}, 422, "documents"),
        ({"query": "q"}, 422, "texts"),
        ({"query": "q", "texts": ["x"] * 1040}, 422, "texts"),
        ("[]", 422, "body"),
        ("{", 400, "body"),
    ],
)
@virtual
async def test_errors_of_the_route_that_jina_s_clients_share_are_problem_details(body, status, field):
    answer = await api().ask("POST", "/v1/rerank", body)
    assert (answer.status, answer.json["field"]) == (status, field), answer.body
    assert answer.json["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


@virtual
async def test_a_native_body_is_answered_as_before():
    answer = await api().ask("POST", "/v1/rerank", {"query": "parse JSON", "texts": RERANKED})
    assert set(answer.json) == {"results", "truncated", "query_truncated"}
    assert set(answer.json["results"][0]) == {"index", "score"}


# --- Text-embeddings-inference


@pytest.mark.parametrize("inputs", ["one", ["one"], ["one", "two"], ["x"] * 1000])
@virtual
async def test_inputs_are_embedded_as_a_list_of_lists(inputs):
    answer = await api().ask("POST", "/embed", {"inputs": inputs, "truncate": True, "normalize": True})
    listed = [inputs] if isinstance(inputs, str) else inputs
    np.testing.assert_allclose(answer.json, [embedding(text) for text in listed], rtol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "kind"), [(None, TextKind.DOCUMENT), ("query", TextKind.QUERY), ("passage", TextKind.DOCUMENT)]
)
@virtual
async def test_a_prompt_s_name_is_the_role_of_the_inputs(prompt, kind):
    made, asked = api(), []
    made.embedder.embed = _noting_kind(made.embedder.embed, asked)
    assert (await made.ask("POST", "/embed", {"inputs": "x", "prompt_name": prompt})).status == 200
    assert asked == [kind]


@virtual
async def test_sparse_vectors_are_lists_of_terms():
    answer = await api().ask("POST", "/embed_sparse", {"inputs": ["two words", "one"] * 30})
    assert [len(terms) for terms in answer.json] == [2, 1] * 30
    assert all(set(term) == {"index", "value"} and term["value"] == 1.0 for terms in answer.json for term in terms)


@virtual
async def test_texts_are_ranked_with_their_text_if_asked():
    ask = {"query": "parse JSON", "texts": RERANKED}
    plain = (await api().ask("POST", "/rerank", ask)).json
    assert [one["index"] for one in plain] == [1, 2, 0]
    assert all(set(one) == {"index", "score"} and 0 <= one["score"] <= 1 for one in plain)
    told = (await api().ask("POST", "/rerank", {**ask, "return_text": True})).json
    assert [one["text"] for one in told] == ["parse JSON", "parse a tree", "nothing like it"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/embed", {"inputs": []}, ">= 1"),
        ("/embed", {"inputs": ""}, ">= 1"),
        ("/embed", {"inputs": ["x"] * 1001}, "1000"),
        ("/embed", {"inputs": [[1, 2]]}, "string"),
        ("/embed", {"inputs": "x", "normalize": False}, "leave normalize out"),
        ("/embed", {"inputs": "x", "dimensions": DIM + 1}, "dimensions"),
        ("/embed", {"inputs": "x", "truncation_direction": "Left"}, "Left"),
        ("/embed", {"inputs": "x", "prompt_name": "sts"}, "sts"),
        ("/embed", {"inputs": ["x", "endless"], "truncate": False}, "inputs[1] is longer"),
        ("/embed_sparse", {"inputs": ["endless"], "truncate": False}, "inputs[0] is longer"),
        ("/rerank", {"query": "q", "texts": ["endless"], "truncate": False}, "texts[0] is longer"),
        ("/rerank", {"query": "q", "texts": []}, ">= 1"),
        ("/rerank", {"query": "q", "documents": ["x"]}, "documents"),
    ],
)
@virtual
async def test_what_is_wrong_is_told_as_tei_does(path, body, words):
    answer = await api().ask("POST", path, body)
    assert (answer.status, answer.json["error_type"]) == (422, "validation"), answer.body
    assert words in answer.json["error"]


@virtual
async def test_the_model_and_its_limits_are_described():
    told = (await api(token_usage=usage(256)).ask("GET", "/info")).json
    assert (told["model_id"], told["max_input_length"], told["max_client_batch_size"]) == ("m", 256, 1000)
    assert told["auto_truncate"] is True


@virtual
async def test_health_is_readiness_in_tei_s_form():
    made = api()
    assert (await made.ask("GET", "/health")).status == 200
    made.reasons.append("the store restarts")
    await asyncio.sleep(2)
    answer = await made.ask("GET", "/health")
    assert (answer.status, answer.json) == (503, {"error": "the store restarts", "error_type": "unhealthy"})


# --- All of them

VENDORS = [one for one in ENDPOINTS if one.error_format is not PROBLEM_DETAILS]
POSTS = [one for one in VENDORS if one.method == "POST"]


def message(answer, form) -> str:
    return {OPENAI: lambda: answer.json["error"]["message"], COHERE: lambda: answer.json["message"]}.get(
        form, lambda: answer.json["error"]
    )()


@pytest.mark.parametrize("endpoint", VENDORS, ids=lambda one: one.path)
@virtual
async def test_every_vendor_s_route_refuses_in_its_own_form(endpoint):
    made, form = api(), endpoint.error_format
    path = endpoint.path.replace("{model}", "m")
    wrong = await made.ask("PUT", path)
    assert (wrong.status, "not PUT" in message(wrong, form)) == (405, True)
    foreign = await made.ask(endpoint.method, path, headers={"host": "elsewhere.example"})
    assert (foreign.status, "Host" in message(foreign, form)) == (421, True)
    made.core.traffic.draining = True
    drains = await made.ask(endpoint.method, path)
    assert (drains.status, drains.headers["x-should-retry"]) == (429 if form is TEI else 503, "true")
    assert message(drains, form) == "the server is shutting down"


@pytest.mark.parametrize("endpoint", POSTS, ids=lambda one: one.path)
@virtual
async def test_what_is_no_json_is_told_in_the_vendor_s_form(endpoint):
    made, form = api(), endpoint.error_format
    for body, kind, status in (("{", None, 400), ("", None, 400), ("{}", "text/plain", 415), ("a=1", "text/html", 415)):
        answer = await made.ask("POST", endpoint.path, body, kind and {"content-type": kind})
        assert answer.status == status, answer.body
        assert message(answer, form)
    below = await made.ask("POST", endpoint.path + "/more", "{}")
    assert (below.status, "there is nothing at" in message(below, form)) == (404, True)


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (Rejected("full", code="topic_full", retry_after_s=500.0), {OPENAI: 503, COHERE: 503, TEI: 429}),
        (Unavailable("down", dependency="embed"), {OPENAI: 503, COHERE: 503, TEI: 503}),
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
@virtual
async def test_what_fails_behind_the_gate_is_told_in_the_vendor_s_form(path, error, statuses):
    made = api()
    made.embedder.hook = fails_with(error)
    (form,) = (one.error_format for one in VENDORS if one.path == path)
    body = {"input": "x", "inputs": "x", "model": "m"}
    kept = ("input", "model") if form is OPENAI else ("inputs",)
    answer = await made.ask("POST", path, {name: body[name] for name in kept})
    assert (answer.status, message(answer, form)) == (statuses[form], error.detail)
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-should-retry"] == "true"
    requests = made.metrics.exposition().decode()
    assert f'endpoint="{path}"' in requests or path in requests
    assert json.dumps(str(statuses[form])) in requests
