"""Bodies that are still arriving, by client: each client has a share of the places, and beyond it its slowest go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock.kernel.errors import Rejected

if TYPE_CHECKING:
    from penstock.http.conversation import Conversation

#: One of so many parts of the requests in flight may be unfinished bodies of one client (H3).
SHARE: Final = 4


class SlowUploads(Rejected):
    """The client has too many unfinished bodies; this one has been arriving for longest."""

    code = "slow_uploads"

    def __init__(self) -> None:
        detail = "too many of this client's bodies are unfinished and this is the slowest; send fewer at a time"
        super().__init__(detail, by_client=True)


class Uploads:
    """Unfinished bodies by client and by address.

    A key is not checked, so one attacker may use many. The address bounds those too.

    Args:
        in_flight_max: Requests in flight at most.

    Bounds: one entry for each request in flight and each of its owners.
    """

    __slots__ = ("_by_owner", "_each_max")

    def __init__(self, in_flight_max: int) -> None:
        self._each_max = max(1, in_flight_max // SHARE)
        self._by_owner: dict[str, dict[Conversation, None]] = {}

    def __len__(self) -> int:
        return len({one for of_owner in self._by_owner.values() for one in of_owner})

    def begin(self, conversation: Conversation, owners: Iterable[str]) -> None:
        """Count a body, and stop the slowest of an owner who has too many."""
        for owner in owners:
            of_owner = self._by_owner.setdefault(owner, {})
            of_owner[conversation] = None
            if len(of_owner) > self._each_max:
                slowest = next(iter(of_owner))
                del of_owner[slowest]
                slowest.stop(SlowUploads())

    def end(self, conversation: Conversation, owners: Iterable[str]) -> None:
        """Count a body no more: it is whole, or its request has ended."""
        for owner in owners:
            of_owner = self._by_owner.get(owner)
            if of_owner is not None:
                of_owner.pop(conversation, None)
                if not of_owner:
                    del self._by_owner[owner]
