"""The peers: fastembed's own runner and plain ONNX Runtime, both on the same weights in float32.

Their graph is our float32 graph without pooling. Attention and GELU are fused in it already, as ONNX Runtime's
optimiser fuses them when it loads an export (where it recognises them); sums and norms it fuses at load here as well.
So they get what their users have at best.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bench.embed.systems import System
from bench.report import tell
from penstock.kernel.vectors import DenseVectors
from penstock.models.prepare import PreparedModel
from penstock.models.tokenizer import TextTokenizer

FASTEMBED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: What fastembed takes if nobody says anything, and what suits texts of mixed lengths better.
FASTEMBED_BATCH, SMALL_BATCH = 256, 32
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"


def write_directory(prepared: PreparedModel, directory: Path) -> Path:
    """Write a float32 model as fastembed reads it, and as an export from elsewhere would look to a runtime.

    Args:
        prepared: The model in float32.
        directory: Where; made if absent.

    Returns:
        The graph: inputs ``int64 [batch, sequence]``, output ``float32 [batch, sequence, hidden]``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.onnx"
    onnx.utils.extract_model(str(prepared.path), str(path), list(INPUTS), ["tokens"])
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.input[:] = [f"{name}_32" if name in INPUTS else name for name in node.input]
    for name in INPUTS:
        graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_32"], to=TensorProto.INT32))
    graph.node.append(helper.make_node("Identity", ["tokens"], [OUTPUT]))
    shape = ["batch", "sequence"]
    del graph.input[:], graph.output[:]
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS)
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*shape, prepared.dim]))
    onnx.save(model, path)
    shutil.copyfile(prepared.tokenizer_path, directory / "tokenizer.json")
    tokenizer = {"model_max_length": prepared.tokens_max, "max_length": prepared.tokens_max, "pad_token": "[PAD]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (directory / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (directory / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    return path


class Fastembed:
    """fastembed as its users call it: one object, default threads.

    Args:
        model: A ``fastembed.TextEmbedding``.
        batch: Texts of one run.
    """

    def __init__(self, model: Any, batch: int) -> None:
        self.name = f"fastembed, batches of {batch}"
        self._model = model
        self._batch = batch

    async def bulk(self, texts: Sequence[str]) -> DenseVectors:
        """Embed them in their order, padded to the longest of each batch."""
        return await asyncio.to_thread(self._embed, texts)

    async def query(self, text: str) -> DenseVectors:
        """Embed one."""
        return await asyncio.to_thread(self._embed, [text])

    async def close(self) -> None:
        """Do nothing."""

    def _embed(self, texts: Sequence[str]) -> DenseVectors:
        return np.array(list(self._model.embed(list(texts), batch_size=self._batch)), np.float32)


class PlainRuntime:
    """ONNX Runtime with default options: padded batches, mean pooling in NumPy.

    Args:
        graph: What :func:`write_directory` wrote.
        tokenizer: Of the model.
        batch: Texts of one run.
    """

    def __init__(self, graph: Path, tokenizer: TextTokenizer, batch: int = SMALL_BATCH) -> None:
        self.name = f"onnxruntime, batches of {batch}"
        self._session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        self._tokenizer = tokenizer
        self._batch = batch

    async def bulk(self, texts: Sequence[str]) -> DenseVectors:
        """Embed them in their order, padded to the longest of each batch."""
        return await asyncio.to_thread(self._embed, texts)

    async def query(self, text: str) -> DenseVectors:
        """Embed one."""
        return await asyncio.to_thread(self._embed, [text])

    async def close(self) -> None:
        """Do nothing."""

    def _embed(self, texts: Sequence[str]) -> DenseVectors:
        batches = [texts[first : first + self._batch] for first in range(0, len(texts), self._batch)]
        return np.concatenate([self._run(batch) for batch in batches])

    def _run(self, texts: Sequence[str]) -> DenseVectors:
        ids, mask = (array.astype(np.int64) for array in self._tokenizer.encode(texts))
        tokens = self._session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))[0]
        sums = (tokens * mask[:, :, None]).sum(1)
        vectors: DenseVectors = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return vectors


def peers(prepared: PreparedModel, directory: Path) -> list[System]:
    """Return those that are installed.

    Args:
        prepared: The model in float32.
        directory: Where their model is written.
    """
    graph = write_directory(prepared, directory)
    found: list[System] = [PlainRuntime(graph, TextTokenizer(prepared.tokenizer_path, prepared.tokens_max))]
    try:
        from fastembed import TextEmbedding  # noqa: PLC0415 - optional
    except ImportError as error:
        tell(f"fastembed is left out, and with it the goal: {error}; run this with an interpreter that has it")
        return found
    model = TextEmbedding(FASTEMBED_MODEL, specific_model_path=str(directory))
    return [Fastembed(model, FASTEMBED_BATCH), Fastembed(model, SMALL_BATCH), *found]
