"""Timer wheel, one for each event loop: a deadline costs a dict entry, not a timer of the loop."""

from __future__ import annotations

import asyncio
import math
from heapq import heappop, heappush
from operator import attrgetter
from typing import Protocol

#: Ticks a second: whole milliseconds, as uvloop's timers. Timers less than ``NEAR_S`` ahead expire on the next tick,
#: others on the next eighth tick.
TICKS = 1000
COARSE_TICKS = 8
NEAR_S = 0.125
#: Timers farther ahead are looked at again ``FAR_S / 2`` before their time: few slots, however far they are.
FAR_S = 64.0
#: A tick no loop's clock reaches: nothing is armed.
NO_TICK = 1 << 62
#: What the loop's clock may be short of a tick when it fires the tick's timer, in ticks.
EARLY_TICKS_MAX = 1e-6


class Timer(Protocol):
    """Timer on a wheel: set it with :func:`start_timer`, take it out with :func:`cancel_timer`.

    Attributes:
        at_s: When it expires, on the loop's clock; not changed while it is in a wheel.
        slot: Its slot in the wheel; ``None`` while it is in none.
    """

    at_s: float
    slot: Slot | None

    def expire(self) -> None:
        """Handle the expiry. An error goes to the loop's exception handler; the other timers expire all the same."""


#: The timers of one tick, in the order in which they were added.
Slot = dict[Timer, None]
_BY_TIME = attrgetter("at_s")


class TimerWheel:
    """Timers of one event loop, driven by a single timer of the loop.

    A timer never expires early: at most a tick late when it is near (1 ms), eight when it is far (8 ms), and
    never later than the loop itself is. Timers due together expire in the order of their times, those of equal
    times in the order in which they were added. One added while others expire waits for the loop's next step,
    even if it is due. Adding and cancelling are O(1). An empty wheel has no more than one loop timer pending,
    which expires nothing.

    Bounds: as many entries as there are timers; a slot for each tick of the next 64 s, and for each second
    beyond, that a timer was set for.
    """

    __slots__ = ("_armed_tick", "_loop", "_slots", "_ticks", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, Slot] = {}
        self._ticks: list[int] = []
        self._armed_tick = NO_TICK
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def __repr__(self) -> str:
        return f"<TimerWheel {len(self)} alarms in {len(self._slots)} slots>"

    def add(self, timer: Timer, now_s: float) -> None:
        """Expire ``timer`` at its time; one of no finite time never expires.

        Args:
            timer: Not in a wheel now.
            now_s: On the loop's clock; it only decides how fine the tick is.
        """
        at_s = timer.at_s
        if NEAR_S <= at_s - now_s < FAR_S:  # nearly all are: no further call
            tick = math.ceil(at_s * (TICKS / COARSE_TICKS)) * COARSE_TICKS
            slot = self._slots.get(tick)
            if slot is not None:
                slot[timer] = None
                timer.slot = slot
                return
        else:
            tick = _tick_of(at_s, now_s)
        if tick < NO_TICK:
            self._insert(timer, tick)

    def _insert(self, alarm: Timer, tick: int) -> None:
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = {}
            heappush(self._ticks, tick)
            if tick < self._armed_tick:
                self._arm(tick)
        slot[alarm] = None
        alarm.slot = slot

    def _arm(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_tick = tick
        self._timer = self._loop.call_at(tick / TICKS, self._on_tick)

    def _on_tick(self) -> None:
        """Expire what is due, then wait for the next slot that is not empty."""
        self._timer, self._armed_tick = None, -1  # while it turns, nothing that is added arms
        now_s = self._loop.time()
        reached = math.floor(now_s * TICKS + EARLY_TICKS_MAX)
        due = self._pop_due(reached)
        try:
            for alarm in sorted(due, key=_BY_TIME) if len(due) > 1 else tuple(due):
                if alarm.slot is not due:  # cancelled by one that expired before it
                    continue
                del due[alarm]
                alarm.slot = None
                if alarm.at_s > now_s:  # a far one that has come near, or the loop was a hair early
                    self._insert(alarm, max(reached + 1, _tick_of(alarm.at_s, now_s)))
                else:
                    self._expire(alarm)
        finally:
            self._armed_tick = NO_TICK
            if self._ticks:
                self._arm(self._ticks[0])

    def _pop_due(self, reached: int) -> Slot:
        """Take out the slots up to the tick, and empty ones after it; return what is in them as one."""
        ticks, slots = self._ticks, self._slots
        due: Slot = {}
        while ticks and (ticks[0] <= reached or not slots[ticks[0]]):
            slot = slots.pop(heappop(ticks))
            if not due:
                due = slot
                continue
            due.update(slot)
            for alarm in slot:
                alarm.slot = due
        return due

    def _expire(self, alarm: Timer) -> None:
        try:
            alarm.expire()
        except Exception as error:  # noqa: BLE001 - one timer's bug takes no deadline from the others
            context = {"message": f"an alarm raised: {alarm!r}", "exception": error}
            self._loop.call_exception_handler(context)


def _tick_of(at_s: float, now_s: float) -> int:
    """Return the tick on which to look at a timer."""
    ahead_s = at_s - now_s
    if ahead_s < NEAR_S:
        return math.ceil(at_s * TICKS)
    if ahead_s < FAR_S:
        return math.ceil(at_s * (TICKS / COARSE_TICKS)) * COARSE_TICKS
    return math.floor(at_s - FAR_S / 2) * TICKS if ahead_s < math.inf else NO_TICK


def cancel_timer(timer: Timer) -> None:
    """Take ``timer`` out of its wheel, if it is in one."""
    slot = timer.slot
    if slot is not None:
        del slot[timer]
        timer.slot = None


def wheel_of(loop: asyncio.AbstractEventLoop) -> TimerWheel:
    """Return the loop's wheel. It belongs to the loop and goes with it."""
    wheel: TimerWheel | None = getattr(loop, "_penstock_wheel", None)
    if wheel is None:
        wheel = TimerWheel(loop)
        loop._penstock_wheel = wheel  # type: ignore[attr-defined]  # noqa: SLF001 - no table keyed by loops can let go of them
    return wheel


def start_timer(timer: Timer, now_s: float) -> None:
    """Add ``timer`` to the running loop's wheel (:meth:`TimerWheel.add`)."""
    wheel_of(asyncio.get_running_loop()).add(timer, now_s)
