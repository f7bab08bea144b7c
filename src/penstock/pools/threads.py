"""Threads for native work that releases the interpreter lock, never more than the cores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def settle(job: Future[T]) -> T:
    """Wait for a call given to an executor, and return only when it has really ended.

    Cancellation: A call not yet begun is taken back. One that runs cannot be stopped: this
    coroutine waits for its end before it lets the cancellation through, so that whoever holds
    a permit around it holds the permit as long as the work runs. Requesters do not wait for
    this: their own deadline answers them.
    """
    future = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        job.cancel()
        while not future.done():
            await _ended(future)
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not warn of it
        raise


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait for the end, deaf to further cancellations: the thread cannot hear them either."""
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        return


class Threads:
    """A bounded set of threads.

    Args:
        count: Threads that compute at once.
        name: Prefix of the threads' names.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread; see :func:`settle` for what a cancellation does."""
        return await settle(self._executor.submit(call))

    def close(self) -> None:
        """Let running calls end and stop the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)
