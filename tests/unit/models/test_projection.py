"""The projection of token vectors, and what the runner makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_bert

from penstock.kernel.messages import TextKind
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.device import cpu_device
from penstock.models.prepare import prepare_model
from penstock.models.projection import TOKEN_DIM_MAX, pool_token_vectors, projection_matrix, sample_texts, token_dim_for

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.model_source import ModelSource


def _states(rows: int = 500, hidden: int = 96, rank: int = 80, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    weights = np.geomspace(1, 0.01, rank)
    return (draws.normal(size=(rows, rank)) * weights @ draws.normal(size=(rank, hidden))).astype(np.float32)


def test_projection_is_isometric_on_its_subspace() -> None:
    matrix = projection_matrix(_states())
    assert (matrix.dtype, matrix.shape) == (np.float32, (96, TOKEN_DIM_MAX))
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), 1, atol=1e-5)


def test_projection_keeps_what_tells_tokens_apart() -> None:
    states = _states(rank=40)
    kept = states @ projection_matrix(states)
    np.testing.assert_allclose(kept @ kept.T, states @ states.T, rtol=1e-3, atol=1e-2)


def test_projection_hangs_on_the_subspace_alone() -> None:
    states = _states(rank=64)  # the 64 directions are the subspace, whatever lies how far along them
    other = (states[::-1] * 3).copy()
    np.testing.assert_allclose(projection_matrix(states), projection_matrix(other), atol=1e-3)


def test_a_narrow_model_has_as_many_components_as_it_is_wide() -> None:
    assert (token_dim_for(32), token_dim_for(384)) == (32, 64)
    assert projection_matrix(_states(hidden=32, rank=32)).shape == (32, 32)


def test_the_sample_is_the_same_every_time_and_reaches_the_whole_vocabulary() -> None:
    words = [f"w{number}" for number in range(1000)]
    texts = sample_texts(words)
    assert texts == sample_texts(words)
    assert len({word for text in texts for word in text.split()}) > 900


def test_a_vocabulary_without_words_still_has_a_sample() -> None:
    assert all(sample_texts([]))


def test_the_run_with_token_vectors_gives_the_same_dense_ones(tiny: ModelSource, tmp_path: Path) -> None:
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path))
    texts = ["bano deki", "", "rise souki banlo to ta ti me"]
    for kind in TextKind:
        embedded = runner.run_with_token_vectors(texts, kind)
        np.testing.assert_array_equal(embedded.dense, runner.run(texts))
        for tokens, row in zip(embedded.late, runner.tokenizer.token_ids(texts), strict=True):
            rows = len(row) if kind is TextKind.QUERY else (len(row) + 1) // 2
            assert (tokens.dtype, tokens.shape) == (np.int8, (rows, runner.token_dim))


def test_padding_leaves_no_trace_in_the_token_vectors(tiny: ModelSource, tmp_path: Path) -> None:
    runner = BuiltinDenseEncoder(prepare_model(tiny, tmp_path), device=replace(cpu_device(), call_tokens_max=1000))
    together = runner.run_with_token_vectors(["bano deki", "bano deki la ti", "bano"], TextKind.QUERY)
    alone = runner.run_with_token_vectors(["bano"], TextKind.QUERY)
    assert together.late[2].shape == alone.late[0].shape
    assert np.abs(together.late[2].astype(int) - alone.late[0].astype(int)).max() < 40


def test_no_texts_give_no_token_vectors(tiny: ModelSource, tmp_path: Path) -> None:
    embedded = BuiltinDenseEncoder(prepare_model(tiny, tmp_path)).run_with_token_vectors([], TextKind.QUERY)
    assert (embedded.dense.shape, embedded.late) == ((0, tiny_bert.HIDDEN), [])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_neighbours_in_a_document_share_a_vector(count: int) -> None:
    rows = np.zeros((count, 4), np.float32)
    rows[:, 0], rows[:, 1] = 2**-0.5, -(2**-0.5)
    assert pool_token_vectors(rows, TextKind.DOCUMENT).shape == ((count + 1) // 2, 4)
    assert pool_token_vectors(rows, TextKind.QUERY).shape == (count, 4)
