"""Several awaitables at once, as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


async def together(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await every part at once; the first error cancels the rest and is raised itself (W1).

    Unlike a bare task group the error is not wrapped: a caller catches what a single part raises.

    Cancellation: Every part is cancelled and has ended when this returns.
    """
    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as several:
        first = several.exceptions[0]
    try:
        if first is not None:
            raise first  # out here, where the group neither becomes its context nor hides its cause
    finally:
        del first  # it holds this frame, which would hold it
