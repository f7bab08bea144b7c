"""Scores of texts against a query by the dense model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.contract import DenseRunner, Floats
    from penstock.models.stop import Stop


class DenseReranker:
    """Cosine between query and text.

    It adds nothing to a dense search with the same model; it gives lexical hits, or texts that were
    never indexed, a score. Late interaction is to take its place.
    """

    def __init__(self, runner: DenseRunner) -> None:
        """Score with ``runner``."""
        self._runner = runner

    def run(self, query: str, texts: Sequence[str], stop: Stop | None = None) -> Floats:
        """Return the cosines, ``float32 [n]``, in the order of ``texts``; ``stop`` ends the run early."""
        vectors = self._runner.run([query, *texts], stop)
        scores: Floats = vectors[1:] @ vectors[0]
        return scores
