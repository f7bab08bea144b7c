"""Broker protocol: message delivery between processes, as Redis Streams and Kafka both offer it.

A broker carries records, which are bytes it does not look into (:mod:`penstock.bus.record_codec` does). It knows
channels, readers and mailboxes only. Requests, replies, handlers, deadlines and fairness are the bus's business
(:mod:`penstock.bus.distributed`), once for all brokers.

A record travels in one of three ways:

- **Queue** (:class:`Channel` of kind ``QUEUE``): kept until one reader has acknowledged it. The readers of all
  instances share the channel. The record of a reader that dies or requeues it is delivered to another. At least once.
- **Pub/sub** (kind ``PUBSUB``): each reader gets every record sent after it joined, in the order of one sender, at most
  once. Its records are forgotten with it.
- **Mailboxes**: each instance has one, at its ``address``. ``reply`` writes to one mailbox, ``broadcast`` to all,
  ``receive`` reads one's own. A record for an instance that has gone is dropped silently.

All methods may be called by several tasks at once unless they say otherwise. A broker raises ``Unavailable``
(``dependency`` is the broker's name) and, where the method says so, ``Rejected``. It does so within ``wait_s`` or
``within_s`` (where there is one) and ``BROKER_TIMEOUT_S`` after the call.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

#: How long a broker may be silent before it counts as gone; connecting included. SPEC: a clear error within 5 s.
BROKER_TIMEOUT_S: Final = 4.0

#: A broker that has not answered its first request after so long is not there: the operator learns it within five
#: seconds, even where our own start takes two of them.
STARTUP_CHECK_S: Final = 2.0

#: How often the bus calls ``heartbeat``; an instance that is silent for its lease is dead.
HEARTBEAT_S: Final = 1.0

#: Dead letters kept; of more, the oldest go.
DEAD_LETTERS_MAX: Final = 10_000

#: Of a record that is too large, so much is kept in its dead letter.
DEAD_LETTER_BYTES_MAX: Final = 65_536


class ChannelKind(enum.StrEnum):
    """Delivery semantics of a channel: a shared queue, or pub/sub."""

    QUEUE = "work"
    PUBSUB = "news"


@dataclass(frozen=True, slots=True)
class Channel:
    """Named channel of a broker: records are sent to it and read from it.

    Attributes:
        topic: The bus's name for it, e.g. ``ml.embed``; the adapter puts the prefix of all names before it.
        kind: Whether readers share its records.
    """

    topic: str
    kind: ChannelKind


@dataclass(slots=True, eq=False)
class Delivery:
    """A record that a reader has taken and is not yet done with.

    Attributes:
        record: As it was sent.
        attempts: How many times it has been delivered, this one included; from 1.
        age_s: Seconds since the broker took it, by the broker's own clock; 0 where that is not known. Never
            measured between two machines' clocks.
        handle: The adapter's own reference to it; opaque to all others.
    """

    record: bytes
    attempts: int
    age_s: float
    handle: Any


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """Encoded reply to a requester's mailbox, sent together with an acknowledgement."""

    address: str
    record: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Dead letter: a record that no reader could handle.

    Attributes:
        id: Its id, for requeueing or deleting it.
        channel: The channel it was sent to.
        group: The reader's own group in a pub/sub channel, where the broker has one; empty for a queue.
        reason: Why it was dead-lettered, one word (``tries``, ``newer_version``, ``foreign``, ``truncated``,
            ``too_large``, ``unreadable``).
        attempts: How many times it had been delivered.
        dead_lettered_at_s: When, in seconds since 1970, by the clock of the side that put it there.
        size: Bytes of the record.
        record: The record; its first ``DEAD_LETTER_BYTES_MAX`` bytes only if it was too large.
    """

    id: str
    channel: Channel
    group: str
    reason: str
    attempts: int
    dead_lettered_at_s: float
    size: int
    record: bytes

    @classmethod
    def of(cls, id: str, channel: Channel, group: str, delivery: Delivery, reason: str) -> DeadLetter:
        """Return the dead letter of a delivery, as of now."""
        record = delivery.record
        kept = record[:DEAD_LETTER_BYTES_MAX] if reason == "too_large" else record
        return cls(id, channel, group, reason, delivery.attempts, time.time(), len(record), kept)

    @property
    def topic(self) -> str:
        """The topic it was sent to."""
        return self.channel.topic

    @property
    def whole(self) -> bool:
        """True where it has the whole record."""
        return len(self.record) == self.size


class Reader(Protocol):
    """Reader of a channel. ``poll`` may be called by one task at a time, the other methods by any."""

    async def wait_joined(self) -> None:
        """Wait until the channel's records come here, or to other members that share it."""

    async def poll(self, count: int, wait_s: float) -> list[Delivery]:
        """Return up to ``count`` records, waiting up to ``wait_s`` for the first; empty when there was none.

        Records that a dead member held, or that were requeued, come too. A delivery is this reader's until ``ack``,
        ``requeue`` or ``dead_letter``, however long that takes, as long as its instance sends heartbeats: a long
        handler does not lose its record to another.

        Raises:
            Unavailable: The broker cannot be asked; call again later.

        Cancellation: Nothing is lost: what was on its way comes with a later ``poll``.
        """

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """Acknowledge a delivery: it is handled and not delivered again.

        The reply is on its way before the acknowledgement holds, or at the same time: a crash between the two means
        that the record is delivered again, never that it goes unanswered. No error if another has it by now.

        Raises:
            Unavailable: Neither may have happened; it may be delivered again.
        """

    async def requeue(self, delivery: Delivery) -> None:
        """Have a queue's record delivered to another member soon: it was not begun, or was stopped at shutdown.

        Whether the attempt counts is up to the broker.

        Raises:
            Unavailable: It stays this reader's until the instance ends.
        """

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Put a record among the dead letters, and only then acknowledge it.

        Raises:
            Unavailable: It may be delivered again, and dead-lettered twice.
        """

    async def pause(self) -> None:
        """Take no more records; waiting ones go to other members. Deliveries taken stay this reader's. Never raises."""

    async def close(self) -> None:
        """Leave the channel. A queue's unsettled records are delivered to another member.

        Never raises; closing twice is allowed. No ``poll`` is under way.
        """


class Broker(Protocol):
    """A connection to a broker, one for each instance. ``start`` it first, ``close`` it last.

    Attributes:
        name: Name in errors, logs and metrics: the broker's ``BUS_BACKEND``.
        address: This instance's mailbox: unique for each start of each process, at most 200 characters of ASCII.
    """

    name: str
    address: str

    @property
    def connections(self) -> int:
        """Number of open connections to its server, or to that of its servers that has most."""

    async def start(self) -> None:
        """Connect, and make this instance's mailbox; within ``BROKER_TIMEOUT_S``.

        Raises:
            Invalid: The address or the credentials are wrong; ``field`` names the setting. Never shows a password.
            Unavailable: It cannot be reached, or does not answer.
        """

    async def close(self) -> None:
        """Close all readers, delete the mailbox, disconnect. Never raises; takes ``BROKER_TIMEOUT_S`` at most."""

    async def heartbeat(self) -> None:
        """Announce that this instance lives, and recreate its state in a broker that was restarted.

        The bus calls it every ``HEARTBEAT_S``. Its success shows that the broker is well again.

        Raises:
            Unavailable: The broker does not answer.
        """

    async def join(self, channel: Channel) -> Reader:
        """Become a reader of a channel.

        Records sent to a queue before any reader has joined are kept for the first one.

        Raises:
            Unavailable: The broker does not answer.
        """

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """Append a record.

        Returning means that the broker has it (as safely as the broker keeps anything). A pub/sub record without a
        reader is dropped silently.

        Args:
            channel: The channel to send to.
            record: The encoded message.
            key: Records of one key keep their order where a channel has several partitions; empty for any.
            within_s: How long to wait for room in a full channel (B2); 0 for not at all.

        Raises:
            Rejected: ``topic_full``: the channel holds as many records as it may, those being handled included, and
                stayed so. For pub/sub, the slowest reader counts. Nothing was appended.
            Unavailable: Whether it was appended is not known.

        Bounds: The channel's capacity, given to the adapter when it is made; nothing unhandled is ever trimmed.

        Cancellation: It was appended or not.
        """

    async def depth(self, channel: Channel) -> int:
        """Return how many records wait in the channel or are being handled; at least about.

        Raises:
            Unavailable: The broker does not answer.
        """

    async def reply(self, address: str, record: bytes) -> None:
        """Put a record into a mailbox; nothing happens if there is no such mailbox.

        Raises:
            Unavailable: It may not be there.
        """

    async def broadcast(self, record: bytes) -> None:
        """Put a record into the mailbox of every instance, one's own included; at most once, best effort.

        Raises:
            Unavailable: It may be in some.
        """

    async def receive(self, wait_s: float) -> list[bytes]:
        """Return the records in one's own mailbox, oldest first, waiting up to ``wait_s`` for the first.

        Called by one task only.

        Raises:
            Unavailable: The broker cannot be asked; call again later.

        Cancellation: Records on their way may be lost, as when this instance ends.
        """

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """Return up to ``count`` dead letters, oldest first.

        Raises:
            Unavailable: The broker does not answer.
        """

    async def requeue_dead_letter(self, letter_id: str) -> bool:
        """Send a dead letter to its channel again, as new, and only then delete it.

        Returns:
            Whether there was such a dead letter with its whole record.

        Raises:
            Rejected: ``topic_full``; it stays where it is.
            Unavailable: It may be in both places.
        """

    async def delete_dead_letter(self, letter_id: str) -> bool:
        """Delete a dead letter; return whether there was one.

        Raises:
            Unavailable: It may still be there.
        """
