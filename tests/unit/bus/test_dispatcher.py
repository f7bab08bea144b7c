"""From the buffer to the handler and back: every message has its one end, whoever leaves, fails or is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.bus.contract import Handler
from penstock.bus.counters import TopicCounters
from penstock.bus.dispatcher import BURST_MESSAGES, BURST_S, PARKED_MAX, Dispatcher
from penstock.bus.local import LocalBus
from penstock.bus.management import TopicState
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected
from penstock.kernel.settings import BusSettings
from penstock.pools.permits import Permits
from tests.clock import BEGIN_S, VirtualLoop, quiet, run, tick, virtual
from tests.fakes.loop_clock import LoopClock

LIMITS = BusSettings(
    buffer_size=4, publish_timeout=1.0, request_timeout=30.0, handler_timeout=10.0, client_share=1.0, class_floor=0.0
)


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.services: list[float] = []

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        self.waits.append(wait_s)

    def ended(self, topic: str, service_s: float) -> None:
        self.services.append(service_s)

    def on_level(self, topic: str, level: object) -> None:
        """Note nothing."""


class Rig:
    """A bus with one topic, and shortcuts around it."""

    def __init__(self, handler: Handler, slots: int = 1, limits: BusSettings = LIMITS) -> None:
        self.watcher = Watcher()
        self.bus = LocalBus(limits, {}, LoopClock(), self.watcher)
        self.slots = Permits("t", slots)
        self.bus.subscribe("t", handler, self.slots)

    @property
    def intake(self) -> Dispatcher:
        return self.bus._dispatchers["t"][0]

    @property
    def state(self) -> TopicState:
        return self.bus.state()[0]

    @property
    def counts(self) -> TopicCounters:
        return self.state.counts

    def ask(self, message: object, within_s: float = 1e6, client: str = "a") -> asyncio.Task[Any]:
        deadline = Deadline(asyncio.get_running_loop().time() + within_s, "search")
        return asyncio.create_task(self.bus.request("t", message, Context(deadline, client=client)))

    def tell(self, message: object, within_s: float = 1e6) -> asyncio.Task[None]:
        deadline = Deadline(asyncio.get_running_loop().time() + within_s, "index")
        return asyncio.create_task(self.bus.publish("t", message, Context(deadline)))

    def check(self) -> None:
        """Hold what must hold between any two steps."""
        state, counts = self.state, self.state.counts
        assert counts.offered == counts.ended + state.waiting + state.blocked + state.running - state.stopping, state
        assert state.running == self.slots.active <= self.slots.limit, state
        assert 0 <= state.stopping <= state.running
        assert state.waiting <= state.capacity

    def check_idle(self) -> None:
        """Hold what must hold when all is over."""
        self.check()
        state = self.state
        assert state.waiting == state.running == state.blocked == state.stopping == 0, state
        assert state.counts.offered == state.counts.ended

    def ends(self) -> dict[str, int]:
        """Return the ends that have come to pass, without those that have not."""
        counts = self.counts
        named = {name: getattr(counts, name) for name in TopicCounters.__dataclass_fields__ if name != "refused"}
        del named["offered"], named["admitted"]
        return {name: count for name, count in (named | counts.refused).items() if count}


async def outcome(task: asyncio.Task[Any]) -> object:
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def echo(message: object, _ctx: Context) -> object:
    return message


async def never(_message: object, _ctx: Context) -> None:
    await asyncio.Event().wait()


async def slow(message: object, _ctx: Context) -> object:
    await asyncio.sleep(5)
    return message


class Stubborn:
    """A handler that swallows cancellations until it is let go, as one that waits for a thread does."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.swallowed = 0

    async def __call__(self, message: object, _ctx: Context) -> object:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.swallowed += 1
        return message


# --- Each end


@virtual
async def test_a_request_that_is_answered_ends_as_answered() -> None:
    rig = Rig(echo)
    assert await rig.ask("m") == "m"
    await quiet()
    assert rig.ends() == {"answered": 1}
    assert rig.counts.admitted == 1
    rig.check_idle()


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (Invalid("not this"), {"failed": 1}),
        (ZeroDivisionError(), {"failed": 1, "handler_errors": 1}),
        (asyncio.CancelledError(), {"failed": 1, "handler_errors": 1}),
    ],
)
@pytest.mark.parametrize("as_event", [False, True])
def test_a_handler_that_raises_ends_its_message_and_the_next_is_handled(
    error: BaseException,
    ends: dict[str, int],
    as_event: bool,  # noqa: FBT001
) -> None:
    async def handler(message: object, _ctx: Context) -> object:
        if message == "bad":
            raise error
        return message

    async def main() -> None:
        rig = Rig(handler)
        bad = rig.tell("bad") if as_event else rig.ask("bad")
        good = rig.ask("good")
        told = await outcome(bad)
        assert told is None if as_event else isinstance(told, (Invalid, Broken))
        assert await good == "good"
        await quiet()
        assert rig.ends() == ends | {"answered": 1}
        rig.check_idle()

    run(main())


@virtual
async def test_a_handler_that_never_returns_is_stopped_at_its_limit() -> None:
    rig = Rig(never)
    told = await outcome(rig.ask("m"))
    assert isinstance(told, Expired)
    assert told.operation == "handler"
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + LIMITS.handler_timeout, abs=0.01)
    await quiet()
    assert rig.ends() == {"expired_running": 1}
    rig.check_idle()


@virtual
async def test_an_event_s_handler_is_stopped_at_its_limit_or_its_deadline() -> None:
    rig = Rig(never)
    await rig.tell("m")
    await asyncio.sleep(LIMITS.handler_timeout - 0.1)
    assert rig.state.running == 1
    await asyncio.sleep(0.2)
    assert rig.ends() == {"expired_running": 1}
    await rig.tell("m", within_s=2.0)
    await asyncio.sleep(2.1)
    assert rig.ends() == {"expired_running": 2}
    rig.check_idle()


@virtual
async def test_each_message_of_a_worker_has_its_own_limit() -> None:
    # The worker's alarm is set once and moved late: it must neither stop a later message early nor forget it.
    took_s = iter([6.0, 6.0, 6.0, 60.0])
    clock = LoopClock()

    async def handler(_message: object, _ctx: Context) -> float:
        began_s = clock.now()
        try:
            await asyncio.sleep(next(took_s))
        finally:
            lasted.append(clock.now() - began_s)
        return 0.0

    lasted: list[float] = []
    rig = Rig(handler)
    for _ in range(4):
        await rig.tell("m")
    await asyncio.sleep(60)
    assert lasted == pytest.approx([6.0, 6.0, 6.0, LIMITS.handler_timeout], abs=0.01)
    assert rig.ends() == {"answered": 3, "expired_running": 1}
    rig.check_idle()


@virtual
async def test_a_deadline_already_past_ends_as_expired_and_reaches_no_handler() -> None:
    rig = Rig(echo)
    assert isinstance(await outcome(rig.ask("m", within_s=0.0)), Expired)
    assert isinstance(await outcome(rig.ask("m", within_s=-5.0)), Expired)
    await rig.tell("m", within_s=-5.0)
    await quiet()
    assert rig.ends() == {"expired_waiting": 2, "lost": 1}
    assert rig.watcher.services == []
    rig.check_idle()


@virtual
async def test_what_waits_expires_at_its_deadline_and_makes_room() -> None:
    rig = Rig(slow)
    tasks = [rig.ask("runs"), *(rig.ask(n, within_s=0.5) for n in range(4)), rig.ask("blocked", within_s=0.9)]
    await quiet()
    assert (rig.state.waiting, rig.state.blocked) == (4, 1)
    await asyncio.sleep(0.6)
    assert (rig.state.waiting, rig.state.blocked) == (1, 0)
    assert await tasks[0] == "runs"
    assert [(await outcome(task)).code for task in tasks[1:]] == ["hopeless"] * 5, "too much is asked: come back later"
    await quiet()
    assert rig.ends() == {"answered": 1, "expired_waiting": 5}
    rig.check_idle()


@virtual
async def test_a_jump_of_the_clock_expires_what_is_due_and_nothing_else() -> None:
    rig = Rig(slow, limits=BusSettings(request_timeout=100.0, handler_timeout=10.0))
    runs = rig.ask("runs", within_s=100.0)
    due, later = rig.ask("due", within_s=20.0), rig.ask("later", within_s=100.0)
    await quiet()
    asyncio.get_running_loop().spend(25.0)  # type: ignore[attr-defined]
    assert isinstance(await outcome(due), Rejected)
    # What ran is over its limit of 10 s by now, its sleep of 5 s is over too: either is an end, but just one.
    await outcome(runs)
    assert await later == "later"
    await quiet()
    rig.check_idle()
    assert rig.counts.offered == 3


@virtual
async def test_an_event_whose_time_is_up_when_its_turn_comes_is_lost_and_logged() -> None:
    rig = Rig(slow)
    await rig.tell("runs")
    for _ in range(4):
        await rig.tell("late", within_s=1.0)
    blocked = rig.tell("blocked", within_s=0.5)
    assert isinstance(await outcome(blocked), Expired)
    await asyncio.sleep(10)
    assert rig.ends() == {"answered": 1, "lost": 4, "expired_waiting": 1}
    rig.check_idle()


@virtual
async def test_an_event_that_found_room_late_and_then_expires_is_lost_too() -> None:
    rig = Rig(slow)
    for n in range(5):
        await rig.tell(n)
    late = rig.tell("late", within_s=6.0)
    await asyncio.sleep(0.5)
    (waiting,) = [one for one in rig.intake.topic._blocked_queue if one.message == "late"]
    rig.intake.topic.dequeue(LoopClock().now())  # somebody takes one out: there is room
    assert await outcome(late) is None
    assert waiting.accepted_event
    await asyncio.sleep(30)
    assert rig.counts.lost == 1


@virtual
async def test_a_publisher_whose_wait_for_room_is_over_is_refused() -> None:
    rig = Rig(slow)
    tasks = [rig.ask(n) for n in range(5)]
    await quiet()
    refused = [rig.ask("blocked"), rig.tell("blocked")]
    assert [type(await outcome(task)) for task in refused] == [Rejected] * 2
    assert rig.ends() == {"topic_full": 2}
    for task in tasks:
        task.cancel()
    await quiet()
    rig.check_idle()
    assert rig.ends() == {"topic_full": 2, "left": 5}


# --- Requesters that leave


@pytest.mark.parametrize("handler", [echo, slow, never], ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("load", [0, 3, 6], ids=["slot free", "queued", "blocked"])
def test_a_requester_cancelled_at_any_step_leaves_no_trace(handler: Handler, load: int) -> None:
    for steps in range(14):
        loop = VirtualLoop()

        async def begin() -> tuple[Rig, list[asyncio.Task[Any]]]:
            rig = Rig(handler)
            return rig, [rig.ask(n) for n in range(load)]

        rig, others = loop.run_until_complete(begin())

        async def ask(rig: Rig = rig) -> asyncio.Task[Any]:
            return rig.ask("leaves")

        leaves = loop.run_until_complete(ask())
        for _ in range(steps):
            tick(loop)
            rig.check()
        leaves.cancel()
        for _ in range(6):
            tick(loop)
            rig.check()
        assert leaves.done()
        for task in others:
            task.cancel()
        loop.run_until_complete(quiet())
        rig.check_idle()
        assert rig.counts.left + rig.counts.answered + rig.counts.failed == load + 1
        loop.run_until_complete(rig.bus.close())
        loop.check()
        loop.close()


@virtual
async def test_a_cancelled_waiter_swallows_no_permit_granted_in_the_same_step() -> None:
    rig = Rig(echo)
    hold = [rig.slots.try_acquire()]
    victim, heir = rig.ask("victim"), rig.ask("heir")
    await quiet()
    assert hold == [True]
    rig.slots.release()  # the permit is granted to the victim, whose worker has taken no step
    victim.cancel()
    assert await heir == "heir"
    await quiet()
    assert rig.ends() == {"answered": 1, "left": 1}
    rig.check_idle()


@virtual
async def test_an_urgent_message_takes_a_kept_slot_though_bulk_work_waits() -> None:
    rig = Rig(never, slots=2)
    rig.slots = Permits("kept", 2, reserved=1)
    rig.bus.subscribe("kept", never, rig.slots)

    def ask(criticality: Criticality) -> asyncio.Task[Any]:
        ctx = Context(Deadline(BEGIN_S + 1e6, "search"), criticality)
        return asyncio.create_task(rig.bus.request("kept", criticality.name, ctx))

    tasks = [ask(Criticality.BULK) for _ in range(3)]
    await quiet()
    kept = rig.bus.state()[1]
    assert (kept.running, kept.waiting) == (1, 2)
    tasks.append(ask(Criticality.INTERACTIVE))
    await quiet()
    kept = rig.bus.state()[1]
    assert (kept.running, kept.waiting) == (2, 2)
    tasks[0].cancel()  # an urgent one is at work: bulk work may not have the last slot
    await quiet()
    assert rig.bus.state()[1].running == 1
    tasks[-1].cancel()
    await quiet()
    assert (rig.bus.state()[1].running, rig.bus.state()[1].waiting) == (1, 1)
    await rig.bus.close()
    await asyncio.gather(*tasks, return_exceptions=True)


@virtual
async def test_a_permit_is_held_while_a_cancelled_handler_s_thread_still_runs() -> None:
    handler = Stubborn()
    rig = Rig(handler)
    leaves, waits = rig.ask("leaves"), rig.ask("waits")
    await quiet()
    leaves.cancel()
    await quiet()
    rig.check()
    assert (rig.slots.active, rig.state.running, rig.state.stopping, rig.state.waiting) == (1, 1, 1, 1)
    handler.released.set()
    assert await waits == "waits"
    await quiet()
    assert rig.ends() == {"answered": 1, "left": 1, "late_replies": 1}
    rig.check_idle()


@virtual
async def test_a_reply_after_its_requester_has_gone_is_counted_as_late() -> None:
    # In one step: the handler returns, and before it the requester was cancelled but has not woken up.
    gate = asyncio.Event()

    async def handler(_message: object, _ctx: Context) -> str:
        await gate.wait()
        leaves.cancel()
        return "too late"

    rig = Rig(handler)
    leaves = rig.ask("m")
    await quiet()
    gate.set()
    assert isinstance(await outcome(leaves), asyncio.CancelledError)
    await quiet()
    assert rig.ends() == {"left": 1, "late_replies": 1}
    rig.check_idle()


@pytest.mark.parametrize("error", [Invalid("no"), ZeroDivisionError()])
def test_an_error_after_its_requester_has_gone_is_told_to_nobody(error: Exception) -> None:
    async def main() -> None:
        async def handler(_message: object, _ctx: Context) -> None:
            await gate.wait()
            leaves.cancel()
            raise error

        gate = asyncio.Event()
        rig = Rig(handler)
        leaves = rig.ask("m")
        await quiet()
        gate.set()
        assert isinstance(await outcome(leaves), asyncio.CancelledError)
        await quiet()
        assert rig.counts.left == rig.counts.ended == 1
        rig.check_idle()

    run(main())


@virtual
async def test_a_handler_that_fails_after_it_was_stopped_ends_nothing_twice() -> None:
    async def handler(_message: object, _ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise (Invalid("no") if len(rig.watcher.services) else ZeroDivisionError()) from None

    rig = Rig(handler)
    for _ in range(2):
        assert isinstance(await outcome(rig.ask("m", within_s=1.0)), Expired)
        await quiet()
    assert rig.ends() == {"expired_running": 2, "handler_errors": 1}
    rig.check_idle()


# --- Workers


@virtual
async def test_a_worker_cancelled_for_one_message_never_cancels_the_next() -> None:
    cancelled: list[object] = []

    async def handler(message: object, _ctx: Context) -> object:
        try:
            await asyncio.sleep(0.01 if message == "next" else 100)
        except asyncio.CancelledError:
            cancelled.append(message)
            if message == "swallows":
                return message
            raise
        return message

    rig = Rig(handler)
    for message in ("swallows", "raises"):
        leaves, follows = rig.ask(message), rig.ask("next")
        await quiet()
        leaves.cancel()
        assert await follows == "next"
    await quiet()
    assert cancelled == ["swallows", "raises"]
    rig.check_idle()


def the_worker(rig: Rig) -> asyncio.Task[None]:
    (worker,) = rig.intake._tasks
    return worker.task


@pytest.mark.parametrize("steps", range(6))
def test_a_worker_cancelled_from_outside_at_any_step_answers_and_gives_the_slot_back(
    steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        rig = Rig(slow)
        asked, follows = rig.ask("m"), rig.ask("follows")
        await asyncio.sleep(0)  # the requests are offered; the worker has taken no step
        for _ in range(steps):
            await asyncio.sleep(0)
        the_worker(rig).cancel()
        assert isinstance(await outcome(asked), Broken)
        assert await follows == "follows"
        await quiet()
        assert rig.ends() == {"failed": 1, "handler_errors": 1, "answered": 1}
        assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
            "handler of t was cancelled from outside"
        ]
        rig.check_idle()

    run(main())


@virtual
async def test_a_parked_worker_cancelled_from_outside_swallows_no_message() -> None:
    rig = Rig(echo)
    assert await rig.ask("first") == "first"
    await quiet()
    the_worker(rig).cancel()  # it has not heard of it yet
    assert await rig.bus.request("t", "second", Context.background()) == "second"
    await quiet()
    the_worker(rig).cancel()
    await quiet()
    assert not rig.intake._tasks
    assert not rig.intake._parked
    assert await rig.ask("third") == "third"
    await quiet()
    rig.check_idle()


@virtual
async def test_a_worker_cancelled_between_its_wake_and_its_step_gives_the_slot_back() -> None:
    rig = Rig(echo)
    assert await rig.ask("first") == "first"
    await quiet()
    second = rig.ask("second")
    await asyncio.sleep(0)
    the_worker(rig).cancel()
    assert isinstance(await outcome(second), Broken)
    await quiet()
    rig.check_idle()
    assert await rig.ask("third") == "third"


@virtual
async def test_a_worker_goes_through_more_messages_than_one_burst() -> None:
    count = 3 * BURST_MESSAGES + 1
    rig = Rig(echo, limits=BusSettings(buffer_size=count, client_share=1.0))
    assert await asyncio.gather(*(rig.ask(n) for n in range(count))) == list(range(count))
    await quiet()
    assert rig.ends() == {"answered": count}
    rig.check_idle()


def bursts(cost_s: float, messages: int) -> list[str]:
    """Return the order in which two topics with one slot are served; each message takes ``cost_s``."""
    served: list[str] = []

    async def main() -> None:
        def serve(name: str) -> Callable[[object, Context], Awaitable[None]]:
            async def handler(_message: object, _ctx: Context) -> None:
                served.append(name)
                asyncio.get_running_loop().spend(cost_s)  # type: ignore[attr-defined]

            return handler

        bus = LocalBus(BusSettings(buffer_size=200, client_share=1.0), {}, LoopClock())
        slots = Permits("shared", 1)
        for name in "ab":
            bus.subscribe(name, serve(name), slots)
        ctx = Context.background()
        await asyncio.gather(*(bus.request(name, n, ctx) for name in "ab" for n in range(messages)))
        await bus.close()

    run(main())
    return served


def test_a_slot_is_offered_to_others_after_a_burst_of_messages() -> None:
    # The pool asks the one that asked first once more before it turns to the other.
    served = bursts(0.0, 100)
    turns = [set(served[n : n + BURST_MESSAGES]) for n in range(0, 5 * BURST_MESSAGES, BURST_MESSAGES)]
    assert turns == [{"a"}, {"a"}, {"b"}, {"a"}, {"b"}]


def test_a_slot_is_offered_to_others_after_a_burst_of_time() -> None:
    assert bursts(BURST_S * 1.1, 5) == list("aababababb")


@virtual
async def test_no_more_workers_are_kept_than_allowed() -> None:
    rig = Rig(slow, slots=PARKED_MAX + 10)
    await asyncio.gather(*(rig.ask(n) for n in range(PARKED_MAX + 10)))
    await quiet()
    assert len(rig.intake._tasks) == len(rig.intake._parked) == PARKED_MAX
    rig.check_idle()


@virtual
async def test_a_parked_worker_holds_nothing_of_its_last_message() -> None:
    class Heavy:
        """A large message."""

    rig = Rig(echo)
    heavy = Heavy()
    gone = weakref.ref(heavy)
    task = rig.ask(heavy)
    assert await task is heavy
    await quiet()
    del heavy, task
    gc.collect()
    assert gone() is None


@virtual
async def test_a_handler_sees_no_context_of_a_requester() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    async def handler(_message: object, _ctx: Context) -> str:
        return name.get()

    rig = Rig(handler)
    name.set("first requester")
    assert await rig.ask("m") == "nobody"


@virtual
async def test_a_message_is_told_to_the_observer_when_its_turn_comes_and_when_its_handler_ends() -> None:
    rig = Rig(slow)
    await asyncio.gather(rig.ask(1), rig.ask(2))
    assert rig.watcher.waits == pytest.approx([0.0, 5.0])
    assert rig.watcher.services == pytest.approx([5.0, 5.0])


@virtual
async def test_a_handler_stopped_before_its_limit_is_not_stopped_again_at_it() -> None:
    handler = Stubborn()
    rig = Rig(handler)
    leaves = rig.ask("m")
    await asyncio.sleep(1)
    leaves.cancel()
    await asyncio.sleep(2 * LIMITS.handler_timeout)
    assert handler.swallowed == 1
    handler.released.set()
    await quiet()
    assert rig.ends() == {"left": 1, "late_replies": 1}
    rig.check_idle()


def test_the_end_of_the_process_passes_through_a_handler_and_the_message_has_its_end() -> None:
    async def handler(_message: object, _ctx: Context) -> None:
        raise KeyboardInterrupt

    loop = VirtualLoop()

    async def begin() -> tuple[Rig, asyncio.Task[Any]]:
        rig = Rig(handler)
        return rig, rig.ask("m")

    rig, task = loop.run_until_complete(begin())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert isinstance(loop.run_until_complete(outcome(task)), Broken)
    rig.check_idle()
    loop.close()


# --- Discards and probes


def taught(seconds: float, slots: int = 1) -> Rig:
    """Return a rig whose handler takes as long as the message says, and that has seen many take ``seconds``."""

    async def handler(message: object, _ctx: Context) -> object:
        assert isinstance(message, float)
        await asyncio.sleep(message)
        return message

    rig = Rig(handler, slots, BusSettings(buffer_size=100, client_share=1.0, refuse_hopeless=False))
    service = rig.intake.topic.service_time_of
    for _ in range(40):
        rig.intake.topic.observe_duration(service(_envelope(rig)), seconds)
    return rig


def _envelope(rig: Rig) -> Any:
    from penstock.bus.envelope import Envelope

    return Envelope(1.0, Context.background(), rig.intake, BEGIN_S)


@virtual
async def test_what_can_no_longer_end_in_time_is_not_begun() -> None:
    rig = taught(1.0)
    tasks = [rig.ask(1.0), rig.ask(1.0, within_s=5.0), rig.ask(1.0, within_s=2.5), rig.ask(1.0, within_s=100.0)]
    told = [await outcome(task) for task in tasks]
    assert [type(one) for one in told] == [float, float, Rejected, float]
    await quiet()
    assert rig.ends() == {"answered": 3, "discarded": 1}
    rig.check_idle()


@virtual
async def test_an_estimate_that_has_become_wrong_is_found_out_by_a_probe() -> None:
    rig = taught(5.0)
    answered: list[bool] = []
    for _ in range(300):
        hold = rig.slots.try_acquire()  # so that it goes through the buffer
        task = rig.ask(0.01, within_s=1.0)
        await quiet()
        assert hold
        rig.slots.release()
        answered.append(not isinstance(await outcome(task), Expired))
        await asyncio.sleep(0.2)
    assert True in answered[:200]
    assert all(answered[-50:])
    rig.check_idle()


@virtual
async def test_a_probe_that_was_hung_up_on_grants_no_more() -> None:
    rig = taught(5.0)
    probed = 0
    for _ in range(200):
        assert rig.slots.try_acquire()
        task = rig.ask(3.0, within_s=3.5)
        await quiet()
        rig.slots.release()
        await quiet()
        if rig.state.running:
            probed += 1
            task.cancel()
        await outcome(task)
        await asyncio.sleep(0.01)
    assert probed == 1


# --- The end


@virtual
async def test_close_under_load_gives_each_message_one_end() -> None:
    handler = Stubborn()
    rig = Rig(handler, slots=2)
    tasks = [rig.ask(n) for n in range(8)] + [rig.tell(n) for n in range(2)]
    await quiet()
    tasks[7].cancel()  # blocked, and has not woken up yet
    closing = asyncio.create_task(rig.bus.close())
    await quiet()
    rig.check()
    assert not closing.done()
    handler.released.set()
    await closing
    told = [await outcome(task) for task in tasks]
    assert [getattr(one, "code", type(one).__name__) for one in told] == [
        *["draining"] * 7,
        "CancelledError",
        *["draining"] * 2,
    ]
    assert rig.ends() == {"draining": 9, "left": 1, "late_replies": 2}
    rig.check_idle()


@virtual
async def test_close_loses_events_that_wait_and_says_so() -> None:
    rig = Rig(never)
    for n in range(5):
        await rig.tell(n)
    blocked = rig.tell("blocked")
    await quiet()
    await rig.bus.close()
    assert isinstance(await outcome(blocked), Rejected)
    assert rig.ends() == {"lost": 5, "draining": 1}
    rig.check_idle()


@virtual
async def test_a_handler_may_close_the_bus() -> None:
    async def closes(_message: object, _ctx: Context) -> None:
        await rig.bus.close()

    rig = Rig(closes)
    assert isinstance(await outcome(rig.ask("m")), Rejected)
    await quiet()
    rig.check_idle()


@virtual
async def test_those_that_wait_for_room_are_turned_away_in_one_walk() -> None:
    rig = Rig(never)
    tasks = [rig.ask(n) for n in range(3000)]
    await quiet()
    steps = 0

    class Counted(type(rig.intake.topic._blocked_queue)):  # type: ignore[misc]
        """A line that counts how often it is walked."""

        def __iter__(self) -> Any:
            nonlocal steps
            steps += 1
            return super().__iter__()

    rig.intake.topic._blocked_queue = Counted(rig.intake.topic._blocked_queue)
    await rig.bus.close()
    assert steps == 1
    await asyncio.gather(*tasks, return_exceptions=True)
    rig.check_idle()


@virtual
async def test_close_meets_a_parked_worker_that_was_cancelled_from_outside() -> None:
    rig = Rig(echo, slots=2)
    await asyncio.gather(rig.ask(1), rig.ask(2))
    await quiet()
    next(iter(rig.intake._tasks)).task.cancel()
    await rig.bus.close()
    await quiet()
    assert not rig.intake._tasks


@virtual
async def test_close_meets_a_requester_that_was_cancelled_and_does_not_know() -> None:
    rig = Rig(never)
    runs, waits = rig.ask("runs"), rig.ask("waits")
    await quiet()
    runs.cancel()
    waits.cancel()
    await rig.bus.close()
    assert rig.ends() == {"left": 2}
    rig.check_idle()


@virtual
async def test_room_that_comes_to_a_publisher_that_was_cancelled_and_does_not_know_passes_on() -> None:
    rig = Rig(slow)
    tasks = [rig.ask(n) for n in range(5)]
    await quiet()
    leaves, heir = rig.tell("leaves"), rig.tell("heir")
    await quiet()
    leaves.cancel()
    tasks[4].cancel()  # whichever wakes up first
    assert isinstance(await outcome(leaves), asyncio.CancelledError)
    assert await outcome(heir) is None
    assert (rig.state.waiting, rig.state.blocked) == (4, 0)
    for task in tasks:
        task.cancel()
    await asyncio.sleep(30)
    rig.check_idle()


@virtual
async def test_room_that_comes_before_a_cancelled_publisher_has_woken_up_is_given_back() -> None:
    rig = Rig(slow)
    tasks = [rig.ask(n) for n in range(5)]
    await quiet()
    leaves = rig.tell("leaves")
    await quiet()
    tasks[4].cancel()
    leaves.cancel()
    assert isinstance(await outcome(leaves), asyncio.CancelledError)
    await quiet()
    assert (rig.state.waiting, rig.state.blocked) == (3, 0)
    assert rig.ends() == {"left": 2}
    rig.check()
    for task in tasks:
        task.cancel()


def test_its_repr_is_a_status_line() -> None:
    rig = Rig(echo)
    assert repr(rig.intake) == "<Dispatcher <TopicQueue t 0/4 +0 calm> 0 running>"


@virtual
async def test_a_worker_s_repr_says_what_it_does() -> None:
    rig = Rig(slow)
    task = rig.ask("m")
    await quiet()
    (worker,) = rig.intake._tasks
    assert repr(worker) == "<HandlerTask t <Envelope 'm' running>>"
    await task


# --- Everything at once


class IntakeMachine(RuleBasedStateMachine):
    """Requests and events, handlers of every kind, requesters that leave at every step, workers cut down."""

    @initialize(slots=st.integers(1, 3), capacity=st.integers(1, 3))
    def begin(self, slots: int, capacity: int) -> None:
        self.loop = VirtualLoop()
        limits = BusSettings(
            buffer_size=capacity, publish_timeout=1.0, request_timeout=8.0, handler_timeout=4.0, client_share=1.0
        )
        self.rig = Rig(self.handle, slots, limits)
        self.tasks: list[asyncio.Task[Any]] = []
        self.stubborn: list[asyncio.Event] = []
        self.handling = self.sent = 0
        self.told: Counter[str] = Counter()
        self.closed = False

    async def handle(self, message: object, _ctx: Context) -> object:
        assert isinstance(message, tuple)
        self.handling += 1
        try:
            kind = message[1]
            if kind == "slow":
                await asyncio.sleep(2.0)
            elif kind == "stuck":
                await asyncio.Event().wait()
            elif kind == "bad":
                raise Invalid("no")
            elif kind == "bug":
                raise ZeroDivisionError
            elif kind == "stubborn":
                released = asyncio.Event()
                self.stubborn.append(released)
                while not released.is_set():
                    try:
                        await released.wait()
                    except asyncio.CancelledError:
                        continue
            return message
        finally:
            self.handling -= 1

    async def ask(self, message: object, within_s: float) -> None:
        ctx = Context(Deadline(self.loop.time() + within_s, "search"))
        with contextlib.suppress(PenstockError):
            assert await self.rig.bus.request("t", message, ctx) == message, "somebody else's reply"

    async def tell(self, message: object, within_s: float) -> None:
        ctx = Context(Deadline(self.loop.time() + within_s, "search"))
        with contextlib.suppress(PenstockError):
            await self.rig.bus.publish("t", message, ctx)

    KINDS = st.sampled_from(["quick", "slow", "stuck", "bad", "bug", "stubborn"])

    @rule(kind=KINDS, within_s=st.sampled_from([-1.0, 0.5, 3.0, 100.0]), as_event=st.booleans())
    def send(self, kind: str, within_s: float, as_event: bool) -> None:  # noqa: FBT001
        self.sent += 1
        body = (self.tell if as_event else self.ask)((self.sent, kind), within_s)
        self.tasks.append(self.loop.create_task(body))

    @rule(steps=st.integers(1, 4))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            tick(self.loop)
            self.books_balance()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), step=st.booleans())
    def leave(self, data: st.DataObject, step: bool) -> None:  # noqa: FBT001
        data.draw(st.sampled_from(self.tasks)).cancel()
        if step:
            tick(self.loop)

    @precondition(lambda self: self.rig.intake._tasks)
    @rule(data=st.data())
    def cut_down_a_worker(self, data: st.DataObject) -> None:
        workers = sorted(self.rig.intake._tasks, key=lambda worker: worker.task.get_name() + repr(worker.envelope))
        data.draw(st.sampled_from(workers)).task.cancel()

    @precondition(lambda self: self.stubborn)
    @rule()
    def release(self) -> None:
        self.stubborn.pop(0).set()

    @rule(seconds=st.sampled_from([0.01, 0.6, 2.5]))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([0.6, 5.0]))
    def jump(self, seconds: float) -> None:
        self.loop.spend(seconds)

    @invariant()
    def books_balance(self) -> None:
        self.rig.check()
        assert self.handling <= self.rig.slots.active

    @invariant()
    def nothing_waits_while_a_slot_is_free(self) -> None:
        state = self.rig.state
        assert not state.waiting or state.running == self.rig.slots.limit
        assert not state.blocked or state.waiting == state.capacity

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        for task in self.tasks[::2]:
            task.cancel()
        tick(self.loop)

        async def release() -> None:
            while self.handling:
                for event in self.stubborn:
                    event.set()
                await asyncio.sleep(0.1)

        closing = self.loop.create_task(self.rig.bus.close())
        self.loop.run_until_complete(release())
        self.loop.run_until_complete(closing)
        self.loop.run_until_complete(quiet())
        self.rig.check_idle()
        assert all(task.done() for task in self.tasks)
        assert not asyncio.all_tasks(self.loop)
        assert all(task.cancelled() or task.exception() is None for task in self.tasks)
        self.loop.close()
        assert not self.loop.complaints


TestIntakeKeepsItsBooks = IntakeMachine.TestCase
TestIntakeKeepsItsBooks.settings = settings(max_examples=80, stateful_step_count=40)
