"""``penstock dlq``: the messages that nobody could handle, to look at, to send once more, or to throw away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from penstock.app.backends import broker
from penstock.bus.broker import LETTERS_MAX, Broker, Letter
from penstock.bus.wire import Message, Unreadable, Wire
from penstock.cli.options import Setup, common, json_option
from penstock.cli.output import print_json
from penstock.cli.tables import Rows, print_rows
from penstock.cli.terminal import harmless, notices, results
from penstock.kernel.clock import MonotonicClock
from penstock.kernel.errors import Invalid
from penstock.telemetry.logs import configure

#: A label is read from a record of any size.
_WIRE: Final = Wire({}, 2**40)

_some = click.argument("ids", nargs=-1, metavar="ID…")
_all = click.option("--all", "every", is_flag=True, help="All of them.")


@click.group("dlq")
def command() -> None:
    """Messages that nobody could handle (BUS_BACKEND=redis or kafka).

    A message is put here when it cannot be read, or when it has been delivered BUS_TRIES times and its handlers failed
    or died. Who asked has been told; nothing is lost but the work.
    """


@command.command("list")
@click.option("--count", type=click.IntRange(1, LETTERS_MAX), default=100, show_default=True, help="At most so many.")
@json_option
@common
def list_letters(setup: Setup, count: int, *, as_json: bool) -> int:
    """Show them, the oldest first."""
    letters = _with_broker(setup, lambda broker: broker.letters(count))
    if as_json:
        print_json({"letters": [told(letter) for letter in letters]})
    elif letters:
        print_rows(results(), table(letters, time.time()))
    else:
        notices().print("No dead letters.")
    return 0


@command.command("retry")
@_some
@_all
@json_option
@common
def retry(setup: Setup, ids: tuple[str, ...], *, every: bool, as_json: bool) -> int:
    """Send them once more to where they were sent, as new; whoever asked then has gone, so replies are discarded."""
    return _each(setup, Choice(ids, every), "retried", lambda broker, letter: broker.revive(letter), as_json=as_json)


@command.command("drop")
@_some
@_all
@json_option
@common
def drop(setup: Setup, ids: tuple[str, ...], *, every: bool, as_json: bool) -> int:
    """Throw them away."""
    return _each(setup, Choice(ids, every), "dropped", lambda broker, letter: broker.drop(letter), as_json=as_json)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant.

    Attributes:
        ids: These.
        every: All that are there when it begins.
    """

    ids: tuple[str, ...]
    every: bool


async def act_on(broker: Broker, choice: Choice, act: Callable[[Broker, str], Awaitable[bool]]) -> dict[str, list[str]]:
    """Do something to each letter that is meant.

    Returns:
        Those it was ``done`` to, and those that are ``missing``: gone, or not whole.

    Raises:
        Rejected: A channel is full; what was done stays done.
        Unavailable: The broker does not answer.

    Cancellation: What was done stays done.
    """
    ids = [letter.id for letter in await broker.letters(LETTERS_MAX)] if choice.every else list(choice.ids)
    found: dict[str, list[str]] = {"done": [], "missing": []}
    for letter in ids:
        found["done" if await act(broker, letter) else "missing"].append(letter)
    return found


def told(letter: Letter) -> dict[str, Any]:
    """Return what is known of a letter, and of the message inside as far as it can be read."""
    note = label(letter)
    return {
        "id": letter.id,
        "topic": letter.topic,
        "group": letter.group,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "buried_at_s": letter.buried_at_s,
        "bytes": letter.size,
        "client": note.client if note else None,
        "request_id": note.request_id if note else None,
    }


def label(letter: Letter) -> Message | None:
    """Return the message inside, still packed; ``None`` where it cannot be read."""
    try:
        note = _WIRE.read(letter.record)
    except Unreadable:
        return None
    return note if isinstance(note, Message) else None


def table(letters: list[Letter], now_s: float) -> Rows:
    """Return the letters as a table.

    Args:
        letters: The letters.
        now_s: Seconds since 1970.
    """
    rows = []
    for letter in letters:
        note = label(letter)
        what = f"{letter.topic} ({letter.group})" if letter.group else letter.topic
        age = f"{max(0.0, now_s - letter.buried_at_s):,.0f} s"
        who = [harmless(note.client), harmless(note.request_id)] if note else ["", ""]
        size = f"{letter.size:,}"
        rows.append([letter.id, harmless(what), letter.reason, str(letter.attempts), age, size, *who])
    header = ["id", "topic", "reason", "tries", "age", "bytes", "client", "request"]
    return Rows(header, rows, frozenset({3, 4, 5}), frozenset({6, 7}))


def _each(
    setup: Setup, choice: Choice, word: str, act: Callable[[Broker, str], Awaitable[bool]], *, as_json: bool
) -> int:
    """Do something to each and say what became of it; 1 if one was missing."""
    if choice.every == bool(choice.ids):
        raise click.UsageError("name letters by their ids, or all of them with --all")
    found = _with_broker(setup, lambda broker: act_on(broker, choice, act))
    if as_json:
        print_json({word: found["done"], "missing": found["missing"]})
    else:
        results().print(f"{len(found['done'])} {word}")
        for letter in found["missing"]:
            notices().print(f"{harmless(letter)}: no such letter, or not the whole of it")
    return 1 if found["missing"] else 0


def _with_broker(setup: Setup, act: Callable[[Broker], Awaitable[Any]]) -> Any:
    """Connect, do something, and leave.

    Raises:
        Invalid: All runs in one process, and there are no dead letters.
    """
    configure(setup.client_log_level)

    async def run() -> Any:
        one = broker(setup.settings, MonotonicClock())
        if one is None:
            raise Invalid(
                "BUS_BACKEND=memory keeps no dead letters; they need a broker", field="concurrency.bus.backend"
            )
        try:
            await one.start()
            return await act(one)
        finally:
            await one.close()

    return asyncio.run(run())
