"""``penstock watch``: keep sources up to date while their files change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from penstock.cli.index import kept_line
from penstock.cli.options import Setup, collection_option, with_client_settings
from penstock.cli.session import running_server_url
from penstock.cli.terminal import stderr_console, strip_controls
from penstock.client import AsyncClient, Expired, Rejected, Unavailable
from penstock.indexing.sources.index_run import IndexOptions, IndexRun
from penstock.indexing.sources.index_stats import IndexStats, NoDisplay
from penstock.kernel.errors import Invalid

#: A batch of changes ends after so much quiet, or when it has taken so long.
QUIET_MS: Final = 200
BATCH_MS_MAX: Final = 5000
#: How often it is looked whether roots and server are still there.
TICK_MS: Final = 1000
POLL_MS: Final = 1000
#: From so many changes on each file is compared: the kernel's queue may have lost some.
CHANGES_MAX: Final = 1000
#: Directories in which much changes that is never indexed.
_NOISY: Final = frozenset({".git", "node_modules", "__pycache__", ".venv"})


@click.command("watch")
@click.argument("names", nargs=-1, metavar="[SOURCE]...")
@collection_option
@with_client_settings("concurrency.index.", "concurrency.http.")
async def command(setup: Setup, names: tuple[str, ...], collection: str) -> int:
    """Keep sources up to date while their files change; all sources of this host unless some are named.

    A changed file is searchable a second or two after it was saved. Changes that come together, such as those of a
    branch switch, are one batch. A source keeps its documents while its directory is gone, empty or has lost more than
    half of its files. A server must run on the data directory; while it does not answer, changes are kept. Ctrl-C ends.
    """
    url = running_server_url(setup.data_dir) if setup.data_dir.exists() else None
    if url is None:
        raise Invalid(f"no server runs on {setup.data_dir}; start one with `penstock serve`", code="no_server")
    async with AsyncClient(url) as api:
        listed = {one.name: one.root_on(socket.gethostname()) for one in await api.list_sources(collection)}
    if missing := [name for name in names if not listed.get(name)]:
        detail = f"{', '.join(missing)}: no such source of {collection} on this host"
        raise Invalid(detail, field="source", code="source_not_found")
    roots = {name: Path(root) for name, root in listed.items() if root and (not names or name in names)}
    if not roots:
        raise Invalid(f"{collection} has no source on this host; `penstock index PATH` registers one", field="source")
    await SourceWatcher(setup, collection, roots, stderr_console()).run()
    return 0


class SourceWatcher:
    """Watcher of the directories of some sources.

    Args:
        setup: Of the command.
        collection: Their collection.
        roots: Their directories, by name.
        console: Told what was done, and what cannot be done now.

    Bounds: the paths that have changed since the last run, ``CHANGES_MAX`` at most.
    """

    def __init__(self, setup: Setup, collection: str, roots: Mapping[str, Path], console: Console) -> None:
        self._setup = setup
        self._collection = collection
        self._roots = dict(roots)
        self._console = console
        #: What has changed and is not indexed yet; ``None`` for anything.
        self._changed: set[str] | None = None
        self._polls = False
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch until every source has been forgotten.

        Raises:
            PenstockError: A run cannot go on, whatever the server does.

        Cancellation: What is indexed stays.
        """
        while self._roots:
            there, announced = self._there(), False
            for name, root in self._roots.items():
                self._tell(f"{name}: {root} is gone; its documents stay until it is back", when=name not in there)
            # Anything may have changed while nothing was watched.
            self._changed = None
            async with aclosing(self._changes([self._roots[name] for name in there])) as batches:
                async for changes in batches:
                    self._note(changes)
                    self._tell(f"watching {', '.join(sorted(there))}", when=bool(there) and not announced)
                    announced = True
                    if self._changed is None or self._changed:
                        await self._index(there)
                    if there != self._there() or there.keys() - self._roots:
                        break

    def _there(self) -> dict[str, tuple[int, int]]:
        """Return the sources whose directory is there, with what tells it from another one at its place."""
        found: dict[str, tuple[int, int]] = {}
        for name, root in self._roots.items():
            try:
                status = root.stat()
            except OSError:
                continue
            if root.is_dir():
                found[name] = status.st_dev, status.st_ino
        return found

    async def _changes(self, roots: Sequence[Path]) -> AsyncGenerator[set[str], None]:
        """Yield the paths that have changed, batch by batch, and nothing after each tick.

        The directories are watched from before the first batch on, so that nothing is lost while it is indexed.
        """
        # Imported here, since no other command needs it.
        from watchfiles import awatch  # noqa: PLC0415

        while not roots:
            await asyncio.sleep(TICK_MS / 1000)
            yield set()
        while True:
            watched = awatch(
                *roots,
                watch_filter=None,
                debounce=BATCH_MS_MAX,
                step=QUIET_MS,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                force_polling=self._polls,
                poll_delay_ms=POLL_MS,
                ignore_permission_denied=True,
            )
            try:
                async with aclosing(watched):
                    async for changes in watched:
                        yield {path for _, path in changes if not self._is_noise(path)}
            except FileNotFoundError:
                return
            except (OSError, RuntimeError) as error:
                if self._polls:
                    raise
                # As a rule the limit of inotify; a file system may also have no notifications at all.
                self._polls = True
                self._tell_once(
                    f"directories cannot be watched ({error}): files are looked at each second instead, which costs"
                    " more; `sysctl fs.inotify.max_user_watches=1048576` allows more directories"
                )

    def _is_noise(self, path: str) -> bool:
        root = next((root for root in self._roots.values() if path.startswith(f"{root}/")), None)
        return root is not None and not _NOISY.isdisjoint(path[len(str(root)) :].split("/"))

    def _note(self, changes: set[str]) -> None:
        if self._changed is not None:
            self._changed |= changes
            if len(self._changed) > CHANGES_MAX:
                self._changed = None

    async def _index(self, there: Mapping[str, object]) -> None:
        """Bring the collection up to date; keep what has changed if the server does not answer."""
        try:
            url = running_server_url(self._setup.data_dir)
            if url is None:
                raise Unavailable("no server runs on the data directory", dependency="server")
            async with AsyncClient(url) as api:
                known = {one.name for one in await api.list_sources(self._collection)}
                for name in [name for name in self._roots if name not in known]:
                    del self._roots[name]
                    self._tell(f"{name}: forgotten, so not watched any more")
                paths = [self._roots[name] for name in there if name in self._roots]
                if paths:
                    await self._run(api, paths)
        except (Expired, Rejected, Unavailable) as error:
            self._tell_once(f"waiting for the server: {error.detail}")
        except Invalid as error:
            # A root may go at any moment; the next look at the roots tells of it.
            if error.code != "path_not_found":
                raise
        else:
            self._changed = set()

    async def _run(self, api: AsyncClient, paths: Sequence[Path]) -> None:
        changed = None if self._changed is None else frozenset(self._changed)
        stats = IndexStats()
        options = IndexOptions(paths, self._collection, force=True, changed=changed, vectors=False)
        await IndexRun(api, self._setup.settings, options, stats, NoDisplay()).run()
        self._told.clear()
        for name, one in sorted(stats.sources.items()):
            counts = (("indexed", one.indexed), ("removed", one.removed), ("failed", one.failed))
            if any(count for _, count in counts):
                told = ", ".join(f"{count} {what}" for what, count in counts if count)
                self._tell(f"{name}: {told} in {stats.took_s:.1f} s")
        for failure in stats.errors:
            self._tell(f"failed: {failure.path}: {failure.detail}")
        for loss in stats.kept_directories:
            self._tell(kept_line(loss, self._collection))

    def _tell(self, text: str, *, when: bool = True) -> None:
        if when:
            self._console.print(strip_controls(text), soft_wrap=True)

    def _tell_once(self, text: str) -> None:
        """Print a line unless it was printed since the last run."""
        if text not in self._told:
            self._told.add(text)
            self._tell(text)
