"""Models as exported ONNX graphs: sentence encoders, cross-encoders and learned sparse encoders.

A sentence encoder is pooled by mean or CLS. A cross-encoder reads query and text together. A sparse encoder is SPLADE
or a similar model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.vectors import SparseVector
from penstock.models.cancellation import CancellationToken
from penstock.models.contract import Floats
from penstock.models.onnx_files import OnnxFiles
from penstock.models.onnx_session import TextSession
from penstock.models.tokenizer import PairTokenizer, TextTokenizer
from penstock.models.vector_checks import checked_sparse_vector


class _OnnxModel:
    """A model as an exported graph; several threads may call it at once.

    Raises:
        Broken: ONNX Runtime refuses the graph.
        Invalid: The tokenizer cannot be read, or the graph gives something else.
    """

    #: Outputs that exporters make; the first that a graph has is used.
    OUTPUTS: ClassVar[Sequence[str]]

    def __init__(self, files: OnnxFiles) -> None:
        self.model = files.model
        self.tokenizer = TextTokenizer(files.tokenizer, files.tokens_max)
        self._session = TextSession(files.graph, self.tokenizer)
        self._output = self._session.first_output(self.OUTPUTS)

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls."""
        self._session.shrink()

    def _misfit(self, model: str, output: Floats, wanted: str) -> Invalid:
        return Invalid(f"the {model} gives {self._output} as {list(output.shape)}, which are no {wanted}")


class OnnxDenseEncoder(_OnnxModel):
    """A sentence encoder.

    An output ``[n, dim]`` is taken as the texts' vectors, one ``[n, tokens, dim]`` is pooled as the model's files say.
    It gives no token vectors for late interaction: those need a projection that is made for the built-in model
    only.
    """

    OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")

    def __init__(self, files: OnnxFiles) -> None:
        super().__init__(files)
        self._pooling = files.pooling
        self.dim = 0
        self.dim = self.run(["a"]).shape[1]

    def run(self, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails, or gives an invalid vector.
            RunCancelled: ``stop`` was cancelled.
        """
        vectors: list[Floats | None] = [None] * len(texts)
        for group, mask, (output,) in self._session.calls(self.tokenizer.token_ids(texts), [self._output], stop):
            for place, vector in zip(group, self._pooled(output, mask), strict=True):
                vectors[place] = vector
        return np.array(vectors, np.float32).reshape(len(texts), -1 if texts else self.dim)

    def _pooled(self, output: Floats, mask: NDArray[np.int32]) -> Floats:
        """Return one vector of length 1 for each row."""
        if output.ndim == 3 and self._pooling == "cls":
            output = output[:, 0]
        elif output.ndim == 3:
            weights = mask[:, :, None].astype(np.float32)
            output = (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
        if output.ndim != 2:
            raise self._misfit("dense model", output, "vectors")
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 0.0).all():
            raise Broken("the dense model gave a vector that is not finite or has no length", code="bad_vector")
        normalised: Floats = (output / lengths).astype(np.float32)
        return normalised


class OnnxCrossEncoder(_OnnxModel):
    """A cross-encoder.

    An output ``[n, 1]`` or ``[n]`` is the score. Of ``[n, 2]`` (irrelevant, relevant) it is the difference of the two
    logits, which orders texts as the probability of the second does.
    """

    OUTPUTS = ("logits", "scores")

    def __init__(self, files: OnnxFiles) -> None:
        super().__init__(files)
        self._pairs = PairTokenizer(self.tokenizer)
        self.run("a", ["a"])

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n]``, the higher the more relevant, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails, or gives a score that is not finite.
            Invalid: The query leaves no room for a text (``query_too_long``).
            RunCancelled: ``stop`` was cancelled.
        """
        pairs = self._pairs.tokenize(query, texts)
        scores = np.zeros(len(pairs), np.float32)
        rows, types = [pair.ids for pair in pairs], [pair.type_ids for pair in pairs]
        for group, _, (output,) in self._session.calls(rows, [self._output], stop, types):
            scores[group] = self._scores(output, len(group))
        if not np.isfinite(scores).all():
            raise Broken("the reranker gave a score that is not finite", code="bad_score")
        return scores

    def truncated(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read beside the query.

        Raises:
            Invalid: As :meth:`run`.
        """
        return self._pairs.truncated(query, texts)

    def _scores(self, output: Floats, count: int) -> Floats:
        if output.shape == (count, 2):
            return output[:, 1] - output[:, 0]
        if output.shape not in {(count,), (count, 1)}:
            raise self._misfit("reranker", output, "scores")
        return output.reshape(count)


class OnnxSparseEncoder(_OnnxModel):
    """A sparse encoder. Queries and documents are encoded alike.

    An output ``[n, tokens, vocabulary]`` is taken as logits of the masked language model:
    ``w_j = max over tokens i of log(1 + max(0, logit_ij))`` (Formal et al. 2021, "SPLADE v2", arXiv:2109.10086). One
    ``[n, vocabulary]`` is taken as the weights themselves. They carry learned term weights, so no IDF is
    applied to a collection of theirs.

    Bounds: ``vector_checks.TERMS_MAX`` terms a text. One of 256 tokens with 30 000 terms each makes 31 MB of logits.
    """

    OUTPUTS = ("sparse_embedding", "sentence_embedding", "logits")

    def __init__(self, files: OnnxFiles) -> None:
        super().__init__(files)
        self.encode_queries(["a"])

    def encode_documents(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per document, in order; ``stop`` ends the run early."""
        vectors: dict[int, SparseVector] = {}
        for group, mask, (output,) in self._session.calls(self.tokenizer.token_ids(texts), [self._output], stop):
            vectors |= {place: _sparse(row) for place, row in zip(group, self._weights(output, mask), strict=True)}
        return [vectors[place] for place in range(len(texts))]

    def encode_queries(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per query, in order; ``stop`` ends the run early."""
        return self.encode_documents(texts, stop)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read."""
        return [self.tokenizer.truncated(text) for text in texts]

    def _weights(self, output: Floats, mask: NDArray[np.int32]) -> Floats:
        """Return ``float32 [n, vocabulary]``, never negative."""
        if output.ndim == 3:
            # The logarithm rises with its argument: the largest logit has the largest weight.
            output = np.where(mask[:, :, None] > 0, output, np.float32(0.0)).max(axis=1, initial=0.0)
            output = np.log1p(np.maximum(output, 0.0))
        if output.ndim != 2:
            raise self._misfit("sparse model", output, "weights of terms")
        return output


def _sparse(weights: Floats) -> SparseVector:
    terms = np.flatnonzero(weights)
    try:
        return checked_sparse_vector(terms.tolist(), weights[terms].tolist())
    except ValueError as error:
        raise Broken(f"the sparse model gave an invalid vector: {error}", code="bad_vector") from None
