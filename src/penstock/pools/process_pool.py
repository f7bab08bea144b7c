"""Worker processes for Python work that would hold up the event loop, such as parsing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from penstock.kernel.errors import Broken
from penstock.pools.thread_pool import CLOSE_S, all_ended, await_job
from penstock.pools.worker_process import WorkerDied, WorkerProcess

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A call kills so many processes before it is given up.
DEATHS_MAX: Final = 2

#: A process that takes up more than this after a call is ended, and the next call gets a new one. One that has cut
#: ordinary files takes up 60 to 90 MB.
WORKER_BYTES_MAX: Final = 128_000_000

#: A call whose requester has gone may so long come to its end; then its process is killed.
CANCEL_GRACE_S: Final = 1.0


class _ProcessCall:
    """Call and the process that runs it; the loop may kill that process, the call's thread uses it."""

    __slots__ = ("_call", "_child", "_lock", "stopped")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._child: WorkerProcess | None = None
        self._lock = threading.Lock()
        self.stopped = False

    def run_in(self, child: WorkerProcess) -> Any:
        """Run in ``child``, which must not be killed once this has ended."""
        with self._lock:
            self._child = child
            if self.stopped:
                child.kill()
        try:
            return child.call(self._call)
        finally:
            with self._lock:
                self._child = None

    def kill(self) -> None:
        """Kill the process if the call is in one, and let it begin in no other."""
        with self._lock:
            self.stopped = True
            if self._child is not None:
                self._child.kill()


class ProcessPool:
    """A bounded set of worker processes, started when first needed.

    Each process works on one call at a time and has a pipe of its own, so a process that dies takes no other
    call with it. A call that crashes its process is given up. One whose process was killed from outside is tried
    once more in a new process (a machine short of memory kills the largest), and given up after ``DEATHS_MAX`` of them.
    A process that keeps much memory after a call is replaced.

    Args:
        count: Processes at most.
        initializer: Run once in each new process.
        args: Arguments of ``initializer``.

    Bounds: ``count`` processes, and as many threads that wait for them; calls that wait for a
        process are as many as the callers' permits.
    """

    def __init__(self, count: int, initializer: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.count = count
        self._initializer = initializer
        self._args = args
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="penstock-chunk")
        self._idle: list[WorkerProcess] = []
        self._running: dict[Future[Any], _ProcessCall] = {}
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` (picklable, and harmless to repeat) in a process.

        Raises:
            Broken: The call ended its process, or two of them were killed.

        Cancellation: As :func:`penstock.pools.thread_pool.await_job`; a call that has not ended ``CANCEL_GRACE_S``
            later is ended
        by the death of its process.
        """
        one = _ProcessCall(call)
        job: Future[T] = self._executor.submit(self._run_call, one)
        self._running[job] = one
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_later(CANCEL_GRACE_S, one.kill)

        try:
            return await await_job(job, stop)
        finally:
            del self._running[job]

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Take no more calls, let those that run end without holding up the loop, and stop the processes.

        Args:
            within_s: How long calls may take to end, in seconds on the loop's clock; then their processes are killed.
        """
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        if not await all_ended(self._running, within_s):
            log.warning("worker processes are still busy after %g s and are killed", within_s)
            for one in self._running.values():
                one.kill()
        while self._idle:
            self._idle.pop().discard()

    # --- In a thread

    def _run_call(self, one: _ProcessCall) -> Any:
        """Run a call in an idle process or in a new one, again if that dies."""
        for _ in range(DEATHS_MAX):
            child = self._take()
            try:
                result = one.run_in(child)
            except WorkerDied as death:
                child.discard()
                if one.stopped or death.crashed:
                    break
            except BaseException:
                self._put_back(child)
                raise
            else:
                self._put_back(child)
                return result
        raise Broken("a worker process died while it worked", code="worker_died")

    def _take(self) -> WorkerProcess:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return WorkerProcess(self._initializer, self._args)
            if child.alive:
                return child
            child.discard()

    def _put_back(self, child: WorkerProcess) -> None:
        """Keep a process for the next call, unless it has grown: what a large text took, it keeps."""
        if self._closed or child.bytes > WORKER_BYTES_MAX:
            child.discard()
        else:
            self._idle.append(child)
