"""Snapshots of the embedded store: every collection in one file, and back again.

Each collection is consistent in itself: it is flushed and copied while its updates wait and its searches
go on. Packing works on the copy.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from penstock import __version__
from penstock.kernel.errors import Invalid
from penstock.kernel.ids import new_id
from penstock.kernel.work import Work
from penstock.stores.backends.edge import archive, manifest, wire
from penstock.stores.backends.edge.archive import Opening
from penstock.stores.backends.edge.link import StoreLink
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.records import CollectionInfo, Snapshot

SUFFIX: Final = ".snapshot"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class EdgeSnapshots:
    """Snapshots in a directory of the data directory; see :class:`penstock.stores.contract.Snapshots`.

    Args:
        data_dir: The data directory.
        links: The store processes, the first for ``collections`` and so on.
        restored: Called with the name of each collection that has been taken in.

    Bounds: one snapshot is made or restored at a time; on the disk two further copies meanwhile.
    """

    def __init__(self, data_dir: Path, links: Sequence[StoreLink], restored: Callable[[str], None]) -> None:
        self._place = data_dir / "snapshots"
        self._links = links
        self._restored = restored
        self._one = asyncio.Lock()

    async def make(self, work: Work) -> Snapshot:
        """Make a snapshot of every collection."""
        async with self._one:
            now = dt.datetime.now(dt.UTC)
            name = f"penstock-{now:%Y%m%d-%H%M%S}{SUFFIX}"
            draft = self._draft("snapshot")
            try:
                stated = await self._copy(draft, work)
                opening = Opening(__version__, now.isoformat(timespec="seconds"), stated)
                await asyncio.to_thread(self._place.mkdir, parents=True, exist_ok=True)
                size = await asyncio.to_thread(archive.pack, draft, self._place / name, opening)
            finally:
                await asyncio.to_thread(manifest.remove, draft)
        return Snapshot(name, size, opening.made_at, [one.name for one in stated])

    async def restore(self, name: str, layout: CollectionInfo, work: Work, *, force: bool) -> list[CollectionInfo]:
        """Take in what a snapshot holds."""
        file = self._file(name)
        async with self._one:
            opening = await asyncio.to_thread(archive.opening_of, file)
            there = await self._links[0].ask(wire.ListCollections(), list[CollectionInfo], work)
            _check(opening, layout, len(self._links), {info.name for info in there} if not force else set())
            draft = self._draft("restore")
            try:
                await asyncio.to_thread(archive.unpack, file, draft)
                return [await self._adopt(draft, one, work, force=force) for one in opening.collections]
            finally:
                await asyncio.to_thread(manifest.remove, draft)

    async def _copy(self, draft: Path, work: Work) -> list[Manifest]:
        """Copy every collection, one after the other; return their manifests."""
        await asyncio.to_thread(draft.mkdir, parents=True)
        found = await self._links[0].ask(wire.ListCollections(), list[CollectionInfo], work)
        for info in found:
            for number, link in enumerate(self._links[: info.shards]):
                await link.ask(wire.Copy(info.name, str(_part(draft, info.name, number))), object, work)
        return [await asyncio.to_thread(manifest.read, draft / info.name) for info in found]

    async def _adopt(self, draft: Path, stated: Manifest, work: Work, *, force: bool) -> CollectionInfo:
        """Take in a collection, the first shard's part last: it is the one that says that it is there."""
        for number, link in reversed([*enumerate(self._links[: stated.shards])]):
            command = wire.Adopt(stated.name, str(_part(draft, stated.name, number)), force or number > 0)
            info = await link.ask(command, CollectionInfo, work)
        self._restored(stated.name)
        return info

    def _draft(self, purpose: str) -> Path:
        """Return a path beside the collections; the next start removes what is left there."""
        return self._links[0].directory / f".{purpose}-{new_id()}"

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or not (self._place / name).is_file():
            raise Invalid(f"there is no snapshot {name!r}", field="snapshot", code="snapshot_not_found")
        return self._place / name


def _part(draft: Path, name: str, number: int) -> Path:
    """Return where a shard's part of a collection is; no collection has a tilde in its name."""
    return draft / (f"{name}~{number + 1}" if number else name)


def _check(opening: Opening, layout: CollectionInfo, shards: int, there: set[str]) -> None:
    """Refuse, before anything is touched, what could not be searched or would be replaced unasked."""
    for stated in opening.collections:
        if (stated.model, stated.dim) != (layout.model, layout.dim):
            raise Invalid(
                f"the snapshot's collection {stated.name!r} holds vectors of {stated.model} ({stated.dim}-d), not of"
                f" {layout.model} ({layout.dim}-d) with which this server works",
                field="snapshot",
                code="collection_conflict",
            )
        if stated.shards > shards:
            raise Invalid(
                f"the snapshot's collection {stated.name!r} is spread over {stated.shards} store processes, of which"
                f" {shards} run; set store.shards to {stated.shards} or more",
                field="snapshot",
                code="shards_missing",
            )
        if stated.name in there:
            raise Invalid(
                f"there is a collection {stated.name!r} already; delete it first, or restore by force",
                field="snapshot",
                code="collection_exists",
            )
