"""The reranker scores by cosine and by late interaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.kernel.late import similarity
from penstock.kernel.messages import TextKind
from penstock.models.dense import OnnxDense
from penstock.models.prepare import prepare
from penstock.models.rerank import LateReranker

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.source import Source

TEXTS = ["bano deki la", "la", "", "rise souki banlo to ta ti me"]


@pytest.fixture
def runner(tiny: Source, tmp_path: Path) -> OnnxDense:
    return OnnxDense(prepare(tiny, tmp_path))


def test_scores_are_the_mean_of_cosine_and_maxsim_in_order(runner: OnnxDense) -> None:
    query = runner.run_late(["bano la"], TextKind.QUERY)
    texts = runner.run_late(TEXTS, TextKind.DOCUMENT)
    cosines = texts.dense @ query.dense[0]
    late = [similarity(query.late[0], tokens) for tokens in texts.late]
    scores = LateReranker(runner).run("bano la", TEXTS)
    np.testing.assert_allclose(scores, (cosines + late) / 2, atol=1e-6)
    assert scores.dtype == np.float32


def test_a_text_is_nearest_to_itself(runner: OnnxDense) -> None:
    for number, text in enumerate(TEXTS):
        assert LateReranker(runner).run(text, TEXTS).argmax() == number


def test_no_texts_give_no_scores(runner: OnnxDense) -> None:
    assert LateReranker(runner).run("a", []).shape == (0,)
