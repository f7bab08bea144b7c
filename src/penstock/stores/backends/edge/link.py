"""The front's end of the store process: start it, ask it, notice its death, start it again."""

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
from typing import Final, TypeVar

import msgspec

from penstock.kernel.context import Context
from penstock.kernel.cores import ONE_THREAD
from penstock.kernel.deadline import limit
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.stores.backends.edge import activity, wire
from penstock.stores.backends.edge.activity import Activity
from penstock.stores.backends.edge.blame import Blame
from penstock.stores.backends.edge.space import is_full
from penstock.stores.backends.edge.upkeep import Rule
from penstock.stores.cache import CacheState
from penstock.stores.records import Upkeep

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What a process remembers of points before it has told.
NOTHING: Final = CacheState("points", 0, 0, 0, 0, 0)

#: The store process's module, see :mod:`penstock.stores.backends.edge.process`.
PROGRAM: Final = ("-m", "penstock.stores.backends.edge.process")

#: How long a store may stand still while it starts; as long as it goes on it may take what it needs.
START_TIMEOUT_S: Final = 60.0

#: How often it is looked whether it goes on.
START_LOOK_S: Final = 1.0

#: Without going on for so long a store counts as frozen. The longest piece of work, counting a million points or
#: opening as many, takes less.
FROZEN_S: Final = 5.0

#: How long a store may take to flush and end once told to.
CLOSE_TIMEOUT_S: Final = 30.0

#: Another process's store may still be flushing when ours starts: try again this often.
LOCKED_TRIES: Final = 20
LOCKED_PAUSE_S: Final = 0.25

#: Pauses before each try to bring a dead store back while nobody asks it anything: a server that
#: is not ready gets no requests, so it may not wait for one. Afterwards a request has to try.
MEND_PAUSES_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class StoreLink:
    """A store process and the conversation with it.

    Args:
        directory: The directory ``collections`` that the process serves.
        rule: When a collection gets a new generation; by default never.
        program: What to run, after the interpreter; tests run another.
        cache_bytes: Memory in which the process remembers what it has read of points.

    Attributes:
        directory: The directory that it serves.
        on_ready: Called whenever a process has come up, the first and every later one.
        on_upkeep: Called whenever ``upkeep`` has changed.
        upkeep: How the upkeep of each collection stands, as last told.
        cache: What it remembers of points, as last told.
        damaged: Why collections cannot be opened, by their names, as last told.
    """

    def __init__(
        self,
        directory: Path,
        rule: Rule = Rule(points=0),  # noqa: B008 - frozen
        program: Sequence[str] = PROGRAM,
        cache_bytes: int = 0,
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_upkeep: Callable[[], None] = lambda: None
        self.upkeep: list[Upkeep] = []
        self.cache = NOTHING
        self.damaged: dict[str, str] = {}
        self.directory = directory
        self._rule = rule
        self._program = program
        self._cache_bytes = cache_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self._last_number = 0
        self._starting = asyncio.Lock()
        self._closing = False
        self._ready = False
        self._mender: asyncio.Task[None] | None = None
        self._activity: Activity | None = None
        self._blame = Blame()
        self._identity: tuple[int, int] | None = None
        self._beats = 0
        self._moved_s = 0.0

    @property
    def alive(self) -> bool:
        """Whether the process runs and listens."""
        return self._listener is not None and not self._listener.done()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def state(self) -> str:
        """Why the process does not work, in words; empty while it does."""
        if not self.alive:
            return "a store process is not running; it is started again"
        if (still_s := self._still_s()) >= FROZEN_S:
            return f"store process {self.pid} has not moved for {still_s:.0f} s"
        return ""

    async def start(self) -> None:
        """Start the process and wait until it has found its collections.

        Raises:
            Unavailable: The directory is held by another process (``store_locked``), or the
                process did not come up.
        """
        tries_left = LOCKED_TRIES
        while True:
            try:
                await self._start_once()
            except Unavailable as error:
                # Each death over a collection leaves one fewer to die of.
                if await self._reap():
                    continue
                tries_left -= 1
                if error.code != "store_locked" or tries_left == 0:
                    raise
            else:
                return
            await asyncio.sleep(LOCKED_PAUSE_S)

    async def ask(self, command: wire.Command, result: type[T], ctx: Context) -> T:
        """Send a command and return its result.

        Raises:
            PenstockError: What the store answered, or ``Unavailable`` when it died meanwhile.
            Expired: At the work's deadline.

        Cancellation: The command may still be done; its reply is dropped.
        """
        async with limit(ctx.deadline):
            if not self.alive:
                await self._revive()
            at_s = ctx.deadline.at_s
            reply = await self._exchange(command, None if math.isinf(at_s) else at_s)
        if isinstance(command, wire.Drop | wire.Adopt):
            self._blame.pardon(command.collection)
        return msgspec.msgpack.decode(reply.body, type=result)

    def look(self) -> None:
        """See whether the process goes on; call it about every second."""
        beats, now_s = self._activity.beats if self._activity is not None else 0, asyncio.get_running_loop().time()
        if beats == self._beats:
            return
        thawed = self._ready and now_s >= self._moved_s + FROZEN_S
        self._beats, self._moved_s = beats, now_s
        if thawed:
            self.on_ready()

    def tell(self, command: wire.Command) -> None:
        """Send a command and wait for nothing; where no process runs there is nobody to tell."""
        if self.alive and self._writer is not None:
            self._last_number += 1
            self._writer.write(wire.frame(wire.Request(self._last_number, command)))

    async def close(self) -> None:
        """Tell the process to flush and end, and wait for it."""
        self._closing = True
        if self._mender is not None:
            self._mender.cancel()
            await asyncio.gather(self._mender, return_exceptions=True)
        if self.alive:
            with contextlib.suppress(PenstockError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._exchange(wire.Close(), None)
        await self._reap()

    def _still_s(self) -> float:
        self.look()
        return asyncio.get_running_loop().time() - self._moved_s

    async def _start_once(self) -> None:
        ours, theirs = socket.socketpair()
        self._activity = activity.make()
        self._beats, self._moved_s = 0, asyncio.get_running_loop().time()
        memory = self._activity.fd
        orders = wire.Orders(
            self._rule, self._cache_bytes, memory, self._blame.condemned, self._blame.starved, self._identity
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
                env={**ONE_THREAD, **os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"cannot start the store: {error}", dependency="store") from error
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._last_number = 0
        ready = asyncio.get_running_loop().create_future()
        self._waiting = {0: ready}
        self._ready = False
        self._listener = asyncio.create_task(self._listen(reader), name="store link")
        while not ready.done():
            await asyncio.wait({ready}, timeout=START_LOOK_S)
            if self._still_s() >= START_TIMEOUT_S:
                raise Unavailable("the store did not start in time", dependency="store")
        self._identity = msgspec.msgpack.decode(_checked(ready.result()).body, type=wire.Ready).identity
        self._ready = True
        self.on_ready()

    async def _revive(self) -> None:
        """Start a dead store again, once for all who ask meanwhile."""
        async with self._starting:
            if self.alive:
                return
            if self._closing:
                raise Unavailable("the store is closed", dependency="store")
            log.warning("the store process is gone; starting it again")
            await self._reap()
            await self.start()

    async def _exchange(self, command: wire.Command, expires_at_s: float | None) -> wire.Reply:
        if self._writer is None:
            raise Unavailable("the store is not running", dependency="store")
        self._last_number += 1
        number = self._last_number
        reply: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        try:
            self._writer.write(wire.frame(wire.Request(number, command, expires_at_s)))
            await self._writer.drain()
            return _checked(await reply)
        except (ConnectionError, RuntimeError) as error:
            raise Unavailable("the store process died", dependency="store") from error
        finally:
            self._waiting.pop(number, None)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand replies to those who wait, until the process is gone."""
        decoder = msgspec.msgpack.Decoder(wire.Reply)
        size = wire.HEADER.size
        try:
            while True:
                (length,) = wire.HEADER.unpack(await reader.readexactly(size))
                reply = decoder.decode(await reader.readexactly(length))
                if reply.number == wire.NOTICE:
                    self._note(msgspec.msgpack.decode(reply.body, type=wire.Notice))
                    continue
                waiting = self._waiting.get(reply.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._fail_all()
        mending = self._mender is not None and not self._mender.done()
        if self._ready and not self._closing and not mending:
            self._mender = asyncio.create_task(self._mend(), name="store mender")

    def _note(self, notice: wire.Notice) -> None:
        """Remember what the process has told, and log what has become of generations."""
        before = {one.collection: one for one in self.upkeep}
        changed, self.upkeep, self.cache = notice.upkeep != self.upkeep, notice.upkeep, notice.cache
        self.damaged = notice.damaged
        if not changed:
            return
        for one in notice.upkeep:
            was = before.get(one.collection, Upkeep(one.collection))
            facts = {"collection": one.collection}
            if one.given_up > was.given_up:
                log.error("optimising %s was given up: %s", one.collection, one.reason, extra=facts)
            elif one.made > was.made:
                log.info("%s serves from a new generation", one.collection, extra=facts)
        self.on_upkeep()

    async def _mend(self) -> None:
        """Bring a store back that died unasked; give up after ``MEND_PAUSES_S``."""
        for pause_s in MEND_PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await self._revive()
            except PenstockError as error:
                log.warning("the store does not come up: %s", error.detail)
            else:
                return

    def _fail_all(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the store process died; it is started again", dependency="store"))

    async def _reap(self) -> bool:
        """Close our end and wait for the process: it ends by itself when our end is closed.

        Returns whether the next process is kept from the same death.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        process, self._process = self._process, None
        record, self._activity = self._activity, None
        status = await asyncio.to_thread(_wait, process) if process is not None else None
        if record is None:
            return False
        doing = record.doing
        record.close()
        full = status is not None and status < 0 and await asyncio.to_thread(is_full, self.directory)
        condemned = self._blame.note(status, doing, asyncio.get_running_loop().time(), full=full)
        if full and self._blame.starved:
            log.error("the disk is full: collections that are closed stay closed until there is room")
        elif condemned:
            log.error("collection %s stays closed: %s", doing.collection, self._blame.condemned[doing.collection])
        return condemned


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process and return its exit status; ``None`` if it had to be killed."""
    try:
        return process.wait(CLOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _checked(reply: wire.Reply) -> wire.Reply:
    """Return the reply, or raise the failure it carries.

    Raises:
        PenstockError: Of the family that the store named.
    """
    if reply.failure is None:
        return reply
    raise wire.error_of(reply.failure)
