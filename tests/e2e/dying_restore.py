"""A restore in a process that kills itself at a step: ``dying_restore.py DATA_DIR SHARDS STEP COUNT NAME``.

The store processes end with it, as they do with a server that is killed.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from penstock.kernel.context import Context, MonotonicClock
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge.process_group import EdgeProcessGroup
from penstock.stores.data_model import CollectionInfo


async def main(data_dir: Path, shards: int, planned: str, count: int, name: str) -> None:
    """Restore by force, and die when the step has been passed so many times."""
    passed = 0

    def die(step: str) -> None:
        nonlocal passed
        passed += step == planned
        if passed == count:
            os.kill(os.getpid(), signal.SIGKILL)

    fleet = EdgeProcessGroup(data_dir, TimeoutSettings(), MonotonicClock(), StoreSettings(shards=shards), die)
    await fleet.start()
    await fleet.snapshots.restore(name, CollectionInfo("", 2, "m"), Context.background(), force=True)
    await fleet.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
