import asyncio
import io
import json
import logging
import os
import signal
import termios
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

from penstock.cli import main as entry
from penstock.cli.top import (
    ANSWER_TIMEOUT_S,
    ESCAPE_TIMEOUT_S,
    Keyboard,
    LiveScreen,
    StatusPoller,
    find_server,
    poll_forever,
    print_lines,
    print_page,
)
from penstock.kernel.errors import Expired, PenstockError, Unavailable
from penstock.stores.lock import DirectoryLock, LockHolder
from tests.clock import quiet, virtual

LOST = Unavailable("lost the server", dependency="server", code="server_lost")


class Server:
    """Stands in for the server and its API: one answer of the script for each question, the last one for ever."""

    def __init__(self, *script):
        self.script = list(script)
        self.questions = self.open = 0
        self.url = "http://one"

    def find(self):
        if self.url is None:
            raise Unavailable("no server runs", dependency="server")
        return LockHolder(1, self.url)

    def reach(self, server):
        self.open += 1
        return self

    async def close(self):
        self.open -= 1

    async def send(self, call):
        assert call.path == "/v1/status"
        self.questions += 1
        one = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if one == "hang":
            await asyncio.Event().wait()
        if isinstance(one, Exception):
            raise one
        return one


def asking(server):
    return StatusPoller(server.find, server.reach)


def told(at_s):
    return {"version": "1", "uptime_s": at_s, "traffic": {"in_time": 10 * at_s}}


@asynccontextmanager
async def followed(server, interval_s=1.0):
    """Follow a server; yields what is known of it and how often it changed."""
    one, changes = asking(server), []
    watch = one.history
    task = asyncio.create_task(poll_forever(one, interval_s, lambda: changes.append(watch.last_error)))
    try:
        yield watch, changes
    finally:
        task.cancel()
        await asyncio.wait({task})
        await one.close()
        assert server.open == 0


@virtual
async def test_the_server_is_asked_once_in_an_interval():
    server = Server(told(1), told(2), told(3), told(4))
    async with followed(server, 1.0) as (watch, changes):
        await asyncio.sleep(2.5)
        assert server.questions == len(changes) == 3
        assert watch.rates.goodput == 10


@virtual
async def test_a_server_that_hangs_is_told_and_asked_again():
    server = Server(told(1), "hang", told(20))
    async with followed(server) as (watch, changes):
        await asyncio.sleep(1.5 + ANSWER_TIMEOUT_S)
        assert changes[:2] == ["", f"no answer from http://one within {ANSWER_TIMEOUT_S:.0f} s"]
        assert changes[2:] == [""]
        assert watch.sample.snapshot.uptime_s == 20


@virtual
async def test_a_lost_server_is_looked_for_and_found_where_it_is_now():
    server = Server(told(100), LOST, told(1))
    async with followed(server) as (watch, changes):
        await asyncio.sleep(0.5)
        server.url = None
        await asyncio.sleep(3)
        assert changes == ["", "lost the server", "no server runs", "no server runs"]
        server.url = "http://two"
        await asyncio.sleep(1)
        assert (changes[-1], watch.url) == ("", "http://two")
        assert watch.rates.goodput is None


@virtual
async def test_an_answer_that_cannot_be_read_is_told_and_the_next_one_is_asked_for():
    async with followed(Server({"topics": 1}, told(2))) as (_, changes):
        await asyncio.sleep(1.5)
        assert "cannot be read" in changes[0]
        assert changes[1] == ""


@virtual
async def test_a_refusal_is_not_repeated_in_haste():
    server = Server(LOST)
    async with followed(server, 5.0):
        await asyncio.sleep(11)
        assert server.questions == 3


@virtual
async def test_a_first_answer_that_does_not_come_is_an_error():
    with pytest.raises(Expired):
        await asking(Server("hang")).poll()


@virtual
async def test_a_page_is_printed_from_two_looks_one_interval_apart():
    out, server = io.StringIO(), Server(told(1), told(2))
    await print_page(asking(server), 1.0, Console(file=out, highlight=False, markup=False, soft_wrap=True))
    lines = out.getvalue().splitlines()
    assert lines[0] == "penstock 1  up 2s  http://one"
    assert any(line.startswith("goodput   10/s") for line in lines)
    assert "\x1b" not in out.getvalue()
    assert (server.questions, server.open) == (2, 0)


@virtual
async def test_a_page_of_a_server_that_goes_away_between_the_looks_is_an_error():
    server = Server(told(1), LOST)
    with pytest.raises(Unavailable):
        await print_page(asking(server), 1.0, Console(file=io.StringIO()))
    assert server.open == 0


def printed(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_object_has_rates_and_the_status_as_it_came(capsys):
    @virtual
    async def once():
        await print_lines(asking(Server(told(1), told(2) | {"later": 1})), 1.0, once=True)

    once()
    (line,) = printed(capsys)
    assert set(line) == {"at", "url", "rates", "status"}
    assert line["rates"]["goodput"] == 10
    assert line["rates"]["refused"] is None
    assert line["status"]["later"] == 1


def test_objects_go_on_while_the_server_is_away(capsys):
    @virtual
    async def on_and_on():
        server = Server(told(1), told(2), LOST, told(4))
        task = asyncio.create_task(print_lines(asking(server), 1.0, once=False))
        await asyncio.sleep(3.5)
        task.cancel()
        await asyncio.wait({task})
        assert server.open == 0

    on_and_on()
    first, second, third = printed(capsys)
    assert first["rates"]["goodput"] == third["rates"]["goodput"] == 10
    assert second["error"] == "lost the server"
    assert "rates" not in second


@pytest.mark.parametrize("flags", [[], ["--once"], ["--json"], ["--json", "--once"]])
def test_without_a_server_it_says_what_to_type_and_creates_nothing(flags, tmp_path, capsys):
    assert entry.run(["top", "--data-dir", str(tmp_path / "a b"), *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"`penstock serve --data-dir '{tmp_path}/a b'` starts one" in shown.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["0.1", "61", "often"])
def test_an_interval_out_of_bounds_is_refused(seconds, capsys):
    assert entry.run(["top", "--interval", seconds]) == 2
    assert "--interval" in capsys.readouterr().err


def test_a_server_is_found_by_its_data_directory(tmp_path):
    lock = DirectoryLock(tmp_path)
    with pytest.raises(Unavailable, match="no server runs"):
        find_server(tmp_path)
    lock.acquire()
    try:
        with pytest.raises(PenstockError, match="starting or at work"):
            find_server(tmp_path)
        lock.publish(LockHolder(os.getpid(), "http://h:1"))
        assert find_server(tmp_path).url == "http://h:1"
    finally:
        lock.release()


def keys(*typed, wait_s=0.0):
    """Return how often the keyboard asked for the end."""
    ends = []

    @virtual
    async def type_them():
        board = Keyboard(0, lambda: ends.append(True))
        for one in typed:
            board.feed(one)
        await asyncio.sleep(wait_s)
        await quiet()

    type_them()
    return len(ends)


@pytest.mark.parametrize("typed", [b"q", b"Q", b"xq", b"", b"\x1b\x1b"])
def test_q_and_the_end_of_the_terminal_end_it(typed):
    assert keys(typed) == 1


@pytest.mark.parametrize("typed", [b"x", b"\x1b[A", b"\x1bOP", b"\x1bq", b"\r"])
def test_other_keys_do_nothing(typed):
    assert keys(typed, wait_s=1) == 0


def test_escape_ends_it_once_nothing_follows():
    assert keys(b"\x1b", wait_s=ESCAPE_TIMEOUT_S / 2) == 0
    assert keys(b"\x1b", wait_s=ESCAPE_TIMEOUT_S) == 1
    assert keys(b"\x1b", b"[A", wait_s=1) == 0
    assert keys(b"\x1b", b"\x1b", wait_s=1) == 1


@pytest.fixture
def terminal(monkeypatch):
    """A terminal's two ends; it must be left as it was found."""
    # Commands of other tests have sent the log to a captured stream that is closed by now.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    # What the console takes a terminal to be able to do must not depend on the one that the tests run in.
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    yield master, slave
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    assert after == before


def seen_on(terminal, act, *script):
    """Run the screen until it ends; ``act`` is called with the master's end once an answer has been drawn."""
    master, slave = terminal
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)

    async def main():
        one = asking(Server(*script))
        screen = LiveScreen(one.history, console, slave)

        def drawn_then_act():
            screen.changed.set()
            asyncio.get_running_loop().call_soon(act, master)

        asks = asyncio.create_task(poll_forever(one, 60, drawn_then_act))
        asks.add_done_callback(lambda _: screen.changed.set())
        try:
            return await screen.run(asks)
        finally:
            assert termios.tcgetattr(slave)[3] & termios.ECHO
            asks.cancel()
            await asyncio.wait({asks})
            await one.close()

    try:
        return asyncio.run(main()), out.getvalue()
    finally:
        # The alternate screen was left and the cursor shown, whatever happened.
        assert out.getvalue().rindex("\x1b[?1049l") > out.getvalue().rindex("\x1b[?1049h")
        assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("key", [b"q", b"\x1b\x1b"])
def test_a_key_ends_the_view_and_the_terminal_is_as_it_was(terminal, key):
    code, out = seen_on(terminal, lambda master: os.write(master, key), told(1))
    assert code == 0
    assert "penstock 1  up 1s" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)])
def test_a_signal_ends_the_view_and_the_terminal_is_as_it_was(terminal, number, code):
    # Whatever a test before this one left: a loop gives back the interpreter's own handler, not the one it found.
    plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    left = signal.signal(number, plain)
    try:
        assert seen_on(terminal, lambda _: os.kill(os.getpid(), number), told(1))[0] == code
        assert signal.getsignal(number) == plain
    finally:
        signal.signal(number, left)


def test_a_bug_ends_the_view_and_the_terminal_is_as_it_was(terminal):
    with pytest.raises(ZeroDivisionError):
        seen_on(terminal, lambda _: None, ZeroDivisionError())


def test_the_view_starts_without_an_answer(terminal):
    code, out = seen_on(terminal, lambda master: os.write(master, b"q"), LOST)
    assert code == 0
    assert "Waiting for the first answer" in out
    assert "no status since" in out


def test_a_new_size_is_drawn_at_once(terminal):
    def resize_then_end(master):
        os.kill(os.getpid(), signal.SIGWINCH)
        asyncio.get_running_loop().call_later(0, os.write, master, b"q")

    assert seen_on(terminal, resize_then_end, told(1))[0] == 0
