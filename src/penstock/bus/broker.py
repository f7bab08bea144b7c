"""What a broker between processes has to do for the bus: what Redis Streams and Kafka have in common.

A broker carries records, which are bytes it does not look into (:mod:`penstock.bus.wire` does), and is told of
channels, readers and mailboxes only. Everything about requests, replies, handlers, deadlines and fairness is the
bus's business (:mod:`penstock.bus.distributed`), once for all brokers.

There are three ways for a record to travel:

- **work** (:class:`Channel` of kind ``WORK``): kept until one of all readers is done with it. The readers of all
  instances share it. A reader that dies, or hands a record back, has it delivered to another. At least once.
- **news** (kind ``NEWS``): each reader gets every record sent after it joined, in the order of one sender. Where a
  reader joins under a group's name, the readers of that name share the news, which is then kept for them as work is;
  else it is the reader's alone, delivered at most once, and forgotten with it.
- **notes** to mailboxes: each instance has one, at its ``address``. ``reply`` puts a note into one of them, ``tell``
  into all, ``listen`` reads one's own. Whoever is not there any more gets nothing, and nobody is told.

All methods may be called by several tasks at once unless they say otherwise. Two errors only leave a broker, and none
of them later than ``wait_s`` or ``within_s`` (where there is one) and ``PATIENCE_S`` after the call:
``Unavailable`` (``dependency`` is the broker's name) and, where it says so, ``Rejected``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Protocol

from penstock.bus.contract import Features

#: How long a broker may be silent before it counts as gone; connecting included. SPEC: a clear error within 5 s.
PATIENCE_S: Final = 4.0

#: A broker that has not answered its first question after so long is not there: who starts us is told within five
#: seconds, also where our own start takes two of them.
CHECK_S: Final = 2.0

#: How often the bus calls ``beat``; an instance that was not heard of for its lease is dead.
BEAT_S: Final = 1.0

#: Dead letters kept; of more, the oldest go.
LETTERS_MAX: Final = 10_000

#: Of a record that is too large, so much is kept in its dead letter.
LETTER_BYTES_MAX: Final = 65_536


class Kind(enum.StrEnum):
    """How a channel's records find their readers."""

    WORK = "work"
    NEWS = "news"


@dataclass(frozen=True, slots=True)
class Channel:
    """Where records of one kind are sent and taken from.

    Attributes:
        topic: The bus's name for it, e.g. ``ml.embed``; the adapter puts the prefix of all names before it.
        kind: Whether readers share its records.
    """

    topic: str
    kind: Kind


@dataclass(slots=True, eq=False)
class Delivery:
    """A record that a reader has taken and is not yet done with.

    Attributes:
        record: As it was sent.
        attempts: How many times it has been delivered, this one included; from 1.
        age_s: Seconds since the broker took it, by the broker's own clock; 0 where that is not known. Never
            measured between two machines' clocks.
        handle: What the adapter knows it by; nobody else looks at it.
    """

    record: bytes
    attempts: int
    age_s: float
    handle: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A note that goes out with an acknowledgement.

    Attributes:
        address: Whose mailbox it is for.
        record: What it says.
    """

    address: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: a record that nobody could handle.

    Attributes:
        id: What it is revived or dropped by.
        topic: Where it was sent.
        group: Whose it was: empty for work.
        reason: Why it was buried, one word (``tries``, ``newer_version``, ``foreign``, ``truncated``, ``too_large``,
            ``raised``, ``unreadable``).
        attempts: How many times it had been delivered.
        buried_at_s: When, in seconds since 1970 by the burying side's clock.
        size: Bytes of the record.
        record: The record; its first ``LETTER_BYTES_MAX`` bytes only if it was too large.
    """

    id: str
    topic: str
    group: str
    reason: str
    attempts: int
    buried_at_s: float
    size: int
    record: bytes


class Reader(Protocol):
    """One member's end of a channel. Used by one task at a time for ``take``; the rest by any."""

    async def joined(self) -> None:
        """Wait until the channel's records come here, or to other members that share it."""
        ...

    async def take(self, count: int, wait_s: float) -> list[Delivery]:
        """Return up to ``count`` records, waiting up to ``wait_s`` for the first; empty when there was none.

        Records that a dead member held, or that were handed back, come too. What is taken is this reader's until
        ``done``, ``retry``, ``hand_back`` or ``bury``, however long that takes, as long as its instance beats: a long
        handler is not robbed of its work.

        Raises:
            Unavailable: The broker cannot be asked; call again later.

        Cancellation: Nothing is lost: what was on its way comes with a later ``take``.
        """
        ...

    async def done(self, delivery: Delivery, answer: Answer | None = None) -> None:
        """Acknowledge: it is handled and not delivered again.

        The answer is on its way before the acknowledgement holds, or at the same time: a crash between the two means
        that the record is delivered again, never that it goes unanswered. No error if another has it by now.

        Raises:
            Unavailable: Neither may have happened; it may be delivered again.
        """
        ...

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Have it delivered again, here or elsewhere, after about ``delay_s`` (never before); the attempt counts.

        Raises:
            Unavailable: It stays this reader's until the instance ends.
        """
        ...

    async def hand_back(self, delivery: Delivery) -> None:
        """Have it delivered to another member soon: it was not begun, or its handler was stopped for our own end.

        Whether the attempt counts is up to the broker.

        Raises:
            Unavailable: As for ``retry``.
        """
        ...

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Put it among the dead letters, and only then acknowledge it.

        Raises:
            Unavailable: It may be delivered again, and buried twice.
        """
        ...

    async def pause(self) -> None:
        """Take nothing more: what waits is for other members. What is held stays this reader's. Never raises."""
        ...

    async def close(self) -> None:
        """Leave the channel. What is not done is delivered to another member; news of a reader alone is forgotten.

        Never raises; closing twice is allowed. No ``take`` is under way.
        """
        ...


class Broker(Protocol):
    """A connection to a broker, one for each instance. ``start`` it first, ``close`` it last."""

    @property
    def name(self) -> str:
        """What it is called in errors, logs and metrics: its ``BUS_BACKEND``."""
        ...

    @property
    def features(self) -> Features:
        """What it can do beyond this contract."""
        ...

    @property
    def address(self) -> str:
        """This instance's mailbox: unique for each start of each process, at most 200 characters of ASCII."""
        ...

    @property
    def connections(self) -> int:
        """How many connections are open: to its server, or to that of its servers that has most."""
        ...

    async def start(self) -> None:
        """Connect, and make this instance's mailbox; within ``PATIENCE_S``.

        Raises:
            Invalid: The address or the credentials are wrong; ``field`` names the setting. Never shows a password.
            Unavailable: It cannot be reached, or does not answer.
        """
        ...

    async def close(self) -> None:
        """Close all readers, give up the mailbox, disconnect. Never raises, never takes longer than ``PATIENCE_S``."""
        ...

    async def beat(self) -> None:
        """Say that this instance lives, and make anew what a restarted broker has forgotten of it.

        The bus calls it every ``BEAT_S``. Its success is what tells that the broker is well again.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    async def join(self, channel: Channel, group: str = "") -> Reader:
        """Become a reader of a channel.

        Work sent before anybody has joined is kept for the first who does.

        Args:
            channel: What to read.
            group: For news: whose readers share it. Must be empty for work.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """Append a record.

        Returning means that the broker has it (as safely as the broker keeps anything). News for which there is no
        reader is dropped without a word.

        Args:
            channel: Where to.
            record: What.
            key: Records of one key keep their order where the broker has several lines for one channel; empty for
                any.
            within_s: How long to wait for room in a full channel (B2); 0 for not at all.

        Raises:
            Rejected: ``queue_full``: the channel holds as many records as it may, those being handled included, and
                stayed so. For news, the slowest reader counts. Nothing was appended.
            Unavailable: Whether it was appended is not known.

        Bounds: The channel's capacity, given to the adapter when it is made; nothing unhandled is ever trimmed.

        Cancellation: It was appended or not.
        """
        ...

    async def depth(self, channel: Channel) -> int:
        """Return how many records wait in the channel or are being handled; at least about.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    async def reply(self, address: str, record: bytes) -> None:
        """Put a note into a mailbox; nothing happens if there is no such mailbox.

        Raises:
            Unavailable: It may not be there.
        """
        ...

    async def tell(self, record: bytes) -> None:
        """Put a note into the mailbox of every instance, one's own included; at most once, as well as it can.

        Raises:
            Unavailable: It may be in some.
        """
        ...

    async def listen(self, wait_s: float) -> list[bytes]:
        """Return the notes in one's own mailbox, oldest first, waiting up to ``wait_s`` for the first.

        Called by one task only.

        Raises:
            Unavailable: The broker cannot be asked; call again later.

        Cancellation: Notes on their way may be lost, as when this instance ends.
        """
        ...

    async def letters(self, count: int) -> list[Letter]:
        """Return up to ``count`` dead letters, oldest first.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    async def revive(self, letter: str) -> bool:
        """Send a dead letter once more to where it was sent, as new, and only then drop it.

        Args:
            letter: Its id.

        Returns:
            Whether there was such a letter, whole.

        Raises:
            Rejected: ``queue_full``; it stays where it is.
            Unavailable: It may be in both places.
        """
        ...

    async def drop(self, letter: str) -> bool:
        """Delete a dead letter; return whether there was one.

        Raises:
            Unavailable: It may still be there.
        """
        ...
