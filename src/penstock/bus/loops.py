"""Background loops that survive errors in a single iteration, and the end of tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from penstock.kernel.errors import PenstockError

log = logging.getLogger(__name__)

#: How long to wait before a broker that did not answer is asked again.
BACKOFF_S: Final = 0.25


async def run_forever(step: Callable[[], Awaitable[None]], label: str) -> None:
    """Run a step again and again, until cancelled.

    A bug in a step, ours or a client library's, must not stop an instance that looks alive to all others.

    Args:
        step: One iteration. A ``PenstockError`` that it raises means that the broker is in trouble, and is logged at
            DEBUG. Any other error is logged with its traceback. After either the next one begins ``BACKOFF_S`` later.
        label: The loop's purpose, for the log.

    Cancellation: Ends it.
    """
    while True:
        try:
            await step()
        except PenstockError as error:
            log.debug("%s: %s", label, error)
            await asyncio.sleep(BACKOFF_S)
        except Exception:
            log.exception("%s: a bug ended this iteration; the loop goes on", label)
            await asyncio.sleep(BACKOFF_S)


async def cancel_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, those that exist, and wait for their end. Their errors are dropped."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
