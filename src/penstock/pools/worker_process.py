"""Worker process and the pipe to it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from penstock.kernel import allocator
from penstock.kernel.errors import Broken, PenstockError

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
#: How long the end of a process whose pipe has ended may take.
_END_S: Final = 1.0


class WorkerDied(Exception):
    """The process ended before it had answered.

    Attributes:
        crashed: Whether the call ended it. ``SIGKILL`` comes from outside, from a kernel that is short of memory.
    """

    def __init__(self, *, crashed: bool = False) -> None:
        super().__init__("the process ended before it had answered")
        self.crashed = crashed


class WorkerProcess:
    """A process that works on one call at a time. Used by one thread at a time; ``kill`` by any.

    Args:
        initializer: Run once in the process before the first call.
        args: Its arguments.
    """

    def __init__(self, initializer: Callable[..., None], args: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, in the process that all are forked from: one that has to be replaced is there a second sooner.
        context.set_forkserver_preload(["__main__", initializer.__module__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_worker_main, args=(theirs, initializer, args), daemon=True)
        self._process.start()
        theirs.close()  # the process's own copy is the last one: when it dies, the pipe ends

    @property
    def alive(self) -> bool:
        """True while the process runs."""
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
            self._process.join(_END_S)
            raise WorkerDied(crashed=self._process.exitcode not in (None, -signal.SIGKILL)) from None
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
