"""A thousand collections of a real engine in one store process: a quick start, few threads, little memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

from penstock.kernel.settings import TimeoutSettings
from penstock.stores.backends.edge.collection_lru import OPEN_MAX
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.engine_config import SEARCH_THREADS
from penstock.stores.backends.edge.manifest import MANIFEST_FILE
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.commands import CreateCollection, GetDocuments, ListCollections, UpsertPoints
from penstock.stores.data_model import STATE_CLOSED, STATE_OPEN, CollectionInfo
from tests.contract.shop import WORK, point
from tests.fakes.loop_clock import LoopClock

COLLECTIONS = 1000

#: Seconds that the start may take; it takes two or three on a machine that does nothing else.
START_S = 30.0

#: Threads of the process that no collection needs.
THREADS = 16

#: Memory of its own that a closed collection may cost.
BYTES_EACH = 100_000


def status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def made(root: Path, count: int) -> None:
    """Make collections that were closed in order: one by the engine, the others as copies of it."""
    shelf = CollectionRegistry(root)
    shelf.create(CollectionInfo("c0", 2, "m"))
    shelf.close()
    stated = (root / "c0" / MANIFEST_FILE).read_text()
    for number in range(1, count):
        home = root / f"c{number}"
        # Links cost no time and no room; nobody writes to those that are closed.
        shutil.copytree(root / "c0", home, copy_function=os.link)
        (home / MANIFEST_FILE).unlink()
        (home / MANIFEST_FILE).write_text(stated.replace('"c0"', f'"c{number}"'))


def test_a_thousand_start_quickly_and_cost_little_while_they_are_idle(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    made(tmp_path / "full" / "collections", COLLECTIONS)

    async def scenario(data_dir: Path, *, full: bool) -> tuple[float, int, int]:
        store = EdgeStore(data_dir, TimeoutSettings(), LoopClock())
        began_s = time.monotonic()
        await store.start()
        took_s = time.monotonic() - began_s
        try:
            if full:
                listed = await store.run(ListCollections(), WORK)
                assert [one.state for one in listed] == [STATE_CLOSED] * COLLECTIONS
            pid = store.process.pid or 0
            return took_s, status(pid, "Threads"), status(pid, "RssAnon") * 1024
        finally:
            await store.close()

    took_s, threads, memory = asyncio.run(scenario(tmp_path / "full", full=True))
    _, _, least = asyncio.run(scenario(empty, full=False))
    assert took_s < START_S
    assert threads < THREADS
    assert (memory - least) / COLLECTIONS < BYTES_EACH


def test_no_more_than_the_bound_are_open_and_what_was_acknowledged_is_in_all_of_them(tmp_path: Path) -> None:
    count = OPEN_MAX + 6

    async def scenario() -> None:
        store = EdgeStore(tmp_path, TimeoutSettings(), LoopClock())
        await store.start()
        try:
            for number in range(count):
                name = f"c{number}"
                await store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK)
                await store.run(UpsertPoints(name, [point(f"d{number}")]), WORK)
            states = [one.state for one in await store.run(ListCollections(), WORK)]
            assert states.count(STATE_OPEN) == OPEN_MAX
            assert status(store.process.pid or 0, "Threads") < THREADS + (SEARCH_THREADS + 1) * OPEN_MAX
            # All at once over more than may be open: each is answered.
            found = await asyncio.gather(*(store.run(GetDocuments(f"c{n}", [f"d{n}"]), WORK) for n in range(count)))
            assert [list(one) for one in found] == [[f"d{n}"] for n in range(count)]
        finally:
            await store.close()
        again = EdgeStore(tmp_path, TimeoutSettings(), LoopClock())
        await again.start()
        try:
            assert [one.documents for one in await again.run(ListCollections(), WORK)] == [1] * count
        finally:
            await again.close()

    asyncio.run(scenario())
