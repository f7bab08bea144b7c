"""Service registry: the instances that serve each topic, from their announcements. Pure; time is passed in.

Discovery needs nothing but the broker: every instance says hello to all others again and again, and one that falls
silent is missed at once and forgotten later. The sum of what instances take at once is how much of a topic may be under
way to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.bus.record_codec import Hello
from penstock.kernel.context import Criticality


class RequestWindow:
    """Slots for the requests in flight, as many as the workers take.

    Requests that do not fit wait in this instance's topic, in the topic's order, where they can be seen, refused and
    taken back. The broker's own queue, which knows no order but age, stays as short as the workers allow. Their
    prefetch is left to the more urgent classes, so that bulk requests never stand between these and a worker.

    Attributes:
        active: Slots that are out; more than the capacity only after a shrink.
    """

    def __init__(self) -> None:
        self.active = 0
        self._capacity = WorkerCapacity(1, 0)
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<RequestWindow {self.active}/{self._capacity.concurrency}+{self._capacity.prefetch}>"

    def resize(self, capacity: WorkerCapacity) -> None:
        """Allow as much as the workers take from now on; one at least."""
        before, self._capacity = self._capacity, WorkerCapacity(max(1, capacity.concurrency), capacity.prefetch)
        if self._capacity != before:
            self._notify()

    def try_acquire(self, rank: int = Criticality.INTERACTIVE) -> bool:
        """Take a slot if one is free for this class."""
        room = self._capacity
        if self.active >= room.concurrency + (room.prefetch if rank < Criticality.BULK else 0):
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """Give a slot back."""
        self.active -= 1
        self._notify()

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot may have become free."""
        self._listeners.append(callback)

    def _notify(self) -> None:
        for tell in self._listeners:
            tell()


#: An instance that has not been heard of for so long is forgotten.
INSTANCE_TTL_S: Final = 15.0
#: An instance says hello so often, less often where there are many.
PRESENCE_S: Final = 0.4
#: More instances than these say hello less often, each in proportion.
FREQUENT_INSTANCES_MAX: Final = 10
#: An instance is missed once so many of its hellos have not come.
HELLOS_MISSED: Final = 3
#: Instances remembered; of more, those heard of the longest ago go.
INSTANCES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """Capacity of all instances that serve a topic.

    Attributes:
        concurrency: Handlers that may run.
        prefetch: Messages taken in advance beside those.
    """

    concurrency: int = 0
    prefetch: int = 0


class ServiceRegistry:
    """Registry of the known instances and the channels that they serve.

    An instance is missed when our own hellos come back and those of its last second do not. A broker that delivers
    nothing, or a stall of our own, makes nobody missed.

    Bounds: ``INSTANCES_MAX`` instances.
    """

    def __init__(self) -> None:
        self._instances: dict[str, tuple[Hello, float]] = {}
        self._echoed_s = self._resumed_s = -math.inf
        self._turn = 0

    def __repr__(self) -> str:
        return f"<ServiceRegistry of {len(self._instances)}>"

    def update(self, hello: Hello, now_s: float) -> None:
        """Enter an instance's announcement."""
        self._instances.pop(hello.address, None)
        self._instances[hello.address] = (hello, now_s)  # the last heard of stand last
        for address in [one for one, (_, heard_s) in self._instances.items() if now_s - heard_s > INSTANCE_TTL_S]:
            del self._instances[address]
        while len(self._instances) > INSTANCES_MAX:
            del self._instances[next(iter(self._instances))]

    @property
    def presence_s(self) -> float:
        """Seconds between two hellos of an instance."""
        return PRESENCE_S * max(1.0, len(self._instances) / FREQUENT_INSTANCES_MAX)

    def echo(self, now_s: float) -> None:
        """Note that our own hello has come back from the broker, after whatever was sent before it."""
        if now_s - self._echoed_s > 2 * self.presence_s:
            self._resumed_s = now_s  # the hellos of others were late too
        self._echoed_s = now_s

    def is_missed(self, channel: str, now_s: float, address: str = "") -> bool:
        """Return whether an instance is missed, or without its address any of those that serve a channel."""
        if address:
            hello, heard_s = self._instances.get(address, (None, -math.inf))
            return hello is None or self._silent(heard_s)
        return any(
            channel in hello.concurrency_by_channel and self._silent(heard_s)
            for hello, heard_s in self._instances.values()
            if now_s - heard_s <= INSTANCE_TTL_S
        )

    def substitute(self, channel: str) -> str:
        """Return the mailbox of an instance that serves a channel and is not missed, in turn; empty for none."""
        living = sorted(
            address
            for address, (hello, heard_s) in self._instances.items()
            if channel in hello.concurrency_by_channel
            and hello.takes_requests
            and not hello.leaving
            and not self._silent(heard_s)
        )
        self._turn += 1
        return living[self._turn % len(living)] if living else ""

    def _silent(self, heard_s: float) -> bool:
        return self._echoed_s - max(heard_s, self._resumed_s) > HELLOS_MISSED * self.presence_s

    def capacities(self, now_s: float) -> dict[str, WorkerCapacity]:
        """Return how much of each topic that is served may be under way.

        Instances that are leaving count until they are forgotten: they still handle what they have taken, and while
        the last worker is restarted, new requests wait for it. One that is missed counts only where no other lives.
        """
        found: dict[str, WorkerCapacity] = {}
        missed: dict[str, WorkerCapacity] = {}
        for hello, heard_s in self._instances.values():
            if now_s - heard_s <= INSTANCE_TTL_S:
                capacities = missed if self._silent(heard_s) else found
                for topic, count in hello.concurrency_by_channel.items():
                    if count:
                        one = capacities.get(topic, WorkerCapacity())
                        capacities[topic] = WorkerCapacity(one.concurrency + count, one.prefetch + hello.prefetch)
        return missed | found

    def instance_counts(self, now_s: float) -> dict[str, int]:
        """Return how many living instances serve each topic."""
        found: dict[str, int] = {}
        for hello, heard_s in self._instances.values():
            if now_s - heard_s <= INSTANCE_TTL_S and not hello.leaving:
                for topic in hello.concurrency_by_channel:
                    found[topic] = found.get(topic, 0) + 1
        return found
