"""What the bus does as long as it lives: one round after the other, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.kernel.errors import PenstockError

log = logging.getLogger(__name__)

#: How long to wait before a broker that did not answer is asked again.
BACKOFF_S: Final = 0.25


async def rounds(once: Callable[[], Awaitable[None]], what: str) -> None:
    """Do something again and again, until cancelled.

    A bug in a round, ours or a client library's, must not end the work of an instance that looks alive to all others.

    Args:
        once: One round. A ``PenstockError`` that it raises means that the broker is in trouble, and is only noted; any
            other error is logged with its traceback. After either the next round begins ``BACKOFF_S`` later.
        what: What it does, for the log.

    Cancellation: Ends it.
    """
    while True:
        try:
            await once()
        except PenstockError as error:
            log.debug("%s: %s", what, error)
            await asyncio.sleep(BACKOFF_S)
        except Exception:
            log.exception("%s: a bug ended this round; the next one follows", what)
            await asyncio.sleep(BACKOFF_S)
