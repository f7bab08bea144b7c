"""Queue of the requests that wait in the store process.

Everything that waits is concurrent: none of it has been answered, so none of its requesters can have
seen another's effect, and any order is a right one as long as updates keep theirs. So reads are
taken together, past the updates that wait, and one update follows each batch: neither starves the other.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from penstock.kernel.errors import Rejected
from penstock.stores.backends.edge import ipc
from penstock.stores.commands import (
    CollectionCommand,
    CreateCollection,
    Retrieve,
)


class OpeningSchedule(NamedTuple):
    """Decision on waiting batches: one to serve now, the others later or too late.

    Attributes:
        next_batch: The batch whose collection is opened now; empty if there is none.
        later: Requests that wait for another turn, in their order.
        too_late: Requests that would be answered after their requester has given up.
    """

    next_batch: list[ipc.StoreRequest]
    later: list[ipc.StoreRequest]
    too_late: list[ipc.StoreRequest]


def schedule_openings(waiting: Sequence[list[ipc.StoreRequest]], now_s: float, opening_s: float) -> OpeningSchedule:
    """Schedule batches, each of which waits for one collection.

    A request is refused as soon as it is known that its turn comes too late: its requester can try again, and its
    deadline passing would be counted against the store.

    Args:
        waiting: The batches, first come first.
        now_s: The time.
        opening_s: Seconds that an opening takes.
    """
    first: list[ipc.StoreRequest] = []
    later: list[ipc.StoreRequest] = []
    too_late: list[ipc.StoreRequest] = []
    turn = 0
    for batch in waiting:
        done_s = now_s + (turn + 1) * opening_s
        in_time: list[ipc.StoreRequest] = []
        for one in batch:
            expires_at_s = math.inf if one.expires_at_s is None else one.expires_at_s
            (in_time if done_s < expires_at_s else too_late).append(one)
        if not in_time:
            continue
        turn += 1
        if first:
            later += in_time
        else:
            first = in_time
    return OpeningSchedule(first, later, too_late)


def opening_timeout_error(opening_s: float) -> Rejected:
    """Return the error of a request whose turn would come too late."""
    return Rejected(
        "too many collections are being opened; try again, or allow more time",
        code="collection_opening",
        retry_after_s=max(1.0, 10 * opening_s),
    )


#: Reads taken into one round.
ROUND_READS_MAX: Final = 64

#: A search for more hits than this is a large one: it reads megabytes. One of them is taken into a round, after the
#: other reads, so that a small search waits for one large one and not for all of them.
LARGE_SEARCH_LIMIT: Final = 100

#: Requests that may wait here; more wait in the socket's buffer, and then at the front.
WAITING_MAX: Final = 256


class RequestQueue:
    """The requests that have arrived, decoded as they are completed.

    Bounds: ``WAITING_MAX`` requests, and one that has not wholly arrived.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = ipc.decoder(ipc.StoreRequest)
        self._reads: deque[ipc.StoreRequest] = deque()
        self._large: deque[ipc.StoreRequest] = deque()
        self._writes: deque[ipc.StoreRequest] = deque()

    def __len__(self) -> int:
        return len(self._reads) + len(self._large) + len(self._writes)

    @property
    def full(self) -> bool:
        """True if no further request should be received now."""
        return len(self) >= WAITING_MAX

    def has_work(self, holds_writes: Callable[[str], bool]) -> bool:
        """Return whether a request waits that may run now; ``holds_writes`` as for :meth:`take_write`."""
        names = (collection_of(request.command) for request in self._writes)
        return bool(self._reads or self._large) or any(
            not holds_writes(name) if name is not None else place == 0 for place, name in enumerate(names)
        )

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data
        self.decode()

    def decode(self) -> None:
        """Decode the requests that have wholly arrived, as far as there is room."""
        size, begin = ipc.LENGTH_HEADER.size, 0
        while not self.full and len(self._buffer) >= begin + size:
            end = begin + size + ipc.LENGTH_HEADER.unpack_from(self._buffer, begin)[0]
            if len(self._buffer) < end:
                break
            request = self._decoder.decode(memoryview(self._buffer)[begin + size : end])
            self._queue(request.command).append(request)
            begin = end
        del self._buffer[:begin]

    def take_reads(self) -> list[ipc.StoreRequest]:
        """Take the reads that wait, a round at most and a large one last; expired ones are dropped."""
        now_s = time.monotonic()
        taken = [self._reads.popleft() for _ in range(min(len(self._reads), ROUND_READS_MAX))]
        if self._large:
            taken.append(self._large.popleft())
        self.decode()
        return [request for request in taken if not is_expired(request, now_s)]

    def requeue_reads(self, requests: Sequence[ipc.StoreRequest]) -> None:
        """Put reads that were taken back in front of those that have come later."""
        self._reads.extendleft(reversed(requests))

    def take_write(self, holds_writes: Callable[[str], bool]) -> ipc.StoreRequest | None:
        """Take the first write that need not wait for its collection, ``None`` if there is none.

        Args:
            holds_writes: Whether the writes of a collection have to wait.
        """
        place = 0
        while place < len(self._writes):
            request = self._writes[place]
            name = collection_of(request.command)
            if is_expired(request, time.monotonic()):
                del self._writes[place]
            elif name is None and place:
                return None  # a command about all collections waits for everything before it
            elif name is not None and holds_writes(name):
                place += 1
            else:
                del self._writes[place]
                return request
        return None

    def _queue(self, command: ipc.AnyCommand) -> deque[ipc.StoreRequest]:
        if command.writes:
            return self._writes
        return self._large if is_large(command) else self._reads


def is_large(command: ipc.AnyCommand) -> bool:
    """Return whether a command reads so much that others should not wait for several like it."""
    return isinstance(command, Retrieve) and command.query.limit > LARGE_SEARCH_LIMIT


def is_expired(request: ipc.StoreRequest, now_s: float) -> bool:
    """Return whether the request's deadline has passed, so that its requester waits no longer."""
    return request.expires_at_s is not None and now_s >= request.expires_at_s


def collection_of(command: ipc.AnyCommand) -> str | None:
    """Return the collection that a command is about, ``None`` where it is about all of them."""
    if isinstance(command, CreateCollection):
        return command.info.name
    return command.collection if isinstance(command, CollectionCommand) else None
