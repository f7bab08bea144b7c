"""Facets: how often each language, source, folder or value of metadata occurs among the best chunks of a search."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from penstock.search.request import Facet, FacetValue
from penstock.search.several_collections import collection_of
from penstock.stores.data_model import RetrievedHit, Scalar

#: The best chunks that are counted. They are ranked in whole blocks, so a larger limit changes nothing.
COUNTED_CHUNKS: Final = 256

#: Values of a facet that are told, those that occur most.
VALUES_MAX: Final = 50
#: Values of one document's metadata that are counted for a facet, and characters of one.
VALUES_PER_DOCUMENT_MAX: Final = 1000
VALUE_CHARACTERS_MAX: Final = 256

#: Values after which the event loop runs other tasks.
SLICE_VALUES: Final = 5000

_METADATA: Final = "metadata."


async def count_facets(fields: Sequence[str], ranked: Sequence[RetrievedHit], *, by_document: bool) -> list[Facet]:
    """Return the facets of ranked chunks.

    Args:
        fields: Their names, as :func:`penstock.search.request.check_facets` allows them.
        ranked: The chunks, best first.
        by_document: Whether a document counts once, by its best chunk, however many chunks it has.

    Bounds: ``VALUES_MAX`` values of a facet, ``VALUES_PER_DOCUMENT_MAX`` of a document's.
    """
    hits: Collection[RetrievedHit] = ranked
    if by_document:
        hits = {(collection_of(hit.point), hit.payload.id): hit for hit in reversed(ranked)}.values()
    facets, spent = [], 0
    for field in fields:
        # Neither 1 and true nor 1 and "1" are one value, as they are to a filter.
        counts: Counter[tuple[bool, Scalar]] = Counter()
        for hit in hits:
            values = {(isinstance(value, bool), value) for value in _values(field, hit)}
            counts.update(values)
            spent += len(values) + 1
            if spent >= SLICE_VALUES:
                spent = 0
                await asyncio.sleep(0)
        best = sorted(counts.items(), key=lambda one: (-one[1], str(one[0][1])))[:VALUES_MAX]
        told = [FacetValue(value, count) for (_, value), count in best]
        facets.append(Facet(field, told, len(hits), len(counts) - len(told)))
    return facets


def _values(field: str, hit: RetrievedHit) -> Iterator[Scalar]:
    """Yield the values that a hit has for a facet; an empty one is none."""
    payload = hit.payload
    if field.startswith(_METADATA):
        found = islice(_below(payload.metadata, field.removeprefix(_METADATA)), VALUES_PER_DOCUMENT_MAX)
        return (one for one in found if not isinstance(one, str) or len(one) <= VALUE_CHARACTERS_MAX)
    if field == "folder":
        # What is after the root of an absolute path.
        value = payload.path[: payload.path.find("/", 1) + 1]
    else:
        value = collection_of(hit.point) if field == "collection" else getattr(payload, field)
    return iter((value,) if value and len(value) <= VALUE_CHARACTERS_MAX else ())


def _below(value: Any, path: str | None) -> Iterator[Scalar]:
    """Yield the scalars at a path, whether its dots mean nesting or belong to a key; lists give each of their items."""
    if isinstance(value, list):
        for item in value:
            yield from _below(item, path)
    elif isinstance(value, Mapping):
        for key, inner in value.items() if path is not None else ():
            if key == path:
                yield from _below(inner, None)
            elif path is not None and path.startswith(f"{key}."):
                yield from _below(inner, path.removeprefix(f"{key}."))
    elif path is None and value is not None:
        yield value
