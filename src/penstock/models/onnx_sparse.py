"""Learned sparse vectors by an exported ONNX graph (SPLADE and similar models)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.vectors import SparseVector
from penstock.models.batching import CALL_TOKENS_MAX, PADDING_TOKENS_MAX, plan_batches
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import Floats
from penstock.models.onnx_files import OnnxFiles
from penstock.models.onnx_session import TextSession, TokenBatch
from penstock.models.onnx_tokens import TextRowTokenizer
from penstock.models.vector_checks import checked_sparse_vector

#: Outputs that exporters make; the first that a graph has is used.
OUTPUTS: Final = ("sparse_embedding", "sentence_embedding", "logits")


class OnnxSparseEncoder:
    """Runs a sparse encoder; several threads may call it at once. Queries and documents are encoded alike.

    An output ``[n, tokens, vocabulary]`` is taken as logits of the masked language model:
    ``w_j = max over tokens i of log(1 + max(0, logit_ij))`` (Formal et al. 2021, "SPLADE v2", arXiv:2109.10086). One
    ``[n, vocabulary]`` is taken as the weights themselves. They carry learned term weights, so no IDF is
    applied to a collection of theirs.

    Args:
        files: The model.
        threads: Native threads a call.
        call_tokens_max: Padded tokens of one call of the model; 64 of them with 30 000 terms each make 8 MB of logits.

    Bounds: ``vector_checks.TERMS_MAX`` terms a text.

    Raises:
        Broken: ONNX Runtime refuses the graph.
        Invalid: The tokenizer cannot be read, or the graph gives no weights.
    """

    inline_characters_max = 0

    def __init__(self, files: OnnxFiles, threads: int = 1, call_tokens_max: int = CALL_TOKENS_MAX) -> None:
        self.model = files.model
        self._rows = TextRowTokenizer(files.tokenizer, files.tokens_max)
        self._call_tokens_max = call_tokens_max
        self._session = TextSession(files.graph, OUTPUTS, threads)
        self.encode_queries(["a"])

    def encode_documents(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per document, in order; ``stop`` ends the run early."""
        return self._encode(texts, stop)

    def encode_queries(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per query, in order; ``stop`` ends the run early."""
        return self._encode(texts, stop)

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls."""
        self._session.shrink(self._rows.pad(self._rows.tokenize(["a"])))

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read."""
        return [self._rows.tokenizer.truncated(text) for text in texts]

    def _encode(self, texts: Sequence[str], stop: CancellationToken | None) -> list[SparseVector]:
        rows = self._rows.tokenize(texts)
        vectors: dict[int, SparseVector] = {}
        with self._session.cancellable(stop) as run:
            for group in plan_batches([len(row) for row in rows], self._call_tokens_max, PADDING_TOKENS_MAX):
                tokens = self._rows.pad([rows[place] for place in group])
                weights = self._weights(run(tokens), tokens)
                vectors |= {place: _sparse(row) for place, row in zip(group, weights, strict=True)}
        return [vectors[place] for place in range(len(rows))]

    def _weights(self, output: Floats, tokens: TokenBatch) -> Floats:
        """Return ``float32 [n, vocabulary]``, never negative."""
        if output.ndim == 3:
            # The logarithm rises with its argument: the largest logit has the largest weight.
            output = np.where(tokens.mask[:, :, None] > 0, output, np.float32(0.0)).max(axis=1, initial=0.0)
            output = np.log1p(np.maximum(output, 0.0))
        if output.ndim != 2:
            shape = list(output.shape)
            raise Invalid(f"the sparse model gives {self._session.output} as {shape}, which are no weights of terms")
        return output


def _sparse(weights: Floats) -> SparseVector:
    terms = np.flatnonzero(weights)
    try:
        return checked_sparse_vector(terms.tolist(), weights[terms].tolist())
    except ValueError as error:
        raise Broken(f"the sparse model gave an invalid vector: {error}", code="bad_vector") from None
