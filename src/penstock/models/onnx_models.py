"""Models as exported ONNX graphs: sentence encoders, cross-encoders and learned sparse encoders.

A sentence encoder is pooled by mean or CLS. A cross-encoder reads query and text together. A sparse encoder is SPLADE
or a similar model.
"""

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
from penstock.models.onnx_session import PairRowTokenizer, TextRowTokenizer, TextSession, TokenBatch
from penstock.models.vector_checks import checked_sparse_vector

#: Outputs that exporters make; the first that a graph has is used.
RERANK_OUTPUTS: Final = ("logits", "scores")
SPARSE_OUTPUTS: Final = ("sparse_embedding", "sentence_embedding", "logits")
DENSE_OUTPUTS: Final = ("sentence_embedding", "last_hidden_state", "token_embeddings")


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
        self._session = TextSession(files.graph, DENSE_OUTPUTS, threads)
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
        self._session = TextSession(files.graph, RERANK_OUTPUTS, threads)
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
        self._session = TextSession(files.graph, SPARSE_OUTPUTS, threads)
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
