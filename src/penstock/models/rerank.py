"""Reranking by the dense model alone: cosine of whole texts, and late interaction of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.kernel.late_interaction import maxsim
from penstock.kernel.messages import TextKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.cancellation import CancellationToken
    from penstock.models.contract import DenseRunner, Floats, LateInteractionRunner


class LateInteractionReranker:
    """Late interaction: cosine and MaxSim of query and text, half and half.

    The same two numbers by which a search ranks what it has indexed, for texts that were never indexed.
    """

    def __init__(self, runner: LateInteractionRunner) -> None:
        """Score with ``runner``."""
        self._runner = runner

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return the scores, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        asked = self._runner.run_with_token_vectors([query], TextKind.QUERY, stop)
        told = self._runner.run_with_token_vectors(texts, TextKind.DOCUMENT, stop)
        if asked.late is None or told.late is None:
            raise ValueError("the model gave no token vectors")
        cosines = told.dense @ asked.dense[0]
        late = np.array([maxsim(asked.late[0], tokens) for tokens in told.late], np.float32)
        scores: Floats = (cosines + late) / 2
        return scores


class CosineRerankRunner:
    """Cosine of query and text, by a dense model that gives no token vectors.

    It adds nothing to a dense search with the same model. It gives a score to texts that were never indexed.
    """

    def __init__(self, runner: DenseRunner) -> None:
        """Score with ``runner``."""
        self._runner = runner

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return the cosines, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        vectors = self._runner.run([query, *texts], stop)
        scores: Floats = vectors[1:] @ vectors[0]
        return scores
