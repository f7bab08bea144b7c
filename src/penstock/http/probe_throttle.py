"""Probe throttle: an address that floods health checks and scrapes gets its answers later instead of refusals."""

from __future__ import annotations

from typing import Final

#: Probes, scrapes and status requests that one address may make a second before they are delayed.
PROBES_PER_S: Final = 500
PROBES_BURST: Final = 1000
#: Maximum delay of one request in seconds. A probe usually times out after a second.
DELAY_S_MAX: Final = 0.5

_TRACKED_ADDRESSES_MAX: Final = 4096


class ProbeThrottle:
    """Paces the requests of each address (generic cell rate algorithm, each request reserving its slot in advance).

    A refusal would cost as much as the answer, and a refused probe makes an orchestrator restart the server.

    Bounds: 4096 addresses, the least recently seen dropped first.
    """

    __slots__ = ("_due_s",)

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._due_s)

    def delay_s(self, address: str, now_s: float) -> float:
        """Return how long a request should wait, and count it.

        Args:
            address: Who asks.
            now_s: Now, on the loop's clock.
        """
        burst_s = PROBES_BURST / PROBES_PER_S
        due_s = max(self._due_s.pop(address, 0.0), now_s) + 1 / PROBES_PER_S
        delay_s = min(max(0.0, due_s - now_s - burst_s), DELAY_S_MAX)
        self._due_s[address] = min(due_s, now_s + burst_s + DELAY_S_MAX)
        if len(self._due_s) > _TRACKED_ADDRESSES_MAX:
            del self._due_s[next(iter(self._due_s))]
        return delay_s
