"""``penstock top``: what a running server is doing, live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from penstock.cli.dashboard import render_page
from penstock.cli.options import Setup, with_client_settings
from penstock.cli.session import client_of, running_server
from penstock.cli.status_rates import STATUS_AGE_S, StatusHistory, StatusSample, parse_status
from penstock.cli.terminal import logs_above, stdout_console
from penstock.cli.text_charts import ASCII_FALLBACK
from penstock.client import AsyncClient, calls
from penstock.kernel.errors import Expired, PenstockError, Unavailable
from penstock.stores.lock import LockHolder

#: A server that takes longer to return its status is asked again.
ANSWER_TIMEOUT_S: Final = 10.0
#: The screen is redrawn at least so often, since it shows how old its values are.
REDRAW_S: Final = 1.0
STDIN: Final = 0
#: Columns where standard output is no terminal.
PLAIN_WIDTH: Final = 119

#: An escape that nothing follows within this time is the key, not the beginning of another key's sequence.
ESCAPE_TIMEOUT_S: Final = 0.05
_ESCAPE: Final = b"\x1b"


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
async def command(setup: Setup, interval: float, *, once: bool, as_json: bool) -> int:
    """Watch a running server: traffic, ladder, topics, pools, breakers, memory.

    q, Esc or Ctrl-C ends it. Where standard output is no terminal, it prints one plain page and ends.

    Goodput are answers in time. A topic's drop/s are messages that expired or could no longer end in time.
    """
    asking, console = StatusPoller(lambda: find_server(setup.data_dir)), stdout_console()
    if as_json:
        await print_lines(asking, interval, once=once)
    elif once or not sys.stdout.isatty() or console.is_dumb_terminal:
        await print_page(asking, interval, console)
    else:
        return await _live(asking, interval)
    return 0


def find_server(data_dir: Path) -> LockHolder:
    """Return the server on a data directory.

    Raises:
        Unavailable: None does.
    """
    server = running_server(data_dir)
    if server is None:
        message = f"no server runs on {data_dir}; `penstock serve --data-dir {shlex.quote(str(data_dir))}` starts one"
        raise Unavailable(message, dependency="server", code="server_absent")
    return server


class StatusPoller:
    """Polls the server on a data directory for its status, and finds it again after a restart.

    Attributes:
        history: What is known about the server.
        status: Its last answer as it came.
    """

    def __init__(
        self,
        find: Callable[[], LockHolder],
        connect: Callable[[LockHolder], AsyncClient] = lambda server: client_of(server, attempts_max=1),
    ) -> None:
        self.history = StatusHistory()
        self.status: dict[str, Any] = {}
        self._find = find
        self._connect = connect
        self._api: AsyncClient | None = None

    def locate(self) -> LockHolder:
        """Look where the server listens now.

        Raises:
            Unavailable: There is none.
        """
        server = self._find()
        self.history.url = server.url
        return server

    async def poll(self) -> None:
        """Take a status into the history, or that there was none.

        Bounds:
            One attempt of ``ANSWER_TIMEOUT_S``.

        Raises:
            PenstockError: There is no server, or no answer, or none that can be read.

        Cancellation:
            The connection stays; :meth:`close` ends it.
        """
        clock = asyncio.get_running_loop().time
        self.history.on_request(clock())
        try:
            self._api = self._api or self._connect(self.locate())
            asked_s = clock()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    self.status = await self._api.send(calls.status().untyped())
            except TimeoutError as error:
                detail = f"no answer from {self.history.url} within {ANSWER_TIMEOUT_S:.0f} s"
                raise Expired("status", detail) from error
            self.history.on_status(StatusSample(parse_status(self.status), asked_s, clock()))
        except PenstockError as error:
            self.history.on_error(error.detail)
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection. The next poll looks for the server again."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()


async def poll_forever(asking: StatusPoller, interval_s: float, changed: Callable[[], None]) -> None:
    """Ask once in an interval until cancelled.

    Args:
        asking: Whom to ask.
        interval_s: Between two questions; a slow answer delays the next.
        changed: Called after every answer, and every lack of one.

    Cancellation:
        The connection stays open. The creator of ``asking`` closes it.
    """
    clock = asyncio.get_running_loop().time
    while True:
        next_s = clock() + interval_s
        with contextlib.suppress(PenstockError):
            await asking.poll()
        changed()
        await asyncio.sleep(next_s - clock())


async def poll_twice(asking: StatusPoller, interval_s: float) -> None:
    """Look twice, one interval apart, or as far as it takes a server to make another status.

    Raises:
        PenstockError: Either time there was no answer.
    """
    try:
        await asking.poll()
        await asyncio.sleep(max(interval_s, STATUS_AGE_S))
        await asking.poll()
    finally:
        await asking.close()


async def print_page(asking: StatusPoller, interval_s: float, console: Console) -> None:
    """Look twice and print the page.

    Raises:
        PenstockError: Either time there was no answer.
    """
    await poll_twice(asking, interval_s)
    for line in _page(asking.history, console, console.width if console.is_terminal else PLAIN_WIDTH):
        line.rstrip()
        console.print(line)


async def print_lines(asking: StatusPoller, interval_s: float, *, once: bool) -> None:
    """Print an object for each interval, without end or ``once``; one with ``error`` where there was no answer.

    Raises:
        PenstockError: There is no server at the beginning; ``once``: there was no answer.
    """
    if once:
        await poll_twice(asking, interval_s)
        _print_line(asking)
        return
    asking.locate()
    try:
        await poll_forever(asking, interval_s, lambda: _print_line(asking))
    finally:
        await asking.close()


def _print_line(asking: StatusPoller) -> None:
    history = asking.history
    if not history.goodput:
        # The first answer alone makes no rates.
        return
    told: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "url": history.url}
    told |= {"error": history.last_error} if history.last_error else {"rates": history.rates, "status": asking.status}
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


async def _live(asking: StatusPoller, interval_s: float) -> int:
    asking.locate()
    console = Console(highlight=False, markup=False, emoji=False)
    screen = LiveScreen(asking.history, console, STDIN if os.isatty(STDIN) else None)
    asks = asyncio.create_task(poll_forever(asking, interval_s, screen.changed.set))
    asks.add_done_callback(lambda _: screen.changed.set())
    try:
        return await screen.run(asks)
    finally:
        asks.cancel()
        await asyncio.wait({asks})
        await asking.close()


def _page(history: StatusHistory, console: Console, width: int, height: int | None = None) -> list[Text]:
    """Return the page as it is now, in signs that the console can write."""
    now_s = asyncio.get_running_loop().time()
    lines = render_page(history, now_s, datetime.now().astimezone(), width, height)
    if console.options.ascii_only:
        for line in lines:
            line.plain = line.plain.translate(ASCII_FALLBACK)
    return lines


class LiveScreen:
    """The terminal while the view runs: drawn on the alternate screen, given back as it was.

    Attributes:
        changed: Set when there is something to draw, or it is to end.
    """

    def __init__(self, history: StatusHistory, console: Console, keys_fd: int | None) -> None:
        self.changed = asyncio.Event()
        self._history = history
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
        lines = _page(self._history, self._console, *self._console.size)
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


class Keyboard:
    """Reads a terminal's keys one by one and without echo, while it is open.

    Args:
        fd: The terminal.
        on_end: Called for ``q`` and Esc, and when the terminal has gone.
    """

    def __init__(self, fd: int, on_end: Callable[[], None]) -> None:
        self._fd = fd
        self._on_end = on_end
        self._before: list[Any] | None = None
        self._escape: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Read keys from now on."""
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._typed)

    def close(self) -> None:
        """Restore the terminal, and discard keys that were not read."""
        if self._escape:
            self._escape.cancel()
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._before is not None:
            # A terminal that has gone needs nothing.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
            self._before = None

    def _typed(self) -> None:
        try:
            self.feed(os.read(self._fd, 256))
        except OSError:
            self.feed(b"")

    def feed(self, keys: bytes) -> None:
        """Take in what was typed; nothing at all means that the terminal has gone."""
        pending, self._escape = self._escape, None
        if pending:
            # The rest of an arrow's or another key's sequence.
            pending.cancel()
            keys = _ESCAPE + keys if keys else keys
        if keys == _ESCAPE:
            self._escape = asyncio.get_running_loop().call_later(ESCAPE_TIMEOUT_S, self._on_end)
        elif keys in {b"", _ESCAPE * 2} or (not keys.startswith(_ESCAPE) and b"q" in keys.lower()):
            self._on_end()
