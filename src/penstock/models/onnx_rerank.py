"""Reranking by a cross-encoder: an exported ONNX graph that reads query and text together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from penstock.kernel.errors import Broken, Invalid
from penstock.models.batching import CALL_TOKENS_MAX, PADDING_TOKENS_MAX, plan_batches
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import Floats
from penstock.models.onnx_files import OnnxFiles
from penstock.models.onnx_session import TextSession
from penstock.models.onnx_tokens import PairRowTokenizer

#: Outputs that exporters make; the first that a graph has is used.
OUTPUTS: Final = ("logits", "scores")


class OnnxCrossEncoder:
    """Runs a cross-encoder; several threads may call it at once.

    An output ``[n, 1]`` or ``[n]`` is the score. Of ``[n, 2]`` (irrelevant, relevant) it is the difference of the two
    logits, which orders texts as the probability of the second does.

    Args:
        files: The model.
        threads: Native threads a call.
        call_tokens_max: Padded tokens of one call of the model.

    Raises:
        Broken: ONNX Runtime refuses the graph.
        Invalid: The tokenizer cannot be read, or the graph gives no scores.
    """

    def __init__(self, files: OnnxFiles, threads: int = 1, call_tokens_max: int = CALL_TOKENS_MAX) -> None:
        self.model = files.model
        self._rows = PairRowTokenizer(files.tokenizer, files.tokens_max)
        self._call_tokens_max = call_tokens_max
        self._session = TextSession(files.graph, OUTPUTS, threads)
        self.run("a", ["a"])

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n]``, the higher the more relevant, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails, or gives a score that is not finite.
            Invalid: The query leaves no room for a text (``query_too_long``).
            RunCancelled: ``stop`` was cancelled.
        """
        rows = self._rows.tokenize(query, texts)
        scores = np.zeros(len(rows), np.float32)
        with self._session.cancellable(stop) as run:
            for group in plan_batches([len(row) for row in rows], self._call_tokens_max, PADDING_TOKENS_MAX):
                scores[group] = self._scores(run(self._rows.pad([rows[place] for place in group])), len(group))
        if not np.isfinite(scores).all():
            raise Broken("the reranker gave a score that is not finite", code="bad_score")
        return scores

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls."""
        self._session.shrink(self._rows.pad(self._rows.tokenize("a", ["a"])))

    def truncated(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read beside the query.

        Raises:
            Invalid: As :meth:`run`.
        """
        return self._rows.truncated(query, texts)

    def _scores(self, output: Floats, count: int) -> Floats:
        if output.shape == (count, 2):
            return output[:, 1] - output[:, 0]
        if output.shape not in {(count,), (count, 1)}:
            shape = list(output.shape)
            raise Invalid(f"the reranker gives {self._session.output} as {shape}, which are no scores")
        return output.reshape(count)
