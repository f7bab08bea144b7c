"""New generations of a collection under fire: killed at every step, again and again; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import select
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import TimeoutSettings
from penstock.stores.backends.edge import manifest
from penstock.stores.backends.edge.generation_builder import BUILD_STEPS
from penstock.stores.backends.edge.ipc import OptimizeCollection
from penstock.stores.backends.edge.manifest import MANIFEST_FILE
from penstock.stores.backends.edge.process_client import EdgeStore, StoreProcessClient
from penstock.stores.commands import (
    AddVectors,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    FetchPayloads,
    ListCollections,
    ListPending,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, ChunkPayload, ChunkVectors, CollectionInfo, Match, Point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, sparse, unit

WORK = Context.background()
DYING = str(Path(__file__).with_name("dying_store.py"))

#: Kills at each step, and at random times; 56 in all, a good half second each.
ROUNDS = 5
RANDOM_KILLS = 6

#: Writes during one generation.
WRITES_MAX = 200

#: Documents of one writer.
DOCUMENTS_MAX = 300


@dataclass
class Ledger:
    """What one writer's documents must look like.

    Attributes:
        name: Beginning of its documents' ids.
        luck: Chooses what it writes.
        texts: What was acknowledged, by id.
        asked: What was not: the texts that the document may have, ``None`` where it may be absent.
        pending: Texts that were written without a dense vector, by id.
        unsure: Ids of which it is not known whether they have got one.
    """

    name: str
    luck: random.Random
    texts: dict[str, str] = field(default_factory=dict)
    asked: dict[str, set[str | None]] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    count: int = 0

    async def write(self, store: EdgeStore) -> None:
        """Write, replace or delete one document, or give one the vector that it lacks."""
        self.count += 1
        if self.pending and self.luck.random() < 0.3:
            await self.complete(store, self.luck.choice(sorted(self.pending)))
            return
        known = sorted(self.texts)
        kind = self.luck.random() * (0.5 if len(known) >= DOCUMENTS_MAX else 1.0) if known else 1.0
        id = self.luck.choice(known) if kind < 0.5 else f"{self.name}{self.count}"
        text = None if kind < 0.2 else f"version {self.count} of {id}"
        self.asked[id] = {self.texts.get(id), text}
        if text is None:
            await store.run(DeleteDocuments("c", (Match("id", [id]),)), WORK)
            del self.texts[id]
            self.pending.pop(id, None)
        else:
            words_first = self.luck.random() < 0.4
            self.unsure.add(id)
            await store.run(UpsertPoints("c", [point(id, text, pending=words_first)]), WORK)
            self.texts[id] = text
            self.unsure.discard(id)
            self.pending.pop(id, None)
            if words_first:
                self.pending[id] = text
        del self.asked[id]

    async def complete(self, store: EdgeStore, id: str) -> None:
        """Give a document its vector, and another one that of a text which it has no more."""
        self.unsure.add(id)
        others = sorted(self.texts.keys() - {id})
        stale = [ChunkVectors(other, 0, "another text", unit(1, 0)) for other in others[:3]]
        made = ChunkVectors(id, 0, self.pending[id], unit(1, 2))
        await store.run(AddVectors("c", [made, *stale]), WORK)
        self.unsure.discard(id)
        del self.pending[id]

    async def settle(self, store: EdgeStore) -> None:
        """Find out what has become of what was not acknowledged."""
        for id, allowed in self.asked.items():
            stored = await store.run(FetchPayloads("c", [point_id(id, 0)]), WORK)
            text = stored[point_id(id, 0)].text if stored else None
            assert text in allowed
            self.texts.pop(id, None)
            if text is not None:
                self.texts[id] = text
        self.asked.clear()
        page = await store.run(ListPending("c", (), None, 10_000), WORK)
        listed = {one.document_id for one in page.chunks}
        for id in self.unsure | (self.pending.keys() - self.texts.keys()):
            self.pending.pop(id, None)
            if id in listed:
                self.pending[id] = self.texts[id]
        self.unsure.clear()


async def check(store: EdgeStore, ledgers: list[Ledger]) -> None:
    """Look up and search everything that must be there; nothing else may be."""
    for ledger in ledgers:
        await ledger.settle(store)
    texts = {point_id(id, 0): text for ledger in ledgers for id, text in ledger.texts.items()}
    stored = await store.run(FetchPayloads("c", list(texts)), WORK)
    assert {place: payload.text for place, payload in stored.items()} == texts
    pending = {point_id(id, 0) for ledger in ledgers for id in ledger.pending}
    for query, found in ((unit(1, 0), texts.keys() - pending), (sparse(t1=1), texts.keys())):
        assert {s.point for s in await search_arm(store, "c", ArmQuery(query, 10_000), WORK)} == found
    info = await store.run(DescribeCollection("c"), WORK)
    assert (info.chunks, info.pending) == (len(texts), len(pending))


def point(id: str, text: str, *, pending: bool = False) -> Point:
    payload = ChunkPayload(id=id, chunk=0, text=text, hash="h", pending=text if pending else "")
    return Point(payload, None if pending else unit(1, len(text) % 7), sparse(t1=1, t2=2))


def edge(directory: Path, *program: str) -> EdgeStore:
    store = EdgeStore(directory, TimeoutSettings(), LoopClock())
    if program:
        store.process = StoreProcessClient(directory / "collections", process_command=program)
    return store


def ended(store: EdgeStore) -> int:
    """Return how many generations have been made or given up."""
    return sum(one.made + one.given_up for one in store.process.index_builds)


async def fire(store: EdgeStore, ledgers: list[Ledger], kill_after: float = math.inf) -> bool:
    """Begin a generation and write until it serves, or the store dies: then return true."""
    pid, before, written = store.process.pid, ended(store), 0
    change = asyncio.Event()
    store.process.on_index_builds = store.process.on_ready = change.set

    async def write(ledger: Ledger) -> None:
        nonlocal written
        while store.process.pid == pid and ended(store) == before:
            if written >= WRITES_MAX:
                # Enough: more would keep the optimiser from getting anywhere.
                change.clear()
                await change.wait()
                continue
            await ledger.write(store)
            written += 1
            if written == kill_after and store.process.pid is not None:
                os.kill(store.process.pid, signal.SIGKILL)

    outcomes = await asyncio.gather(
        store.run(OptimizeCollection("c"), WORK), *map(write, ledgers), return_exceptions=True
    )
    assert all(outcome is None or isinstance(outcome, Unavailable) for outcome in outcomes)
    await store.run(ListCollections(), WORK)
    return store.process.pid != pid


def left_behind(directory: Path) -> set[str]:
    home = directory / "collections" / "c"
    return {path.name for path in home.iterdir()} - {MANIFEST_FILE, manifest.read_manifest(home).generation}


@pytest.mark.timeout(400)
def test_a_swap_killed_at_any_step_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    # Shown on failure.
    sys.stdout.write(f"seed {seed}\n")
    luck = random.Random(seed)
    steps = [*BUILD_STEPS * ROUNDS, *["at random"] * RANDOM_KILLS]
    luck.shuffle(steps)
    plan = tmp_path / "plan"

    async def scenario() -> int:
        ledgers, kills = [Ledger(name, luck) for name in "abc"], 0
        await _create(tmp_path)
        store = edge(tmp_path, DYING, str(plan))
        await store.start()
        for step in steps:
            plan.write_text(f"{step} {luck.randint(1, 20) if step == 'replaying' else 1}")
            kills += await fire(store, ledgers, luck.randint(1, 100) if step == "at random" else math.inf)
            # The next one starts by itself, and cleans up.
            await check(store, ledgers)
            assert left_behind(tmp_path) == set()
        await store.close()
        return kills

    assert asyncio.run(scenario()) >= 50


async def _create(directory: Path) -> None:
    store = edge(directory)
    await store.start()
    await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
    await store.close()


def test_an_optimiser_that_dies_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        await _create(tmp_path)
        store, ledger = edge(tmp_path), Ledger("a", random.Random(7))
        await store.start()
        try:
            pid = store.process.pid
            assert pid is not None
            await store.run(OptimizeCollection("c"), WORK)
            while (child := child_of(pid, "edge.optimiser")) is None:
                await ledger.write(store)
            os.kill(child, signal.SIGKILL)
            while not any(one.given_up for one in store.process.index_builds):
                await ledger.write(store)
            [upkeep] = store.process.index_builds
            assert (upkeep.stage, upkeep.made) == ("", 0)
            assert "status -9" in upkeep.reason
            await check(store, [ledger])
            assert await fire(store, [ledger]) is False
            [upkeep] = store.process.index_builds
            assert (upkeep.made, upkeep.reason) == (1, "")
            await check(store, [ledger])
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_store_that_dies_takes_its_optimiser_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        await _create(tmp_path)
        store, ledger = edge(tmp_path), Ledger("a", random.Random(7))
        await store.start()
        try:
            pid = store.process.pid
            assert pid is not None
            await store.run(OptimizeCollection("c"), WORK)
            while (child := child_of(pid, "edge.optimiser")) is None:
                await ledger.write(store)
            ended = os.pidfd_open(child)
            os.kill(child, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            # Stopped before it could ask the kernel to be killed with its parent, it looks for it itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            assert await asyncio.to_thread(poll.poll, 30_000)
            os.close(ended)
            await check(store, [ledger])
        finally:
            await store.close()

    asyncio.run(scenario())


def child_of(pid: int, word: str) -> int | None:
    """Return the child of a process whose command line holds a word."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and word in (entry / "cmdline").read_text():
                    return int(entry.name)
    return None
