"""The reranker scores by cosine and by late interaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.kernel.late_interaction import maxsim
from penstock.kernel.messages import TextKind
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.factory import LateInteractionReranker
from penstock.models.prepare import prepare_model

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.model_source import ModelSource

TEXTS = ["bano deki la", "la", "", "rise souki banlo to ta ti me"]


@pytest.fixture
def runner(tiny: ModelSource, tmp_path: Path) -> BuiltinDenseEncoder:
    return BuiltinDenseEncoder(prepare_model(tiny, tmp_path))


def test_scores_are_the_mean_of_cosine_and_maxsim_in_order(runner: BuiltinDenseEncoder) -> None:
    query = runner.run_with_token_vectors(["bano la"], TextKind.QUERY)
    texts = runner.run_with_token_vectors(TEXTS, TextKind.DOCUMENT)
    cosines = texts.dense @ query.dense[0]
    late = [maxsim(query.late[0], tokens) for tokens in texts.late]
    scores = LateInteractionReranker(runner).run("bano la", TEXTS)
    np.testing.assert_allclose(scores, (cosines + late) / 2, atol=1e-6)
    assert scores.dtype == np.float32


def test_a_text_is_nearest_to_itself(runner: BuiltinDenseEncoder) -> None:
    for number, text in enumerate(TEXTS):
        assert LateInteractionReranker(runner).run(text, TEXTS).argmax() == number


def test_no_texts_give_no_scores(runner: BuiltinDenseEncoder) -> None:
    assert LateInteractionReranker(runner).run("a", []).shape == (0,)
