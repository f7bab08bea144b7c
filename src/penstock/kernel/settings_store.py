"""Settings of the store: the engine in processes of ours, or a Qdrant server."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.kernel.setting_spec import SettingSpec, SettingUnit, address, count, duration, secret, setting, text


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Backend that stores the points, and the embedded engine's parameters."""

    backend: str = setting(
        "edge", text("STORE_BACKEND", "edge: the engine in processes of ours; qdrant: a server", "edge", "qdrant")
    )
    data_dir: str = setting(
        "", text("PENSTOCK_DATA_DIR", "data directory; empty: ./.penstock if it exists, else the user's")
    )
    shards: int = setting(
        0,
        SettingSpec(
            "STORE_SHARDS",
            "store processes over which new collections are spread; 0: by cores",
            SettingUnit.COUNT,
            0,
            64,
        ),
    )
    optimize_points: int = setting(
        10_000,
        SettingSpec(
            "STORE_OPTIMIZE_POINTS",
            "a collection gets a new generation only once so many points are outside its graph; 0: never",
            SettingUnit.COUNT,
            0,
            1_000_000_000,
        ),
    )
    optimize_quiet: float = setting(
        5.0, duration("STORE_OPTIMIZE_QUIET", "without a write for so long it is worth it earlier")
    )
    cache_bytes: int = setting(
        128_000_000,
        SettingSpec(
            "STORE_CACHE_BYTES",
            "memory for what store processes have read of points; 0: none",
            SettingUnit.SIZE,
            0,
            2**40,
        ),
    )
    snapshots_keep: int = setting(
        10,
        SettingSpec(
            "PENSTOCK_SNAPSHOTS_KEEP", "newest of its own snapshots that it keeps; 0: all", SettingUnit.COUNT, 0, 10_000
        ),
    )


@dataclass(frozen=True, slots=True)
class QdrantSettings:
    """Qdrant as a server of its own (L3)."""

    url: str = setting("", address("QDRANT_URL", "address of a Qdrant server, such as http://qdrant:6333"))
    api_key: str = setting("", secret("QDRANT_API_KEY", "key of the Qdrant server"))
    ca_file: str = setting("", text("QDRANT_CA_FILE", "certificate of the authority that signed the server's"))
    prefix: str = setting("", text("QDRANT_PREFIX", "put in front of collections' names, where others use the server"))
    pool_size: int = setting(32, count("QDRANT_POOL_SIZE", "connections to a Qdrant server (L3)", 4096))
    shards: int = setting(
        0,
        SettingSpec(
            "QDRANT_SHARDS",
            "shards over which a cluster spreads a new collection; 0: its own",
            SettingUnit.COUNT,
            0,
            1024,
        ),
    )
    replicas: int = setting(
        0,
        SettingSpec(
            "QDRANT_REPLICAS", "nodes on which each of its shards is kept; 0: its own", SettingUnit.COUNT, 0, 64
        ),
    )
