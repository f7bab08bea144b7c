"""The server's own indexing: a process beside it that feeds and watches the sources whose records ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.indexing.sources.source_watches import SourceWatch, SourceWatches, WatchedSource, WatchState
from penstock.indexing.sources.watch_messages import (
    LINE_BYTES_MAX,
    LineTold,
    Report,
    WatchNoted,
    WatchOrder,
    WatchStart,
)
from penstock.kernel.context import Context
from penstock.kernel.cores import SINGLE_THREADED_ENV
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.settings import Settings
from penstock.stores.commands import ListCollections, ListSources
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import STATE_DAMAGED
from penstock.stores.lock import LockHolder

log = logging.getLogger(__name__)

_COMMAND: Final = ("-m", "penstock.indexing.sources.process")
#: Sources that one server watches.
WATCHED_MAX: Final = 256
#: Seconds that the process may take to leave a source alone; then it is ended. Less than a deletion waits.
APPLY_S: Final = 4.0
#: Seconds before the store is asked again, or a process that ended is started again.
RETRY_S: Final = 5.0


class SourceIndexing:
    """Keeper of the process that indexes the server's own sources. There is none while nothing is watched.

    Args:
        settings: Of the server.
        data_dir: Its data directory.
        watches: Which sources are watched, and how they are.
        store: Has the records of the sources.

    Bounds: ``WATCHED_MAX`` sources, one process.
    """

    def __init__(self, settings: Settings, data_dir: Path, watches: SourceWatches, store: VectorStore) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._watches = watches
        self._store = store
        self._server = LockHolder(0)
        self._process: Process | None = None
        self._watched: list[WatchedSource] = []
        self._applied = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, server: LockHolder) -> None:
        """Watch what the records ask for, from now on.

        Args:
            server: This server.
        """
        self._server = server
        self._run(self._keep())

    def reconnect(self, server: LockHolder) -> None:
        """Use the server in another way from now on: its certificate has changed.

        The process is started again with it.
        """
        self._server = server
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Watch nothing any more. What is indexed stays, and the next start goes on."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Watch nothing any more, and wait for the end of the process."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        while True:
            self._watches.changed.clear()
            try:
                wanted = await self._wanted()
                if self._process is None or wanted != self._watched:
                    await self._order(wanted[:WATCHED_MAX])
                self._watched = wanted
            except (PenstockError, OSError) as error:
                log.warning("sources cannot be watched now; this is tried again", extra={"why": str(error)})
                self._run(self._wake_later())
            else:
                self._watches.apply(wanted)
                for one in wanted[WATCHED_MAX:]:
                    self._note(one, f"a server watches {WATCHED_MAX} sources at most")
            await self._watches.changed.wait()

    async def _wake_later(self) -> None:
        await asyncio.sleep(RETRY_S)
        self._watches.changed.set()

    def _note(self, one: WatchedSource, detail: str) -> None:
        self._watches.note(one.collection, one.name, SourceWatch(WatchState.FAILED, detail))

    async def _wanted(self) -> list[WatchedSource]:
        """Return the sources whose records ask this host for a watch."""
        ctx, host, found = Context.background("sources"), self._watches.host, []
        for info in await self._store.run(ListCollections(), ctx):
            if info.state == STATE_DAMAGED:
                continue
            try:
                listed = await self._store.run(ListSources(info.name), ctx)
            except Invalid:
                continue  # deleted since it was listed
            asking = [one for one in listed if one.is_watched_on(host)]
            found += [WatchedSource(info.name, one.name, one.root_on(host)) for one in asking]
        return sorted(one for one in found if not self._watches.is_paused(one.collection, one.name))

    async def _order(self, wanted: Sequence[WatchedSource]) -> None:
        """Have the process watch these sources, and no others once this returns."""
        if self._process is None:
            if not wanted:
                return
            self._process = await self._started()
            self._run(self._listen(self._process))
        self._applied.clear()
        self._write(WatchOrder(list(wanted)))
        try:
            async with asyncio.timeout(APPLY_S):
                await self._applied.wait()
        except TimeoutError:
            # A source may be about to be deleted: nothing may be written of it any more.
            if self._process is not None:
                self._process.kill()
        if not wanted and self._process is not None and self._process.stdin is not None:
            # It ends when its input does. Another one may be started before that.
            self._process.stdin.close()
            self._process = None

    async def _started(self) -> Process:
        index, http = self._settings.index, self._settings.http
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_COMMAND,
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_BYTES_MAX,
            env={**os.environ, **SINGLE_THREADED_ENV},
        )
        self._write(
            WatchStart(
                url=self._server.url,
                api_key=self._server.key,
                certificate=self._server.certificate,
                index_roots=index.roots,
                data_dir=str(self._data_dir),
                host=self._watches.host,
                max_file=index.max_file,
                max_body=http.max_body,
                max_batch=http.max_batch,
            ),
            process,
        )
        return process

    def _write(self, line: WatchStart | WatchOrder, process: Process | None = None) -> None:
        process = process or self._process
        if process is not None and process.stdin is not None:
            process.stdin.write(msgspec.json.encode(line) + b"\n")

    async def _listen(self, process: Process) -> None:
        """Take what the process reports until it ends; it is started again unless it was told to end.

        Cancellation: The process is killed, and has ended when this returns.
        """
        output = process.stdout
        try:
            while output is not None and (line := await output.readline()):
                self._take(msgspec.json.decode(line, type=Report))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._process is not process:
            return
        self._process = None
        self._applied.set()
        facts = {"status": process.returncode}
        log.warning("the process that indexes sources has ended; it is started again", extra=facts)
        for one in self._watched:
            self._note(one, "the process that indexes it has ended; it is started again")
        await self._wake_later()

    def _take(self, report: Report) -> None:
        if isinstance(report, WatchNoted):
            self._watches.note(report.collection, report.name, report.watch)
        elif isinstance(report, LineTold):
            log.info("a source is followed", extra={"told": report.text})
        else:
            self._applied.set()
