"""Snapshots of a store in memory: what its collections held."""

import copy
from typing import Any

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.stores.commands import ListCollections
from penstock.stores.contract import OnRestored, SnapshotStore, ignore_restored
from penstock.stores.data_model import CollectionInfo, SnapshotInfo
from tests.fakes.memory_store import MemoryStore


class MemorySnapshots(SnapshotStore):
    """A fake of ``SnapshotStore``; every snapshot is called ``notes``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._made: dict[str, dict[str, Any]] = {}
        self._told: dict[str, SnapshotInfo] = {}

    async def create(self, ctx: Context) -> SnapshotInfo:
        self._made["notes"] = copy.deepcopy(vars(self._store))
        names = [info.name for info in await self._store.run(ListCollections(), ctx)]
        self._told["notes"] = SnapshotInfo("notes", 1, "2026-01-01T00:00:00+00:00", names)
        return self._told["notes"]

    async def restore(
        self, name: str, layout: CollectionInfo, ctx: Context, *, force: bool, on_restored: OnRestored = ignore_restored
    ) -> list[CollectionInfo]:
        self._find(name)
        there = await self._store.run(ListCollections(), ctx)
        if there and not force:
            raise Invalid(f"{there[0].name} is there", field="snapshot", code="collection_exists")
        vars(self._store).update(copy.deepcopy(self._made[name]))
        found = await self._store.run(ListCollections(), ctx)
        for info in found:
            on_restored(info.name)
        return found

    async def list_snapshots(self) -> list[SnapshotInfo]:
        return list(self._told.values())

    async def delete(self, name: str) -> None:
        self._find(name)
        del self._made[name], self._told[name]

    def _find(self, name: str) -> None:
        if name not in self._made:
            raise Invalid("no such snapshot", field="snapshot", code="snapshot_not_found")
