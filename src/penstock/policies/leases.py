"""One rate for each client over several servers: each holds tokens on lease from buckets that all share.

A decision is made of the tokens at hand, at once and without asking anybody. Tokens are fetched in the background,
before the last is gone; those not used for a while are given back. A client seen for the first time gets some on
credit, so that it need not wait; they are charged at the next exchange, into debt if need be.

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

from penstock.policies.bucket import Decision, RateLimiter, RateSettings

#: Share of the burst that a new client gets on credit, and that is fetched at once.
BATCH_SHARE: Final = 0.25

#: Tokens not used for so long are given back, in seconds.
IDLE_S: Final = 1.0

#: When to come back while tokens are on their way, in seconds.
SOON_S: Final = 0.05

#: Old leases looked at in one sweep.
SWEEP: Final = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a client's shared bucket.

    Attributes:
        client: Whose it is.
        want: Tokens wanted.
        owed: Tokens used on credit; below 0, tokens given back.
    """

    client: str
    want: int
    owed: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What a shared bucket gives.

    Attributes:
        tokens: Tokens, ours from now on.
        level: What is left in it; below 0, its debt.
    """

    tokens: int
    level: float


class _Lease:
    """The tokens of one client at hand, and what was last heard of its shared bucket."""

    __slots__ = ("asked", "heard_s", "level", "owed", "seen_s", "tokens")

    def __init__(self, credit: float, level: float, now_s: float) -> None:
        self.tokens = credit
        self.owed = credit
        self.level = level
        self.heard_s = now_s
        self.seen_s = now_s
        self.asked = False


def nobody_waits() -> None:
    """Hear that something is to be asked and do nothing."""


class LeasedLimiter:
    """See :class:`penstock.policies.bucket.Limiter`; call :meth:`due`, ask, then :meth:`granted` or :meth:`failed`.

    Args:
        settings: Rate, burst and bound.

    Attributes:
        on_want: Called when there is something to ask.
        lost: Whether the shared buckets cannot be reached, so that this server decides alone.

    Bounds: ``clients_max`` leases; clients beyond are held to their rate by this server alone.
    """

    def __init__(self, settings: RateSettings) -> None:
        self.on_want: Callable[[], None] = nobody_waits
        self.lost = False
        self._settings = settings
        self._alone = RateLimiter(settings)
        self._batch = max(1.0, math.floor(settings.burst * BATCH_SHARE))
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._queue: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._leases) + len(self._alone)

    def __repr__(self) -> str:
        how = "alone" if self.lost else "shared"
        return f"<LeasedLimiter {self._settings.rate:g}/s burst {self._settings.burst:g}, {len(self)} clients, {how}>"

    @property
    def enabled(self) -> bool:
        """Whether there is a limit at all."""
        return self._alone.enabled

    @property
    def quota(self) -> int:
        """Requests a client may make within ``window_s``."""
        return self._alone.quota

    @property
    def window_s(self) -> int:
        """Whole seconds in which an empty bucket fills."""
        return self._alone.window_s

    def decide(self, client: str, now_s: float, cost: float = 1.0) -> Decision:
        """Decide about one request and charge it if it may pass; nothing is waited for."""
        lease = self._lease(client, now_s) if self.enabled and not self.lost else None
        if lease is None:
            return self._alone.decide(client, now_s, cost)
        lease.seen_s = now_s
        allowed = lease.tokens >= cost
        if allowed:
            lease.tokens -= cost
        level = self._level(lease, now_s)
        if lease.tokens < self._batch / 2 and not lease.asked and level + lease.owed >= 1.0:
            self._want(client, lease)
        there = max(0.0, lease.tokens + level)
        wait_s = 0.0 if allowed else max(SOON_S, (cost - lease.tokens - level) / self._settings.rate)
        reset_s = max(0.0, (self._settings.burst - lease.tokens - level) / self._settings.rate)
        return Decision(allowed, math.floor(there), wait_s, reset_s)

    def sweep(self, now_s: float) -> None:
        """Give back what is not used, and forget those whose bucket is told to be full; call it now and then."""
        for _ in range(min(SWEEP, len(self._leases))):
            client, lease = self._leases.popitem(last=False)
            if now_s - lease.seen_s >= IDLE_S and not lease.asked:
                if not (lease.tokens or lease.owed) and lease.level >= self._settings.burst:
                    continue
                if lease.tokens or lease.owed or self._level(lease, now_s) >= self._settings.burst:
                    self._want(client, lease)
            self._leases[client] = lease

    def due(self, now_s: float, most: int) -> list[Ask]:
        """Return what is to be asked now, at most so many; each is :meth:`granted` or :meth:`failed` afterwards."""
        asks: list[Ask] = []
        while self._queue and len(asks) < most:
            client = self._queue.popleft()
            lease = self._leases.get(client)
            if lease is None:
                continue
            if now_s - lease.seen_s >= IDLE_S:
                asks.append(Ask(client, 0, lease.owed - lease.tokens))
                lease.tokens = 0.0
            else:
                asks.append(Ask(client, int(self._batch), lease.owed))
            lease.owed = 0.0
        return asks

    def granted(self, asks: Sequence[Ask], grants: Sequence[Grant], now_s: float) -> None:
        """Take what was asked for; the shared buckets can be reached."""
        if self.lost:
            self.lost = False
            self._leases.clear()
            self._queue.clear()
        for ask, grant in zip(asks, grants, strict=True):
            lease = self._leases.get(ask.client)
            if lease is not None:
                lease.tokens += grant.tokens
                lease.level, lease.heard_s, lease.asked = grant.level, now_s, False

    def failed(self) -> None:
        """Decide alone from now on, until something is granted again."""
        self.lost = True

    def _lease(self, client: str, now_s: float) -> _Lease | None:
        """Return a client's lease, a new one if need be; ``None`` where there is no place left."""
        lease = self._leases.get(client)
        if lease is not None:
            self._leases.move_to_end(client)
        elif len(self._leases) < self._settings.clients_max:
            lease = self._leases[client] = _Lease(self._batch, self._settings.burst - self._batch, now_s)
        return lease

    def _level(self, lease: _Lease, now_s: float) -> float:
        """Return about how many tokens the shared bucket holds now, others' use since then left aside."""
        return min(self._settings.burst, lease.level + self._settings.rate * (now_s - lease.heard_s))

    def _want(self, client: str, lease: _Lease) -> None:
        lease.asked = True
        self._queue.append(client)
        self.on_want()
