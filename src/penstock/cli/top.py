"""``penstock top``: what a running server is doing, live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from penstock.cli.dashboard import DrawTime, render_page
from penstock.cli.keyboard import Keyboard
from penstock.cli.options import Setup, with_client_settings
from penstock.cli.session import connect_to_server, running_server_url
from penstock.cli.status_rates import StatusHistory, StatusSample, parse_status
from penstock.cli.terminal import logs_above, stdout_console
from penstock.cli.text_charts import ASCII_FALLBACK
from penstock.client import AsyncClient, calls
from penstock.kernel.errors import Expired, PenstockError, Unavailable

#: A server that takes longer to return its status is asked again.
ANSWER_TIMEOUT_S: Final = 10.0
#: The screen is redrawn at least so often, since it shows how old its values are.
REDRAW_S: Final = 1.0
STDIN: Final = 0
#: Columns where standard output is no terminal.
PLAIN_WIDTH: Final = 119


@click.command("top")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks, 0.2 to 60.",
)
@click.option("--once", is_flag=True, help="Look twice, one interval apart, print what there was and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each interval, on one line.")
@with_client_settings()
def command(setup: Setup, interval: float, *, once: bool, as_json: bool) -> int:
    """Watch a running server: traffic, ladder, topics, pools, breakers, memory.

    q, Esc or Ctrl-C ends it. Where standard output is no terminal, it prints one plain page and ends.

    Goodput are answers in time. A topic's drop/s are messages that expired or could no longer end in time.
    """
    asking, console = StatusPoller(lambda: find_server_url(setup.data_dir)), stdout_console()
    if as_json:
        asyncio.run(print_lines(asking, interval, once=once))
    elif once or not sys.stdout.isatty() or console.is_dumb_terminal:
        asyncio.run(print_page(asking, interval, console))
    else:
        return asyncio.run(_live(asking, interval))
    return 0


def find_server_url(data_dir: Path) -> str:
    """Return where the server on a data directory listens.

    Raises:
        Unavailable: None does.
    """
    url = running_server_url(data_dir)
    if url is None:
        message = f"no server runs on {data_dir}; `penstock serve --data-dir {shlex.quote(str(data_dir))}` starts one"
        raise Unavailable(message, dependency="server", code="server_absent")
    return url


class StatusPoller:
    """Polls the server on a data directory for its status, and finds it again after a restart.

    Args:
        find: Returns where the server listens, or raises ``Unavailable``.
        connect: Opens its API.

    Attributes:
        url: The URL where it was last found, empty before.
        status: Its last answer as it came.
    """

    def __init__(
        self,
        find: Callable[[], str],
        connect: Callable[[str], AbstractAsyncContextManager[AsyncClient]] = connect_to_server,
    ) -> None:
        self.url = ""
        self.status: dict[str, Any] = {}
        self._find = find
        self._reach = connect
        self._api: AsyncClient | None = None
        self._connection = AsyncExitStack()

    def locate(self) -> str:
        """Look where the server listens now.

        Raises:
            Unavailable: There is none.
        """
        self.url = self._find()
        return self.url

    async def poll(self) -> StatusSample:
        """Return a status.

        Bounds:
            One attempt of ``ANSWER_TIMEOUT_S``.

        Raises:
            PenstockError: There is no server, or no answer, or none that can be read.

        Cancellation:
            The connection stays; :meth:`close` ends it.
        """
        clock = asyncio.get_running_loop().time
        try:
            if self._api is None:
                self._api = (await self._connection.enter_async_context(self._reach(self.locate()))).with_options(
                    attempts_max=1
                )
            asked_s = clock()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                self.status = await self._api.send(calls.status().untyped())
            return StatusSample(parse_status(self.status), asked_s, clock())
        except TimeoutError as error:
            await self.close()
            raise Expired("status", f"no answer from {self.url} within {ANSWER_TIMEOUT_S:.0f} s") from error
        except PenstockError:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection. The next poll looks for the server again."""
        self._api = None
        await self._connection.aclose()


async def poll_forever(
    asking: StatusPoller, watch: StatusHistory, interval_s: float, changed: Callable[[], None]
) -> None:
    """Ask once in an interval until cancelled; every answer, and every lack of one, goes into ``watch``.

    Args:
        asking: Whom to ask.
        watch: Where it goes.
        interval_s: Between two questions; a slow answer delays the next.
        changed: Called after each.

    Cancellation:
        The connection stays open. The creator of ``asking`` closes it.
    """
    clock = asyncio.get_running_loop().time
    while True:
        next_s = clock() + interval_s
        watch.on_request(clock())
        try:
            sample = await asking.poll()
        except PenstockError as error:
            watch.on_error(error.detail)
        else:
            watch.on_status(asking.url, sample)
        changed()
        await asyncio.sleep(next_s - clock())


async def print_page(asking: StatusPoller, interval_s: float, console: Console) -> None:
    """Look twice and print the page.

    Raises:
        PenstockError: Either time there was no answer.
    """
    watch = await _twice(asking, interval_s)
    width = console.width if console.is_terminal else PLAIN_WIDTH
    for line in render_page(watch, _moment(), width):
        line.rstrip()
        console.print(_writable(line, console))


async def print_lines(asking: StatusPoller, interval_s: float, *, once: bool) -> None:
    """Print an object for each interval, without end or ``once``; one with ``error`` where there was no answer.

    Raises:
        PenstockError: There is no server at the beginning; ``once``: there was no answer.
    """
    if once:
        _print_line(asking, await _twice(asking, interval_s))
        return
    watch = StatusHistory(asking.locate(), asyncio.get_running_loop().time())
    try:
        await poll_forever(asking, watch, interval_s, lambda: _print_line(asking, watch))
    finally:
        await asking.close()


async def _twice(asking: StatusPoller, interval_s: float) -> StatusHistory:
    try:
        first = await asking.poll()
        watch = StatusHistory(asking.url, first.requested_s)
        watch.on_status(asking.url, first)
        await asyncio.sleep(interval_s)
        watch.on_status(asking.url, await asking.poll())
    finally:
        await asking.close()
    return watch


def _print_line(asking: StatusPoller, watch: StatusHistory) -> None:
    if not watch.goodput:
        # The first answer alone makes no rates.
        return
    told: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "url": watch.url}
    told |= {"error": watch.last_error} if watch.last_error else {"rates": watch.rates, "status": asking.status}
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


async def _live(asking: StatusPoller, interval_s: float) -> int:
    watch = StatusHistory(asking.locate(), asyncio.get_running_loop().time())
    console = Console(highlight=False, markup=False, emoji=False)
    screen = LiveScreen(watch, console, STDIN if os.isatty(STDIN) else None)
    asks = asyncio.create_task(poll_forever(asking, watch, interval_s, screen.changed.set))
    asks.add_done_callback(lambda _: screen.changed.set())
    try:
        return await screen.run(asks)
    finally:
        asks.cancel()
        await asyncio.wait({asks})
        await asking.close()


class LiveScreen:
    """The terminal while the view runs: drawn on the alternate screen, given back as it was.

    Args:
        watch: What is drawn.
        console: Where.
        keys_fd: The terminal whose keys are read, ``None`` for none.

    Attributes:
        changed: Set when there is something to draw, or it is to end.
    """

    def __init__(self, watch: StatusHistory, console: Console, keys_fd: int | None) -> None:
        self.changed = asyncio.Event()
        self._watch = watch
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._keyboard = Keyboard(keys_fd, self._end) if keys_fd is not None else None
        self._code: int | None = None

    async def run(self, asks: asyncio.Task[None]) -> int:
        """Draw until a key or a signal ends it, and return the exit code.

        Raises:
            Exception: What ended ``asks``.

        Cancellation:
            The terminal is as it was.
        """
        with logs_above(self._console), self._signals(), self._terminal():
            while self._code is None:
                if asks.done():
                    asks.result()
                self.changed.clear()
                self._draw()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REDRAW_S):
                        await self.changed.wait()
        return self._code

    def _draw(self) -> None:
        width, height = self._console.size
        lines = [_writable(line, self._console) for line in render_page(self._watch, _moment(), width, height)]
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)

    def _end(self, code: int = 0) -> None:
        self._code = code
        self.changed.set()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        try:
            self._take()
            yield
        finally:
            self._give_back()

    def _take(self) -> None:
        if self._keyboard:
            self._keyboard.open()
        self._live.start()

    def _give_back(self) -> None:
        try:
            self._live.stop()
        finally:
            if self._keyboard:
                self._keyboard.close()

    def _pause(self) -> None:
        """Stop as Ctrl-Z asks, with the terminal as it was; go on where it was when continued."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self.changed.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        reactions: dict[int, Callable[[], None]] = {
            signal.SIGINT: self._end,
            signal.SIGTERM: lambda: self._end(128 + signal.SIGTERM),
            signal.SIGHUP: lambda: self._end(128 + signal.SIGHUP),
            signal.SIGTSTP: self._pause,
            signal.SIGWINCH: self.changed.set,
        }
        for number, reaction in reactions.items():
            loop.add_signal_handler(number, reaction)
        try:
            yield
        finally:
            for number in reactions:
                loop.remove_signal_handler(number)


def _moment() -> DrawTime:
    return DrawTime(asyncio.get_running_loop().time(), datetime.now().astimezone())


def _writable(line: Text, console: Console) -> Text:
    """Return the line in signs that the console can write."""
    if console.options.ascii_only:
        line.plain = line.plain.translate(ASCII_FALLBACK)
    return line
