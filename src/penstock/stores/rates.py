"""The shared buckets of clients' rates as the rest of the house sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.policies.leases import Ask, Grant


class TokenSource(Protocol):
    """Buckets, one for each client, that several servers take tokens from."""

    async def reserve(self, asks: Sequence[Ask], rate: float, burst: float) -> list[Grant]:
        """Take tokens for several clients in one exchange; asked for none, it tells whether it can be reached.

        Args:
            asks: What is wanted, owed or given back.
            rate: Tokens a second that each bucket gets.
            burst: Tokens that it holds at most.

        Raises:
            Unavailable: It cannot be reached; what was asked may have been taken.
        """
        ...
