"""What the gate asks of the topics before it lets a request in (D2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from penstock.bus.contract import Refusal
from penstock.http.endpoints import API
from penstock.http.head import Head
from penstock.kernel.context import Context, Criticality
from penstock.kernel.messages import Topic
from penstock.policies.levels import Level

_WITH_TOPICS: Final = tuple(endpoint for endpoint in API if endpoint.topics)
_PARAMETER: Final = re.compile(r"{\w+}")
#: One group for each of them.
_LEADS: Final = re.compile("|".join(f"({e.method} {_PARAMETER.sub('[^/]+', e.path)})" for e in _WITH_TOPICS))


def pressure(
    refuses: Callable[[Topic, Context, Level], Refusal | None],
) -> Callable[[str, str, Head], Refusal | None]:
    """Return what the gate asks of the topics that a method and a path lead to (D2).

    A request that says of itself that it can wait (``X-Criticality: bulk``) is refused from 80 % on: the rest of
    the buffer is for those that cannot, however many the others are (D1: producers that can slow down do).

    Args:
        refuses: Why a topic takes no more of such work, given the fill from which it takes none
            (:meth:`penstock.bus.contract.Bus.refuses`).
    """

    def pressed(method: str, path: str, head: Head) -> Refusal | None:
        found = _LEADS.fullmatch(f"{method} {path}")
        if found is None or found.lastindex is None:
            return None
        endpoint = _WITH_TOPICS[found.lastindex - 1]
        asked = head.criticality if head.criticality is not None else endpoint.criticality
        ctx = Context(head.deadline, max(asked, endpoint.criticality), head.client)
        level = Level.HIGH if ctx.criticality > max(endpoint.criticality, Criticality.STANDARD) else Level.CRITICAL
        for topic in endpoint.topics:
            refusal = refuses(topic, ctx, level)
            if refusal is not None:
                return refusal
        return None

    return pressed
