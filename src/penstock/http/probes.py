"""A pace for what is always answered: who asks for it without pause gets its answers later, not others theirs."""

from __future__ import annotations

from typing import Final

#: Probes, scrapes and looks at the status that one address may make a second before they are slowed down.
PROBES_PER_S: Final = 500
PROBES_BURST: Final = 1000
#: One is delayed by so much at most: a probe's own patience is usually a second.
DELAY_S_MAX: Final = 0.5

_ADDRESSES_MAX: Final = 4096


class ProbePace:
    """Spreads an address's requests over time (generic cell rate algorithm, each one taking its place in advance).

    A refusal would be no help: it costs as much as the answer, and a probe that is refused has its server restarted.

    Bounds: 4096 addresses, those forgotten that have asked first.
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
        if len(self._due_s) > _ADDRESSES_MAX:
            del self._due_s[next(iter(self._due_s))]
        return delay_s
