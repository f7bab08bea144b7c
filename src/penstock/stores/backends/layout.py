"""Layout of a collection in Qdrant, the same for the embedded engine and for a server: names and numbers.

The numbers are those of ``docs/benchmarks/store.md``.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.kernel.errors import Invalid
from penstock.stores.data_model import COLLECTION_NAME, CollectionInfo

#: The name of sparse vectors with learned term weights. Those of BM25 are named after their arm; one
#: collection uses one of the two names.
LEARNED_SPARSE: Final = "learned"

#: Edges of a graph node, and candidates looked at while it is built: with them the engine finds as
#: good as everything that an exact search finds.
HNSW_M: Final = 16
HNSW_EF_CONSTRUCT: Final = 128

#: Kilobytes of vectors below which comparing everything is quicker than walking a graph.
FULL_SCAN_KB: Final = 10_000

#: Kilobytes of vectors from which on a segment gets a graph.
INDEXING_KB: Final = 10_000

#: Share of deleted points at which a segment is rewritten.
DELETED_SHARE: Final = 0.2

#: Share of the components that the bytes' range covers; what lies beyond is cut.
QUANTILE: Final = 0.99

#: Of the candidates that the bytes find, so many times the wanted number is compared by the vectors themselves: what is
#: found is as good as with the vectors alone, and every score is exact.
OVERSAMPLING: Final = 2.0

_NAME: Final = re.compile(COLLECTION_NAME)


def check_name(name: str) -> None:
    """Refuse an invalid collection name.

    Raises:
        Invalid: It is not allowed (``invalid_name``).
    """
    if not _NAME.fullmatch(name):
        raise Invalid(
            "a collection's name is 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or a digit",
            field="collection",
            code="invalid_name",
        )


def check_same_models(existing: CollectionInfo, requested: CollectionInfo) -> None:
    """Refuse a collection whose vectors are of other models; one without token vectors is accepted.

    Raises:
        Invalid: They are; the message names both (``collection_conflict``).
    """
    if (existing.dim, existing.model, existing.sparse) == (requested.dim, requested.model, requested.sparse):
        return
    raise collection_conflict(
        f"collection {existing.name!r} holds vectors of {describe_models(existing)},"
        f" not of {describe_models(requested)}"
    )


def collection_conflict(what: str) -> Invalid:
    """Return the error of a collection whose name another one has."""
    return Invalid(f"{what}; use another name or delete it first", field="collection", code="collection_conflict")


def describe_models(info: CollectionInfo) -> str:
    """Return the models of a collection in words."""
    return f"{info.model} ({info.dim}-d)" + (f" with {info.sparse}" if info.sparse else "")
