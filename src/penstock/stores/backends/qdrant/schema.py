"""A collection on a Qdrant server: how it is made, and what it says of itself.

What Penstock has to know of it and Qdrant does not (the models) stands in the collection's own metadata: it is made,
copied and deleted with the collection, so that it cannot be left behind or forgotten.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.ranking.records import Arm
from penstock.stores.backends import layout, records
from penstock.stores.records import CollectionInfo

#: Under this key of a collection's metadata stands what is ours.
KEY: Final = "penstock"

#: The layout's version.
FORMAT: Final = 1

#: States of a collection in which it is being optimised.
_OPTIMISING: Final = "yellow"


class Stated(msgspec.Struct, frozen=True):
    """What a collection's metadata says.

    Attributes:
        model: Name of the model of its dense vectors.
        dim: Their dimension.
        created_at: RFC 3339, UTC.
        late: Components of a token vector; 0 for none.
        sparse: Name of the model of its sparse vectors; empty for BM25.
        format: The layout's version.
    """

    model: str
    dim: int
    created_at: str
    late: int = 0
    sparse: str = ""
    format: int = FORMAT

    @property
    def sparse_name(self) -> str:
        """The name of its sparse vectors."""
        return layout.LEARNED if self.sparse else Arm.SPARSE.value

    def info(self, name: str) -> CollectionInfo:
        """Return it as the contract tells it, without counts."""
        return CollectionInfo(
            name, self.dim, self.model, created_at=self.created_at, late=self.late, sparse=self.sparse
        )


def stated(described: Any) -> Stated | None:
    """Return what a description of a collection says of ours; ``None`` for one that is not Penstock's."""
    metadata = described["config"].get("metadata") or {}
    try:
        found = msgspec.convert(metadata.get(KEY), Stated)
    except msgspec.ValidationError:
        return None
    return found if found.format == FORMAT else None


def creation(wanted: Stated, shards: int, replicas: int) -> dict[str, Any]:
    """Return the request that makes a collection.

    Args:
        wanted: What it is for.
        shards: Over how many shards a cluster spreads it; 0: as the server decides.
        replicas: On how many nodes each of them is; 0: as the server decides.
    """
    body: dict[str, Any] = {
        "vectors": {Arm.DENSE.value: _dense(wanted.dim)},
        "sparse_vectors": {wanted.sparse_name: {} if wanted.sparse else {"modifier": "idf"}},
        "hnsw_config": {
            "m": layout.HNSW_M,
            "ef_construct": layout.HNSW_EF_CONSTRUCT,
            "full_scan_threshold": layout.FULL_SCAN_KB,
        },
        "optimizers_config": {
            "deleted_threshold": layout.DELETED_SHARE,
            "indexing_threshold": layout.INDEXING_KB,
        },
        "metadata": {KEY: msgspec.to_builtins(wanted)},
    }
    if shards:
        body["shard_number"] = shards
    if replicas:
        body["replication_factor"] = replicas
    return body


def indexes() -> dict[str, dict[str, Any]]:
    """Return the payload indexes by field."""
    found: dict[str, dict[str, Any]] = {
        key: {"type": "keyword", "prefix": True} if prefix else {"type": "keyword"}
        for key, prefix in records.KEYWORDS.items()
    }
    found[records.CHUNK] = {"type": "integer", "lookup": True, "range": True}
    return found


def vectors_of(described: Any) -> str:
    """Return the vectors of a collection in words, for one whose metadata says nothing."""
    params = described["config"]["params"]
    vectors = params.get("vectors") or {}
    if "size" in vectors:
        return f"one unnamed vector ({vectors['size']}-d)"
    names = [f"{name} ({one['size']}-d)" for name, one in vectors.items()]
    return ", ".join([*names, *(params.get("sparse_vectors") or {})]) or "none"


def optimising(described: Any) -> bool:
    """Return whether the server is building segments of a collection."""
    return str(described.get("status")) == _OPTIMISING


def _dense(dim: int) -> dict[str, Any]:
    """Return how dense vectors are kept: as they are, and once they are indexed also as bytes in memory."""
    quantised = {"type": "int8", "quantile": layout.QUANTILE, "always_ram": True}
    return {"size": dim, "distance": "Dot", "quantization_config": {"scalar": quantised}}
