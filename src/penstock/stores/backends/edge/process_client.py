"""Client of a store process: starts it, calls it, detects its death and restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from penstock.kernel.context import Clock, Context, enforce_deadline
from penstock.kernel.cores import SINGLE_THREADED_ENV
from penstock.kernel.errors import PenstockError, Unavailable, from_record
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge import activity, ipc
from penstock.stores.backends.edge.activity import ActivityRecord
from penstock.stores.backends.edge.crash_attribution import CrashAttribution
from penstock.stores.backends.edge.disk import is_disk_full
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.commands import DropCollection, StoreCommand
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import CacheState

R = TypeVar("R")


class EdgeStore:
    """Embedded Qdrant in one process, as a ``VectorStore``.

    Args:
        data_dir: The data directory; collections live in ``collections`` below it.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: When collections are optimised.
        number: Which of the server's store processes it is, from 0; the second's collections are in ``collections-2``.
        processes: Number of store processes; they share the cache's memory.
    """

    def __init__(
        self,
        data_dir: Path,
        timeouts: TimeoutSettings,
        clock: Clock,
        settings: StoreSettings | None = None,
        number: int = 0,
        processes: int = 1,
    ) -> None:
        kept = settings or StoreSettings()
        directory = data_dir / (f"collections-{number + 1}" if number else "collections")
        rule = OptimizePolicy(kept.optimize_points, kept.optimize_quiet)
        self.process = StoreProcessClient(directory, rule, cache_bytes=kept.cache_bytes // processes)
        self._timeouts = timeouts
        self._clock = clock

    async def start(self) -> None:
        """Start the store process; see :meth:`StoreProcessClient.start`."""
        await self.process.start()

    async def close(self) -> None:
        """Flush everything and end the store process."""
        await self.process.close()

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command in the store process; see :meth:`penstock.stores.contract.VectorStore.run`."""
        return await self.process.call(command, ctx.within(self._timeouts.store, "store", self._clock.now()))


log = logging.getLogger(__name__)

T = TypeVar("T")

#: State of a process's point cache before it has reported one.
EMPTY_CACHE_STATE: Final = CacheState("points", 0, 0, 0, 0, 0)

#: The store process's module, see :mod:`penstock.stores.backends.edge.process`.
PROCESS_COMMAND: Final = ("-m", "penstock.stores.backends.edge.process")

#: How long a store may stand still while it starts; as long as it goes on it may take what it needs.
START_TIMEOUT_S: Final = 60.0

#: Seconds between two checks of its heartbeat during the start.
START_POLL_S: Final = 1.0

#: Without going on for so long a store counts as frozen. The longest piece of work, counting a million points or
#: opening as many, takes less.
FREEZE_TIMEOUT_S: Final = 5.0

#: How long a store may take to flush and end once told to.
CLOSE_TIMEOUT_S: Final = 30.0

#: Another process's store may still be flushing when ours starts: try again this often.
LOCKED_ATTEMPTS_MAX: Final = 20
LOCKED_PAUSE_S: Final = 0.25

#: Pauses before each try to restart a dead store while no request arrives: a server that
#: is not ready gets no requests, so it may not wait for one. Afterwards a request has to try.
RESTART_BACKOFFS_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class StoreProcessClient:
    """Handle of a store process and of the connection to it.

    Args:
        directory: The directory ``collections`` that the process serves.
        policy: When a collection gets a new generation; by default never.
        process_command: What to run, after the interpreter; tests run another.
        cache_bytes: Memory for the process's cache of points.

    Attributes:
        directory: The directory that it serves.
        on_ready: Called whenever a process has come up, the first and every later one.
        on_index_builds: Called whenever ``index_builds`` has changed.
        index_builds: Status of each collection's index builds, as last reported.
        cache_state: State of its cache of points, as last reported.
        damaged: Reasons why collections cannot be opened, by collection name, as last reported.
    """

    def __init__(
        self,
        directory: Path,
        policy: OptimizePolicy = OptimizePolicy(points=0),  # noqa: B008 - frozen
        process_command: Sequence[str] = PROCESS_COMMAND,
        cache_bytes: int = 0,
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_index_builds: Callable[[], None] = lambda: None
        self.index_builds: list[IndexBuildStatus] = []
        self.cache_state = EMPTY_CACHE_STATE
        self.damaged: dict[str, str] = {}
        self.directory = directory
        self._policy = policy
        self._program = process_command
        self._cache_bytes = cache_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._pending: dict[int, asyncio.Future[ipc.StoreReply]] = {}
        self._last_number = 0
        self._starting = asyncio.Lock()
        self._closing = False
        self._ready = False
        self._restart_task: asyncio.Task[None] | None = None
        self._activity: ActivityRecord | None = None
        self._crashes = CrashAttribution()
        self._identity: tuple[int, int] | None = None
        self._heartbeats = 0
        self._heartbeat_s = 0.0

    @property
    def alive(self) -> bool:
        """True while the connection to the process is open."""
        return self._reader_task is not None and not self._reader_task.done()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def failure_reason(self) -> str:
        """The reason why the process does not work; empty while it does."""
        if not self.alive:
            return "a store process is not running; it is started again"
        if (still_s := self._silent_s()) >= FREEZE_TIMEOUT_S:
            return f"store process {self.pid} has not moved for {still_s:.0f} s"
        return ""

    async def start(self) -> None:
        """Start the process and wait until it has found its collections.

        Raises:
            Unavailable: The directory is held by another process (``store_locked``), or the
                process did not come up.
        """
        tries_left = LOCKED_ATTEMPTS_MAX
        while True:
            try:
                await self._start_once()
            except Unavailable as error:
                # Each death over a collection leaves one fewer to die of.
                if await self._wait_for_exit():
                    continue
                tries_left -= 1
                if error.code != "store_locked" or tries_left == 0:
                    raise
            else:
                return
            await asyncio.sleep(LOCKED_PAUSE_S)

    async def call(self, command: StoreCommand[T], ctx: Context) -> T:
        """Send a command and return its result.

        Raises:
            PenstockError: The store's error, or ``Unavailable`` if the process died during the call.
            Expired: The deadline in ``ctx`` passed.

        Cancellation: The command may still be done; its reply is dropped.
        """
        async with enforce_deadline(ctx.deadline):
            if not self.alive:
                await self._restart()
            at_s = ctx.deadline.at_s
            reply = await self._exchange(command, None if math.isinf(at_s) else at_s)
        if isinstance(command, DropCollection | ipc.InstallCollection):
            self._crashes.release(command.collection)
        result = ipc.result_decoder(type(command)).decode(reply.body)
        if isinstance(result, ipc.RawRetrievalResult):
            result = await result.decoded()
        return cast("T", result)

    def check_heartbeat(self) -> None:
        """Check the process's heartbeat; call about every second."""
        beats, now_s = self._activity.heartbeats if self._activity is not None else 0, asyncio.get_running_loop().time()
        if beats == self._heartbeats:
            return
        thawed = self._ready and now_s >= self._heartbeat_s + FREEZE_TIMEOUT_S
        self._heartbeats, self._heartbeat_s = beats, now_s
        if thawed:
            self.on_ready()

    def send(self, command: StoreCommand[Any]) -> None:
        """Send a command without waiting for a reply; does nothing while no process runs."""
        if self.alive and self._writer is not None:
            self._last_number += 1
            self._writer.write(ipc.encode_frame(ipc.StoreRequest(self._last_number, command)))

    async def close(self) -> None:
        """Tell the process to flush and end, and wait for it."""
        self._closing = True
        if self._restart_task is not None:
            self._restart_task.cancel()
            await asyncio.gather(self._restart_task, return_exceptions=True)
        if self.alive:
            with contextlib.suppress(PenstockError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._exchange(ipc.CloseStore(), None)
        await self._wait_for_exit()

    def _silent_s(self) -> float:
        self.check_heartbeat()
        return asyncio.get_running_loop().time() - self._heartbeat_s

    async def _start_once(self) -> None:
        ours, theirs = socket.socketpair()
        self._activity = activity.create_activity_record()
        self._heartbeats, self._heartbeat_s = 0, asyncio.get_running_loop().time()
        memory = self._activity.fd
        orders = ipc.StoreOptions(
            self._policy,
            self._cache_bytes,
            memory,
            self._crashes.quarantined,
            self._crashes.disk_starved,
            self._identity,
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; a fork takes ms
                [
                    sys.executable,
                    *self._program,
                    str(self.directory),
                    str(theirs.fileno()),
                    msgspec.json.encode(orders).decode(),
                ],
                pass_fds=[theirs.fileno(), memory],
                stdin=subprocess.DEVNULL,
                env={**SINGLE_THREADED_ENV, **os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"cannot start the store: {error}", dependency="store") from error
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._last_number = 0
        ready = asyncio.get_running_loop().create_future()
        self._pending = {0: ready}
        self._ready = False
        self._reader_task = asyncio.create_task(self._read_replies(reader), name="store link")
        while not ready.done():
            await asyncio.wait({ready}, timeout=START_POLL_S)
            if self._silent_s() >= START_TIMEOUT_S:
                raise Unavailable("the store did not start in time", dependency="store")
        self._identity = msgspec.msgpack.decode(_checked(ready.result()).body, type=ipc.StoreReady).identity
        self._ready = True
        self.on_ready()

    async def _restart(self) -> None:
        """Restart a dead store process, once for all concurrent callers."""
        async with self._starting:
            if self.alive:
                return
            if self._closing:
                raise Unavailable("the store is closed", dependency="store")
            log.warning("the store process is gone; starting it again")
            await self._wait_for_exit()
            await self.start()

    async def _exchange(self, command: StoreCommand[Any], expires_at_s: float | None) -> ipc.StoreReply:
        if self._writer is None:
            raise Unavailable("the store is not running", dependency="store")
        self._last_number += 1
        number = self._last_number
        reply: asyncio.Future[ipc.StoreReply] = asyncio.get_running_loop().create_future()
        self._pending[number] = reply
        try:
            self._writer.write(ipc.encode_frame(ipc.StoreRequest(number, command, expires_at_s)))
            await self._writer.drain()
            return _checked(await reply)
        except (ConnectionError, RuntimeError) as error:
            raise Unavailable("the store process died", dependency="store") from error
        finally:
            self._pending.pop(number, None)

    async def _read_replies(self, reader: asyncio.StreamReader) -> None:
        """Hand replies to the waiting calls until the process is gone."""
        decoder = msgspec.msgpack.Decoder(ipc.StoreReply)
        size = ipc.LENGTH_HEADER.size
        try:
            while True:
                (length,) = ipc.LENGTH_HEADER.unpack(await reader.readexactly(size))
                reply = decoder.decode(await reader.readexactly(length))
                if reply.number == ipc.NOTICE_NUMBER:
                    self._on_notice(msgspec.msgpack.decode(reply.body, type=ipc.StoreNotice))
                    continue
                waiting = self._pending.get(reply.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._fail_all()
        mending = self._restart_task is not None and not self._restart_task.done()
        if self._ready and not self._closing and not mending:
            self._restart_task = asyncio.create_task(self._restart_with_backoff(), name="store mender")

    def _on_notice(self, notice: ipc.StoreNotice) -> None:
        """Take over the reported status, and log index builds that have ended."""
        before = {one.collection: one for one in self.index_builds}
        changed, self.index_builds, self.cache_state = notice.upkeep != self.index_builds, notice.upkeep, notice.cache
        self.damaged = notice.damaged
        if not changed:
            return
        for one in notice.upkeep:
            was = before.get(one.collection, IndexBuildStatus(one.collection))
            facts = {"collection": one.collection}
            if one.given_up > was.given_up:
                log.error("the index build of %s was aborted: %s", one.collection, one.reason, extra=facts)
            elif one.made > was.made:
                log.info("%s serves from a new generation", one.collection, extra=facts)
        self.on_index_builds()

    async def _restart_with_backoff(self) -> None:
        """Restart a store process that died unexpectedly; give up after ``RESTART_BACKOFFS_S``."""
        for pause_s in RESTART_BACKOFFS_S:
            await asyncio.sleep(pause_s)
            try:
                await self._restart()
            except PenstockError as error:
                log.warning("the store process could not be restarted: %s", error.detail)
            else:
                return

    def _fail_all(self) -> None:
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the store process died; it is started again", dependency="store"))

    async def _wait_for_exit(self) -> bool:
        """Close our end and wait for the process: it ends by itself when our end is closed.

        Returns whether the next process is kept from the same death.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._reader_task is not None:
            self._reader_task.cancel()
            await asyncio.gather(self._reader_task, return_exceptions=True)
        process, self._process = self._process, None
        record, self._activity = self._activity, None
        status = await asyncio.to_thread(_wait, process) if process is not None else None
        if record is None:
            return False
        doing = record.current_task
        record.close()
        full = status is not None and status < 0 and await asyncio.to_thread(is_disk_full, self.directory)
        condemned = self._crashes.record_exit(status, doing, asyncio.get_running_loop().time(), disk_full=full)
        if full and self._crashes.disk_starved:
            log.error("the disk is full: collections that are closed stay closed until there is room")
        elif condemned:
            log.error("collection %s stays closed: %s", doing.collection, self._crashes.quarantined[doing.collection])
        return condemned


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process and return its exit status; ``None`` if it had to be killed."""
    try:
        return process.wait(CLOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _checked(reply: ipc.StoreReply) -> ipc.StoreReply:
    """Return the reply, or raise the failure it carries.

    Raises:
        PenstockError: Of the family that the store named.
    """
    if reply.error is None:
        return reply
    raise from_record(reply.error)
