"""``penstock dlq``: list, retry or drop dead letters."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import click

from penstock.app.external_backends import build_broker
from penstock.bus.broker import DEAD_LETTERS_MAX, Broker, DeadLetter
from penstock.bus.record_codec import Message, RecordCodec, UnreadableRecord
from penstock.cli.options import Setup, json_option, with_settings
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.kernel.errors import Invalid

#: Codec for records of any size, to read a message's client and request id.
_WIRE: Final = RecordCodec({}, 2**40)

_some = click.argument("ids", nargs=-1, metavar="ID…")
_all = click.option("--all", "every", is_flag=True, help="All of them.")


@click.group("dlq")
def command() -> None:
    """Dead letters: messages that no handler could process (BUS_BACKEND=redis or kafka).

    A message becomes a dead letter when it cannot be read, or when it has been delivered BUS_TRIES times and its
    handlers failed or died. Its requester has received an error.
    """


@command.command("list")
@click.option(
    "--count", type=click.IntRange(1, DEAD_LETTERS_MAX), default=100, show_default=True, help="At most so many."
)
@json_option
@with_settings
async def list_dead_letters(setup: Setup, count: int, *, as_json: bool) -> int:
    """Show dead letters, the oldest first."""
    async with _connected(setup) as broker:
        dead_letters = await broker.dead_letters(count)
    if as_json:
        print_json({"letters": [dead_letter_record(dead_letter) for dead_letter in dead_letters]})
    elif dead_letters:
        header = ["id", "topic", "reason", "tries", "age", "bytes", "client", "request"]
        rows = [dead_letter_row(dead_letter, time.time()) for dead_letter in dead_letters]
        numbers, foldable = {"tries", "age", "bytes"}, {"client", "request"}
        print_table(stdout_console(), header, rows, numbers=numbers, foldable=foldable)
    else:
        stderr_console().print("No dead letters.")
    return 0


@command.command("retry")
@_some
@_all
@json_option
@with_settings
async def retry(setup: Setup, ids: tuple[str, ...], *, every: bool, as_json: bool) -> int:
    """Send dead letters to their topic again. Their requesters have gone, so replies are discarded."""
    selected = _selected(ids, every=every)
    return await _each(setup, selected, "retried", lambda broker, one: broker.requeue_dead_letter(one), as_json=as_json)


@command.command("drop")
@_some
@_all
@json_option
@with_settings
async def drop(setup: Setup, ids: tuple[str, ...], *, every: bool, as_json: bool) -> int:
    """Delete dead letters."""
    selected = _selected(ids, every=every)
    return await _each(setup, selected, "dropped", lambda broker, one: broker.delete_dead_letter(one), as_json=as_json)


def _selected(ids: Sequence[str], *, every: bool) -> Sequence[str] | None:
    """Return the ids that are meant, ``None`` for all."""
    if every == bool(ids):
        raise click.UsageError("name dead letters by their ids, or all of them with --all")
    return None if every else ids


async def apply_to_each(
    broker: Broker, ids: Sequence[str] | None, act: Callable[[Broker, str], Awaitable[bool]]
) -> dict[str, list[str]]:
    """Apply an action to the dead letters of these ids, or to all that there are at the beginning.

    Returns:
        The ids of those that are ``done``, and of those that are ``missing``: gone, or incomplete.

    Raises:
        Rejected: A channel is full; what was done stays done.
        Unavailable: The broker does not answer.

    Cancellation: What was done stays done.
    """
    if ids is None:
        ids = [dead_letter.id for dead_letter in await broker.dead_letters(DEAD_LETTERS_MAX)]
    found: dict[str, list[str]] = {"done": [], "missing": []}
    for dead_letter in ids:
        found["done" if await act(broker, dead_letter) else "missing"].append(dead_letter)
    return found


def dead_letter_record(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON, with the message inside as far as it can be read."""
    notice = unpack_message(dead_letter)
    return {
        "id": dead_letter.id,
        "topic": dead_letter.topic,
        "group": dead_letter.group,
        "reason": dead_letter.reason,
        "attempts": dead_letter.attempts,
        "buried_at_s": dead_letter.dead_lettered_at_s,
        "bytes": dead_letter.size,
        "client": notice.client if notice else None,
        "request_id": notice.request_id if notice else None,
    }


def unpack_message(dead_letter: DeadLetter) -> Message | None:
    """Return the message inside, still packed; ``None`` where it cannot be read."""
    try:
        notice = _WIRE.decode(dead_letter.record)
    except UnreadableRecord:
        return None
    return notice if isinstance(notice, Message) else None


def dead_letter_row(dead_letter: DeadLetter, now_s: float) -> list[str]:
    """Return a dead letter as a row of the table."""
    notice = unpack_message(dead_letter)
    return [
        dead_letter.id,
        f"{dead_letter.topic} ({dead_letter.group})" if dead_letter.group else dead_letter.topic,
        dead_letter.reason,
        str(dead_letter.attempts),
        f"{max(0.0, now_s - dead_letter.dead_lettered_at_s):,.0f} s",
        f"{dead_letter.size:,}",
        *([notice.client, notice.request_id] if notice else ["", ""]),
    ]


async def _each(
    setup: Setup,
    ids: Sequence[str] | None,
    word: str,
    act: Callable[[Broker, str], Awaitable[bool]],
    *,
    as_json: bool,
) -> int:
    """Apply an action to each selected dead letter and print the outcome. Return 1 if one was missing."""
    async with _connected(setup) as broker:
        found = await apply_to_each(broker, ids, act)
    if as_json:
        print_json({word: found["done"], "missing": found["missing"]})
    else:
        stdout_console().print(f"{len(found['done'])} {word}")
        for dead_letter in found["missing"]:
            stderr_console().print(f"{strip_controls(dead_letter)}: no such dead letter, or it is incomplete")
    return 1 if found["missing"] else 0


@asynccontextmanager
async def _connected(setup: Setup) -> AsyncIterator[Broker]:
    """Yield the broker, connected.

    Raises:
        Invalid: The bus is within one process, which has no dead letters.
    """
    broker = build_broker(setup.settings)
    if broker is None:
        raise Invalid("BUS_BACKEND=memory keeps no dead letters; they need a broker", field="concurrency.bus.backend")
    try:
        await broker.start()
        yield broker
    finally:
        await broker.close()
