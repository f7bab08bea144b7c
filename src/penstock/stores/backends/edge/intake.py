"""What has arrived at the store process and waits for its turn.

Everything that waits is concurrent: none of it has been answered, so none of its requesters can have
seen another's effect, and any order is a right one as long as updates keep theirs. So reads are
taken together, past the updates that wait, and one update follows each batch: neither starves the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from penstock.stores.backends.edge import wire

#: Reads taken into one round.
ROUND_REQUESTS_MAX: Final = 64

#: A search for more hits than this is a large one: it reads megabytes. One of them is taken into a round, after the
#: other reads, so that a small search waits for one large one and not for all of them.
LARGE_LIMIT: Final = 100

#: Requests that may wait here; more wait in the socket's buffer, and then at the front.
WAITING_MAX: Final = 256

#: Commands that change something; they are done one by one, in the order in which they came.
WRITES: Final = (
    wire.Create,
    wire.Drop,
    wire.Upsert,
    wire.Trim,
    wire.Seal,
    wire.Delete,
    wire.Copy,
    wire.Adopt,
    wire.Optimize,
    wire.Close,
)


class Intake:
    """The requests that have arrived, decoded as they are completed.

    Bounds: ``WAITING_MAX`` requests, and one that has not wholly arrived.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(wire.Request)
        self._reads: deque[wire.Request] = deque()
        self._large: deque[wire.Request] = deque()
        self._writes: deque[wire.Request] = deque()

    def __len__(self) -> int:
        return len(self._reads) + len(self._large) + len(self._writes)

    @property
    def full(self) -> bool:
        """Whether no more should be received now."""
        return len(self) >= WAITING_MAX

    def ready(self, held: Callable[[str], bool]) -> bool:
        """Whether something waits that may go on now; ``held`` as for :meth:`write`."""
        names = (subject(request.command) for request in self._writes)
        return bool(self._reads or self._large) or any(
            not held(name) if name is not None else place == 0 for place, name in enumerate(names)
        )

    def feed(self, data: bytes) -> None:
        """Take in what has been received."""
        self._buffer += data
        self.sort()

    def sort(self) -> None:
        """Decode what has wholly arrived, as far as there is room."""
        size, begin = wire.HEADER.size, 0
        while not self.full and len(self._buffer) >= begin + size:
            end = begin + size + wire.HEADER.unpack_from(self._buffer, begin)[0]
            if len(self._buffer) < end:
                break
            request = self._decoder.decode(memoryview(self._buffer)[begin + size : end])
            self._queue(request.command).append(request)
            begin = end
        del self._buffer[:begin]

    def reads(self) -> list[wire.Request]:
        """Take the reads that wait, a round at most and a large one last; not those whose requester has given up."""
        now_s = time.monotonic()
        taken = [self._reads.popleft() for _ in range(min(len(self._reads), ROUND_REQUESTS_MAX))]
        if self._large:
            taken.append(self._large.popleft())
        self.sort()
        return [request for request in taken if not expired(request, now_s)]

    def give_back(self, requests: Sequence[wire.Request]) -> None:
        """Let reads that were taken wait again, before those that have come later."""
        self._reads.extendleft(reversed(requests))

    def write(self, held: Callable[[str], bool]) -> wire.Request | None:
        """Take the first write that need not wait for its collection, ``None`` if there is none.

        Args:
            held: Whether the writes of a collection have to wait.
        """
        place = 0
        while place < len(self._writes):
            request = self._writes[place]
            name = subject(request.command)
            if expired(request, time.monotonic()):
                del self._writes[place]
            elif name is None and place:
                return None  # what is about all of them waits for everything before it
            elif name is not None and held(name):
                place += 1
            else:
                del self._writes[place]
                return request
        return None

    def _queue(self, command: wire.Command) -> deque[wire.Request]:
        if isinstance(command, WRITES):
            return self._writes
        return self._large if is_large(command) else self._reads


def is_large(command: wire.Command) -> bool:
    """Whether a command reads so much that others should not wait for several like it."""
    return isinstance(command, wire.Retrieve) and command.limit > LARGE_LIMIT


def expired(request: wire.Request, now_s: float) -> bool:
    """Whether its requester has given up: it was answered by its own deadline."""
    return request.expires_at_s is not None and now_s >= request.expires_at_s


def subject(command: wire.Command) -> str | None:
    """Return the collection that a command is about, ``None`` where it is about all of them."""
    if isinstance(command, wire.Create):
        return command.info.name
    name: str | None = getattr(command, "collection", None)
    return name
