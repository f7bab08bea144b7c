"""Archives that no release has made: a released one with hostile values in it, its digest right again."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from penstock.stores.backends.edge.archive import (
    MAGIC,
    DirectoryEntry,
    FileEntry,
    FileExtent,
    SnapshotHeader,
    SnapshotRecord,
    SnapshotTrailer,
)
from penstock.stores.backends.edge.ipc import LENGTH_HEADER

FIXTURES = Path(__file__).parents[1] / "fixtures"

#: Names and paths of which none may lead anywhere.
HOSTILE_TEXTS = (
    "",
    ".",
    "..",
    "/",
    "../../x",
    "/tmp/penstock-outside",
    "alpha/../../x",
    "alpha~2",
    "alpha~0",
    "a\0b",
    "\n",
)
HOSTILE_TEXTS += (
    ".hid",
    "x" * 300,
    "é",
    "alpha/shard",
    "alpha/collection.json",
    "gamma",
    "alpha\\x",
    "a//b",
    "CON",
    "\x1b[31m",
)

HOSTILE_NUMBERS = (-1, 0, 1, 2, 3, 64, 65, 1 << 20, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63))

#: What takes the place of a whole frame.
HOSTILE_FRAMES = (
    b"",
    b"\xc1",
    b"\x91" * 100_000,
    b"\x81\xa1x" * 50_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
)


def released(shards: int = 1) -> bytes:
    """Return a snapshot that the first release has made."""
    name = "release-0.1.0.snapshot.gz" if shards == 1 else "release-0.1.0-two-shards.snapshot.gz"
    return gzip.decompress((FIXTURES / name).read_bytes())


def records(data: bytes) -> list[SnapshotRecord]:
    """Return the records of an archive, without the last."""
    decoder: msgspec.msgpack.Decoder[SnapshotRecord] = msgspec.msgpack.Decoder(SnapshotRecord)
    found: list[SnapshotRecord] = []
    begin = len(MAGIC)
    while begin < len(data):
        end = begin + LENGTH_HEADER.size + LENGTH_HEADER.unpack_from(data, begin)[0]
        found.append(decoder.decode(data[begin + LENGTH_HEADER.size : end]))
        begin = end
    return found[:-1]


def packed(frames: Iterable[SnapshotRecord | bytes]) -> bytes:
    """Return an archive of records, or of frames as they are, with the digest that is right for it."""
    data = bytearray(MAGIC)
    for one in frames:
        data += _frame(one if isinstance(one, bytes) else msgspec.msgpack.encode(one))
    return bytes(data + _frame(msgspec.msgpack.encode(SnapshotTrailer(hashlib.blake2b(data, digest_size=32).digest()))))


def mutated(whole: Sequence[SnapshotRecord], luck: random.Random) -> bytes:
    """Return an archive in which something is as nobody's release would make it, its digest right."""
    made: list[SnapshotRecord | bytes] = list(whole)
    for _ in range(luck.choice((1, 1, 1, 2, 5))):
        place = luck.randrange(len(made))
        match luck.randrange(7):
            case 0:
                del made[place]
            case 1:
                made.insert(luck.randrange(len(made)), made[place])
            case 2:
                other = luck.randrange(len(made))
                made[place], made[other] = made[other], made[place]
            case 3:
                made[place] = luck.choice(HOSTILE_FRAMES)
            case 4:
                made.insert(place, _strange(luck))
            case _:
                one = made[place]
                made[place] = one if isinstance(one, bytes) else _changed(one, luck)
        if not made:
            break
    return packed(made)


def scratched(data: bytes, luck: random.Random) -> bytes:
    """Return an archive in which bytes are others, its digest as it was."""
    made = bytearray(data)
    match luck.randrange(4):
        case 0:
            del made[luck.randrange(len(made)) :]
        case 1:
            begin = luck.randrange(len(made))
            del made[begin : begin + luck.choice((1, 7, 4096))]
        case 2:
            made[luck.randrange(len(made)) :] = luck.randbytes(luck.choice((1, 100, 10_000)))
        case _:
            for _ in range(luck.choice((1, 10, 1000))):
                made[luck.randrange(len(made))] = luck.randrange(256)
    return bytes(made)


def rotten(whole: Sequence[SnapshotRecord], luck: random.Random) -> bytes:
    """Return an archive whose form is right, and in which bytes of the engine's own files are others."""
    made, name = list(whole), ""
    share = luck.choice((0.01, 0.05, 0.3))
    for place, one in enumerate(made):
        if isinstance(one, FileEntry):
            name = one.path
        elif isinstance(one, FileExtent) and not name.endswith("collection.json") and luck.random() < share:
            data = bytearray(one.data)
            for _ in range(luck.choice((1, 8, 1 + len(data) // 50))):
                data[luck.randrange(min(len(data), 400))] = luck.choice((0, 255, luck.randrange(256)))
            made[place] = FileExtent(one.offset, bytes(data))
    return packed(made)


def _changed(record: SnapshotRecord, luck: random.Random) -> SnapshotRecord:
    """Return a record with a hostile value in one of its fields."""
    if isinstance(record, SnapshotHeader) and record.collections and luck.random() < 0.8:
        place = luck.randrange(len(record.collections))
        stated = list(record.collections)
        stated[place] = _with_hostile(stated[place], luck)
        return msgspec.structs.replace(record, collections=stated)
    if isinstance(record, FileExtent) and record.data.startswith(b"{") and luck.random() < 0.8:
        return _manifest(record, luck)
    changed: SnapshotRecord = _with_hostile(record, luck)
    return changed


def _manifest(extent: FileExtent, luck: random.Random) -> FileExtent:
    """Return the bytes of a JSON file with one value changed; they keep their length, as their file does."""
    try:
        said = msgspec.json.decode(extent.data)
    except msgspec.DecodeError:
        return extent
    said[luck.choice(sorted(said))] = luck.choice((*HOSTILE_TEXTS, *HOSTILE_NUMBERS, None, [], {}))
    return FileExtent(extent.offset, msgspec.json.encode(said).ljust(len(extent.data))[: len(extent.data)])


def _with_hostile(record: Any, luck: random.Random) -> Any:
    name = luck.choice(record.__struct_fields__)
    value = getattr(record, name)
    if isinstance(value, str):
        value = luck.choice(HOSTILE_TEXTS)
    elif isinstance(value, int):
        value = luck.choice((*HOSTILE_NUMBERS, value + 1, value - 1, value + 4096))
    elif isinstance(value, bytes):
        value = luck.choice((b"", value[:-1], value * 2, luck.randbytes(len(value))))
    elif isinstance(value, list):
        value = luck.choice(([], value * 2, value[:-1]))
    return msgspec.structs.replace(record, **{name: value})


def _strange(luck: random.Random) -> SnapshotRecord:
    """Return a record of nothing that is there."""
    path, number = luck.choice(HOSTILE_TEXTS), luck.choice(HOSTILE_NUMBERS)
    below = luck.choice(("", "alpha/", "alpha/shard/", "beta/shard/wal/"))
    kinds: tuple[SnapshotRecord, ...] = (
        FileEntry(below + path, number),
        DirectoryEntry(below + path),
        FileExtent(number, b"abc"),
        SnapshotTrailer(b"d" * 32),
        SnapshotHeader(path, path, []),
    )
    return luck.choice(kinds)


def _frame(data: bytes) -> bytes:
    return LENGTH_HEADER.pack(len(data)) + data
