"""Scores of texts against a query by the dense model alone: as wholes, and token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.kernel.late import similarity
from penstock.kernel.messages import TextKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.contract import DenseRunner, Floats, LateRunner
    from penstock.models.stop import Stop


class LateReranker:
    """Late interaction: cosine and MaxSim of query and text, half and half.

    The same two numbers by which a search ranks what it has indexed, for texts that were never indexed.
    """

    def __init__(self, runner: LateRunner) -> None:
        """Score with ``runner``."""
        self._runner = runner

    def run(self, query: str, texts: Sequence[str], stop: Stop | None = None) -> Floats:
        """Return the scores, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        asked = self._runner.run_late([query], TextKind.QUERY, stop)
        told = self._runner.run_late(texts, TextKind.DOCUMENT, stop)
        if asked.late is None or told.late is None:
            raise ValueError("the model gave no token vectors")
        cosines = told.dense @ asked.dense[0]
        late = np.array([similarity(asked.late[0], tokens) for tokens in told.late], np.float32)
        scores: Floats = (cosines + late) / 2
        return scores


class CosineRunner:
    """Cosine of query and text, by a dense model that gives no token vectors.

    It adds nothing to a dense search with the same model; it gives texts that were never indexed a score.
    """

    def __init__(self, runner: DenseRunner) -> None:
        """Score with ``runner``."""
        self._runner = runner

    def run(self, query: str, texts: Sequence[str], stop: Stop | None = None) -> Floats:
        """Return the cosines, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        vectors = self._runner.run([query, *texts], stop)
        scores: Floats = vectors[1:] @ vectors[0]
        return scores
