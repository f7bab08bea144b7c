"""Watcher of sources: an index run over each batch of changes of their files."""

from __future__ import annotations

import asyncio
import math
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from penstock.client import AsyncClient, Expired, Rejected, Source, Unavailable
from penstock.indexing.sources.index_run import IndexOptions, IndexRun
from penstock.indexing.sources.index_stats import IndexStats, NoDisplay, kept_line
from penstock.indexing.sources.local_files import is_below
from penstock.indexing.sources.source_watches import WatchState
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

#: A batch of changes ends after so much quiet, or when it has taken so long.
QUIET_MS: Final = 200
BATCH_MS_MAX: Final = 5000
#: How often it is looked whether roots and server are still there.
TICK_MS: Final = 1000
POLL_MS: Final = 1000
#: Seconds by which the clocks of files may be behind.
CLOCK_S: Final = 2.0
#: From so many changes on each file is compared: the kernel's queue may have lost some.
CHANGES_MAX: Final = 1000
#: Directories in which much changes that is never indexed.
_NOISY: Final = frozenset({".git", "node_modules", "__pycache__", ".venv"})


class WatchHost(Protocol):
    """Surroundings of a watcher: the server that it feeds, and the reader of its reports.

    Attributes:
        data_dir: The server's data directory. What changes in it is none of a source's changes.
        registered_only: As in :class:`IndexOptions`.
    """

    data_dir: Path
    registered_only: bool

    def connect(self) -> AbstractAsyncContextManager[AsyncClient]:
        """Connect to the server.

        Raises:
            Unavailable: There is none now.
        """

    def refusal(self, root: Path) -> str:
        """Return why a directory may not be indexed now; empty where it may. Blocking."""

    def is_kept(self, source: Source, root: Path) -> bool:
        """Return whether a registered source is still to be watched at its directory."""

    def tell(self, text: str) -> None:
        """Take a line for a person."""

    def note(self, name: str, state: WatchState, detail: str = "") -> None:
        """Take the state of a source."""


class _Survey(NamedTuple):
    """Directories of some sources, without those that are never indexed, and the files in them that have changed."""

    directories: set[str]
    changed: set[str]


def _changed_s(path: str) -> float:
    """Return when a file, or its name, was last changed; 0 for one that is gone."""
    try:
        return os.lstat(path).st_ctime
    except OSError:
        return 0.0


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_directory(paths: Iterable[str]) -> bool:
    """Return whether any path is a directory: a new one, or one in another's place, is not watched yet."""
    # Strings, since a batch may have thousands.
    return any(os.path.isdir(path) and not os.path.islink(path) for path in paths)  # noqa: PTH112, PTH114


class SourceWatcher:
    """Watcher of the directories of some sources of a collection.

    Args:
        host: Its surroundings.
        settings: Of index runs.
        collection: The collection.
        roots: Directories of the sources, by name.

    Bounds: the paths that have changed since the last run, ``CHANGES_MAX`` at most.
    """

    def __init__(self, host: WatchHost, settings: Settings, collection: str, roots: Mapping[str, Path]) -> None:
        self._host = host
        self._settings = settings
        self._collection = collection
        self._roots = dict(roots)
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
            there, missing = await asyncio.to_thread(self._look)
            announced = False
            for name, refusal in missing.items():
                self._tell_missing(name, refusal)
            # Anything may have changed while nothing was watched.
            self._changed = None
            async with aclosing(self._changes([self._roots[name] for name in there])) as batches:
                async for changes in batches:
                    self._note(changes)
                    if there and not announced:
                        self._host.tell(f"watching {', '.join(sorted(there))}")
                    announced = True
                    if self._changed is None or self._changed:
                        await self._index(there)
                    if there.keys() - self._roots or (there, missing) != await asyncio.to_thread(self._look):
                        break

    def _tell_missing(self, name: str, refusal: str) -> None:
        detail = refusal or f"{self._roots[name]} is gone; its documents stay until it is back"
        self._host.note(name, WatchState.FAILED if refusal else WatchState.WAITING, detail)
        self._host.tell(f"{name}: {detail}")

    def _look(self) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
        """Look at the sources' directories. Blocking.

        Returns:
            The sources whose directory is there, with what tells it from another one at its place; and the others, with
            the reason why it may not be indexed, empty where it is gone.
        """
        there: dict[str, tuple[int, int]] = {}
        missing: dict[str, str] = {}
        for name, root in self._roots.items():
            refusal = self._host.refusal(root)
            try:
                status = root.stat()
            except OSError:
                status = None
            if refusal or status is None or not stat.S_ISDIR(status.st_mode):
                missing[name] = refusal
            else:
                there[name] = status.st_dev, status.st_ino
        return there, missing

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
            began_s = time.time()
            directories = await asyncio.to_thread(lambda: sorted(self._survey(roots, math.inf).directories))
            watched = awatch(
                *directories,
                watch_filter=None,
                debounce=BATCH_MS_MAX,
                step=QUIET_MS,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                force_polling=self._polls,
                poll_delay_ms=POLL_MS,
                # It would follow links, and take a watch for each directory of what is never indexed.
                recursive=False,
                ignore_permission_denied=True,
            )
            try:
                async with aclosing(watched):
                    survey = None
                    async for changes in watched:
                        paths = {path for _, path in changes if not self._is_noise(path)}
                        if survey is None:
                            # What has changed before all directories were watched.
                            survey = await asyncio.to_thread(self._survey, roots, began_s - CLOCK_S)
                            paths |= survey.changed | (survey.directories - set(directories))
                        yield paths
                        if await asyncio.to_thread(_has_directory, paths):
                            break
            except FileNotFoundError:
                if not all(root.is_dir() for root in roots):
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

    def _survey(self, roots: Sequence[Path], since_s: float) -> _Survey:
        """Look for the directories to watch, and for what has changed since a moment. Blocking; follows no links.

        Args:
            roots: Directories of sources.
            since_s: The moment, on the system's clock; infinity for none.
        """
        found = _Survey(set(), set())
        for root in roots:
            for place, names, files in os.walk(root):
                found.directories.add(place)
                names[:] = [name for name in names if not self._is_noise(f"{place}/{name}")]
                if since_s < math.inf:
                    paths = (f"{place}/{name}" for name in files)
                    found.changed.update(path for path in paths if _changed_s(path) >= since_s)
        return found

    def _is_noise(self, path: str) -> bool:
        # Nothing below a name that is no text is indexed, and the watcher's library takes none.
        if is_below(path, str(self._host.data_dir)) or not _is_text(path):
            return True
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
            async with self._host.connect() as api:
                known = {one.name: one for one in await api.list_sources(self._collection)}
                for name, root in list(self._roots.items()):
                    if name not in known or not self._host.is_kept(known[name], root):
                        del self._roots[name]
                        self._host.tell(f"{name}: forgotten, so not watched any more")
                named = {name: self._roots[name] for name in there if name in self._roots}
                if named:
                    await self._run(api, named)
        except (Expired, Rejected, Unavailable) as error:
            for name in there:
                self._host.note(name, WatchState.INDEXING, f"waiting for the server: {error.detail}")
            self._tell_once(f"waiting for the server: {error.detail}")
        except Invalid as error:
            # A root may go at any moment, or become a link; the next look at the roots tells of it.
            if error.code not in ("path_not_found", "root_not_allowed"):
                raise
        else:
            self._changed = set()

    async def _run(self, api: AsyncClient, named: Mapping[str, Path]) -> None:
        for name in named:
            self._host.note(name, WatchState.INDEXING)
        changed = None if self._changed is None else frozenset(self._changed)
        stats = IndexStats()
        options = IndexOptions(
            tuple(named.values()),
            self._collection,
            force=True,
            changed=changed,
            vectors=False,
            registered_only=self._host.registered_only,
        )
        await IndexRun(api, self._settings, options, stats, NoDisplay()).run()
        self._told.clear()
        kept = {loss.directory: kept_line(loss, self._collection) for loss in stats.kept_directories}
        looks = "files are looked at each second" if self._polls else ""
        for name, root in named.items():
            self._host.note(name, WatchState.WATCHING, kept.get(root, looks))
        self._tell_counts(stats, list(kept.values()))

    def _tell_counts(self, stats: IndexStats, kept: Sequence[str]) -> None:
        for name, one in sorted(stats.sources.items()):
            counts = (("indexed", one.indexed), ("removed", one.removed), ("failed", one.failed))
            if any(count for _, count in counts):
                told = ", ".join(f"{count} {what}" for what, count in counts if count)
                self._host.tell(f"{name}: {told} in {stats.took_s:.1f} s")
        for failure in stats.errors:
            self._host.tell(f"failed: {failure.path}: {failure.detail}")
        for line in kept:
            self._host.tell(line)

    def _tell_once(self, text: str) -> None:
        """Tell a line unless it was told since the last run."""
        if text not in self._told:
            self._told.add(text)
            self._host.tell(text)
