"""What the processes of this benchmark tell each other."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from bench.overload.scenarios import Request
from bench.overload.workload import Load


class End(IntEnum):
    """How an attempt ended, as its client saw it."""

    ANSWERED = 0
    DEGRADED = 1
    REFUSED = 2
    FAILED = 3
    GAVE_UP = 4
    HUNG_UP = 5
    UNSENT = 6


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of one request; times in seconds from the scenario's beginning.

    Attributes:
        number: Its own number, sent along with it.
        request: Index of the request.
        tries: How many came before it.
        due_s: When it was to be sent.
        sent_s: When it was.
        ended_s: When it ended.
        end: How.
    """

    number: int
    request: int
    tries: int
    due_s: float
    sent_s: float
    ended_s: float
    end: End


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A permit held for an attempt: from when, for how long, and what was done by it, in seconds.

    Attributes:
        attempt: The attempt's number.
        began_s: From the scenario's beginning.
        took_s: How long.
        worth_s: Service time of what was done to its end; 0 if it was stopped.
    """

    attempt: int
    began_s: float
    took_s: float
    worth_s: float


class Variant(msgspec.Struct, frozen=True):
    """A Penstock: which of its mechanisms are on.

    Attributes:
        text: One line about it.
        bus: Fields of ``BusSettings`` that differ from their defaults.
        highest: The ladder's last rung.
        always_pressed: Whether it climbs to the last two rungs although the queue is not nearly full.
        pressure: Whether the gate looks at the topic before it lets a request in.
        breaker: Whether a breaker stands before the dependency.
        limited: Whether an adaptive limit and a retry budget stand before it too.
        share: Share of the permits that calls to it may hold at once, at least one, where it is limited.
        patience: Share of a request's time that its call to it may take; 1 for all of it.
        queue_size: The topic's bound.
    """

    text: str
    bus: dict[str, bool | float | str] = {}
    highest: str = "refuse"
    always_pressed: bool = False
    pressure: bool = True
    breaker: bool = True
    limited: bool = True
    share: float = 0.5
    patience: float = 0.25
    queue_size: int = 1000


class Peer(msgspec.Struct, frozen=True):
    """What others put in front of the same handler.

    Attributes:
        text: One line about it.
        waiting_max: Requests that may wait for a permit; ``None`` for any number.
        times_out: Whether waiting and working end at the deadline.
        limit_concurrency: Uvicorn's own limit.
    """

    text: str
    waiting_max: int | None = None
    times_out: bool = False
    limit_concurrency: int | None = None


class Setup(msgspec.Struct, frozen=True):
    """What a server is to be.

    Attributes:
        core: Where it runs.
        load: What the work is made of.
        phases: When each phase of the dependency ends, and what it is.
        variant: A Penstock, or
        peer: another.
    """

    core: int
    load: Load
    phases: list[tuple[float, str]]
    variant: Variant | None = None
    peer: Peer | None = None


class Job(msgspec.Struct, frozen=True):
    """What the generator is to send, and where."""

    port: int
    requests: list[Request]
    retries: int
    budget: float
    seed: int


class Sent(msgspec.Struct, frozen=True):
    """What the generator saw.

    Attributes:
        attempts: Every attempt, in the order of their ends.
        cpu_s: Processor time it took itself.
        wall_s: How long it ran.
        opened: Connections it opened.
    """

    attempts: list[Attempt]
    cpu_s: float
    wall_s: float
    opened: int


class Served(msgspec.Struct, frozen=True):
    """What the server saw.

    Attributes:
        held: Every permit that was held and given back.
        cpu_s: Processor time of the server's process while the scenario ran.
        waited_s: Time its loop could have run and did not, because others used its core.
        wall_s: How long the scenario ran.
        counts: What the system counted itself, by name.
    """

    held: list[Held]
    cpu_s: float
    waited_s: float
    wall_s: float
    counts: dict[str, int]
