"""How a collection lies in Qdrant, whether the engine runs in a process of ours or is a server: names and numbers.

The numbers are those of ``docs/benchmarks/store.md``.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.kernel.errors import Invalid
from penstock.stores.records import COLLECTION_NAME, CollectionInfo

#: The name of sparse vectors that say themselves what a term is worth. Those of BM25 are named after their arm; one
#: collection uses one of the two names.
LEARNED: Final = "learned"

#: Edges of a graph node, and candidates looked at while it is built: with them the engine finds as
#: good as everything that an exact search finds.
HNSW_M: Final = 16
HNSW_EF_CONSTRUCT: Final = 128

#: Kilobytes of vectors below which comparing everything is quicker than walking a graph.
FULL_SCAN_KB: Final = 10_000

#: Kilobytes of vectors from which on a segment gets a graph.
INDEXING_KB: Final = 10_000

#: Share of deleted points at which a segment is written anew.
DELETED_SHARE: Final = 0.2

#: Share of the components that the bytes' range covers; what lies beyond is cut.
QUANTILE: Final = 0.99

#: Of the candidates that the bytes find, so many times the wanted number is compared by the vectors themselves: what is
#: found is as good as with the vectors alone, and every score is exact.
OVERSAMPLING: Final = 2.0

_NAME: Final = re.compile(COLLECTION_NAME)


def check_name(name: str) -> None:
    """Refuse what is no name of a collection.

    Raises:
        Invalid: It is none (``invalid_name``).
    """
    if not _NAME.fullmatch(name):
        raise Invalid(
            "a collection's name is 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or a digit",
            field="collection",
            code="invalid_name",
        )


def check_same(there: CollectionInfo, wanted: CollectionInfo) -> None:
    """Refuse a collection whose vectors are others than wanted; without token vectors it will do.

    Raises:
        Invalid: They are; both are named (``collection_conflict``).
    """
    if (there.dim, there.model, there.sparse) == (wanted.dim, wanted.model, wanted.sparse):
        return
    raise conflict(f"collection {there.name!r} holds vectors of {said(there)}, not of {said(wanted)}")


def conflict(what: str) -> Invalid:
    """Return the error of a collection in whose place there is another."""
    return Invalid(f"{what}; use another name or delete it first", field="collection", code="collection_conflict")


def said(info: CollectionInfo) -> str:
    """Return the models of a collection in words."""
    return f"{info.model} ({info.dim}-d)" + (f" with {info.sparse}" if info.sparse else "")
