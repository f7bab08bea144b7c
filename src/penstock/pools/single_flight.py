"""Single flight: the same work asked for twice at once is done once.

The first caller of a key leads: it does the work and hands the result to its followers. A leader that
goes away hands the lead over to a follower, so no caller suffers from another one's disconnect.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from penstock.kernel.context import Context, enforce_deadline
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected

V = TypeVar("V")

#: How often a flight changes its leader because the last one's work was refused or expired; then the
#: error goes to all, as the next one's would.
HANDOVERS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class _Completed(Generic[V]):
    value: V


@dataclass(slots=True, eq=False)
class _Flight(Generic[V]):
    """Work on one key: its leader and its followers.

    Attributes:
        ctx: The context of the present leader.
        waiters: The followers: each one's future with its context. It is resolved with the result,
            with an error, or with a flight that the follower leads from then on.
    """

    key: bytes
    ctx: Context
    waiters: dict[asyncio.Future[_Completed[V] | Exception | _Flight[V]], Context] = field(default_factory=dict)
    completed: _Completed[V] | None = None
    handovers: int = 0


#: What a follower waits for.
_Waiter: TypeAlias = asyncio.Future[_Completed[V] | Exception | _Flight[V]]

#: Does the work for some keys; passes each result to the function it is given, as early as it can.
DoWork = Callable[[list[bytes], Callable[[bytes, V], None]], Awaitable[None]]


class SingleFlight(Generic[V]):
    """Single flight by key: concurrent callers of one key share one piece of work.

    No caller follows a leader of a lower class: an interactive query would wait as long as the bulk work
    does. It does the work itself instead, in a flight of its own beside the other. Later ones follow the
    latest flight that is urgent enough for them.

    Bounds: a flight for each key that is wanted, a future for each follower; no task of its own.
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, list[_Flight[V]]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, keys: Sequence[bytes], ctx: Context, do_work: DoWork[V]) -> dict[bytes, V]:
        """Return the value of each key, doing the work only for keys without a flight to follow.

        The same key twice counts once. Others are waited for no longer than the deadline in ``ctx``.

        What happens to followers when a leader fails:

        - it is cancelled: the most urgent follower, with the latest deadline among its like, leads on;
        - ``Rejected`` or ``Expired``, which speak of the leader's own place and time: followers of the same client
          with no more time get the same error, and one of the others leads on;
        - any other error: every follower gets it. It is not remembered; the next caller tries again.

        Raises:
            Expired: The caller's deadline passed while another did the work.
            Broken: ``do_work`` did not return every result.

        Cancellation: Leads are handed over, waiting futures removed; nothing is left behind.
        """
        values: dict[bytes, V] = {}
        leading, seats = self._join(keys, ctx, values)
        try:
            while leading or seats:
                if leading:
                    led, leading = leading, []
                    await self._lead(led, do_work, values)
                else:
                    async with enforce_deadline(ctx.deadline):
                        await asyncio.wait(seats, return_when=asyncio.FIRST_COMPLETED)
                for seat in [seat for seat in seats if seat.done()]:
                    key, verdict = seats.pop(seat), seat.result()
                    if isinstance(verdict, _Flight) and self._superseded(verdict):
                        more, further = self._join([key], ctx, values)
                        leading += more
                        seats |= further
                    elif isinstance(verdict, _Flight):
                        leading.append(verdict)
                    elif isinstance(verdict, _Completed):
                        values[key] = verdict.value
                    else:
                        # A copy: one instance raised in many tasks would gather all their tracebacks.
                        raise copy.copy(verdict) if isinstance(verdict, PenstockError) else verdict
        finally:
            # Leads that have not begun; `_lead` has ended those that have.
            for flight in leading:
                self._hand_over(flight)
            for seat, key in seats.items():
                self._leave(key, seat)
        return values

    def _join(
        self, keys: Iterable[bytes], ctx: Context, values: dict[bytes, V]
    ) -> tuple[list[_Flight[V]], dict[_Waiter[V], bytes]]:
        """Find for each key a flight to lead, one to follow, or the result of one that has just completed."""
        leading: list[_Flight[V]] = []
        seats: dict[_Waiter[V], bytes] = {}
        loop = asyncio.get_running_loop()
        for key in dict.fromkeys(keys):
            flight = self._find_joinable(key, ctx)
            if flight is None:
                flight = _Flight(key, ctx)
                self._flights.setdefault(key, []).append(flight)
                leading.append(flight)
            elif flight.completed is not None:
                values[key] = flight.completed.value
            else:
                seat = loop.create_future()
                flight.waiters[seat] = ctx
                seats[seat] = key
        return leading, seats

    def _find_joinable(self, key: bytes, ctx: Context) -> _Flight[V] | None:
        """Return the latest flight of a key that has completed, or whose leader is urgent enough."""
        for flight in reversed(self._flights.get(key, ())):
            if flight.completed is not None or flight.ctx.criticality <= ctx.criticality:
                return flight
        return None

    async def _lead(self, flights: Sequence[_Flight[V]], do_work: DoWork[V], values: dict[bytes, V]) -> None:
        by_key = {flight.key: flight for flight in flights}

        def land(key: bytes, value: V) -> None:
            values[key] = value
            flight = by_key[key]
            flight.completed = _Completed(value)
            _resolve(flight, list(flight.waiters), flight.completed)

        try:
            await do_work(list(by_key), land)
        except BaseException as error:
            # Cancellation too: followers must not wait for a leader that is gone.
            for flight in flights:
                self._end(flight, error)
            raise
        for flight in flights:
            # A completed flight is only removed by this.
            self._end(flight, Broken("shared work ended without a result for every key"))
        if any(flight.completed is None for flight in flights):
            raise Broken("shared work ended without a result for every key")

    def _end(self, flight: _Flight[V], error: BaseException) -> None:
        """Remove a flight; if it did not complete, decide what becomes of its followers."""
        if flight.completed is not None:
            self._remove(flight)
        elif not isinstance(error, Exception):
            # Cancelled: the leader has left, which says nothing about the work.
            self._hand_over(flight)
        else:
            self._fail(flight, error)

    def _fail(self, flight: _Flight[V], error: Exception) -> None:
        flight.handovers += 1
        personal = isinstance(error, Rejected | Expired) and flight.handovers <= HANDOVERS_MAX
        led = flight.ctx
        # The leader's rate or deadline says nothing about other clients, or about those with more time.
        failed = [
            seat
            for seat, ctx in flight.waiters.items()
            if not personal or (ctx.client == led.client and ctx.deadline.at_s <= led.deadline.at_s)
        ]
        _resolve(flight, failed, error)
        self._hand_over(flight)

    def _hand_over(self, flight: _Flight[V]) -> None:
        """Let the most urgent follower lead; if another flight is as good for it, all change to that one."""
        self._remove(flight)
        if not flight.waiters:
            return
        heir = min(flight.waiters, key=lambda seat: _urgency(flight.waiters[seat]))
        ctx = flight.waiters[heir]
        other = self._find_joinable(flight.key, ctx)
        if other is None:
            flight.ctx = ctx
            self._flights.setdefault(flight.key, []).append(flight)
            _resolve(flight, [heir], flight)
        elif other.completed is not None:
            _resolve(flight, list(flight.waiters), other.completed)
        else:
            other.waiters.update(flight.waiters)
            flight.waiters.clear()

    def _superseded(self, flight: _Flight[V]) -> bool:
        """Move the followers to a more urgent flight begun since the hand-over; return whether there is one."""
        other = self._find_joinable(flight.key, flight.ctx)
        if other is None or other is flight:
            return False
        self._remove(flight)
        if other.completed is not None:
            _resolve(flight, list(flight.waiters), other.completed)
        else:
            other.waiters.update(flight.waiters)
            flight.waiters.clear()
        return True

    def _leave(self, key: bytes, seat: _Waiter[V]) -> None:
        """Stop waiting; a follower that was just told to lead passes the lead on."""
        if seat.done():
            verdict = seat.result()
            if isinstance(verdict, _Flight):
                self._hand_over(verdict)
            return
        # The future may have moved to another flight of the key.
        for flight in self._flights[key]:
            flight.waiters.pop(seat, None)

    def _remove(self, flight: _Flight[V]) -> None:
        flights = self._flights[flight.key]
        flights.remove(flight)
        if not flights:
            del self._flights[flight.key]


def _urgency(ctx: Context) -> tuple[int, float]:
    return ctx.criticality, -ctx.deadline.at_s


def _resolve(
    flight: _Flight[V],
    seats: Sequence[_Waiter[V]],
    verdict: _Completed[V] | Exception | _Flight[V],
) -> None:
    for seat in seats:
        del flight.waiters[seat]
        seat.set_result(verdict)
