"""A tiny random BERT on disk, and its forward pass in plain NumPy to check graphs against."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from penstock.models.model_source import ModelSource

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float32]]

LAYERS, HIDDEN, HEADS, INNER, POSITIONS = 2, 32, 4, 64, 48
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [first + last for first in "bdfgklmnprst" for last in ("a", "e", "i", "o", "an", "el", "is", "ou")]
VOCABULARY = [*SPECIAL, *WORDS]
TOKENS_MAX = 16


def write(directory: Path, seed: int = 0) -> ModelSource:
    """Write model, tokenizer and configuration into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors(seed), directory / "model.safetensors")
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps(config()))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": TOKENS_MAX}))
    files = (directory / name for name in ("model.safetensors", "tokenizer.json", "config.json"))
    return ModelSource("tiny", "directory", *files)


def config() -> dict[str, object]:
    """Return the contents of ``config.json``."""
    return {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": POSITIONS,
        "layer_norm_eps": 1e-12,
    }


def tensors(seed: int) -> Tensors:
    """Return random weights by their Hugging Face names."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, spread: float = 0.15) -> NDArray[np.float32]:
        return rng.normal(0.0, spread, shape).astype(np.float32)

    found: Tensors = {
        "embeddings.word_embeddings.weight": normal(len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
    }
    norms = ["embeddings"]
    for layer in range(LAYERS):
        root = f"encoder.layer.{layer}."
        norms += [root + "attention.output", root + "output"]
        sizes = {
            "attention.self.query": (HIDDEN, HIDDEN),
            "attention.self.key": (HIDDEN, HIDDEN),
            "attention.self.value": (HIDDEN, HIDDEN),
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (INNER, HIDDEN),
            "output.dense": (HIDDEN, INNER),
        }
        for name, shape in sizes.items():
            found[f"{root}{name}.weight"] = normal(*shape)
            found[f"{root}{name}.bias"] = normal(shape[0])
    for name in norms:
        found[f"{name}.LayerNorm.weight"] = 1 + normal(HIDDEN)
        found[f"{name}.LayerNorm.bias"] = normal(HIDDEN)
    return found


def forward(weights: Tensors, ids: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sentence vector [hidden] and last hidden state [tokens, hidden] of one text."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(w, "embeddings", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in range(LAYERS):
        root = f"encoder.layer.{layer}."
        q, k, v = (_linear(w, f"{root}attention.self.{part}", x) for part in ("query", "key", "value"))
        context, width = np.empty_like(x), HIDDEN // HEADS
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            logits = q[:, part] @ k[:, part].T / math.sqrt(width)
            share = np.exp(logits - logits.max(1, keepdims=True))
            context[:, part] = share / share.sum(1, keepdims=True) @ v[:, part]
        x = _norm(w, root + "attention.output", x + _linear(w, root + "attention.output.dense", context))
        inner = _linear(w, root + "intermediate.dense", x)
        inner = 0.5 * inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = _norm(w, root + "output", x + _linear(w, root + "output.dense", inner))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean), x


def _linear(w: dict[str, NDArray[np.float64]], name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = x @ w[name + ".weight"].T + w[name + ".bias"]
    return product


def _norm(w: dict[str, NDArray[np.float64]], name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    normed: NDArray[np.float64] = scaled * w[name + ".LayerNorm.weight"] + w[name + ".LayerNorm.bias"]
    return normed
