"""Projection that shortens token vectors: a matrix computed when a model is prepared and added to its graph.

The last hidden states of a model have more directions than it takes to tell tokens apart. The ones worth keeping are
found by running the model over texts and taking the principal components of what comes out (uncentred, so that
products are kept best). The texts are of words drawn from the model's own vocabulary: nothing from outside, the same
for every machine. Measured against components found on the test collections themselves, nothing is lost.

The basis inside that subspace is free, and two choices are made. All components shall carry alike, so that bytes suit
them all. And a basis shall depend on the subspace alone, not on the order or sign of components that differ by rounding
from machine to machine. Both hold for the orthonormal basis that is nearest to a fixed set of waves.

A text's token vectors are its projected tokens, pooled and quantised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from penstock.kernel.late_interaction import quantize
from penstock.kernel.messages import TextKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from penstock.kernel.late_interaction import TokenVectors
    from penstock.models.contract import Floats
    from penstock.models.tokenizer import TextTokenizer

#: The texts that the model is run over: so many, of lengths between a question and a chunk.
SAMPLE_TEXTS: Final = 96
_SAMPLE_WORDS: Final = (8, 24, 96)

#: Stride through the vocabulary: the golden ratio's fraction spreads evenly and never repeats.
_STRIDE: Final = 0.6180339887498949


def add_projection(graph: Path, tokenizer: TextTokenizer) -> None:
    """Give a prepared graph the output ``late``: ``float32 [batch, sequence, token_dim]``, each token L2-normalised.

    Args:
        graph: The file, with the outputs of :mod:`penstock.models.graph`; rewritten.
        tokenizer: The model's.

    Raises:
        OSError: The file cannot be written.
    """
    model = onnx.load(graph)
    matrix = projection_matrix(token_states(graph, tokenizer))
    model.graph.initializer.append(numpy_helper.from_array(matrix, "late_matrix"))
    model.graph.node.append(helper.make_node("MatMul", ["tokens", "late_matrix"], ["late_rows"], name="late_rows"))
    model.graph.node.append(helper.make_node("LpNormalization", ["late_rows"], ["late"], name="late", axis=-1, p=2))
    shape = ["batch", "sequence", matrix.shape[1]]
    model.graph.output.append(helper.make_tensor_value_info("late", TensorProto.FLOAT, shape))
    graph.write_bytes(model.SerializeToString())


def token_states(graph: Path, tokenizer: TextTokenizer) -> Floats:
    """Return the last hidden states of the sample's tokens, ``float32 [tokens, hidden]``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    states = []
    for row in tokenizer.token_ids(sample_texts(tokenizer.whole_words())):
        ids, mask = tokenizer.pad([row])
        (tokens,) = session.run(["tokens"], {"input_ids": ids, "attention_mask": mask})
        states.append(tokens[0])
    return np.concatenate(states)


def sample_texts(words: list[str]) -> list[str]:
    """Return the texts that stand for all texts: words of the vocabulary, one after the other by a fixed stride."""
    texts, place = [], 0
    words = words or ["a"]
    for number in range(SAMPLE_TEXTS):
        length = _SAMPLE_WORDS[number % len(_SAMPLE_WORDS)]
        turns = [(place + step) * _STRIDE % 1 for step in range(length)]
        texts.append(" ".join(words[int(turn * len(words))] for turn in turns))
        place += length
    return texts


def projection_matrix(states: Floats) -> Floats:
    """Return the matrix, ``float32 [hidden, token_dim]``, its columns orthonormal.

    Args:
        states: Hidden states, ``float32 [tokens, hidden]``.
    """
    hidden = states.shape[1]
    late = token_dim_for(hidden)
    unit = states.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(unit.T @ unit)
    subspace = vectors[:, hidden - late :]
    nearest, _, turn = np.linalg.svd(subspace @ (subspace.T @ _waves(hidden, late)), full_matrices=False)
    matrix: Floats = (nearest @ turn).astype(np.float32)
    return matrix


def _waves(size: int, count: int) -> NDArray[Any]:
    """Return the ``count`` slowest waves over ``size`` places (DCT-II), the constant first: orthonormal columns."""
    places, turns = np.arange(size)[:, None] + 0.5, np.arange(count)[None, :]
    waves = np.asarray(np.cos(np.pi * places * turns / size) * np.sqrt(2 / size))
    waves[:, 0] /= np.sqrt(2)
    return waves


#: Components of a token vector at most.
TOKEN_DIM_MAX: Final = 64

#: Neighbouring tokens of a document that share a vector. Half the space at hardly any loss (DESIGN §3).
POOL_FACTOR: Final = 2


def token_dim_for(hidden: int) -> int:
    """Return the components of a token vector of a model that is ``hidden`` wide."""
    return min(TOKEN_DIM_MAX, hidden)


def pool_token_vectors(rows: Floats, kind: TextKind) -> TokenVectors:
    """Return one text's token vectors in bytes.

    Args:
        rows: Its tokens as the graph projects them, ``float32 [tokens, token_dim]``, L2-normalised.
        kind: A query keeps every token, a document the direction between each two neighbours.

    Returns:
        ``int8 [tokens, token_dim]``, or half as many rows, rounded up.
    """
    if kind is TextKind.DOCUMENT:
        rows = np.add.reduceat(rows, np.arange(0, len(rows), POOL_FACTOR), axis=0)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return quantize(rows)
