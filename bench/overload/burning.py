"""Work that needs a core: a fixed number of turns of a hash, outside the interpreter lock."""

from __future__ import annotations

import hashlib
import os
import time

#: Turns for one measurement, and measurements; the quickest counts, the others were disturbed.
TURNS = 100_000
TRIES = 9


def burn(turns: int) -> None:
    """Turn; the interpreter lock is free meanwhile."""
    hashlib.pbkdf2_hmac("sha256", b"penstock", b"bench", max(1, turns))


def turns_per_second(core: int) -> float:
    """Return how many turns a core does in a second when nothing else runs on it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        took_s = []
        for _ in range(TRIES):
            began_s = time.perf_counter()
            burn(TURNS)
            took_s.append(time.perf_counter() - began_s)
    finally:
        os.sched_setaffinity(0, before)
    return TURNS / min(took_s)
