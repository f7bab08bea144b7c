"""The collections of a data directory: create, open, describe, drop; crash-safe by renames.

Layout: ``collections/<name>/collection.json`` and ``collections/<name>/shard/``. A directory whose
name begins with a dot is half made or half deleted, and is removed at the next start.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.contract import CollectionInfo, Match

MANIFEST: Final = "collection.json"
SHARD: Final = "shard"

#: Below this many free bytes nothing is written any more: the engine maps its files, and a full
#: disk under a mapping ends the process instead of raising an error.
FREE_BYTES_MIN: Final = 96 * 2**20

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Shelf:
    """Every collection of one data directory, open.

    Args:
        root: The directory ``collections`` in the data directory.

    Attributes:
        panicked: The engine panicked over one of them: the process must end and start anew.

    Raises:
        Unavailable: Another process holds a collection (``store_locked``), or one cannot be read
            (``store_damaged``).
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.panicked = False
        self._shards: dict[str, Shard] = {}
        self._infos: dict[str, CollectionInfo] = {}
        root.mkdir(parents=True, exist_ok=True)
        for entry in sorted(root.iterdir()):
            if entry.name.startswith("."):
                shutil.rmtree(entry, ignore_errors=True)
            elif (entry / MANIFEST).is_file():
                self._infos[entry.name] = _manifest(entry / MANIFEST)
                self._shards[entry.name] = Shard.load(entry / SHARD)

    def __len__(self) -> int:
        return len(self._shards)

    def shard(self, name: str) -> Shard:
        """Return an open collection.

        Raises:
            Invalid: There is none of that name.
        """
        try:
            return self._shards[name]
        except KeyError:
            raise Invalid(f"there is no collection {name!r}", field="collection", code="collection_not_found") from None

    def writable(self, name: str) -> Shard:
        """Return an open collection, refusing when the disk is all but full."""
        shard = self.shard(name)
        self._check_space()
        return shard

    def create(self, wanted: CollectionInfo) -> CollectionInfo:
        """Create a collection, or return the one that has the same layout.

        Raises:
            Invalid: The name is not allowed, or taken by another layout.
        """
        name = wanted.name
        if not _NAME.fullmatch(name):
            raise Invalid(
                "a collection's name is 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or a digit",
                field="collection",
                code="invalid_name",
            )
        if name in self._infos:
            return self._same_layout(wanted)
        self._check_space()
        fresh = self._root / f".new-{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        info = msgspec.structs.replace(wanted, created_at=now)
        Shard.create(fresh / SHARD, info.dim).close()
        (fresh / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(info)))
        fresh.replace(self._root / name)
        self._infos[name] = info
        self._shards[name] = Shard.load(self._root / name / SHARD)
        return self.describe(name)

    def describe(self, name: str) -> CollectionInfo:
        """Return a collection's layout and counts."""
        shard = self.shard(name)
        return msgspec.structs.replace(
            self._infos[name],
            documents=shard.count([Match("chunk", [0])]),
            chunks=shard.count(),
            disk_bytes=_disk_bytes(self._root / name),
        )

    def describe_all(self) -> list[CollectionInfo]:
        """Return every collection, by name."""
        return [self.describe(name) for name in sorted(self._shards)]

    def drop(self, name: str) -> None:
        """Delete a collection: out of sight by one rename, then file by file."""
        self.shard(name).close()
        del self._shards[name], self._infos[name]
        gone = self._root / f".dropped-{name}"
        shutil.rmtree(gone, ignore_errors=True)
        (self._root / name).replace(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Flush and close every collection."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def _same_layout(self, wanted: CollectionInfo) -> CollectionInfo:
        there = self._infos[wanted.name]
        if (there.dim, there.model) != (wanted.dim, wanted.model):
            raise Invalid(
                f"collection {there.name!r} holds vectors of {there.model} ({there.dim}-d), not of"
                f" {wanted.model} ({wanted.dim}-d); use another name or delete it first",
                field="collection",
                code="collection_conflict",
            )
        return self.describe(wanted.name)

    def _check_space(self) -> None:
        if shutil.disk_usage(self._root).free < FREE_BYTES_MIN:
            raise Unavailable(
                f"the disk of the data directory has less than {FREE_BYTES_MIN >> 20} MiB left;"
                " nothing is written until there is room",
                dependency="store",
                code="disk_full",
            )


def _manifest(path: Path) -> CollectionInfo:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CollectionInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"{path} is damaged: {error}; restore it, or move {path.parent} away and index anew",
            dependency="store",
            code="store_damaged",
        ) from error


def _disk_bytes(directory: Path) -> int:
    """Return the bytes allocated below a directory (its sparse files count what they use)."""
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
