"""Schema of a collection on a Qdrant server: the request that creates it, and its metadata.

The models, which Qdrant does not know, are recorded in the collection's own metadata. That record is made, copied and
deleted with the collection, so that it cannot be left behind or forgotten.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec

from penstock.ranking.retrieval import Arm
from penstock.stores.backends import layout, payload_format
from penstock.stores.backends.qdrant.point_memory import REVISION_FIELD
from penstock.stores.data_model import TEXT_PLAIN, CollectionInfo
from penstock.stores.sources import SourceRecord

#: Key of Penstock's own record in a collection's metadata.
METADATA_KEY: Final = "penstock"

#: Beginning of the keys of the sources' records. Qdrant merges each key into the metadata by itself, so servers that
#: write the records of two sources at once do not overwrite each other's.
_SOURCE_KEY_PREFIX: Final = "penstock.source."

#: The layout's version.
FORMAT_VERSION: Final = 1

#: States of a collection in which it is being optimised.
_OPTIMISING: Final = "yellow"


class CollectionMetadata(msgspec.Struct, frozen=True):
    """Penstock's record in a collection's metadata.

    Attributes:
        model: Name of the model of its dense vectors.
        dim: Their dimension.
        created_at: RFC 3339, UTC.
        token_dim: Components of a token vector; 0 for none.
        sparse: Name of the model of its sparse vectors; empty for BM25.
        format: The layout's version.
        text: Version of the text of which its BM25 vectors are made.
        renewing: Whether they are being renewed.
    """

    model: str
    dim: int
    created_at: str
    token_dim: int = msgspec.field(default=0, name="late")
    sparse: str = ""
    format: int = FORMAT_VERSION
    text: int = TEXT_PLAIN
    renewing: bool = False

    @property
    def sparse_vector_name(self) -> str:
        """The name of its sparse vectors."""
        return layout.LEARNED_SPARSE if self.sparse else Arm.SPARSE.value

    def info(self, name: str) -> CollectionInfo:
        """Return the contract's record of the collection, without counts."""
        return CollectionInfo(
            name,
            self.dim,
            self.model,
            created_at=self.created_at,
            token_dim=self.token_dim,
            sparse=self.sparse,
            text=self.text,
            renewing=self.renewing,
        )


def read_metadata(description: Any) -> CollectionMetadata | None:
    """Return Penstock's record from a collection's description; ``None`` if the collection is not Penstock's."""
    metadata = description["config"].get("metadata") or {}
    try:
        found = msgspec.convert(metadata.get(METADATA_KEY), CollectionMetadata)
    except msgspec.ValidationError:
        return None
    return found if found.format == FORMAT_VERSION else None


def read_sources(description: Any) -> list[SourceRecord]:
    """Return the records of the sources from a collection's description, by name; unreadable ones are left out."""
    found: list[SourceRecord] = []
    for key, value in sorted((description["config"].get("metadata") or {}).items()):
        if key.startswith(_SOURCE_KEY_PREFIX) and value is not None:
            with contextlib.suppress(msgspec.ValidationError):
                found.append(msgspec.convert(value, SourceRecord))
    return found


def source_request(name: str, source: SourceRecord | None) -> dict[str, Any]:
    """Return the request that writes a source's record, or deletes it: Qdrant removes a key whose value is null."""
    value = None if source is None else msgspec.to_builtins(source)
    return {"metadata": {f"{_SOURCE_KEY_PREFIX}{name}": value}}


def create_request(metadata: CollectionMetadata, shards: int, replicas: int) -> dict[str, Any]:
    """Return the request that makes a collection.

    Args:
        metadata: Penstock's record of it.
        shards: Over how many shards a cluster spreads it; 0: as the server decides.
        replicas: On how many nodes each of them is; 0: as the server decides.
    """
    body: dict[str, Any] = {
        "vectors": {Arm.DENSE.value: _dense(metadata.dim)},
        "sparse_vectors": {metadata.sparse_vector_name: {} if metadata.sparse else {"modifier": "idf"}},
        "hnsw_config": {
            "m": layout.HNSW_M,
            "ef_construct": layout.HNSW_EF_CONSTRUCT,
            "full_scan_threshold": layout.FULL_SCAN_KB,
        },
        "optimizers_config": {
            "deleted_threshold": layout.DELETED_SHARE,
            "indexing_threshold": layout.INDEXING_KB,
        },
        "metadata": {METADATA_KEY: msgspec.to_builtins(metadata)},
    }
    if shards:
        body["shard_number"] = shards
    if replicas:
        body["replication_factor"] = replicas
    return body


def payload_indexes() -> dict[str, dict[str, Any]]:
    """Return the payload indexes by field."""
    found: dict[str, dict[str, Any]] = {
        key: {"type": "keyword", "prefix": True} if prefix else {"type": "keyword"}
        for key, prefix in payload_format.KEYWORD_FIELDS.items()
    }
    found[payload_format.CHUNK_FIELD] = {"type": "integer", "lookup": True, "range": True}
    found[REVISION_FIELD] = {"type": "integer", "lookup": True, "range": False}
    return found


def describe_vectors(description: Any) -> str:
    """Return the vectors of a collection in words, for one whose metadata says nothing."""
    params = description["config"]["params"]
    vectors = params.get("vectors") or {}
    if "size" in vectors:
        return f"one unnamed vector ({vectors['size']}-d)"
    names = [f"{name} ({one['size']}-d)" for name, one in vectors.items()]
    return ", ".join([*names, *(params.get("sparse_vectors") or {})]) or "none"


def is_optimizing(description: Any) -> bool:
    """Return whether the server is building segments of a collection."""
    return str(description.get("status")) == _OPTIMISING


def _dense(dim: int) -> dict[str, Any]:
    """Return the settings of dense vectors: kept as they are and, once indexed, also as int8 in memory."""
    quantised = {"type": "int8", "quantile": layout.QUANTILE, "always_ram": True}
    return {"size": dim, "distance": "Dot", "quantization_config": {"scalar": quantised}}
