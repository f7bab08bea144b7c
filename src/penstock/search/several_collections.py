"""One search over several collections: the hits of each put into one order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from penstock.kernel.errors import PenstockError
from penstock.search.request import LeftOut
from penstock.stores.data_model import RetrievedHit

#: Between a collection's name, which has none, and the id of a point.
_SEPARATOR: Final = "/"


def merge_collections(ranked: Mapping[str, Sequence[RetrievedHit]], *, comparable: bool) -> list[RetrievedHit]:
    """Return the hits of several collections in one order; their points are named after their collections.

    Args:
        ranked: The hits of each collection, best first.
        comparable: Whether their scores are of one kind. Otherwise the collections take turns, rank by rank.
    """
    named = [
        (rank, msgspec.structs.replace(hit, point=f"{collection}{_SEPARATOR}{hit.point}"))
        for collection, hits in ranked.items()
        for rank, hit in enumerate(hits)
    ]
    # The sort is stable: equal ones stay in the order of the collections.
    named.sort(key=lambda one: -one[1].score if comparable else one[0])
    return [hit for _, hit in named]


def collection_of(point: str) -> str:
    """Return the collection of a merged hit's point; empty for one of a search of a single collection."""
    return point.rpartition(_SEPARATOR)[0]


def left_out(errors: Mapping[str, PenstockError]) -> list[LeftOut]:
    """Return the collections that could not be searched, and why."""
    return [LeftOut(collection, error.code, error.detail) for collection, error in errors.items()]
