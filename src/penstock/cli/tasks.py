"""``penstock tasks``: operations that a server does after their requests were answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import click
import msgspec

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.progress_bars import progress_bar
from penstock.cli.session import connect, running_server
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.client import AsyncClient, ServerTask, TaskListing, calls
from penstock.kernel.errors import Invalid, Unavailable

STATUSES = ("waiting", "running", "succeeded", "failed", "cancelled")

_LISTED = 100


@click.group("tasks")
def tasks() -> None:
    """Operations that a server does after their requests were answered (`?wait=false`).

    A running server works them off. Without one they can be listed and cancelled.
    """


def _id_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("id", metavar="ID")(command)


@tasks.command("list")
@click.option("--status", multiple=True, type=click.Choice(STATUSES), help="Only these; may be repeated.")
@click.option("--collection", metavar="NAME", help="Only tasks that concern this collection.")
@click.option("--limit", type=click.IntRange(1, 1000), default=_LISTED, show_default=True, help="Tasks at most.")
@click.option("--after", metavar="ID", help="Those older than this task: the next page.")
@json_option
@with_client_settings()
async def list_tasks(
    setup: Setup,
    *,
    status: tuple[str, ...],
    collection: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> int:
    """Show the tasks, the newest first."""
    told: dict[str, Any] = {"tasks": [], "next": None}
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            call = calls.list_tasks(status=status, collection=collection, limit=limit, after=after)
            told = await api.send(call.untyped())
    if as_json:
        print_json(told)
        return 0
    listing = msgspec.convert(told, TaskListing)
    if not listing.tasks:
        stderr_console().print("No tasks.")
        return 0
    header = ["task", "kind", "collection", "status", "done", "accepted"]
    print_table(stdout_console(), header, map(task_row, listing.tasks), numbers={"done"})
    if listing.next:
        stderr_console().print(f"There are more: --after {listing.next}", soft_wrap=True)
    return 0


@tasks.command("show")
@_id_argument
@json_option
@with_client_settings()
async def show(setup: Setup, id: str, *, as_json: bool) -> int:
    """Show a task, with its result once it has ended. The exit code is 1 if it has failed."""
    async with _connected(setup, id) as api:
        if as_json:
            told = await api.send(calls.get_task(id).untyped())
            print_json(told)
            return _code(msgspec.convert(told, ServerTask))
        return print_task(await api.get_task(id))


@tasks.command("cancel")
@_id_argument
@json_option
@with_client_settings()
async def cancel(setup: Setup, id: str, *, as_json: bool) -> int:
    """Cancel a task. What it has written stays. The exit code is 1 if nothing was changed."""
    async with _connected(setup, id) as api:
        outcome = await api.cancel_task(id)
    if as_json:
        print_json({"task": id, "cancelled": outcome.cancelled, "status": outcome.task.status})
    else:
        stdout_console().print(f"{strip_controls(id)}: {outcome.detail}", soft_wrap=True)
    return 0 if outcome.cancelled else 1


@tasks.command("follow")
@_id_argument
@json_option
@with_client_settings()
async def follow(setup: Setup, id: str, *, as_json: bool) -> int:
    """Wait until a task has ended, with a bar. Ctrl-C ends the bar, and the task goes on.

    The exit code is 1 if the task has failed.
    """
    console, served = stderr_console(), running_server(setup.data_dir) is not None
    async with _connected(setup, id) as api:
        task = await api.get_task(id)
        if not task.ended and not served:
            detail = "no server works on this data directory; start `penstock serve`, and the task goes on"
            raise Unavailable(detail, dependency="server", code="no_server")
        with progress_bar(console, _described(task), task.total or None) as update:
            try:
                task = await api.wait_for(
                    id, lambda now: update(completed=now.done, total=now.total or None, description=_described(now))
                )
            except asyncio.CancelledError:
                hint = f"`penstock tasks follow {id}` follows it again, `penstock tasks cancel {id}` ends it"
                console.print(f"The task goes on: {hint}.", soft_wrap=True)
                raise
    if as_json:
        print_json(msgspec.to_builtins(task))
        return _code(task)
    return print_task(task)


def _connected(setup: Setup, id: str) -> AbstractAsyncContextManager[AsyncClient]:
    """Connect to the server, or open the data directory, which must be there.

    Raises:
        Invalid: There is no such directory, and so no task.
    """
    if not setup.data_dir.exists():
        raise Invalid(f"there is no task {id!r}: nothing is indexed yet", field="id", code="task_not_found")
    return connect(setup)


def _described(task: ServerTask) -> str:
    return f"{task.kind.replace('_', ' ')}: {task.status}"


def _code(task: ServerTask) -> int:
    return 1 if task.status == "failed" else 0


def task_row(task: ServerTask) -> list[str]:
    """Return a task's row."""
    done = f"{task.done:,}/{task.total:,}" if task.total else ""
    return [task.id, task.kind, task.collection, task.status, done, task.accepted_at]


def print_task(task: ServerTask) -> int:
    """Print a task; return the exit code."""
    console = stdout_console()
    for name, value in zip(("task", "kind", "collection", "status", "done", "accepted"), task_row(task), strict=True):
        if value:
            console.print(f"{name}: {strip_controls(value)}", soft_wrap=True)
    for name, when in (("started", task.started_at), ("ended", task.ended_at)):
        if when:
            console.print(f"{name}: {when}", soft_wrap=True)
    if task.error is not None:
        console.print(f"error: {strip_controls(task.error.message)} ({task.error.code})", soft_wrap=True)
    for name, value in (task.result or {}).items():
        if isinstance(value, int | str) and value not in ("", 0):
            console.print(f"{name}: {strip_controls(str(value))}", soft_wrap=True)
    for failure in (task.result or {}).get("failures", ()):
        where = failure.get("id") or f"line {failure.get('line')}"
        console.print(strip_controls(f"failed: {where}: {failure['error'].get('detail', '')}"), soft_wrap=True)
    return _code(task)
