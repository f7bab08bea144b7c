"""Several awaitables at once, as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


async def together(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await every part at once; the first error cancels the rest and is raised itself (W1).

    Unlike a task group's, the error is not wrapped, and an error leaves no cancellation behind: before Python 3.13 a
    group cancels its own task to wake it and never takes that back, so that whoever asks the task later whether
    it was cancelled is told so.

    Cancellation: Every part is cancelled and has ended when this returns. It goes before an error of a part.
    """
    if not parts:
        return
    tasks = [asyncio.create_task(part) for part in parts]
    errors: list[BaseException] = []

    def note(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            errors.append(error)

    for task in tasks:
        task.add_done_callback(note)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end(tasks)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # they hold this frame, which would hold them


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what still runs and wait for its end; a cancellation meanwhile is told after it."""
    for task in tasks:
        task.cancel()
    cancelled = False
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
