"""The store process, but that it kills itself at a step of a swap: ``dying_store.py PLAN DIRECTORY FD RULE``.

The file PLAN says at which step, and for the how manyth time it is passed: ``replaying 3``.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

from penstock.stores.backends.edge import process


def main() -> None:
    """Serve until the planned step is passed."""
    plan = Path(sys.argv.pop(1))
    passed: Counter[tuple[str, str]] = Counter()

    def die(step: str) -> None:
        planned = plan.read_text()
        passed[planned, step] += 1
        if planned == f"{step} {passed[planned, step]}":
            os.kill(os.getpid(), signal.SIGKILL)

    process.main(die)


if __name__ == "__main__":
    main()
