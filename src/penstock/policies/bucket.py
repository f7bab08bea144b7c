"""Token buckets, and a rate limiter with one for each client (SPEC D7)."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from penstock.policies.bounds import at_least

#: Rounding of the clock must not refuse a client who waited exactly as long as it was told.
_TOLERANCE_TOKENS = 1e-4
#: Old buckets looked at for each new client.
_SWEEP = 4


class TokenBucket:
    """Lets ``burst`` pass at once and ``rate`` a second in the long run.

    Virtual scheduling (ITU-T I.371): one number, the moment when the bucket is full again; the level
    is ``burst - rate × max(0, full_at - now)``. A clock that stands still or goes back lends nothing.

    A cost above ``burst`` passes when the bucket is full and leaves a debt, so that the rate holds
    and nothing waits for ever. In any ``T`` seconds at most ``burst + rate × T`` passes, with one
    such cost more.

    Args:
        rate: Tokens a second, above 0.
        burst: Tokens at most.

    Bounds: one number.
    """

    __slots__ = ("_burst", "_full_at_s", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._full_at_s = -math.inf

    def level(self, now_s: float) -> float:
        """Return the tokens there are; negative in debt."""
        return self._burst - self._rate * self.full_in_s(now_s)

    def full_in_s(self, now_s: float) -> float:
        """Return the seconds until the bucket is full."""
        return max(0.0, self._full_at_s - now_s)

    def wait_s(self, now_s: float, cost: float = 1.0) -> float:
        """Return the seconds until ``cost`` may pass, 0 if it may now."""
        lacking = min(cost, self._burst) - self.level(now_s)
        return lacking / self._rate if lacking > _TOLERANCE_TOKENS else 0.0

    def take(self, now_s: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens if they are there."""
        if self.wait_s(now_s, cost) > 0.0:
            return False
        self._full_at_s = max(self._full_at_s, now_s) + cost / self._rate
        return True


@dataclass(frozen=True, slots=True)
class RateSettings:
    """The rate of each client.

    Attributes:
        rate: Requests a second; 0 switches the limit off.
        burst: Requests at once.
        clients_max: Clients remembered at most.
    """

    rate: float = 100.0
    burst: float = 200.0
    clients_max: int = 10_000

    def __post_init__(self) -> None:
        at_least(self, 0.0, "rate")
        at_least(self, 1, "burst", "clients_max")


@dataclass(frozen=True, slots=True)
class RateDecision:
    """Decision on one request, in the terms of draft-ietf-httpapi-ratelimit-headers.

    Attributes:
        allowed: Whether the request may pass.
        remaining: Whole requests left (``RateLimit: …;r=``).
        retry_after_s: When this request may pass (``Retry-After``), 0 if it may now.
        reset_s: When the whole quota is there again (``RateLimit: …;t=``, rounded up).
    """

    allowed: bool
    remaining: int
    retry_after_s: float
    reset_s: float


class RateLimiter:
    """Rate limiter with one token bucket for each client.

    A bucket that is full is forgotten without loss, and no other is ever forgotten: so no client
    gets more than its bucket allows, however many keys come and go. When all places hold buckets that
    are not full, clients without a place share one bucket until a place is free. Filling the places
    takes ``clients_max × rate`` requests a second.

    O(1): for each new client, four of those not seen for long are looked at.

    Bounds: ``clients_max`` buckets and one that is shared.
    """

    def __init__(self, settings: RateSettings) -> None:
        self._settings = settings
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._shared = TokenBucket(settings.rate, settings.burst)

    def __len__(self) -> int:
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"<RateLimiter {self._settings.rate:g}/s burst {self._settings.burst:g}, {len(self)} clients>"

    @property
    def enabled(self) -> bool:
        """True where there is a limit at all."""
        return self._settings.rate > 0

    @property
    def rate(self) -> float:
        """Tokens a second that each bucket gets, 0 when off."""
        return self._settings.rate

    @property
    def quota(self) -> int:
        """Requests a client may make within ``window_s`` (``RateLimit-Policy: …;q=``)."""
        return int(self._settings.burst)

    @property
    def window_s(self) -> int:
        """Whole seconds in which an empty bucket fills (``RateLimit-Policy: …;w=``), 0 when off."""
        return math.ceil(self._settings.burst / self._settings.rate) if self.enabled else 0

    def decide(self, client: str, now_s: float, cost: float = 1.0) -> RateDecision:
        """Decide about one request and charge it if it may pass.

        Args:
            client: API key or peer address.
            now_s: Seconds on the loop's clock.
            cost: Tokens of the request; 0 only looks.
        """
        if not self.enabled:
            return RateDecision(allowed=True, remaining=self.quota, retry_after_s=0.0, reset_s=0.0)
        bucket = self._bucket(client, now_s)
        wait_s = bucket.wait_s(now_s, cost)
        allowed = bucket.take(now_s, cost)
        remaining = max(0, math.floor(bucket.level(now_s) + _TOLERANCE_TOKENS))
        return RateDecision(allowed, remaining, wait_s, bucket.full_in_s(now_s))

    def _bucket(self, client: str, now_s: float) -> TokenBucket:
        bucket = self._buckets.get(client)
        if bucket is not None:
            self._buckets.move_to_end(client)
            return bucket
        self._sweep(now_s)
        if len(self._buckets) >= self._settings.clients_max:
            return self._shared
        bucket = self._buckets[client] = TokenBucket(self._settings.rate, self._settings.burst)
        return bucket

    def _sweep(self, now_s: float) -> None:
        """Forget the full ones among the oldest; put the others behind, so that all get looked at."""
        for _ in range(min(_SWEEP, len(self._buckets))):
            client, bucket = self._buckets.popitem(last=False)
            if bucket.full_in_s(now_s) > 0.0:
                self._buckets[client] = bucket
