"""Who serves which topic, as the instances tell each other. Pure; time is passed in.

Discovery needs nothing but the broker: every instance says hello to all others again and again, and who is not
heard of any more is forgotten. The sum of what the others take at once is how much of a topic may be under way to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.bus.wire import Hello

#: An instance that has not been heard of for so long is forgotten.
GONE_S: Final = 15.0
#: Instances remembered; of more, those heard of the longest ago go.
INSTANCES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a topic the instances that serve it take.

    Attributes:
        at_once: Handlers that may run.
        ahead: Messages beside those that are taken in advance.
    """

    at_once: int = 0
    ahead: int = 0


class Directory:
    """What is known of the instances.

    Bounds: ``INSTANCES_MAX`` instances.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Hello, float]] = {}

    def __repr__(self) -> str:
        return f"<Directory of {len(self._heard)}>"

    def hear(self, hello: Hello, now_s: float) -> bool:
        """Take in what an instance says; return whether it was unknown."""
        before = self._heard.pop(hello.address, None)
        self._heard[hello.address] = (hello, now_s)  # the last heard of stand last
        for address in [one for one, (_, heard_s) in self._heard.items() if now_s - heard_s > GONE_S]:
            del self._heard[address]
        while len(self._heard) > INSTANCES_MAX:
            del self._heard[next(iter(self._heard))]
        return before is None

    def room(self, topic: str, now_s: float) -> Room:
        """Return how much of a topic may be under way; nothing where nobody serves it.

        Those who have said that they leave count until they are forgotten: they still work on what they have, and when
        the last worker is started anew, what is asked meanwhile waits for it.
        """
        at_once = ahead = 0
        for hello, heard_s in self._heard.values():
            count = hello.serves.get(topic, 0)
            if count and now_s - heard_s <= GONE_S:
                at_once += count
                ahead += hello.ahead
        return Room(at_once, ahead)

    def rooms(self, now_s: float) -> dict[str, Room]:
        """Return how much of each topic that is served may be under way."""
        topics = {topic for hello, _ in self._heard.values() for topic in hello.serves}
        found = {topic: self.room(topic, now_s) for topic in topics}
        return {topic: room for topic, room in found.items() if room.at_once}

    def serving(self, now_s: float) -> dict[str, int]:
        """Return how many living instances serve each topic."""
        found: dict[str, int] = {}
        for hello, heard_s in self._heard.values():
            if now_s - heard_s <= GONE_S and not hello.leaves:
                for topic in hello.serves:
                    found[topic] = found.get(topic, 0) + 1
        return found
