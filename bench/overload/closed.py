"""A closed loop: a few callers, each of which sends its next request when it has its answer. Measures C."""

from __future__ import annotations

import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.overload.workload import KINDS

CALLERS: Final = 2
#: The smallest deck in which each kind has its exact share.
DECK: Final = 20


def answers_per_second(port: int, decks: int, seed: int) -> float:
    """Return how many answers a server gives when it always has something to do.

    Args:
        port: Where it listens.
        decks: Shuffled decks of requests for each caller.
        seed: Shuffles them.
    """
    with ThreadPoolExecutor(CALLERS) as callers:
        began_s = time.monotonic()
        counts = list(callers.map(lambda caller: _ask(port, decks, f"{seed}/{caller}"), range(CALLERS)))
        return sum(counts) / (time.monotonic() - began_s)


def _ask(port: int, decks: int, seed: str) -> int:
    """Ask one after the other; return the answers."""
    chance, count = random.Random(seed), 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(decks):
        deck = [number for number, kind in enumerate(KINDS) for _ in range(round(kind.share * DECK))]
        chance.shuffle(deck)
        for kind in deck:
            body = json.dumps({"id": "0", "kind": kind, "asks": 0})
            connection.request("POST", "/v1/search", body, {"content-type": "application/json"})
            connection.getresponse().read()
            count += 1
    connection.close()
    return count
