"""The reranker scores by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.models.rerank import DenseReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.contract import Floats


class _Letters:
    dim = 2

    def run(self, texts: Sequence[str], _stop: object = None) -> Floats:
        vectors = np.array([[text.count("a"), text.count("b")] for text in texts], np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def test_scores_are_cosines_in_order() -> None:
    scores = DenseReranker(_Letters()).run("a", ["ab", "aaa", "b"])
    np.testing.assert_allclose(scores, [2**-0.5, 1, 0], atol=1e-6)
    assert scores.dtype == np.float32


def test_no_texts_give_no_scores() -> None:
    assert DenseReranker(_Letters()).run("a", []).shape == (0,)
