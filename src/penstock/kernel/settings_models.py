"""Settings of the models: where each comes from, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.kernel.setting_spec import SettingSpec, SettingUnit, address, count, secret, setting, switch, text


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Source, device and precision of the dense model."""

    dir: str = setting("", text("PENSTOCK_MODEL_DIR", "directory with model.safetensors, config.json, tokenizer.json"))
    hub: bool = setting(
        False, switch("PENSTOCK_MODEL_HUB", "the built-in model may be fetched from the Hugging Face hub")
    )
    device: str = setting("cpu", text("PENSTOCK_MODEL_DEVICE", "where the dense model runs", "cpu", "cuda", "auto"))
    precision: str = setting(
        "auto",
        text(
            "PENSTOCK_MODEL_PRECISION", "its products; auto: as suits the processor", "auto", "int8", "int7", "float32"
        ),
    )


@dataclass(frozen=True, slots=True)
class DenseModelSettings:
    """The dense model: the built-in one, a ready graph, or an endpoint."""

    kind: str = setting(
        "builtin", text("DENSE_KIND", "where dense vectors come from", "builtin", "onnx", "openai", "tei")
    )
    path: str = setting("", text("DENSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", text("DENSE_MODEL", "onnx: repository on the hub; openai, tei: the model's name there"))
    revision: str = setting("", text("DENSE_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", address("DENSE_URL", "openai, tei: address of the endpoint"))
    api_key: str = setting("", secret("DENSE_API_KEY", "openai, tei: sent as a bearer token"))
    dim: int = setting(
        0,
        SettingSpec(
            "DENSE_DIM", "openai, tei: dimension; where it is set, the endpoint may be down at the start", at_least=0
        ),
    )
    batch: int = setting(32, count("DENSE_BATCH", "openai, tei: texts in one request at most", 2048))
    tokens: int = setting(
        256,
        SettingSpec("DENSE_TOKENS", "openai, tei: tokens of a chunk, counted roughly", SettingUnit.COUNT, 64, 32_768),
    )
    query_prefix: str = setting("", text("DENSE_QUERY_PREFIX", "openai, tei: put in front of every query"))
    document_prefix: str = setting("", text("DENSE_DOCUMENT_PREFIX", "openai, tei: put in front of every chunk"))


@dataclass(frozen=True, slots=True)
class SparseModelSettings:
    """The sparse model: BM25, a ready graph of learned weights, or an endpoint."""

    kind: str = setting("bm25", text("SPARSE_KIND", "where sparse vectors come from", "bm25", "onnx", "tei"))
    path: str = setting("", text("SPARSE_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", text("SPARSE_MODEL", "onnx: repository on the hub; tei: the model's name"))
    revision: str = setting("", text("SPARSE_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", address("SPARSE_URL", "tei: address of the endpoint"))
    api_key: str = setting("", secret("SPARSE_API_KEY", "tei: sent as a bearer token"))
    batch: int = setting(32, count("SPARSE_BATCH", "tei: texts in one request at most", 2048))


@dataclass(frozen=True, slots=True)
class RerankModelSettings:
    """The reranker: late interaction of the dense model, or a cross-encoder as a ready graph or behind an endpoint."""

    kind: str = setting(
        "builtin", text("RERANK_KIND", "what reads the best candidates again", "builtin", "onnx", "tei", "cohere")
    )
    path: str = setting("", text("RERANK_PATH", "onnx: directory with model.onnx, tokenizer.json and config.json"))
    model: str = setting("", text("RERANK_MODEL", "onnx: repository on the hub; tei, cohere: the model's name there"))
    revision: str = setting("", text("RERANK_REVISION", "onnx: commit of the repository, all 40 digits"))
    url: str = setting("", address("RERANK_URL", "tei, cohere: address of the endpoint"))
    api_key: str = setting("", secret("RERANK_API_KEY", "tei, cohere: sent as a bearer token"))
    batch: int = setting(32, count("RERANK_BATCH", "tei, cohere: texts in one request at most", 2048))
    texts: int = setting(20, count("RERANK_TEXTS", "best candidates of a search that a cross-encoder reads", 1000))
