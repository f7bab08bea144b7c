"""Rate limiting across servers: each server leases tokens from buckets that all servers share.

A decision uses the tokens at hand, at once and without a request. Tokens are fetched in the background,
before the last is gone. Those not used for a while are given back. A client seen for the first time gets some on
credit, so that it need not wait. They are charged at the next exchange, into debt if need be.

From one time that a client's bucket is full to the next, ``n`` servers together let at most ``burst + rate × T + n ×
credit`` pass in ``T`` seconds, ``credit`` being a quarter of the burst: a server gives credit once, and forgets a
client only when it has been told that the bucket is full. While the shared buckets cannot be reached, each server holds
its clients to the whole rate by itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.policies.bucket import RateDecision, RateLimiter, RateSettings

#: Share of the burst that a new client gets on credit, and that is fetched at once.
BATCH_FRACTION: Final = 0.25

#: Tokens not used for so long are given back, in seconds.
IDLE_S: Final = 1.0

#: When to come back while tokens are on their way, in seconds.
TOKEN_WAIT_S: Final = 0.05

#: Old leases looked at in one sweep.
SWEPT_LEASES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Request for tokens from a client's shared bucket.

    Attributes:
        client: The client whose bucket it is.
        wanted: Tokens wanted.
        owed: Tokens used on credit; below 0, tokens given back.
    """

    client: str
    wanted: int
    owed: float


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """Tokens granted by a shared bucket.

    Attributes:
        tokens: Tokens, ours from now on.
        level: Tokens left in it; below 0, its debt.
    """

    tokens: int
    level: float


@dataclass(slots=True)
class _Lease:
    """Tokens of one client at hand, and the last known level of its shared bucket."""

    tokens: float
    owed: float
    level: float
    level_at_s: float
    seen_s: float
    wanted: int
    pending: bool = False


class LeasedLimiter(RateLimiter):
    """Rate limiter on leased tokens.

    Attributes:
        on_request: Called when there is a request to send: send :meth:`pending_requests`, then call :meth:`granted` or
            :meth:`failed`.
        is_isolated: Whether the shared buckets cannot be reached, so that this server decides alone.

    Bounds: ``clients_max`` leases; clients beyond are held to their rate by this server alone.
    """

    def __init__(self, settings: RateSettings) -> None:
        self.on_request: Callable[[], None] = lambda: None
        self.is_isolated = False
        super().__init__(settings)
        self._batch = max(1.0, math.floor(settings.burst * BATCH_FRACTION))
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._queue: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._leases) + super().__len__()

    def __repr__(self) -> str:
        how = "alone" if self.is_isolated else "shared"
        return f"<LeasedLimiter {self._settings.rate:g}/s burst {self._settings.burst:g}, {len(self)} clients, {how}>"

    def decide(self, client: str, now_s: float, cost: float = 1.0) -> RateDecision:
        """Decide about one request and charge it if it may pass; nothing is waited for."""
        lease = self._lease(client, now_s) if self.enabled and not self.is_isolated else None
        if lease is None:
            return super().decide(client, now_s, cost)
        lease.seen_s = now_s
        cost = min(cost, self._settings.burst)
        # A client of a lower rate pays several tokens for a request, maybe more than a batch has.
        lease.wanted = max(int(self._batch), math.ceil(cost))
        allowed = lease.tokens >= cost
        if allowed:
            lease.tokens -= cost
        level = self._level(lease, now_s)
        if lease.tokens < max(self._batch / 2, cost) and not lease.pending and level + lease.owed >= 1.0:
            self._request(client, lease)
        there = max(0.0, lease.tokens + level)
        wait_s = 0.0 if allowed else max(TOKEN_WAIT_S, (cost - lease.tokens - level) / self._settings.rate)
        reset_s = max(0.0, (self._settings.burst - lease.tokens - level) / self._settings.rate)
        return RateDecision(allowed, math.floor(there), wait_s, reset_s)

    def sweep(self, now_s: float) -> None:
        """Give back unused tokens and forget clients whose bucket is full. Call it periodically."""
        for _ in range(min(SWEPT_LEASES_MAX, len(self._leases))):
            client, lease = self._leases.popitem(last=False)
            if now_s - lease.seen_s >= IDLE_S and not lease.pending:
                if not (lease.tokens or lease.owed) and lease.level >= self._settings.burst:
                    continue
                if lease.tokens or lease.owed or self._level(lease, now_s) >= self._settings.burst:
                    self._request(client, lease)
            self._leases[client] = lease

    def pending_requests(self, now_s: float, requests_max: int) -> list[TokenRequest]:
        """Return at most ``requests_max`` requests to send now; call :meth:`granted` or :meth:`failed` for them."""
        asks: list[TokenRequest] = []
        while self._queue and len(asks) < requests_max:
            client = self._queue.popleft()
            lease = self._leases.get(client)
            if lease is None:
                continue
            if now_s - lease.seen_s >= IDLE_S:
                asks.append(TokenRequest(client, 0, lease.owed - lease.tokens))
                lease.tokens = 0.0
            else:
                asks.append(TokenRequest(client, lease.wanted, lease.owed))
            lease.owed = 0.0
        return asks

    def granted(self, requests: Sequence[TokenRequest], grants: Sequence[TokenGrant], now_s: float) -> None:
        """Take the granted tokens. The shared buckets can be reached."""
        if self.is_isolated:
            self.is_isolated = False
            self._leases.clear()
            self._queue.clear()
        for ask, grant in zip(requests, grants, strict=True):
            lease = self._leases.get(ask.client)
            if lease is not None:
                lease.tokens += grant.tokens
                lease.level, lease.level_at_s, lease.pending = grant.level, now_s, False

    def failed(self) -> None:
        """Decide alone from now on, until something is granted again."""
        self.is_isolated = True

    def _lease(self, client: str, now_s: float) -> _Lease | None:
        """Return a client's lease, a new one if need be; ``None`` where there is no place left."""
        lease = self._leases.get(client)
        if lease is not None:
            self._leases.move_to_end(client)
        elif len(self._leases) < self._settings.clients_max:
            credit, level = self._batch, self._settings.burst - self._batch
            lease = self._leases[client] = _Lease(credit, credit, level, now_s, now_s, int(self._batch))
        return lease

    def _level(self, lease: _Lease, now_s: float) -> float:
        """Return about how many tokens the shared bucket holds now, others' use since then left aside."""
        return min(self._settings.burst, lease.level + self._settings.rate * (now_s - lease.level_at_s))

    def _request(self, client: str, lease: _Lease) -> None:
        lease.pending = True
        self._queue.append(client)
        self.on_request()
