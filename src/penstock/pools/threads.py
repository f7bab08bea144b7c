"""Threads for native work that releases the interpreter lock, never more than the cores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def settle(executor: Executor, call: Callable[[], T]) -> T:
    """Run ``call`` on the executor and return only when it has really ended.

    Cancellation: A call not yet begun is taken back. One that runs cannot be stopped: this
    coroutine waits for its end before it lets the cancellation through, so that whoever holds
    a permit around it holds the permit as long as the work runs. Requesters do not wait for
    this: their own deadline answers them.
    """
    job = executor.submit(call)
    future = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not job.cancel():
            while not job.done():
                await _ended(future)
        _retrieve(future)
        raise


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait for the end, deaf to further cancellations: the thread cannot hear them either."""
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        return


def _retrieve(future: asyncio.Future[T]) -> None:
    """Look at the outcome that nobody wants any more, so that asyncio does not warn of it."""
    if future.done() and not future.cancelled():
        future.exception()


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
        return await settle(self._executor, call)

    def close(self) -> None:
        """Let running calls end and stop the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)
