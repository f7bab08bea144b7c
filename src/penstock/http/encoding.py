"""Answers as JSON, written in slices: a large one does not keep the event loop from everybody else."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import numpy as np

#: Bytes of JSON after which others have the event loop. Numbers are the slowest: this much of them takes 2 ms.
SLICE_BYTES: Final = 262_144

#: Lists of at most so many items are written with the rest of the record.
ITEMS_MIN: Final = 32


def _plain(value: Any) -> Any:
    """Return an array as a list of its numbers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain)


def to_json(record: Any) -> bytes:
    """Return a small record as JSON."""
    return _ENCODER.encode(record)


async def in_slices(record: msgspec.Struct) -> bytes:
    """Return a record as JSON, its long lists item by item, with pauses after each ``SLICE_BYTES``.

    An array stands for the list of its numbers.
    """
    written: dict[str, list[msgspec.Raw]] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, list) and len(value) > ITEMS_MIN:
            written[name] = await _items(value)
    # A record's fields are not checked when it is made: bytes that are JSON already stand for any of them.
    return _ENCODER.encode(msgspec.structs.replace(record, **written) if written else record)


async def _items(values: list[Any]) -> list[msgspec.Raw]:
    written, size = [], 0
    for value in values:
        item = _ENCODER.encode(value)
        written.append(msgspec.Raw(item))
        size += len(item)
        if size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return written
