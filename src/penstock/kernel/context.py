"""What travels with every piece of work: who asked, how urgent it is, until when."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penstock.kernel.deadline import Deadline
from penstock.kernel.ids import new_id


class Criticality(enum.IntEnum):
    """Classes of work, the most urgent first (DESIGN §4)."""

    INTERACTIVE = 0
    STANDARD = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Context:
    """The envelope's address label, handed from gate to topic to pool to dependency.

    Attributes:
        deadline: Until when an answer is worth anything.
        criticality: Class of the work.
        client: API key or peer address; fairness is counted per client.
        request_id: Echoed as ``X-Request-Id`` and written in every log line.
        traceparent: W3C trace context as it came in, or empty.
    """

    deadline: Deadline
    criticality: Criticality = Criticality.STANDARD
    client: str = "local"
    request_id: str = ""
    traceparent: str = ""

    @classmethod
    def background(cls, client: str = "local") -> Context:
        """Return a label for work of our own: no deadline, lowest class."""
        return cls(Deadline.never(), Criticality.BULK, client, new_id())

    def as_bulk(self) -> Context:
        """Return the same label in the lowest class."""
        return Context(self.deadline, Criticality.BULK, self.client, self.request_id, self.traceparent)

    def within(self, limit_s: float, operation: str, now_s: float) -> Context:
        """Return the same label with the deadline tightened to ``limit_s`` from now."""
        deadline = self.deadline.within(limit_s, operation, now_s)
        if deadline is self.deadline:
            return self
        # Not ``dataclasses.replace``: it takes as long as all the rest of a message's way.
        return Context(deadline, self.criticality, self.client, self.request_id, self.traceparent)
