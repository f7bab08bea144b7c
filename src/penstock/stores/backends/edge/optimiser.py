"""The optimiser: a short-lived process of low priority that builds segments and graphs in a copy (DESIGN §2).

Run as ``python -m penstock.stores.backends.edge.optimiser DIRECTORY PARENT``. On failure it writes the reason to
standard output. The end of that output tells the store process that it has ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from penstock.stores.backends.edge import engine_config
from penstock.stores.backends.edge.engine import Shard

#: Searches and indexing come first: beside one busy thread of the server it gets about a tenth of its core.
NICENESS: Final = 10

#: Bytes of its error message that are read.
ERROR_BYTES_MAX: Final = 4096

_PR_SET_PDEATHSIG: Final = 1


class Optimiser:
    """Handle of an optimiser process, held by the store process.

    Raises:
        OSError: The process could not be started.
    """

    def __init__(self, directory: Path) -> None:
        ours, theirs = os.pipe()
        self._output = os.fdopen(ours, "rb")
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "penstock.stores.backends.edge.optimiser", str(directory), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
            )
        except OSError:
            self._output.close()
            raise
        finally:
            os.close(theirs)

    def fileno(self) -> int:
        """Return a descriptor that is readable once the process has ended."""
        return self._output.fileno()

    def wait(self) -> str:
        """Wait for the process to end; return the reason why it failed, empty if it did not."""
        said = self._output.read(ERROR_BYTES_MAX).decode(errors="replace").strip()
        status = self._process.wait()
        self._output.close()
        if status == 0:
            return ""
        return said or f"the optimiser ended with status {status}"

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._output.close()


def optimise_shard(directory: Path) -> None:
    """Build the segments and graphs that the collection's size calls for.

    Raises:
        PenstockError: The engine could not.
    """
    shard = Shard.load(directory)
    learned = shard.learned_sparse
    shard.close()
    shard = Shard.load(directory, engine_config.optimizer_config(learned_sparse=learned))
    shard.optimize()
    shard.close()


def main() -> int:
    """Entry point of the process; returns its exit status."""
    directory, parent = sys.argv[1:3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not die_with_parent(int(parent)):
        return 1
    os.nice(NICENESS)
    try:
        optimise_shard(Path(directory))
    except Exception as error:  # noqa: BLE001 - the root of the process: whatever it is, its parent is told
        sys.stdout.write(str(error))
        return 1
    return 0


def die_with_parent(parent: int) -> bool:
    """Let the kernel kill this process when its parent dies; return whether the parent is still there."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


if __name__ == "__main__":
    sys.exit(main())
