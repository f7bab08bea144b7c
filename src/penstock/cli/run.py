"""One index run: list, walk, plan, send, remove. The tally tells at any moment what has been done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.cli.planning import Plan, Root, Target, batches, listed_roots, plan
from penstock.cli.problems import summary
from penstock.cli.progress import Display
from penstock.cli.records import Indexed, Listed, Outcome, Page
from penstock.cli.sources import encoded, find, hashes_of, request_body, roots_of
from penstock.cli.tally import Failure, Tally
from penstock.kernel.errors import Expired, Invalid
from penstock.kernel.settings import Settings
from penstock.kernel.together import together

#: Small requests keep the bar moving and the loss of an interruption small; two of them keep the models busy.
BATCH_BYTES_MAX: Final = 16_000
IN_FLIGHT_MAX: Final = 2
REMOVE_IDS_MAX: Final = 500
#: Room in a request for what stands around the documents.
ENVELOPE_BYTES: Final = 64


class Index(Protocol):
    """What a run needs of the API; :class:`penstock.cli.api.Api` is one."""

    async def create_collection(self, name: str) -> None:
        """Create the collection where it is absent."""
        ...

    def documents(self, collection: str) -> AsyncIterator[Page]:
        """Yield its listing."""
        ...

    async def add(self, collection: str, batch: bytes) -> Indexed:
        """Index a batch."""
        ...

    async def remove(self, collection: str, ids: Sequence[str]) -> int:
        """Delete documents."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    paths: Sequence[Path]
    collection: str
    force: bool = False


class Run:
    """An index run.

    Attributes:
        tally: Counts; right at any moment, also after a cancellation.
    """

    def __init__(self, api: Index, settings: Settings, order: Order, tally: Tally, display: Display) -> None:
        self.tally = tally
        self._api = api
        self._order = order
        self._display = display
        self._file_bytes_max = settings.index.max_file
        self._body_bytes_max = settings.http.max_body - ENVELOPE_BYTES
        self._documents_max = min(100, settings.http.max_batch)

    async def run(self) -> None:
        """Bring the collection up to date with the files.

        Raises:
            PenstockError: The run cannot go on; what was done stays.

        Cancellation:
            Finished documents stay; an interrupted one is incomplete and is sent again by the next run.
        """
        # Before anything is sent: a wrong path must not leave an empty collection behind.
        roots_of(self._order.paths, (), force=self._order.force)
        self._display.stage("Reading the collection's listing")
        await self._api.create_collection(self._order.collection)
        listing = {one.id: one async for one in self._listing()}
        async with _timed(self.tally):
            what = await self._plan(listing)
            self.tally.unchanged += len(what.unchanged)
            self.tally.files_total = len(what.send)
            self.tally.bytes_total = sum(one.size for one in what.send)
            self._display.advance(self.tally)
            await self._send(what.send)
            await self._remove(what.remove)

    async def _listing(self) -> AsyncIterator[Listed]:
        async for page in self._api.documents(self._order.collection):
            for one in page.documents:
                yield one

    async def _plan(self, listing: dict[str, Listed]) -> Plan:
        self._display.stage("Looking for files")
        roots = await asyncio.to_thread(self._roots, listing)
        findings = await asyncio.to_thread(find, roots, self._file_bytes_max)
        self.tally.skipped.update(findings.skipped)
        self._display.stage(f"Comparing {len(findings.targets)} files")
        pairs = hashes_of(findings.targets, listing, self._file_bytes_max)
        hashes = await asyncio.to_thread(lambda: dict(pairs))
        return plan(listing, findings.targets, hashes, [root.named for root in roots], findings.unseen)

    def _roots(self, listing: dict[str, Listed]) -> list[Root]:
        return roots_of(self._order.paths, listed_roots(listing.values()), force=self._order.force)

    async def _send(self, targets: Sequence[Target]) -> None:
        source = batches(self._encoded(targets), self._documents_max, BATCH_BYTES_MAX)
        turn = asyncio.Lock()

        async def courier() -> None:
            while True:
                async with turn:
                    batch = await asyncio.to_thread(next, source, None)
                if batch is None:
                    return
                await self._deliver(batch)

        await together([courier() for _ in range(IN_FLIGHT_MAX)])

    def _encoded(self, targets: Sequence[Target]) -> Iterator[tuple[Target, bytes]]:
        """Yield encoded documents; runs in a thread, one at a time."""
        for one in targets:
            document = encoded(one, self._file_bytes_max, self._body_bytes_max)
            if isinstance(document, Failure):
                self._done(one)
                self.tally.fail(document.path, document.code, document.detail)
            else:
                yield one, document

    async def _deliver(self, batch: Sequence[tuple[Target, bytes]]) -> None:
        try:
            answer = await self._api.add(self._order.collection, request_body([document for _, document in batch]))
        except (Expired, Invalid) as error:
            if isinstance(error, Invalid) and error.code != "body_too_large":
                raise
            for one, _ in batch:
                self._count(one, Outcome(one.id, "failed", error={"code": error.code, "detail": error.detail}))
        else:
            outcomes = {outcome.id: outcome for outcome in answer.documents}
            for one, _ in batch:
                self._count(one, outcomes.get(one.id) or Outcome(one.id, "failed", error={"code": "no_outcome"}))
        self._display.advance(self.tally)

    def _count(self, one: Target, outcome: Outcome) -> None:
        self._done(one)
        if outcome.status == "indexed":
            self.tally.indexed += 1
            self.tally.chunks += outcome.chunks
        elif outcome.status == "unchanged":
            self.tally.unchanged += 1
        else:
            self.tally.fail(str(one.file), *summary(outcome.error or {}))

    def _done(self, one: Target) -> None:
        self.tally.files_done += 1
        self.tally.bytes_done += one.size

    async def _remove(self, ids: Sequence[str]) -> None:
        if ids:
            self._display.stage(f"Removing {len(ids)} vanished documents")
        for start in range(0, len(ids), REMOVE_IDS_MAX):
            some = ids[start : start + REMOVE_IDS_MAX]
            self.tally.removed += await self._api.remove(self._order.collection, some)


@asynccontextmanager
async def _timed(tally: Tally, now: Callable[[], float] = time.monotonic) -> AsyncIterator[None]:
    started_s = now()
    try:
        yield
    finally:
        tally.took_s = now() - started_s
