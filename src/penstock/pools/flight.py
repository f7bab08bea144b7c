"""Single flight: the same work asked for twice at once is done once.

Who asks first for a key leads: does the work and hands the result to those who follow. A leader who
goes away hands the lead over to a follower, so nobody suffers from another one's hanging up.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from penstock.kernel.context import Context
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected

V = TypeVar("V")

#: How often a flight changes its leader because the last one's work was refused or expired; then the
#: error goes to all, as the next one's would.
HANDOVERS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class _Landed(Generic[V]):
    value: V


@dataclass(slots=True, eq=False)
class _Flight(Generic[V]):
    """One key on its way.

    Attributes:
        ctx: The label of who leads now.
        seats: Those who follow: each one's future with its label. It is resolved with the result,
            with an error, or with a flight: lead it from here.
    """

    key: bytes
    ctx: Context
    seats: dict[asyncio.Future[_Landed[V] | Exception | _Flight[V]], Context] = field(default_factory=dict)
    landed: _Landed[V] | None = None
    handovers: int = 0


#: What a follower waits for.
_Seat: TypeAlias = asyncio.Future[_Landed[V] | Exception | _Flight[V]]

#: Does the work for some keys; tells each result by the function it is given, as early as it can.
Fly = Callable[[list[bytes], Callable[[bytes, V], None]], Awaitable[None]]


class SingleFlight(Generic[V]):
    """Keys being worked on.

    Nobody follows a leader of a lower class: an interactive query would wait as long as the bulk work
    does. It does the work itself instead, in a flight of its own beside the other; later ones follow the
    latest flight that is urgent enough for them.

    Bounds: a flight and a seat for each key that somebody waits for; no task of its own.
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, list[_Flight[V]]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, keys: Sequence[bytes], ctx: Context, fly: Fly[V]) -> dict[bytes, V]:
        """Return the value of each key, doing the work for those that nobody does already.

        What happens to followers when a leader fails:

        - it is cancelled: the most urgent follower, with the latest deadline among its like, leads on;
        - ``Rejected`` or ``Expired``, which speak of the leader's own place and time: followers of the same client
          with no more time get the same error, and one of the others leads on;
        - any other error: every follower gets it. It is not remembered; who asks next tries again.

        Args:
            keys: What is wanted; the same one twice counts once.
            ctx: The asker's label; it waits for others no longer than its deadline.
            fly: Does the work.

        Raises:
            Expired: The asker's deadline passed while another did the work.
            Broken: ``fly`` did not tell every result.

        Cancellation: Leads are handed over, seats given up; nothing is left behind.
        """
        values: dict[bytes, V] = {}
        leading, seats = self._board(keys, ctx, values)
        try:
            while leading or seats:
                if leading:
                    led, leading = leading, []
                    await self._lead(led, fly, values)
                else:
                    async with limit(ctx.deadline):
                        await asyncio.wait(seats, return_when=asyncio.FIRST_COMPLETED)
                for seat in [seat for seat in seats if seat.done()]:
                    key, verdict = seats.pop(seat), seat.result()
                    if isinstance(verdict, _Flight) and self._overtaken(verdict):
                        more, further = self._board([key], ctx, values)
                        leading += more
                        seats |= further
                    elif isinstance(verdict, _Flight):
                        leading.append(verdict)
                    elif isinstance(verdict, _Landed):
                        values[key] = verdict.value
                    else:
                        # A copy: one instance raised in many tasks would gather all their tracebacks.
                        raise copy.copy(verdict) if isinstance(verdict, PenstockError) else verdict
        finally:
            for flight in leading:
                self._hand_over(flight)
            for seat, key in seats.items():
                self._leave(key, seat)
        return values

    def _board(
        self, keys: Iterable[bytes], ctx: Context, values: dict[bytes, V]
    ) -> tuple[list[_Flight[V]], dict[_Seat[V], bytes]]:
        """Find a place for each key: the lead, a seat, or the result if it has just landed."""
        leading: list[_Flight[V]] = []
        seats: dict[_Seat[V], bytes] = {}
        loop = asyncio.get_running_loop()
        for key in dict.fromkeys(keys):
            flight = self._to_follow(key, ctx)
            if flight is None:
                flight = _Flight(key, ctx)
                self._flights.setdefault(key, []).append(flight)
                leading.append(flight)
            elif flight.landed is not None:
                values[key] = flight.landed.value
            else:
                seat = loop.create_future()
                flight.seats[seat] = ctx
                seats[seat] = key
        return leading, seats

    def _to_follow(self, key: bytes, ctx: Context) -> _Flight[V] | None:
        """Return the latest flight of a key that has landed, or whose leader is urgent enough."""
        for flight in reversed(self._flights.get(key, ())):
            if flight.landed is not None or flight.ctx.criticality <= ctx.criticality:
                return flight
        return None

    async def _lead(self, flights: Sequence[_Flight[V]], fly: Fly[V], values: dict[bytes, V]) -> None:
        by_key = {flight.key: flight for flight in flights}

        def land(key: bytes, value: V) -> None:
            values[key] = value
            flight = by_key[key]
            flight.landed = _Landed(value)
            _resolve(flight, list(flight.seats), flight.landed)

        try:
            await fly(list(by_key), land)
        except BaseException as error:
            for flight in flights:
                self._end(flight, error)
            raise
        for flight in flights:
            self._end(flight, Broken("the work for several ended without a result for each"))
        if any(flight.landed is None for flight in flights):
            raise Broken("the work for several ended without a result for each")

    def _end(self, flight: _Flight[V], error: BaseException) -> None:
        """Take a flight from the board; if it did not land, decide what becomes of its followers."""
        if flight.landed is not None:
            self._take_off(flight)
        elif not isinstance(error, Exception):
            self._hand_over(flight)
        else:
            self._fail(flight, error)

    def _fail(self, flight: _Flight[V], error: Exception) -> None:
        flight.handovers += 1
        personal = isinstance(error, Rejected | Expired) and flight.handovers <= HANDOVERS_MAX
        led = flight.ctx
        failed = [
            seat
            for seat, ctx in flight.seats.items()
            if not personal or (ctx.client == led.client and ctx.deadline.at_s <= led.deadline.at_s)
        ]
        _resolve(flight, failed, error)
        self._hand_over(flight)

    def _hand_over(self, flight: _Flight[V]) -> None:
        """Let the most urgent follower lead; if another flight is as good for it, all change to that one."""
        self._take_off(flight)
        if not flight.seats:
            return
        heir = min(flight.seats, key=lambda seat: _urgency(flight.seats[seat]))
        ctx = flight.seats[heir]
        other = self._to_follow(flight.key, ctx)
        if other is None:
            flight.ctx = ctx
            self._flights.setdefault(flight.key, []).append(flight)
            _resolve(flight, [heir], flight)
        elif other.landed is not None:
            _resolve(flight, list(flight.seats), other.landed)
        else:
            other.seats.update(flight.seats)
            flight.seats.clear()

    def _overtaken(self, flight: _Flight[V]) -> bool:
        """Whether a more urgent caller has begun since this flight was handed over; all change to that one then."""
        other = self._to_follow(flight.key, flight.ctx)
        if other is None or other is flight:
            return False
        self._take_off(flight)
        if other.landed is not None:
            _resolve(flight, list(flight.seats), other.landed)
        else:
            other.seats.update(flight.seats)
            flight.seats.clear()
        return True

    def _leave(self, key: bytes, seat: _Seat[V]) -> None:
        """Give a seat up; one who was just told to lead passes the lead on."""
        if seat.done():
            verdict = seat.result()
            if isinstance(verdict, _Flight):
                self._hand_over(verdict)
            return
        for flight in self._flights[key]:
            flight.seats.pop(seat, None)

    def _take_off(self, flight: _Flight[V]) -> None:
        flights = self._flights[flight.key]
        flights.remove(flight)
        if not flights:
            del self._flights[flight.key]


def _urgency(ctx: Context) -> tuple[int, float]:
    return ctx.criticality, -ctx.deadline.at_s


def _resolve(
    flight: _Flight[V],
    seats: Sequence[_Seat[V]],
    verdict: _Landed[V] | Exception | _Flight[V],
) -> None:
    for seat in seats:
        del flight.seats[seat]
        seat.set_result(verdict)
