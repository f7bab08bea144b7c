"""A running Penstock: locks the data directory, probes external services, builds the core, stops all in order."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.app.backing_services import BackingServices
from penstock.app.role import ALL_IN_ONE, Role
from penstock.kernel.context import Clock, MonotonicClock
from penstock.kernel.errors import Broken
from penstock.kernel.files import restrict_to_owner
from penstock.kernel.settings import Settings
from penstock.stores.directory_watch import DataDirectoryWatch
from penstock.stores.lock import DirectoryLock, LockHolder

if TYPE_CHECKING:
    from penstock.app.assembly import Assembly, Progress
    from penstock.app.source_indexing import SourceIndexing
    from penstock.http.gate import Gate


class App:
    """A whole Penstock, or a part of it. Build it with :func:`build`, ``start`` it, serve ``asgi``, ``close`` it.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """

    def __init__(self, settings: Settings, data_dir: Path, model_cache: Path, role: Role = ALL_IN_ONE) -> None:
        self._role = role
        self.settings = settings
        self.data_dir = data_dir
        self._clock: Clock = MonotonicClock()
        self._model_cache = model_cache
        self._lock = DirectoryLock(data_dir)
        self._watch = DataDirectoryWatch(data_dir, self._lock.lost_reason)
        self._backing_services = BackingServices(settings, data_dir, role, self._clock)
        self._assembly: Assembly | None = None
        self._source_indexing: SourceIndexing | None = None

    @property
    def asgi(self) -> Gate:
        """The ASGI application, once it has been started."""
        return self._gate

    async def start(self, progress: Progress | None = None) -> None:
        """Lock the directory, probe external services, prepare the models, start the store, wire the topics.

        Args:
            progress: Called, from another thread, with a stage's name, what is done of it and its total.

        Raises:
            PenstockError: Saying what is missing or held by another; nothing is left behind.
        """
        if self._role.serves_api:
            self._lock.acquire()
            self._watch.start()
        else:
            restrict_to_owner(self.data_dir)
        try:
            # First, so that an unreachable server is reported before a model is prepared.
            await self._backing_services.start()
            make = await asyncio.to_thread(_import_assembly)
            self._assembly = make(
                self.settings, self.data_dir, self._role, self._backing_services, self._clock, self._watch
            )
            await self._assembly.start(self._model_cache, progress or (lambda *_: None))
        except BaseException:
            await self.close()
            raise

    @property
    def local_key(self) -> str:
        """Key for the owner of the data directory, while this runs."""
        return self._backing_services.keys.local.text

    async def reload_keys(self) -> None:
        """Read the keys again."""
        await self._backing_services.keys.reload()

    def publish(self, url: str, certificate: str = "") -> None:
        """Let other commands on this data directory find the server, and begin its own work: tasks and sources.

        Args:
            url: Where the server listens.
            certificate: Its certificate (PEM), empty for none.
        """
        server = self._holder(url, certificate)
        self._lock.publish(server)
        core = self._assembly.core if self._assembly is not None else None
        if core is not None:
            core.tasks.start()
        if core is not None and core.deps.source_watches.roots.enabled:
            # Imported here, since few servers index sources themselves.
            from penstock.app.source_indexing import SourceIndexing  # noqa: PLC0415

            watches = core.deps.source_watches
            self._source_indexing = SourceIndexing(self.settings, self.data_dir, watches, core.store)
            self._source_indexing.start(server)

    def renew_certificate(self, url: str, certificate: str) -> None:
        """Let other commands know that the server's certificate has changed."""
        server = self._holder(url, certificate)
        self._lock.publish(server)
        if self._source_indexing is not None:
            self._source_indexing.reconnect(server)

    def _holder(self, url: str, certificate: str) -> LockHolder:
        keys = self._backing_services.keys
        return LockHolder(os.getpid(), url, keys.local.text, keys.local_agent.text, certificate)

    def begin_drain(self) -> None:
        """Refuse new requests from now on; running ones go on, but for tasks and the server's own indexing."""
        self._gate.traffic.draining = True
        if self._assembly is not None and self._assembly.core is not None:
            self._assembly.core.tasks.stop()
        if self._source_indexing is not None:
            self._source_indexing.stop()

    async def wait_drained(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; return whether that came true in time."""
        return await self._gate.wait_drained(timeout_s)

    async def drain_bus(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        assembly = self._assembly
        return assembly is None or assembly.core is None or await assembly.core.drain_bus(timeout_s)

    async def close(self) -> None:
        """Stop everything, the last started first; the store is flushed."""
        if self._source_indexing is not None:
            await self._source_indexing.close()
        if self._assembly is not None:
            await self._assembly.close()
        await self._backing_services.close()
        self._watch.close()
        self._lock.release()

    @property
    def _gate(self) -> Gate:
        if self._assembly is None or self._assembly.gate is None:
            raise Broken("the server has not been started")
        return self._assembly.gate


def _import_assembly() -> type[Assembly]:
    # What models and core are made of takes more than a second to import.
    from penstock.app.assembly import Assembly  # noqa: PLC0415

    return Assembly


def build(settings: Settings, data_dir: Path, model_cache: Path | None = None, role: Role = ALL_IN_ONE) -> App:
    """Build a Penstock that is not started yet.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """
    return App(settings, data_dir, model_cache or data_dir / "models", role)
