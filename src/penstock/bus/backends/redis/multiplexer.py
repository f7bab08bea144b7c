"""Multiplexed Redis connection: many commands in flight, written as they come and answered in order."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError, ResponseError

from penstock.bus.broker import BROKER_TIMEOUT_S
from penstock.bus.loops import cancel_all
from penstock.kernel.context import Deadline, enforce_deadline
from penstock.kernel.errors import Expired, Unavailable

#: The name in errors, logs and metrics.
NAME: Final = "redis"
#: How long a clean disconnect may take.
DISCONNECT_S: Final = 0.5

Command = Sequence[bytes | str | int]


@dataclass(slots=True, eq=False)
class _CommandBatch:
    """Commands of one call, and the replies received so far."""

    commands: Sequence[Command]
    future: asyncio.Future[list[Any]]
    patience_s: float
    results: list[Any] = field(default_factory=list)


class CommandMultiplexer:
    """Runs commands on one connection of the pool, any number of them in flight.

    A round trip for each command would cost more than the command. Here whatever was given in one step of the loop is
    written at once, and nothing waits for the answers before it. A connection that fails or falls silent fails
    everything in flight. The next call makes a new one.

    Bounds: what the callers have under way. One connection of the pool, kept while it is well.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._queued: list[_CommandBatch] = []
        self._sent: deque[_CommandBatch] = deque()
        self._has_commands = asyncio.Event()
        self._written = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<CommandMultiplexer {len(self._queued)}+{len(self._sent)}>"

    def execute(self, *commands: Command, wait_s: float = 0.0) -> asyncio.Future[list[Any]]:
        """Send commands, one after the other with none of another call between them; return what will be their answers.

        An error that Redis answers to one of them stands among the answers. The future fails with ``Unavailable`` if
        the connection does.

        Args:
            commands: The commands.
            wait_s: How long Redis may take for them by their nature, beyond ``BROKER_TIMEOUT_S``.

        Cancellation: of the future: The commands are carried out or not.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        if self._closed:
            future.set_exception(unavailable(ConnectionError("the connection was given up")))
            return future
        self._queued.append(_CommandBatch(commands, future, wait_s + BROKER_TIMEOUT_S))
        self._has_commands.set()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="redis lane")
        return future

    async def close(self) -> None:
        """Close the connection for good; commands in flight fail."""
        self._closed = True
        await cancel_all(self._task)

    async def _run(self) -> None:
        """Connect, write and read until something fails."""
        connection: AbstractConnection | None = None
        error: BaseException | None = None
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            reading = asyncio.create_task(self._read(connection), name="redis lane, reading")
            writing = asyncio.create_task(self._write(connection), name="redis lane, writing")
            try:
                done, _ = await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
                error = next((one.exception() for one in done if not one.cancelled()), None)
            finally:
                await cancel_all(reading, writing)
        except (RedisError, OSError) as failed:
            error = failed
        finally:
            self._task = None
            self._fail(error)
            if connection is not None:
                await self._disconnect(connection, in_peace=self._closed and error is None)
                await self._pool.release(connection)

    @staticmethod
    async def _disconnect(connection: AbstractConnection, *, in_peace: bool) -> None:
        """Disconnect. A clean close is awaited, as TLS requires; a server in trouble is not waited for."""
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(DISCONNECT_S):
                await connection.disconnect(nowait=not in_peace)

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._has_commands.wait()
            self._has_commands.clear()
            calls, self._queued = self._queued, []
            written = encode_commands([command for call in calls for command in call.commands])
            self._sent.extend(calls)
            self._written.set()
            await connection.send_packed_command(written, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._sent:
                self._written.clear()
                await self._written.wait()
            call = self._sent[0]
            # On the wheel: a timer of the loop for each call would cost as much as reading its answer.
            async with enforce_deadline(Deadline(loop.time() + call.patience_s, NAME)):
                while len(call.results) < len(call.commands):
                    try:
                        call.results.append(
                            await connection.read_response(
                                disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                            )
                        )
                    except ResponseError as refused:
                        call.results.append(refused)
            self._sent.popleft()
            if not call.future.done():
                call.future.set_result(call.results)

    def _fail(self, error: BaseException | None) -> None:
        calls = [*self._sent, *self._queued]
        self._sent.clear()
        self._queued.clear()
        self._has_commands.clear()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(unavailable(error))


def encode_commands(commands: Iterable[Command]) -> bytes:
    """Return commands as Redis reads them: arrays of byte strings with their lengths in front."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def unavailable(error: BaseException | None) -> Unavailable:
    """Return the error of a Redis that cannot be asked; the client's own is its cause."""
    why = "it does not answer"
    if error is not None and not isinstance(error, TimeoutError | Expired):
        why = (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
    translated = Unavailable(f"redis cannot be asked: {why}", dependency=NAME)
    translated.__cause__ = error
    return translated


def first_error(answers: Iterable[Any]) -> ResponseError | None:
    """Return the first error among answers."""
    return next((one for one in answers if isinstance(one, ResponseError)), None)
