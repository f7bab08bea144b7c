"""The shape of a BERT encoder, read from its ``config.json``, and access to its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from penstock.kernel.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from penstock.models.contract import Floats

TOKENS_MAX = 256
"""Default cut of a text: what all-MiniLM-L6-v2 was trained on (``sentence_bert_config.json``)."""

_TOKENS_MIN = 3  # the two special tokens and one of the text

_CHECKS = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Architecture parameters of a BERT encoder (Devlin et al. 2018, arXiv:1810.04805)."""

    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    epsilon: float
    tokens_max: int


def read_bert_config(config: Path) -> BertConfig:
    """Read and check the architecture.

    Beside ``config.json`` the files of sentence-transformers are honoured where they exist:
    ``sentence_bert_config.json`` (longest text) and ``1_Pooling/config.json`` (must be mean
    pooling).

    Args:
        config: Path of ``config.json``.

    Raises:
        Invalid: The file cannot be read, or the model is not a BERT encoder with mean pooling.
    """
    record = _read_json(config)
    for key, allowed in _CHECKS.items():
        if record.get(key) not in allowed:
            raise Invalid(
                f"{config}: {key} is {record.get(key)!r}, only {allowed[0]!r} is supported (BERT-shaped encoders)",
                field=str(config),
                code="model_architecture",
            )
    _check_pooling(config.parent / "1_Pooling" / "config.json")
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
            tokens_max=min(_tokens_max(config.parent / "sentence_bert_config.json"), positions),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(
            f"{config}: a size is missing or not a number: {error}",
            field=str(config),
            code="model_architecture",
        ) from error
    if shape.layers < 1 or shape.heads < 1 or shape.hidden % shape.heads or shape.tokens_max < _TOKENS_MIN:
        raise Invalid(
            f"{config}: the sizes do not fit together: {shape}",
            field=str(config),
            code="model_architecture",
        )
    return shape


def _tokens_max(path: Path) -> int:
    limit = _read_json(path).get("max_seq_length") if path.is_file() else None
    return int(limit) if limit else TOKENS_MAX


def _check_pooling(path: Path) -> None:
    if not path.is_file():
        return
    modes = {key for key, on in _read_json(path).items() if key.startswith("pooling_mode_") and on}
    if modes != {"pooling_mode_mean_tokens"}:
        raise Invalid(f"{path}: only mean pooling is supported", field=str(path), code="model_architecture")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {path}: {error}", field=str(path), code="model_config") from error
    if not isinstance(record, dict):
        raise Invalid(f"{path} must hold a JSON object", field=str(path), code="model_config")
    return record


class SafetensorsFile:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)

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
