"""Frames between the front and the store process: a length, then a MessagePack record.

The two ends are the same release of the same program on the same machine, joined by an anonymous
socket pair. Nothing else can connect.
"""

from __future__ import annotations

import asyncio
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, Union

import msgspec

from penstock.kernel.arrays import encode_array, view_array
from penstock.kernel.errors import ErrorRecord, Invalid, PenstockError, from_record, to_record
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.commands import CollectionCommand, Retrieve, StoreCommand
from penstock.stores.data_model import ArmVector, CollectionInfo, IndexBuildStatus, RetrievalResult, RetrievedHit
from penstock.stores.key_value_cache import CacheState

T = TypeVar("T")

LENGTH_HEADER: Final = struct.Struct("<I")

#: Bytes of hits that are decoded before others have the event loop: some 3 ms where they are metadata of many keys.
SLICE_BYTES: Final = 262_144


class ShrinkCache(StoreCommand[None], frozen=True):
    """Shrink the cache of points to a share of its size, because memory is short."""

    share: float


class Ping(StoreCommand[None], frozen=True):
    """Reply and do nothing."""


class CloseStore(StoreCommand[None], frozen=True):
    """Flush, close every collection and end."""

    writes = True


class CopyCollection(CollectionCommand[None], frozen=True):
    """Copy a collection to a directory; answered when the copy is whole."""

    writes = True
    target: str


class InstallCollection(CollectionCommand[CollectionInfo], frozen=True):
    """Install a copied collection from a directory; with ``force`` it replaces an existing one."""

    writes = True
    source: str
    force: bool


class OptimizeCollection(CollectionCommand[None], frozen=True):
    """Start an index build of a collection; answered before the new generation is made."""

    writes = True


def _every_command(base: type[Any]) -> list[type[Any]]:
    """Return the commands declared so far, here and in :mod:`penstock.stores.commands`."""
    below = base.__subclasses__()
    return [command for one in below for command in _every_command(one)] if below else [base]


if TYPE_CHECKING:
    AnyCommand: TypeAlias = StoreCommand[Any]
else:
    AnyCommand = Union[tuple(_every_command(StoreCommand))]  # noqa: UP007 - made of a list

#: Number of a reply that answers no request: it carries a :class:`StoreNotice`.
NOTICE_NUMBER: Final = -1


class StoreRequest(msgspec.Struct, frozen=True, array_like=True):
    """A command, its number, and how long its requester will wait (infinite: ``None``)."""

    number: int
    command: AnyCommand
    expires_at_s: float | None = None


class RawRetrievalResult(msgspec.Struct, frozen=True):
    """A ``RetrievalResult`` whose hits are still bytes: a large answer is decoded in slices."""

    hits: list[msgspec.Raw]
    failures: dict[str, PenstockError]
    stages: dict[str, float]
    truncated: bool

    async def decoded(self) -> RetrievalResult:
        """Return the result with its hits; the event loop is released after each ``SLICE_BYTES``."""
        hits, size = [], 0
        for one in self.hits:
            hits.append(_HIT.decode(one))
            size += len(memoryview(one))
            if size >= SLICE_BYTES:
                size = 0
                await asyncio.sleep(0)
        return RetrievalResult(hits, self.failures, self.stages, self.truncated)


class StoreReply(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of the request of that number; the requester decodes ``body``."""

    number: int
    error: ErrorRecord | None
    body: msgspec.Raw


class StoreNotice(msgspec.Struct, frozen=True):
    """Status that the store process reports without being asked."""

    upkeep: list[IndexBuildStatus]
    cache: CacheState
    damaged: dict[str, str] = {}


class StoreReady(msgspec.Struct, frozen=True):
    """The store process's first frame (number 0): it has found its collections.

    Attributes:
        collections: How many.
        identity: Device and inode of its directory, which tell it from another directory at the same path.
    """

    collections: int
    identity: tuple[int, int]


class StoreOptions(msgspec.Struct, frozen=True):
    """Start options of a store process.

    Attributes:
        rule: When a collection gets a new generation.
        cache_bytes: Memory for its cache of points.
        activity: Descriptor of the memory in which it records its current task.
        condemned: Quarantined collections, which stay closed, with the reason.
        starved: Whether nothing is to be opened while the disk is full.
        identity: That of the directory, where an earlier process has served it.
    """

    rule: OptimizePolicy
    cache_bytes: int
    activity: int
    condemned: dict[str, str]
    starved: bool
    identity: tuple[int, int] | None


def _to_wire(value: Any) -> Any:
    """Return what MessagePack cannot write as something that it can: errors as their records, arrays as their bytes."""
    return to_record(value) if isinstance(value, PenstockError) else encode_array(value)


def _from_wire(type: Any, value: Any) -> Any:
    """Return the error, the vector or the array that :func:`_to_wire` has written; arrays are views."""
    if isinstance(value, msgspec.msgpack.Ext):
        return view_array(DenseVectors if type is ArmVector else type, value)
    if type is ArmVector:
        return msgspec.convert(value, SparseVector, dec_hook=view_array)
    # Values of metadata may be anything.
    return from_record(msgspec.convert(value, ErrorRecord)) if type is PenstockError else value


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_HIT: Final = msgspec.msgpack.Decoder(RetrievedHit)


def decoder(type: type[T]) -> msgspec.msgpack.Decoder[T]:
    """Return a decoder of the values that :func:`encode` writes."""
    return msgspec.msgpack.Decoder(type, dec_hook=_from_wire)


@cache
def result_decoder(command: type[StoreCommand[T]]) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a command's result; that of a search is decoded in slices."""
    return decoder(RawRetrievalResult if command is Retrieve else command.result_type())


def encode(value: object) -> bytes:
    """Return a value as MessagePack."""
    return _ENCODER.encode(value)


def encode_frame(record: msgspec.Struct) -> bytes:
    """Return the record as bytes to send.

    Raises:
        Invalid: It holds what cannot be written, such as a number beyond 64 bits: no fault of the other side's.
    """
    try:
        body = _ENCODER.encode(record)
    except (OverflowError, ValueError, TypeError, RecursionError, NotImplementedError) as error:
        raise Invalid(f"the request holds what the store cannot take: {error}") from None
    return LENGTH_HEADER.pack(len(body)) + body
