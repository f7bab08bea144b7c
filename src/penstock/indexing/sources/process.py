"""Process that indexes a server's own sources and watches them, as a client of that server.

A process of its own: to walk and hash trees, and to have the kernel watch them, takes long calls that would hold up the
server's event loop. Run as ``python -m penstock.indexing.sources.process``. Lines of JSON come in on standard input: a
:class:`WatchStart`, then a :class:`WatchOrder` for each change of what is watched. Lines of reports go out on standard
output. The process ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec

from penstock.client import AsyncClient, CallOptions, Source
from penstock.client.pinning import pinned_context
from penstock.indexing.sources.index_roots import IndexRoots
from penstock.indexing.sources.source_watches import SourceWatch, WatchState
from penstock.indexing.sources.watch_messages import (
    LINE_BYTES_MAX,
    LineTold,
    OrderApplied,
    Report,
    WatchNoted,
    WatchOrder,
    WatchStart,
)
from penstock.indexing.sources.watcher import SourceWatcher
from penstock.kernel.errors import Invalid, PenstockError

log = logging.getLogger(__name__)

#: Searches and other work come first: beside one busy thread of the server it gets about a tenth of its core.
NICENESS: Final = 10
#: Seconds before sources whose run could not go on are tried again.
RETRY_S: Final = 30.0


class _Collection:
    """Surroundings of the watcher of one collection: the server, where only registered sources may be indexed."""

    registered_only = True

    def __init__(self, collection: str, service: SourceService) -> None:
        self.collection = collection
        self.data_dir = service.data_dir
        self._service = service

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncClient]:
        # One run at a time, however many collections there are.
        async with self._service.turn:
            yield self._service.api

    def refusal(self, root: Path) -> str:
        try:
            real = self._service.roots.check(str(root))
        except Invalid as error:
            # A directory that is gone is waited for.
            return "" if error.code == "root_not_found" else error.detail
        return "" if real == root else f"{root} leads elsewhere by now: a link has taken its place"

    def is_kept(self, source: Source, root: Path) -> bool:
        host = self._service.start.host
        return any(one.watch and one.host == host and one.path == str(root) for one in source.roots)

    def tell(self, text: str) -> None:
        self._service.report(LineTold(f"{self.collection}: {text}"))

    def note(self, name: str, state: WatchState, detail: str = "") -> None:
        self._service.report(WatchNoted(self.collection, name, SourceWatch(state, detail)))


@dataclass(frozen=True, slots=True)
class _Watching:
    """The directories of a collection's sources by name, and the task that watches them."""

    roots: Mapping[str, Path]
    task: asyncio.Task[None]


class SourceService:
    """Watchers of a server's sources, one for each collection.

    Args:
        start: What is needed of the server.
        api: Client of the server.
        report: Takes what is to be told the server.

    Bounds: one index run at a time.
    """

    def __init__(self, start: WatchStart, api: AsyncClient, report: Callable[[Report], None]) -> None:
        self.start = start
        self.api = api
        self.report = report
        self.data_dir = Path(start.data_dir).resolve()
        self.roots = IndexRoots(start.index_roots, self.data_dir)
        self.turn = asyncio.Lock()
        self._watching: dict[str, _Watching] = {}

    async def apply(self, order: WatchOrder) -> None:
        """Watch what is ordered, and nothing else once this returns."""
        wanted: dict[str, dict[str, Path]] = {}
        for one in order.sources:
            wanted.setdefault(one.collection, {})[one.name] = Path(one.root)
        changed = [name for name, now in self._watching.items() if wanted.get(name) != now.roots or now.task.done()]
        await _end([self._watching.pop(name).task for name in changed])
        for collection, roots in wanted.items():
            if collection not in self._watching:
                task = asyncio.create_task(self._watch(collection, roots))
                self._watching[collection] = _Watching(roots, task)
        self.report(OrderApplied())

    async def close(self) -> None:
        """Watch nothing any more."""
        await self.apply(WatchOrder([]))

    async def _watch(self, collection: str, roots: Mapping[str, Path]) -> None:
        """Watch a collection's sources; what cannot be indexed is tried again."""
        host = _Collection(collection, self)
        while True:
            try:
                await SourceWatcher(host, self.start.settings, collection, roots).run()
                return
            except PenstockError as error:
                if error.code == "collection_not_found":
                    return
                detail = error.detail
            except Exception as error:
                log.exception("a source could not be watched")
                detail = f"{type(error).__name__}: {error}"
            for name in roots:
                host.note(name, WatchState.FAILED, detail)
            host.tell(f"could not be indexed: {detail}; this is tried again in {RETRY_S:.0f} s")
            await asyncio.sleep(RETRY_S)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report(one: Report) -> None:
    # What is no text, such as a file name in another encoding, cannot be written as JSON.
    line = msgspec.json.encode(one)
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line + b"\n")


async def _main() -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    line = await reader.readline()
    if not line:
        return
    start = msgspec.json.decode(line, type=WatchStart)
    options = CallOptions(criticality="bulk", api_key=start.api_key)
    transport = httpx.AsyncHTTPTransport(verify=pinned_context(start.certificate)) if start.certificate else None
    async with AsyncClient(start.url, options, transport=transport) as api:
        service = SourceService(start, api, _report)
        while line := await reader.readline():
            await service.apply(msgspec.json.decode(line, type=WatchOrder))
        await service.close()


if __name__ == "__main__":
    # Ctrl-C is for the server, which closes the input of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    asyncio.run(_main())
