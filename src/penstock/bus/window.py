"""How many requests of a topic may be under way to other instances at once: slots for what is asked of them."""

from __future__ import annotations

from collections.abc import Callable

from penstock.bus.directory import Room
from penstock.kernel.context import Criticality


class Window:
    """Slots for requests that are under way.

    What does not fit waits in this instance's topic, in the topic's order, where it can be seen, refused and taken
    back; the broker's own queue, which knows no order but age, stays as short as the workers' hands are full. What they
    take in advance is left to the more urgent, so that bulk work never stands between these and a worker.

    Attributes:
        active: Slots that are out; more than the room only after a shrink.
    """

    def __init__(self) -> None:
        self.active = 0
        self._room = Room(1, 0)
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Window {self.active}/{self._room.at_once}+{self._room.ahead}>"

    def resize(self, room: Room) -> None:
        """Allow as much as the workers take from now on; one at least."""
        before, self._room = self._room, Room(max(1, room.at_once), room.ahead)
        if self._room != before:
            self._offer()

    def try_acquire(self, rank: int = Criticality.INTERACTIVE) -> bool:
        """Take a slot if one is free for this class."""
        room = self._room
        if self.active >= room.at_once + (room.ahead if rank < Criticality.BULK else 0):
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """Give a slot back."""
        self.active -= 1
        self._offer()

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot may have become free."""
        self._listeners.append(callback)

    def _offer(self) -> None:
        for tell in self._listeners:
            tell()
