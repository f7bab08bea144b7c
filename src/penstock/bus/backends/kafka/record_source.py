"""Source of a Kafka reader's records: a group's share of a topic, or all of it."""

from __future__ import annotations

from typing import Any, Final, Protocol

from aiokafka import TopicPartition

#: How long one fetch request may wait at the broker. An answer for one partition ends the request for all, so
#: a newly wanted partition waits at most so long; shorter only costs idle readers more requests.
LONG_POLL_MS: Final = 100
#: How long a reader polls the same partitions before it checks which are its own.
POLL_MS: Final = 200


class RecordSource(Protocol):
    """Source of a reader's records; it also keeps track of what became of them."""

    async def wait_joined(self) -> None:
        """Wait until the partitions are assigned."""
        ...

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """Return up to about ``count`` records, oldest first in each partition; none after a while without any.

        Raises:
            Unavailable: The broker is in trouble.
            Invalid: Not authorised.
        """
        ...

    def track(self, partition: TopicPartition, offset: int) -> int:
        """Note that a record is handed out; return how many owners died over it, -1 if it is not to be handed out."""
        ...

    def mark_done(self, partition: TopicPartition, offset: int) -> None:
        """Note that a record is done with."""
        ...

    def foreign_partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic that other members read, or soon will."""
        ...

    async def leave(self, topic: str) -> None:
        """Stop reading this topic."""
        ...
