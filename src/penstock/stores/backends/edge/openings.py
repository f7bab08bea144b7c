"""Whose turn it is among requests that wait for collections to be opened: a rule without clock and engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from penstock.kernel.errors import Rejected
from penstock.stores.backends.edge import wire


class Turns(NamedTuple):
    """What becomes of waiting batches.

    Attributes:
        first: The batch whose collection is opened now; empty if there is none.
        later: Requests that wait for another turn, in their order.
        too_late: Requests that would be answered after their requester has given up.
    """

    first: list[wire.Request]
    later: list[wire.Request]
    too_late: list[wire.Request]


def waiting_turns(waiting: Sequence[list[wire.Request]], now_s: float, opening_s: float) -> Turns:
    """Decide on batches of which each waits for one collection.

    A request is refused as soon as it is known that its turn comes too late: its requester can try again, and its
    deadline passing would be counted against the store.

    Args:
        waiting: The batches, first come first.
        now_s: The time.
        opening_s: Seconds that an opening takes.
    """
    first: list[wire.Request] = []
    later: list[wire.Request] = []
    too_late: list[wire.Request] = []
    turn = 0
    for batch in waiting:
        done_s = now_s + (turn + 1) * opening_s
        in_time: list[wire.Request] = []
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
    return Turns(first, later, too_late)


def too_late(opening_s: float) -> Rejected:
    """Return the error of a request whose turn would come too late."""
    return Rejected(
        "too many collections are being opened; try again, or allow more time",
        code="collection_opening",
        retry_after_s=max(1.0, 10 * opening_s),
    )
