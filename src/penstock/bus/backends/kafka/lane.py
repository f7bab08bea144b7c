"""How far one partition has been worked: what may be committed, and what of a redelivery is already known. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Records between the oldest that is not done and the newest taken; a partition wider than this is not read on.
SPAN_MAX: Final = 1024
#: After its owner's death a partition is worked record by record for so many at most: what may have been under way.
CAREFUL_SPAN: Final = 100


class Lane:
    """One partition of a work channel, as its reader has worked it.

    Kafka knows one number for a partition: everything before it is done. Handlers end in any order, so only the
    longest row of done records at the front is committed; the rest waits for its elders.

    Kafka does not count deliveries. So each owner writes beside the number that it has begun, and wipes that out when
    it leaves in peace: what the next owner finds is how many in a row died at the record in front. It counts them as
    deliveries of that record. As the culprit may stand behind it, the next ``CAREFUL_SPAN`` of those that were there
    then are worked record by record: a bystander is suspected once, the culprit is found alone.

    Attributes:
        head: The first record that is not done; -1 until known.
        committed: What Kafka knows of that.
        crashes: Owners that died with ``head`` in front, in a row.

    Bounds: ``SPAN_MAX`` records taken and not committed, by who asks :meth:`room` first.
    """

    __slots__ = ("_careful_until", "_crashed_at", "_last", "_open", "_running", "committed", "crashes", "head")

    def __init__(self) -> None:
        self.head = self.committed = self._last = self._crashed_at = self._careful_until = -1
        self.crashes = 0
        self._open: deque[int] = deque()
        self._running: set[int] = set()

    def __repr__(self) -> str:
        return f"<Lane {self.committed}..{self.head}..{self._last} {self.running} running>"

    @property
    def running(self) -> int:
        """How many are taken and not done."""
        return len(self._running)

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""
        return self.head > self.committed

    @property
    def careful(self) -> bool:
        """Whether its records are to be worked one by one."""
        return self.head < self._careful_until

    def room(self) -> int:
        """Return how many more may be taken."""
        if self.careful:
            return 0 if self._open or self.dirty else 1
        return SPAN_MAX - len(self._open)

    def begin(self, committed: int, crashes: int = 0, end: int = 0) -> None:
        """Take it over, or go on with it: reading starts where Kafka says.

        What was taken here before and is not committed will come again; :meth:`take` knows it.

        Args:
            committed: Where reading starts.
            crashes: Owners that died there, as far as known.
            end: Where the partition ends by now; nobody has died of what comes after.
        """
        if committed < self.committed:  # the topic was made anew
            self._forget()
        self.committed = committed
        self.head = max(self.head, committed)
        self._last = max(self._last, committed - 1)
        self.crashes, self._crashed_at = crashes, committed
        if crashes:
            self._careful_until = min(committed + CAREFUL_SPAN, end)
        while self._open and self._open[0] < committed:
            self._running.discard(self._open.popleft())
        self._advance()

    def take(self, offset: int) -> int:
        """Note that a record is handed out.

        Returns:
            How many deliveries of it died with their owners; -1: it is worked or done here already.
        """
        if offset <= self._last:
            return -1
        if not self._open:
            self.head = offset  # what lies between was no record
        self._open.append(offset)
        self._running.add(offset)
        self._last = offset
        return self.crashes if offset == self._crashed_at else 0

    def done(self, offset: int) -> None:
        """A record is handled."""
        self._running.discard(offset)
        self._advance()

    def _advance(self) -> None:
        while self._open and self._open[0] not in self._running:
            self.head = self._open.popleft() + 1

    def _forget(self) -> None:
        self.head = self.committed = self._last = self._crashed_at = self._careful_until = -1
        self.crashes = 0
        self._open.clear()
        self._running.clear()
