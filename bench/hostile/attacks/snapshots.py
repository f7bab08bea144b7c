"""Snapshots that were made to hurt: their names, sizes and contents are not what a server wrote."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.hostile.attack import Attack, Got
from bench.hostile.attacks.servers import lone, served
from bench.hostile.target import Target

#: The form of a snapshot, read here without the program's own code, which is what is tried.
MAGIC: Final = b"penstock snapshot 1\n"
LENGTH: Final = struct.Struct("<I")
NAME: Final = "base"

#: Nothing of these names may come to be.
OUTSIDE: Final = (Path(tempfile.gettempdir()) / "penstock-elsewhere", Path(tempfile.gettempdir()) / "penstock-escaped")

Record = list[Any]
Change = Callable[[list[Record]], list[Record]]


def _records(path: Path) -> list[Record]:
    data = path.read_bytes()
    at, found = len(MAGIC), []
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        found.append(msgspec.msgpack.decode(data[at : at + length]))
        at += length
    return found[:-1]  # the last one is the digest, which is made again


def _write(path: Path, records: list[Record]) -> None:
    frames = [LENGTH.pack(len(data)) + data for data in map(msgspec.msgpack.encode, records)]
    body = MAGIC + b"".join(frames)
    closing = msgspec.msgpack.encode(["closing", hashlib.blake2b(body, digest_size=32).digest()])
    path.write_bytes(body + LENGTH.pack(len(closing)) + closing)


def _inner(**changes: Any) -> Change:
    """Change the manifest inside, whatever the opening says."""

    def change(records: list[Record]) -> list[Record]:
        found, rest = [], iter(records)
        for record in rest:
            if record[0] == "file" and record[1] == f"{NAME}/collection.json":
                data = json.dumps({**json.loads(next(rest)[2]), **changes}).encode()
                found += [["file", record[1], len(data)], ["extent", 0, data]]
            else:
                found.append(record)
        return found

    return change


def _opening(**changes: Any) -> Change:
    """Change the manifest that the snapshot begins with, which is a map or an array."""

    def change(records: list[Record]) -> list[Record]:
        opening = list(records[0])
        opening[3] = [{**one, **changes} for one in opening[3]]
        return [opening, *records[1:]]

    return change


def _with(*extra: Record) -> Change:
    return lambda records: [*records, *extra]


def _without_shards(records: list[Record]) -> list[Record]:
    kept, keep = [records[0]], True
    for record in records[1:]:
        if record[0] in {"file", "directory"}:
            keep = not record[1].startswith(f"{NAME}/shard")
        if keep:
            kept.append(record)
    return kept


def _garbage(records: list[Record]) -> list[Record]:
    """Random bytes in every file of the engine, with a checksum that is right."""
    engine, found = False, []
    for record in records:
        if record[0] == "file":
            engine = not record[1].endswith("collection.json")
        found.append(["extent", record[1], os.urandom(len(record[2]))] if record[0] == "extent" and engine else record)
    return found


CHANGES: Final[dict[str, Change]] = {
    "its manifest names a path": _inner(name=str(OUTSIDE[0])),
    "its manifest names a place above": _inner(name="../../elsewhere"),
    "its manifest names another collection": _inner(name="other"),
    "its manifest has no name": _inner(name=""),
    "its manifest names another model": _inner(model="another model"),
    "its manifest has other dimensions": _inner(dim=7),
    "its opening names a place above": _opening(name="../other"),
    "its opening has a thousand million shards": _opening(shards=10**9),
    "a file above it": _with(["file", "../../escaped", 3], ["extent", 0, b"abc"]),
    "a file at an absolute path": _with(["file", str(OUTSIDE[1]), 3], ["extent", 0, b"abc"]),
    "a file of a million terabytes": _with(["file", f"{NAME}/x", 1 << 62]),
    "a file of a negative size": _with(["file", f"{NAME}/x", -1]),
    "bytes far behind the end of a file": _with(["file", f"{NAME}/x", 1], ["extent", 1 << 61, b"abc"]),
    "a name with NUL": _with(["file", f"{NAME}/a\0b", 0]),
    "the same directory twice": _with(["directory", NAME]),
    "no shard": _without_shards,
    "random bytes for a shard": _garbage,
}


def _restored(change: Change, target: Target) -> Got:
    """Restore a changed snapshot; nothing may have changed, and the next start must work."""
    for one in OUTSIDE:
        subprocess.run(["rm", "-rf", str(one)], check=True)
    with lone(target) as directory:
        with served(directory) as server:
            server.index("other", {"id": "a", "text": "precious"})
            server.index(NAME, {"id": "a", "text": "snapshot"})
            made = json.loads(server.ask("POST", "/v1/snapshots").body)["name"]
            server.ask("DELETE", f"/v1/collections/{NAME}")
            original = _records(directory / "snapshots" / made)
            opening = [*original[0][:3], [one for one in original[0][3] if one["name"] == NAME]]
            rest = _only(original[1:])
            _write(directory / "snapshots" / "changed.snapshot", change([opening, *rest]))
            before = _paths(directory)
            answer = server.ask("POST", "/v1/snapshots/changed.snapshot/restore", {"force": True})
            new = _paths(directory) ^ before
        with served(directory) as server:
            found = server.search({"query": "precious"}, "other")
        escaped = [one for one in OUTSIDE if one.exists()]
        kept = answer.status in {400, 409, 413, 422, 503, 507} and found.status == 200 and not new and not escaped
        changed = f"changed: {', '.join(sorted(new))}" if new else "nothing changed"
        return Got(f"{answer}, {changed}; started again, another collection {found}", kept)


def _only(records: list[Record]) -> list[Record]:
    """Return the records of the one collection."""
    kept, keep = [], False
    for record in records:
        if record[0] in {"file", "directory"}:
            keep = record[1].split("/")[0] == NAME
        if keep:
            kept.append(record)
    return kept


def _paths(directory: Path) -> set[str]:
    """Return the collections and snapshots in a data directory, and what lies beside them."""
    found = {str(one.relative_to(directory)) for one in directory.iterdir()}
    for room in ("collections", "snapshots"):
        # What is on its way out has a dot before its name.
        found |= {f"{room}/{one.name}" for one in (directory / room).iterdir() if not one.name.startswith(".")}
    return found


def _listed(target: Target) -> Got:
    """Snapshots without end do not fill the disk, can be listed and deleted."""
    with lone(target) as directory, served(directory) as server:
        server.index(NAME, {"id": "a", "text": "snapshot"})
        for _ in range(25):
            server.ask("POST", "/v1/snapshots")
        listed = json.loads(server.ask("GET", "/v1/snapshots").body)["snapshots"]
        deleted = server.ask("DELETE", f"/v1/snapshots/{listed[0]['name']}")
        left = len(list((directory / "snapshots").glob("*.snapshot")))
        return Got(f"{len(listed)} kept of 25; deleted {deleted}; {left} left", deleted.status == 200 and left < 25)


ATTACKS: Final = (
    *(
        Attack(
            "H5",
            f"a snapshot to restore: {name}",
            "refused; nothing changed, the next start works",
            partial(_restored, change),
            watched=False,
        )
        for name, change in CHANGES.items()
    ),
    Attack("H5", "twenty-five snapshots", "pruned, listed, deleted", _listed, watched=False),
)
