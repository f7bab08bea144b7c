"""ONNX graph of a BERT sentence encoder, built straight from its weights, without PyTorch.

The graph uses ONNX Runtime's fused operators (domain ``com.microsoft``) where they are the faster ones, pools and
normalises inside, and folds the token types (always 0 here) into the position table. One fused operator is
left out on purpose: ``SkipLayerNormalization`` takes four times as long on a processor as the sum and the plain
``LayerNormalization`` it stands for (160 tokens on AVX2: 396 against 80 µs, thirteen times a text).

Inputs: ``input_ids`` and ``attention_mask``, ``int32 [batch, sequence]``, padded on the right.
Outputs: ``sentence`` (``float32 [batch, hidden]``, mean of the unmasked tokens, L2-normalised) and
``tokens`` (``float32 [batch, sequence, hidden]``, last hidden state).

In the integer formats activations are quantised per call with one scale for the whole tensor, so a
text's vector depends in the third decimal on the texts beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.models.architecture import CLS
from penstock.models.quantise import Precision, symmetric

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from penstock.models.architecture import BertConfig, SafetensorsFile
    from penstock.models.contract import Floats

_FUSED = "com.microsoft"
_OPSET = 18
_IR = 9  # the oldest IR that carries this opset: loads in every later runtime


def write_graph(
    weights: SafetensorsFile,
    shape: BertConfig,
    precision: Precision,
    path: Path,
    layer_done: Callable[[int], None],
) -> None:
    """Write the graph of an encoder to ``path``.

    Args:
        weights: Its tensors, by the names of Hugging Face's ``BertModel``.
        shape: Its architecture.
        precision: Number format of the matrix products.
        path: File to write.
        layer_done: Called after each layer with the number of layers done.

    Raises:
        Invalid: A tensor is missing or has the wrong shape.
        OSError: The file cannot be written.
    """
    encoder = _GraphBuilder(weights, shape, precision)
    hidden = encoder.embeddings()
    for layer in range(shape.layers):
        hidden = encoder.layer(hidden, layer)
        layer_done(layer + 1)
    encoder.pooling(hidden)
    path.write_bytes(encoder.model().SerializeToString())


class _GraphBuilder:
    """Collects nodes and constants; every method returns the name of the tensor it made."""

    def __init__(self, weights: SafetensorsFile, shape: BertConfig, precision: Precision) -> None:
        self._weights = weights
        self._shape = shape
        self._precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def embeddings(self) -> str:
        """Sum of word, position and token-type embeddings, layer-normalised."""
        shape = self._shape
        words = self._weights.tensor("embeddings.word_embeddings.weight", shape.vocabulary, shape.hidden)
        positions = self._weights.tensor("embeddings.position_embeddings.weight", shape.positions, shape.hidden)
        types = self._weights.tensor("embeddings.token_type_embeddings.weight", 2, shape.hidden)
        zero = self._constant("axis_0", np.array([0], np.int64))
        length = self._node("Shape", ["input_ids"], "length", start=1, end=2)
        table = self._constant("positions", positions + types[0])
        rows = self._node("Slice", [table, zero, length], "position_rows")
        rows = self._node("Unsqueeze", [rows, zero], "position")
        return self._sum_norm([self._word_rows(words), rows], "embeddings.LayerNorm", "embedded")

    def _word_rows(self, words: Floats) -> str:
        if self._precision is Precision.FLOAT32:
            return self._node("Gather", [self._constant("words", words), "input_ids"], "word")
        # One scale per row: half the file, and no measurable time (the rows of a batch are few).
        levels, scales = symmetric(words, 1, 127)
        row = self._node("Gather", [self._constant("words", levels), "input_ids"], "word_levels")
        row = self._node("Cast", [row], "word_floats", to=TensorProto.FLOAT)
        scale = self._node("Gather", [self._constant("word_scales", scales[:, None]), "input_ids"], "word_scale")
        return self._node("Mul", [row, scale], "word")

    def layer(self, hidden: str, number: int) -> str:
        """Transformer layer: attention, then feed-forward, each with residual and norm."""
        shape, root = self._shape, f"encoder.layer.{number}."
        context = self._attention(hidden, root + "attention.self.")
        attended = self._add_norm(context, hidden, root + "attention.output.", shape.hidden)
        inner = self._product(attended, root + "intermediate.dense", shape.hidden, shape.intermediate)
        inner = self._fused("Gelu", [inner], root + "gelu")
        return self._add_norm(inner, attended, root + "output.", shape.intermediate)

    def _attention(self, hidden: str, root: str) -> str:
        size = self._shape.hidden
        parts = ("query", "key", "value")
        weight = np.concatenate([self._weights.tensor(f"{root}{part}.weight", size, size).T for part in parts], axis=1)
        bias = np.concatenate([self._weights.tensor(f"{root}{part}.bias", size) for part in parts])
        bias_name = self._constant(root + "bias", bias)
        heads = self._shape.heads
        if self._precision is Precision.FLOAT32:
            inputs = [hidden, self._constant(root + "weight", weight), bias_name, "attention_mask"]
            return self._fused("Attention", inputs, root + "context", num_heads=heads)
        levels, scales = symmetric(weight, 0, self._precision.level_max)
        active, active_scale, active_zero = (root + part for part in ("levels", "scale", "zero"))
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [hidden], [active, active_scale, active_zero]))
        inputs = [
            active,
            self._constant(root + "weight", levels),
            bias_name,
            active_scale,
            self._constant(root + "weight_scale", scales),
            "attention_mask",
            active_zero,
            self._constant(root + "weight_zero", np.zeros(scales.shape, np.int8)),
        ]
        return self._fused("QAttention", inputs, root + "context", num_heads=heads)

    def _add_norm(self, inner: str, residual: str, root: str, size: int) -> str:
        product = self._product(inner, root + "dense", size, self._shape.hidden)
        return self._sum_norm([product, residual], root + "LayerNorm", root + "normed")

    def _sum_norm(self, terms: list[str], norm: str, output: str) -> str:
        total = self._node("Add", terms, output + ".sum")
        weight, bias = (self._vector(f"{norm}.{part}", self._shape.hidden) for part in ("weight", "bias"))
        return self._node("LayerNormalization", [total, weight, bias], output, axis=-1, epsilon=self._shape.epsilon)

    def _product(self, left: str, name: str, rows: int, columns: int) -> str:
        weight = self._weights.tensor(name + ".weight", columns, rows).T
        bias = self._vector(name + ".bias", columns)
        if self._precision is Precision.FLOAT32:
            product = self._node("MatMul", [left, self._constant(name + ".weight", weight)], name + ".bare")
            return self._node("Add", [product, bias], name + ".product")
        levels, scales = symmetric(weight, 0, self._precision.level_max)
        inputs = [
            left,
            self._constant(name + ".weight", levels),
            self._constant(name + ".scale", scales),
            "",  # the zero point: 0
            bias,
        ]
        return self._fused("DynamicQuantizeMatMul", inputs, name + ".product")

    def pooling(self, hidden: str) -> None:
        """Mean over the unmasked tokens, or the first token's state, L2-normalised."""
        self._node("Identity", [hidden], "tokens")
        one = self._constant("axis_1", np.array([1], np.int64))
        if self._shape.pooling == CLS:
            place = self._constant("place_0", np.array([0], np.int64))
            pooled = self._node("Gather", [hidden, place], "first", axis=1)
        else:
            pooled = self._sum_unmasked(hidden, one)
        total = self._node("Squeeze", [pooled, one], "sum")
        self._node("LpNormalization", [total], "sentence", axis=1, p=2)

    def _sum_unmasked(self, hidden: str, one: str) -> str:
        """Return the sum over the unmasked tokens: the mean's divisor cancels when it is normalised."""
        mask = self._node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        row = self._node("Unsqueeze", [mask, one], "mask_row")
        return self._node("MatMul", [row, hidden], "sums")

    def model(self) -> onnx.ModelProto:
        """Return the finished model."""
        float_type, int_type, hidden = TensorProto.FLOAT, TensorProto.INT32, self._shape.hidden
        graph = helper.make_graph(
            self._nodes,
            "sentence_encoder",
            [
                helper.make_tensor_value_info(name, int_type, ["batch", "sequence"])
                for name in ("input_ids", "attention_mask")
            ],
            [
                helper.make_tensor_value_info("sentence", float_type, ["batch", hidden]),
                helper.make_tensor_value_info("tokens", float_type, ["batch", "sequence", hidden]),
            ],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="penstock")

    def _vector(self, name: str, size: int) -> str:
        return self._constant(name, self._weights.tensor(name, size))

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _fused(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        return self._node(kind, inputs, output, domain=_FUSED, **attributes)
