"""The parts of the storm, their loads and times, and the queries that are asked. Pure."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

#: Parts of Penstock alone, then one for each system beside it.
OWN_PARTS: Final = ("rates", "new", "steady", "step", "hog", "hangups", "slow")
PEERS: Final = ("semaphore", "plain", "chroma")
PARTS: Final = (*OWN_PARTS, *PEERS)
OURS: Final = "penstock"

#: Deadline of every request, and how long the generator waits for its answer.
DEADLINE_MS: Final = 1_000
KEYS: Final = 200
HITS: Final = 10
#: Share of the requests whose callers hang up early, and when they do.
HANGUPS: Final = 0.3
HANGUP_MS: Final = 50
#: Loads of the special parts, in C.
CALM: Final = 0.7
STEADY: Final = 1.2
STEP: Final = 10.0
OTHERS: Final = 0.6
HOG: Final = 10.0
HANGUP_LOADS: Final = (5.0, 10.0)
#: Requests a second that the generator can send from one core.
GENERATOR_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Course:
    """Loads in C and times in seconds.

    Attributes:
        name: Full or quick.
        loads: Of ``rates``.
        new_loads: Of ``new``.
        peer_loads: Of the systems beside it, on kept connections.
        seconds: Each of those loads.
        pause_s: Between two loads.
        warm_s: Of asking before anything is counted.
        capacity_s: Of the closed loop that measures C.
        steady_s: The steady load.
        step_s: Before the step, the step, and after it.
        slow_connections: That send one byte each.
    """

    name: str
    loads: tuple[float, ...]
    new_loads: tuple[float, ...]
    peer_loads: tuple[float, ...]
    seconds: float
    pause_s: float
    warm_s: float
    capacity_s: float
    steady_s: float
    step_s: tuple[float, float, float]
    slow_connections: int


FULL: Final = Course(
    name="full",
    loads=(0.5, 0.7, 1, 1.2, 2, 5, 10, 20),
    new_loads=(5, 10, 20),
    peer_loads=(0.7, 1, 2, 5, 10, 20),
    seconds=10,
    pause_s=3,
    warm_s=4,
    capacity_s=8,
    steady_s=60,
    step_s=(8, 10, 15),
    slow_connections=10_000,
)
QUICK: Final = Course(
    name="quick",
    loads=(0.7, 5, 20),
    new_loads=(20,),
    peer_loads=(5,),
    seconds=4,
    pause_s=1,
    warm_s=2,
    capacity_s=3,
    steady_s=8,
    step_s=(3, 3, 5),
    slow_connections=1_000,
)


def parts(only: str) -> list[str]:
    """Return the parts that are named, with commas between, in their order; all for none.

    Raises:
        ValueError: A part is unknown.
    """
    named = {*filter(None, only.split(","))}
    if unknown := named - {*PARTS}:
        raise ValueError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return [part for part in PARTS if not named or part in named]


def words(sentences: Sequence[str]) -> list[str]:
    """Return the words of sentences, each once."""
    found = {word.strip("`.,:;()\"'").lower() for sentence in sentences for word in sentence.split()}
    return sorted(word for word in found if len(word) > 2)


def queries(vocabulary: Sequence[str], seed: int) -> Iterator[str]:
    """Yield queries of 3 to 7 words without end, none of them twice."""
    chance, asked = random.Random(seed), set[str]()
    while True:
        query = " ".join(chance.sample(vocabulary, chance.randint(3, 7)))
        if query not in asked:
            asked.add(query)
            yield query


def target(url: str, body: bytes, key: str) -> str:
    """Return a request in the generator's JSON form, on one line."""
    head = {
        "Content-Type": ["application/json"],
        "X-API-Key": [key],
        "X-Request-Timeout-Ms": [str(DEADLINE_MS)],
    }
    return json.dumps({"method": "POST", "url": url, "body": base64.b64encode(body).decode(), "header": head})


def search_body(query: str) -> bytes:
    """Return the body of a search."""
    return json.dumps({"query": query, "limit": HITS}).encode()
