"""Ready ONNX graphs: inputs by name, pooling, weights of terms, pairs; stopped early, and what makes no sense."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.kernel.errors import Broken, Invalid
from penstock.models.cancellation import CancellationToken, RunCancelled
from penstock.models.onnx_files import OnnxFiles, find_directory
from penstock.models.onnx_models import OnnxCrossEncoder, OnnxDenseEncoder, OnnxSparseEncoder
from penstock.models.onnx_session import TextSession
from penstock.models.tokenizer import PairTokenizer, TextTokenizer, pad_rows
from tests.fakes import graphs

MODELS = {
    "dense": OnnxDenseEncoder,
    "tokens": OnnxDenseEncoder,
    "splade": OnnxSparseEncoder,
    "weights": OnnxSparseEncoder,
}
MODELS |= {"cross": OnnxCrossEncoder, "cross2": OnnxCrossEncoder}
TABLE = dict(zip(graphs.VOCABULARY, graphs.table(), strict=True))


def files(directory: Path, kind: str, **how: int) -> OnnxFiles:
    return find_directory(graphs.write(directory / kind, kind, **how), "models.dense")


def make(directory: Path, kind: str, **how: int) -> OnnxDenseEncoder | OnnxSparseEncoder | OnnxCrossEncoder:
    return MODELS[kind](files(directory, kind, **how))


def constant(directory: Path, value: float, shape: list[int], inputs: tuple[str, ...] = ("input_ids",)) -> OnnxFiles:
    """Return a model that answers the same whatever it is given."""
    found = files(directory, "dense")
    size = int(np.prod(shape))
    node = helper.make_node(
        "Constant", [], ["out"], value=helper.make_tensor("v", TensorProto.FLOAT, shape, [value] * size)
    )
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in inputs]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    graph = helper.make_graph([node], "constant", given, out)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), found.graph)
    return found


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("integers", [TensorProto.INT64, TensorProto.INT32])
def test_inputs_of_either_width_are_fed(tmp_path, kind, integers):
    make(tmp_path, kind, integers=integers)


def test_token_vectors_are_averaged_over_what_is_no_padding(tmp_path):
    model = make(tmp_path, "tokens")
    alone, _ = model.run(["alpha beta", "alpha " * 9])
    tokens = np.array([TABLE[word] for word in ("[CLS]", "alpha", "beta", "[SEP]")])
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(alone, mean / np.linalg.norm(mean), atol=1e-6)


def test_cls_pooling_takes_the_first_token(tmp_path):
    directory = graphs.write(tmp_path / "cls", "tokens")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    model = OnnxDenseEncoder(find_directory(directory, "models.dense"))
    np.testing.assert_allclose(model.run(["beta"])[0], TABLE["[CLS]"] / np.linalg.norm(TABLE["[CLS]"]), atol=1e-5)


def test_a_learned_weight_is_the_largest_over_the_tokens_as_splade_has_it(tmp_path):
    (vector,) = make(tmp_path, "splade").encode_documents(["alpha beta"])
    tokens = np.array([TABLE[word] for word in ("[CLS]", "alpha", "beta", "[SEP]")])
    expected = np.log1p(np.maximum(tokens @ graphs.table().T, 0)).max(axis=0)
    assert vector.indices.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(vector.values, expected[vector.indices], atol=1e-5)
    alpha = graphs.VOCABULARY.index("alpha")
    assert vector.values[vector.indices.tolist().index(alpha)] == pytest.approx(np.log(2), abs=1e-5)


def test_padding_adds_no_terms(tmp_path):
    model = make(tmp_path, "splade")
    (alone,) = model.encode_queries(["alpha"])
    together, _ = model.encode_queries(["alpha", "beta " * 8])
    assert alone.indices.tolist() == together.indices.tolist()
    np.testing.assert_allclose(alone.values, together.values, atol=1e-5)


def test_two_classes_order_texts_as_one_score_does(tmp_path):
    texts = ["alpha", "beta gamma", "alpha beta", "theta"]
    one, two = (make(tmp_path, kind).run("alpha", texts) for kind in ("cross", "cross2"))
    np.testing.assert_allclose(two, 2 * one, atol=1e-5)
    assert one.argmax() == 0


def test_a_model_s_name_holds_its_fingerprint(tmp_path):
    names = {make(tmp_path, kind).model for kind in MODELS}
    assert len(names) == len(MODELS)
    assert all(len(name.rpartition("-")[2]) == 16 for name in names)


# --- Pairs


def pairs(tmp_path: Path, tokens_max: int = graphs.TOKENS_MAX) -> PairTokenizer:
    return PairTokenizer(TextTokenizer(files(tmp_path, "cross").tokenizer, tokens_max))


def test_a_pair_is_cut_at_the_text_and_never_at_the_query(tmp_path):
    rows = pairs(tmp_path)
    query = "alpha beta gamma delta"
    (row,) = rows.tokenize(query, ["theta " * 100])
    words = [graphs.VOCABULARY[number] for number in row.ids]
    assert len(row) == graphs.TOKENS_MAX
    assert words[1:5] == query.split()
    assert words[6:-1] == ["theta"] * 9
    assert row.type_ids == [0] * 6 + [1] * 10


def test_a_query_that_leaves_too_little_for_a_text_is_refused(tmp_path):
    rows = pairs(tmp_path)
    rows.tokenize("alpha " * 9, ["beta"])
    for query in ("alpha " * 10, "alpha " * 100_000):
        with pytest.raises(Invalid, match="longer than the reranker can read") as caught:
            rows.tokenize(query, ["beta"])
        assert (caught.value.code, caught.value.field) == ("query_too_long", "query")


def test_rows_of_unlike_length_are_padded_on_the_right(tmp_path):
    rows = pairs(tmp_path)
    found = rows.tokenize("alpha", ["", "beta gamma"])
    assert pad_rows([row.ids for row in found], 7)[0, 4:].tolist() == [7, 7]
    assert pad_rows([row.type_ids for row in found], 0).tolist() == [[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1]]


# --- Stopping


@pytest.mark.parametrize("kind", MODELS)
def test_a_job_that_is_stopped_ends_early_and_the_model_is_as_before(tmp_path, kind):
    model = make(tmp_path, kind)
    texts = ["alpha beta gamma", "delta"]

    def ask(texts: list[str], stop: CancellationToken | None = None) -> object:
        if isinstance(model, OnnxSparseEncoder):
            return [one.values.tolist() for one in model.encode_documents(texts, stop)]
        return (
            model.run("alpha", texts, stop) if isinstance(model, OnnxCrossEncoder) else model.run(texts, stop)
        ).tolist()

    before = ask(texts)
    heard = threading.Event()

    class Watched(CancellationToken):
        def on_cancel(self, break_off):
            heard.set()
            return super().on_cancel(break_off)

    watched = Watched()
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(ask, texts * 20_000, watched)
        assert heard.wait(60)
        watched.cancel()
        with pytest.raises(RunCancelled) as caught:
            job.result(60)
    assert caught.value.__cause__ is None
    with pytest.raises(RunCancelled):
        ask(texts, watched)
    assert ask(texts) == before


# --- What makes no sense


def test_a_graph_that_wants_more_than_a_text_gives_is_refused(tmp_path):
    with pytest.raises(Invalid, match="takes input_ids, pixels; only") as caught:
        OnnxDenseEncoder(constant(tmp_path, 1.0, [1, 8], ("input_ids", "pixels")))
    assert caught.value.code == "model_inputs"


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    found = files(tmp_path, "dense")
    found.graph.write_bytes(b"no graph")
    with pytest.raises(Broken, match="cannot load"):
        OnnxSparseEncoder(found)


def test_a_tokenizer_that_is_none_is_refused(tmp_path):
    found = files(tmp_path, "cross")
    found.tokenizer.write_text("{}")
    with pytest.raises(Invalid, match="cannot read the tokenizer"):
        OnnxCrossEncoder(found)


@pytest.mark.parametrize("shape", [[1], [1, 2, 3, 4]])
def test_an_output_of_another_shape_is_no_vector_no_weights_and_no_score(tmp_path, shape):
    found = constant(tmp_path, 1.0, shape)
    with pytest.raises(Invalid, match="no vectors"):
        OnnxDenseEncoder(found)
    with pytest.raises(Invalid, match="no weights"):
        OnnxSparseEncoder(found)
    if len(shape) > 1:
        with pytest.raises(Invalid, match="no scores"):
            OnnxCrossEncoder(found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_a_broken_model(tmp_path, value):
    with pytest.raises(Broken, match="not finite"):
        OnnxDenseEncoder(constant(tmp_path, value, [1, 8]))
    with pytest.raises(Broken, match="not finite"):
        OnnxSparseEncoder(constant(tmp_path, value, [1, 8]))
    with pytest.raises(Broken, match="not finite"):
        OnnxCrossEncoder(constant(tmp_path, value, [1, 1]))


def test_an_error_of_the_runtime_is_no_stop(tmp_path):
    found = files(tmp_path, "dense")
    session = TextSession(found.graph, TextTokenizer(found.tokenizer, found.tokens_max))
    with pytest.raises(Broken, match="ONNX Runtime failed"):
        list(session.calls([[2, 10_000]], ["sentence_embedding"], None))  # no such token
    assert repr(session) == "<TextSession model.onnx sentence_embedding>"
