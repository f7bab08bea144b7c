"""Request batches: encoded documents, grouped for one request each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from penstock.indexing.sources.local_files import IndexableFile

#: Each request costs some milliseconds; larger ones bring little more, and move the bar less often.
BATCH_BYTES_MAX: Final = 128_000


def batches(
    items: Iterable[tuple[IndexableFile, bytes]], count_max: int, bytes_max: int
) -> Iterator[list[tuple[IndexableFile, bytes]]]:
    """Group encoded documents for one request each.

    Bounds:
        At most ``count_max`` documents and ``bytes_max`` bytes; a larger document goes alone.
    """
    batch: list[tuple[IndexableFile, bytes]] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= count_max or size + len(item[1]) > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item[1])
    if batch:
        yield batch
