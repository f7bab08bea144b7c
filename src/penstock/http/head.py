"""What a request's head says of its work, read before anything of its body is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.kernel.context import Criticality
from penstock.kernel.deadline import Deadline

#: Classes of work as callers write them, the most urgent first.
CRITICALITIES: Final = {criticality.name.lower(): criticality for criticality in Criticality}

_SAID: Final = {name.encode(): criticality for name, criticality in CRITICALITIES.items()}
_NEVER: Final = Deadline.never()
#: More digits than any time limit has.
_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class Head:
    """Who asks, how urgently, until when. What cannot be understood is left for the route to refuse.

    Attributes:
        client: API key or peer address.
        criticality: The class that was asked for; ``None`` for none.
        deadline: From ``X-Request-Timeout-Ms``; never without it.
    """

    client: str
    criticality: Criticality | None = None
    deadline: Deadline = _NEVER


def head_of(headers: Mapping[bytes, bytes], client: str, now_s: float) -> Head:
    """Read a request's headers.

    Args:
        headers: By lower-case name.
        client: API key or peer address.
        now_s: When it arrived, on the loop's clock.
    """
    said = headers.get(b"x-criticality")
    criticality = _SAID.get(said.strip().lower()) if said is not None else None
    wish_ms = headers.get(b"x-request-timeout-ms", b"").strip()
    if wish_ms.isdigit() and len(wish_ms) <= _DIGITS_MAX:
        return Head(client, criticality, Deadline(now_s + int(wish_ms) / 1000, "request"))
    return Head(client, criticality)
