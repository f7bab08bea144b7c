"""Worker processes, and the pipes to them, for Python work that would hold up the event loop, such as parsing."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, TypeVar

from penstock.kernel import allocator
from penstock.kernel.errors import Broken, PenstockError
from penstock.pools.thread_pool import CLOSE_S, all_ended, await_job

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
#: How long the end of a process whose pipe has ended may take.
_END_S: Final = 1.0
#: Each start asks after all processes, and how one ended can be read once: of two that ask at a time, one is told that
#: a process that was killed crashed.
_EXIT_STATUS: Final = threading.Lock()


class WorkerDied(Exception):
    """The process ended before it had answered.

    Attributes:
        crashed: Whether the call ended it. ``SIGKILL`` comes from outside, from a kernel that is short of memory.
    """

    def __init__(self, *, crashed: bool = False) -> None:
        super().__init__("the process ended before it had answered")
        self.crashed = crashed


class WorkerProcess:
    """A process that works on one call at a time. Used by one thread at a time; ``kill`` by any."""

    def __init__(self, initializer: Callable[..., None], args: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, in the process that all are forked from: one that has to be replaced is there a second sooner.
        context.set_forkserver_preload(["__main__", initializer.__module__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_worker_main, args=(theirs, initializer, args), daemon=True)
        with _EXIT_STATUS:
            self._process.start()
        theirs.close()  # the process's own copy is the last one: when it dies, the pipe ends

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        with _EXIT_STATUS:
            return self._process.is_alive()

    @property
    def bytes(self) -> int:
        """Memory that the process takes up; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            return 0

    def call(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns there, or raise what it raises.

        Raises:
            WorkerDied: The process ended before it had answered.
        """
        sent = pickle.dumps(call)
        try:
            self._pipe.send_bytes(sent)
            received = self._pipe.recv_bytes()
        except (EOFError, OSError):
            wait([self._process.sentinel], _END_S)
            with _EXIT_STATUS:
                status = self._process.exitcode
            raise WorkerDied(crashed=status not in (None, -signal.SIGKILL)) from None
        good, outcome = pickle.loads(received)  # noqa: S301 - from a process of our own
        if good:
            return outcome
        raise outcome

    def kill(self) -> None:
        """End the process, whatever it does; a call in it raises ``WorkerDied``."""
        self._process.kill()

    def discard(self) -> None:
        """End the process, which is idle or dead, and let go of the pipe."""
        self._process.kill()
        self._pipe.close()


def _worker_main(pipe: Connection, initializer: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Main function of the process: ignores Ctrl-C, which is for the parent, and ends when the parent dies."""
    allocator.configure_malloc()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Crashes are expected here, and a core would hold people's texts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    initializer(*args)
    while True:
        try:
            call = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(run_pickled_call(call))


def run_pickled_call(call: bytes) -> bytes:
    """Make a pickled call; return its pickled outcome: ``(True, result)`` or ``(False, error)``."""
    try:
        return pickle.dumps((True, pickle.loads(call)()))  # noqa: S301 - from our own parent
    except MemoryError:
        os._exit(1)  # what is left of the call still holds the memory
    except Exception as error:  # noqa: BLE001 - a process's root: whatever it is, the caller is told
        if not isinstance(error, PenstockError):
            error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            return pickle.dumps((False, error))
        except Exception:  # noqa: BLE001 - an error that cannot travel
            return pickle.dumps((False, Broken(f"a worker process failed: {error!r}", code="worker_failed")))


def _exit_with_parent() -> None:
    """End this process when the parent has died, even in the middle of a call."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
