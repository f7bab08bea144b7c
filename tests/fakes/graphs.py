"""Tiny models as ready ONNX graphs, and their tokenizer: a table of word vectors is all they have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "of", "and", "more", "a", "b", "c")
VOCABULARY = (*SPECIAL, *WORDS)
WIDTH = 8
TOKENS_MAX = 16


def table() -> np.ndarray:
    """Return ``float32 [words, 8]``: a direction for each word, next to nothing for what is none."""
    vectors = np.random.default_rng(1).normal(size=(len(VOCABULARY), WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[0, 2, 3]] *= 0.01
    return vectors.astype(np.float32)


def write(directory: Path, kind: str, *, integers: int = TensorProto.INT64, nested: bool = False) -> Path:
    """Write a model and return its place.

    Args:
        directory: Where; made if absent.
        kind: What it gives: ``dense``, ``tokens``, ``splade``, ``weights``, ``cross`` or ``cross2``.
        integers: Type of its inputs.
        nested: Whether the graph lies in ``onnx/``, as on the hub.
    """
    directory.mkdir(parents=True, exist_ok=True)
    graph = directory / "onnx" / "model.onnx" if nested else directory / "model.onnx"
    graph.parent.mkdir(exist_ok=True)
    onnx.save(_model(kind, integers), graph)
    write_tokenizer(directory / "tokenizer.json")
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": TOKENS_MAX}))
    return directory


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of whole words, for texts and for pairs."""
    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(path))


def _model(kind: str, integers: int) -> onnx.ModelProto:
    build = _Building()
    types = kind.startswith("cross")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    vectors = build.add("Gather", "table", "input_ids")
    mask = build.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    if kind == "tokens":
        output, shape = build.named("last_hidden_state", vectors), ["n", "s", WIDTH]
    elif kind == "dense":
        output, shape = build.named("sentence_embedding", build.summed(vectors, mask)), ["n", WIDTH]
    elif kind in {"splade", "weights"}:
        logits = build.add("MatMul", vectors, build.add("Transpose", "table", perm=[1, 0]))
        if kind == "splade":
            output, shape = build.named("logits", logits), ["n", "s", len(VOCABULARY)]
        else:
            largest = build.add("ReduceMax", build.add("Relu", logits), "one", keepdims=0)
            output, shape = build.named("sparse_embedding", largest), ["n", len(VOCABULARY)]
    else:
        second = build.add("Mul", mask, build.add("Cast", "token_type_ids", to=TensorProto.FLOAT))
        first = build.add("Sub", mask, second)
        both = build.add("Mul", build.summed(vectors, first), build.summed(vectors, second))
        score = build.add("ReduceSum", both, "one", keepdims=1)
        if kind == "cross2":
            score = build.add("Concat", build.add("Neg", score), score, axis=1)
        output, shape = build.named("logits", score), ["n", 2 if kind == "cross2" else 1]
    inputs = [helper.make_tensor_value_info(name, integers, ["n", "s"]) for name in names]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    constants = [numpy_helper.from_array(table(), "table"), numpy_helper.from_array(np.array([1], np.int64), "one")]
    graph = helper.make_graph(build.nodes, kind, inputs, outputs, [*constants, *build.constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


class _Building:
    """Nodes in the order of their making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = [numpy_helper.from_array(np.array([2], np.int64), "two")]

    def add(self, operator: str, *inputs: str, **attributes: int | Sequence[int]) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def named(self, name: str, value: str) -> str:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        return name

    def summed(self, vectors: str, weights: str) -> str:
        """Return the sum of each row's vectors by weight."""
        spread = self.add("Unsqueeze", weights, "two")
        return self.add("ReduceSum", self.add("Mul", vectors, spread), "one", keepdims=0)
