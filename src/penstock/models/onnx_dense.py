"""Dense vectors by an exported ONNX graph: any sentence encoder with mean or CLS pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from penstock.kernel.errors import Broken, Invalid
from penstock.models.batching import CALL_TOKENS_MAX, PADDING_TOKENS_MAX, plan_batches
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import Floats
from penstock.models.onnx_files import OnnxFiles
from penstock.models.onnx_session import TextSession, TokenBatch
from penstock.models.onnx_tokens import TextRowTokenizer

#: Outputs that exporters make; the first that a graph has is used.
OUTPUTS: Final = ("sentence_embedding", "last_hidden_state", "token_embeddings")


class OnnxDenseEncoder:
    """Runs a sentence encoder; several threads may call it at once.

    An output ``[n, dim]`` is taken as the texts' vectors, one ``[n, tokens, dim]`` is pooled as the model's files say.
    It gives no token vectors for late interaction: those need a projection that is made for the built-in model
    only.

    Args:
        files: The model.
        threads: Native threads a call.
        call_tokens_max: Padded tokens of one call of the model.

    Raises:
        Broken: ONNX Runtime refuses the graph.
        Invalid: The tokenizer cannot be read, or the graph gives no vectors.
    """

    def __init__(self, files: OnnxFiles, threads: int = 1, call_tokens_max: int = CALL_TOKENS_MAX) -> None:
        self.model = files.model
        self._rows = TextRowTokenizer(files.tokenizer, files.tokens_max)
        self.tokenizer = self._rows.tokenizer
        self._pooling = files.pooling
        self._call_tokens_max = call_tokens_max
        self._session = TextSession(files.graph, OUTPUTS, threads)
        self.dim = 0
        self.dim = self.run(["a"]).shape[1]

    def run(self, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails, or gives an invalid vector.
            RunCancelled: ``stop`` was cancelled.
        """
        rows = self._rows.tokenize(texts)
        vectors: list[Floats | None] = [None] * len(rows)
        with self._session.cancellable(stop) as run:
            for group in plan_batches([len(row) for row in rows], self._call_tokens_max, PADDING_TOKENS_MAX):
                tokens = self._rows.pad([rows[place] for place in group])
                for place, vector in zip(group, self._pooled(run(tokens), tokens), strict=True):
                    vectors[place] = vector
        return np.array(vectors, np.float32).reshape(len(rows), -1 if rows else self.dim)

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls."""
        self._session.shrink(self._rows.pad(self._rows.tokenize(["a"])))

    def _pooled(self, output: Floats, tokens: TokenBatch) -> Floats:
        """Return one vector of length 1 for each row."""
        if output.ndim == 3 and self._pooling == "cls":
            output = output[:, 0]
        elif output.ndim == 3:
            weights = tokens.mask[:, :, None].astype(np.float32)
            output = (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
        if output.ndim != 2:
            shape = list(output.shape)
            raise Invalid(f"the dense model gives {self._session.output} as {shape}, which are no vectors")
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 0.0).all():
            raise Broken("the dense model gave a vector that is not finite or has no length", code="bad_vector")
        normalised: Floats = (output / lengths).astype(np.float32)
        return normalised
