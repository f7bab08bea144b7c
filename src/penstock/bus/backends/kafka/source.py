"""What a reader reads from: a share of a topic, or all of it."""

from __future__ import annotations

from typing import Any, Final, Protocol

from aiokafka import TopicPartition

#: How long one question for records may stand at the broker. An answer to one partition ends the question for all, so
#: what is asked for anew waits at most so long; shorter only costs more questions of those who are idle.
STAND_MS: Final = 100
#: How long a reader looks at the same partitions before it looks which are its own.
LOOK_MS: Final = 200


class Source(Protocol):
    """Where records come from, and where it is noted what became of them."""

    async def joined(self) -> None:
        """Wait until it is settled who reads what."""
        ...

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """Return up to about ``count`` records, oldest first in each partition; none after a while without any.

        Raises:
            Unavailable: The broker is in trouble.
            Invalid: We may not.
        """
        ...

    def take(self, partition: TopicPartition, offset: int) -> int:
        """Note that a record is handed out; return how many died over it, -1 if it is not to be handed out."""
        ...

    def done(self, partition: TopicPartition, offset: int) -> None:
        """Note that a record is done with."""
        ...

    def elsewhere(self, topic: str) -> list[int]:
        """Return the partitions of a topic that other members read, or soon will."""
        ...

    async def leave(self, topic: str) -> None:
        """Read this topic no more."""
        ...
