"""How often and after how long a refused request is sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_DELAY_S: Final = 0.5
DELAY_S_MAX: Final = 15.0


@dataclass(frozen=True, slots=True)
class Patience:
    """A bound on repeating one request.

    Attributes:
        attempts_max: Attempts in all, the first one included.
    """

    attempts_max: int

    def delay_s(self, attempt: int, retry_after_s: float | None, chance: float) -> float | None:
        """Return how long to wait before the next attempt, ``None`` to give up.

        The server's wish or an exponential delay, whichever is longer, and up to half of it on top: clients that were
        refused together should not come back together.

        Args:
            attempt: Attempts made so far, from 1.
            retry_after_s: The ``Retry-After`` of the refusal, if it had one.
            chance: Uniform in [0, 1).
        """
        if attempt >= self.attempts_max:
            return None
        delay_s = max(retry_after_s or 0.0, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 10))
        return min(delay_s, DELAY_S_MAX) * (1 + chance / 2)
