"""The graph computes what BERT computes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import tiny_bert

from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.prepare import prepare_model
from penstock.models.quantise import Precision, best_precision, symmetric

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.model_source import ModelSource

TEXTS = ["bano deki", "la", "", "rise souki banlo to ta ti me", "dou dan del dis"]


def _expected(runner: BuiltinDenseEncoder) -> np.ndarray:
    weights = tiny_bert.tensors(0)
    return np.array([tiny_bert.forward(weights, row)[0] for row in runner.tokenizer.token_ids(TEXTS)])


def test_float32_graph_equals_numpy_bert(tiny: ModelSource, tmp_path: Path) -> None:
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path, precision=Precision.FLOAT32))
    np.testing.assert_allclose(runner.run(TEXTS), _expected(runner), atol=2e-5)


def test_token_output_equals_numpy_bert_in_a_padded_batch(tiny: ModelSource, tmp_path: Path) -> None:
    prepared = prepare_model(tiny, tmp_path, precision=Precision.FLOAT32)
    runner = BuiltinDenseEncoder(prepared)
    session = onnxruntime.InferenceSession(str(prepared.path), providers=["CPUExecutionProvider"])
    ids, mask = runner.tokenizer.encode(TEXTS)
    tokens = session.run(["tokens"], {"input_ids": ids, "attention_mask": mask})[0]
    for row, states in zip(runner.tokenizer.token_ids(TEXTS), tokens, strict=True):
        np.testing.assert_allclose(states[: len(row)], tiny_bert.forward(tiny_bert.tensors(0), row)[1], atol=1e-4)


def test_cls_pooling_takes_the_first_tokens_state_and_makes_another_model(tmp_path: Path) -> None:
    source = tiny_bert.write(tmp_path / "source")
    mean = BuiltinDenseEncoder(prepare_model(source, tmp_path / "models", precision=Precision.FLOAT32))
    (source.config.parent / "1_Pooling").mkdir()
    (source.config.parent / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    first = BuiltinDenseEncoder(prepare_model(source, tmp_path / "models", precision=Precision.FLOAT32))
    assert first.model != mean.model
    for row, vector in zip(first.tokenizer.token_ids(TEXTS), first.run(TEXTS), strict=True):
        state = tiny_bert.forward(tiny_bert.tensors(0), row)[1][0]
        np.testing.assert_allclose(vector, state / np.linalg.norm(state), atol=2e-5)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT7])
def test_integer_graph_stays_close(tiny: ModelSource, tmp_path: Path, precision: Precision) -> None:
    if precision is Precision.INT8 and best_precision() is not Precision.INT8:
        pytest.skip("this processor saturates when it adds products of eight bits; INT8 is not chosen here")
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path, precision=precision))
    vectors = runner.run(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * _expected(runner)).sum(1).min() > 0.99


def test_a_text_has_the_same_vector_alone_and_in_any_company(tiny: ModelSource, tmp_path: Path) -> None:
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path))
    together = runner.run(TEXTS)
    alone = np.concatenate([runner.run([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)


def test_several_threads_run_one_session(tiny: ModelSource, tmp_path: Path) -> None:
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path))
    expected = runner.run(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        for vectors in threads.map(runner.run, [TEXTS] * 20):
            np.testing.assert_array_equal(vectors, expected)


def test_no_texts_give_no_vectors(tiny: ModelSource, tmp_path: Path) -> None:
    assert BuiltinDenseEncoder(prepare_model(tiny, tmp_path)).run([]).shape == (0, tiny_bert.HIDDEN)


def test_symmetric_scales_each_column_and_keeps_zero_columns() -> None:
    weight = np.array([[1.0, 0.0, -4.0], [-0.5, 0.0, 2.0]], np.float32)
    levels, scales = symmetric(weight, 0, 127)
    assert levels.tolist() == [[127, 0, -127], [-64, 0, 64]]
    np.testing.assert_allclose(levels * scales, weight, atol=scales.max() / 2)


def test_processor_without_vnni_gets_narrow_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, expected in (("sse avx2", Precision.INT7), ("avx2 avx512_vnni", Precision.INT8)):
        (tmp_path / "cpuinfo").write_text(f"model name\t: x\nflags\t\t: {flags}\n")
        assert best_precision(tmp_path / "cpuinfo") is expected
    assert best_precision(tmp_path / "absent") is Precision.INT8
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert best_precision() is Precision.INT8
