"""Offset tracker of one partition: offsets that may be committed, redelivered records already known. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Records between the oldest that is not done and the newest taken; beyond, the partition is not read on.
UNCOMMITTED_MAX: Final = 1024
#: After its owner's death a partition is read record by record for so many at most: what may have been under way.
ISOLATION_RECORDS: Final = 100


class OffsetTracker:
    """Tracker of one partition of a queue channel: records taken, done and committed.

    Kafka knows one number for a partition: everything before it is done. Handlers end in any order, so only the
    longest run of done records at the front is committed. The rest waits for the records before it.

    Kafka does not count deliveries. So each owner writes beside the number that it has begun, and wipes that out when
    it leaves cleanly: what the next owner finds is how many in a row died at the record in front. It counts them as
    deliveries of that record. As the culprit may stand behind it, the next ``ISOLATION_RECORDS`` of those that were
    there then are handled one by one: a bystander is suspected once, the culprit is found alone.

    Attributes:
        next_offset: The first record that is not done; -1 until known.
        committed: The offset that Kafka knows.
        crashes: Owners that died with ``next_offset`` in front, in a row.

    Bounds: ``UNCOMMITTED_MAX`` records taken and not committed, if the caller checks :meth:`free_slots` first.
    """

    __slots__ = (
        "_crashed_at",
        "_isolating_until",
        "_last_offset",
        "_running",
        "_tracked",
        "committed",
        "crashes",
        "next_offset",
    )

    def __init__(self) -> None:
        self.next_offset = self.committed = self._last_offset = self._crashed_at = self._isolating_until = -1
        self.crashes = 0
        self._tracked: deque[int] = deque()
        self._running: set[int] = set()

    def __repr__(self) -> str:
        return f"<OffsetTracker {self.committed}..{self.next_offset}..{self._last_offset} {self.running} running>"

    @property
    def running(self) -> int:
        """Number of records that are taken and not done."""
        return len(self._running)

    @property
    def dirty(self) -> bool:
        """True where there is something to commit."""
        return self.next_offset > self.committed

    @property
    def isolating(self) -> bool:
        """True while the records are to be handled one by one, after a crash."""
        return self.next_offset < self._isolating_until

    def free_slots(self) -> int:
        """Return how many more records may be taken."""
        if self.isolating:
            # One at a time, each after the commit of the one before: a crash then accuses a single record.
            return 0 if self._tracked or self.dirty else 1
        return UNCOMMITTED_MAX - len(self._tracked)

    def resume(self, committed: int, crashes: int = 0, end: int = 0) -> None:
        """Take the partition over, or go on with it: reading starts at the committed offset.

        Records taken here before and not committed will come again; :meth:`track` recognises them.

        Args:
            committed: The offset at which reading starts.
            crashes: Owners that died there, as far as known.
            end: The partition's end by now; no owner has died over a later record.
        """
        if committed < self.committed:  # the topic was recreated
            self._reset()
        self.committed = committed
        self.next_offset = max(self.next_offset, committed)
        # Not lowered: records that were handed out before are recognised when they come again.
        self._last_offset = max(self._last_offset, committed - 1)
        self.crashes, self._crashed_at = crashes, committed
        if crashes:
            self._isolating_until = min(committed + ISOLATION_RECORDS, end)
        # Another owner has committed these in between.
        while self._tracked and self._tracked[0] < committed:
            self._running.discard(self._tracked.popleft())
        self._advance()

    def track(self, offset: int) -> int:
        """Note that a record is handed out.

        Returns:
            How many deliveries of it died with their owners; -1: it is under way or done here already.
        """
        if offset <= self._last_offset:
            return -1
        if not self._tracked:
            self.next_offset = offset  # what lies between was no record
        self._tracked.append(offset)
        self._running.add(offset)
        self._last_offset = offset
        return self.crashes if offset == self._crashed_at else 0

    def mark_done(self, offset: int) -> None:
        """Note that a record is handled."""
        self._running.discard(offset)
        self._advance()

    def _advance(self) -> None:
        while self._tracked and self._tracked[0] not in self._running:
            self.next_offset = self._tracked.popleft() + 1

    def _reset(self) -> None:
        self.next_offset = self.committed = self._last_offset = self._crashed_at = self._isolating_until = -1
        self.crashes = 0
        self._tracked.clear()
        self._running.clear()
