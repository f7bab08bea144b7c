"""The shape of a BERT encoder, read from its ``config.json``, and access to its weights."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock.kernel.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.contract import Floats

TOKENS_MAX = 256
"""Default cut of a text: what all-MiniLM-L6-v2 was trained on (``sentence_bert_config.json``)."""

#: Of sentence-transformers.
POOLING_CONFIG: Final = "1_Pooling/config.json"
MEAN: Final = "mean_tokens"
CLS: Final = "cls_token"

_TOKENS_MIN = 3  # the two special tokens and one of the text

_CHECKS = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Architecture parameters of a BERT encoder (Devlin et al. 2018, arXiv:1810.04805), and its pooling."""

    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    epsilon: float
    tokens_max: int
    pooling: str = MEAN


def read_bert_config(config: Path) -> BertConfig:
    """Read and check the architecture.

    Beside ``config.json`` the files of sentence-transformers are honoured where they exist:
    ``sentence_bert_config.json`` (longest text) and ``1_Pooling/config.json`` (mean or CLS).

    Raises:
        Invalid: The file cannot be read, or the model is not a BERT encoder with mean or CLS pooling.
    """
    record = _object(config)
    for key, allowed in _CHECKS.items():
        if record.get(key) not in allowed:
            given = f"{key} is {record.get(key)!r}, only {allowed[0]!r} is supported (BERT-shaped encoders)"
            raise _unsupported(config, given)
    pooling = config.parent / POOLING_CONFIG
    modes = pooling_modes(_object(pooling)) if pooling.is_file() else {MEAN}
    if modes not in ({MEAN}, {CLS}):
        raise _unsupported(pooling, "only mean and CLS pooling are supported")
    longest = config.parent / "sentence_bert_config.json"
    limits = _object(longest) if longest.is_file() else {}
    try:
        positions = int(record["max_position_embeddings"])
        shape = BertConfig(
            layers=int(record["num_hidden_layers"]),
            heads=int(record["num_attention_heads"]),
            hidden=int(record["hidden_size"]),
            intermediate=int(record["intermediate_size"]),
            vocabulary=int(record["vocab_size"]),
            positions=positions,
            epsilon=float(record.get("layer_norm_eps", 1e-12)),
            tokens_max=min(int(limits.get("max_seq_length") or TOKENS_MAX), positions),
            pooling=modes.pop(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unsupported(config, f"a size is missing or not a number: {error}") from error
    if shape.layers < 1 or shape.heads < 1 or shape.hidden % shape.heads or shape.tokens_max < _TOKENS_MIN:
        raise _unsupported(config, f"the sizes do not fit together: {shape}")
    return shape


def pooling_modes(record: dict[str, Any]) -> set[str]:
    """Return the ways in which ``1_Pooling/config.json`` of sentence-transformers makes one vector of its tokens'."""
    mode = "pooling_mode_"
    return {key.removeprefix(mode) for key, on in record.items() if key.startswith(mode) and on}


def read_json(path: Path) -> Any:
    """Return what one of a model's files holds.

    Raises:
        Invalid: It cannot be read as JSON (``model_config``).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {path}: {error}", field=str(path), code="model_config") from error


def _object(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict):
        raise Invalid(f"{path} must hold a JSON object", field=str(path), code="model_config")
    return record


def _unsupported(path: Path, why: str) -> Invalid:
    return Invalid(f"{path}: {why}", field=str(path), code="model_architecture")


class SafetensorsFile(AbstractContextManager["SafetensorsFile"]):
    """Tensors of one safetensors file, read one at a time: the whole is never in memory twice."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            Invalid: Not a safetensors file.
        """
        # Imported here: only a cold start reads weights.
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - see above

        self._path = path
        self._file: Any  # the library's stub leaves its methods untyped
        try:
            self._file = safe_open(path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise Invalid(
                f"{path} is not a safetensors file: {error}", field=str(path), code="model_weights"
            ) from error
        self._names = frozenset(self._file.keys())
        self._prefix = "bert." if "bert.embeddings.word_embeddings.weight" in self._names else ""

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    def tensor(self, name: str, *shape: int) -> Floats:
        """Return one tensor as ``float32 [*shape]``.

        Raises:
            Invalid: It is missing, or has another shape or a type that NumPy does not know.
        """
        full = self._prefix + name
        if full not in self._names:
            raise Invalid(f"{self._path} lacks the tensor {full}", field=str(self._path), code="model_weights")
        try:
            tensor = np.asarray(self._file.get_tensor(full), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise Invalid(f"{self._path}: {full}: {error}", field=str(self._path), code="model_weights") from error
        if tensor.shape != shape:
            raise Invalid(
                f"{self._path}: {full} has shape {list(tensor.shape)}, config.json says {list(shape)}",
                field=str(self._path),
                code="model_weights",
            )
        return tensor
