"""Snapshots of a store in memory: what its collections held."""

import copy
from typing import Any

from penstock.kernel.errors import Invalid
from penstock.kernel.work import Work
from penstock.stores.records import CollectionInfo, Snapshot
from tests.fakes.memory_store import MemoryStore


class MemorySnapshots:
    """A fake of ``Snapshots``; every snapshot is called ``notes``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._made: dict[str, dict[str, Any]] = {}

    async def make(self, work: Work) -> Snapshot:
        self._made["notes"] = copy.deepcopy(vars(self._store))
        names = [info.name for info in await self._store.collections(work)]
        return Snapshot("notes", 1, "2026-01-01T00:00:00+00:00", names)

    async def restore(self, name: str, layout: CollectionInfo, work: Work, *, force: bool) -> list[CollectionInfo]:
        if name not in self._made:
            raise Invalid("no such snapshot", field="snapshot", code="snapshot_not_found")
        there = await self._store.collections(work)
        if there and not force:
            raise Invalid(f"{there[0].name} is there", field="snapshot", code="collection_exists")
        vars(self._store).update(copy.deepcopy(self._made[name]))
        return await self._store.collections(work)
