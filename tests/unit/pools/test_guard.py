"""Guards: the shell of the breaker, on the virtual clock."""

import asyncio
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState, CallOutcome
from penstock.pools.guard import CircuitOpen, Guard, GuardStateChange
from tests.clock import run, virtual
from tests.fakes.loop_clock import LoopClock

DOWN = Unavailable("down", dependency="store")


def make_guard(patience_s: float = 5.0, **changed) -> Guard:
    guard = Guard("qdrant", replace(GuardSettings(), **changed), LoopClock(), patience_s=patience_s, random=lambda: 0.0)
    guard.turns = []
    guard.on_state_change = guard.turns.append
    return guard


async def fails(error: BaseException, after_s: float = 0.0) -> None:
    if after_s:
        await asyncio.sleep(after_s)
    raise error


async def answers(after_s: float = 0.0) -> str:
    if after_s:
        await asyncio.sleep(after_s)
    return "yes"


async def failing(guard: Guard, error: BaseException = DOWN, times: int = 1, after_s: float = 0.0) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            await guard.call("search", lambda: fails(error, after_s))


@virtual
async def test_it_opens_after_five_failures_and_refuses_at_once_with_a_hint():
    guard = make_guard()
    await failing(guard, times=5)
    assert guard.state == 2
    await asyncio.sleep(10)
    with pytest.raises(CircuitOpen) as caught:
        await guard.call("search", lambda: pytest.fail("asked although open"))
    error = caught.value
    assert isinstance(error, Unavailable)
    assert (error.code, error.dependency, error.retry_after_s, error.retryable) == ("circuit_open", "qdrant", 20, True)


@virtual
async def test_it_closes_after_two_successful_probes_and_tells_every_turn(caplog):
    caplog.set_level(logging.INFO)
    guard = make_guard()
    await failing(guard, times=5)
    await asyncio.sleep(30)
    assert [await guard.call("search", answers) for _ in range(2)] == ["yes", "yes"]
    assert guard.turns == [
        GuardStateChange("qdrant", BreakerState.CLOSED, BreakerState.OPEN, "consecutive failures"),
        GuardStateChange("qdrant", BreakerState.OPEN, BreakerState.HALF_OPEN, "open time over"),
        GuardStateChange("qdrant", BreakerState.HALF_OPEN, BreakerState.CLOSED, "probes succeeded"),
    ]
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "breaker qdrant is open: consecutive failures"),
        ("INFO", "breaker qdrant is half-open: open time over"),
        ("INFO", "breaker qdrant is closed: probes succeeded"),
    ]


@virtual
async def test_only_one_probe_is_out_at_a_time():
    guard = make_guard()
    await failing(guard, times=5)
    await asyncio.sleep(30)
    probe = asyncio.create_task(guard.call("search", lambda: answers(1)))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpen):
        await guard.call("search", answers)
    assert await probe == "yes"


@virtual
async def test_a_cancelled_probe_gives_its_place_back():
    guard = make_guard()
    await failing(guard, times=5)
    await asyncio.sleep(30)
    probe = asyncio.create_task(guard.call("search", lambda: answers(1)))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await guard.call("search", answers) == "yes"


@pytest.mark.parametrize(
    "error",
    [
        Invalid("no such collection"),
        Rejected("full"),
        Expired("search"),
        asyncio.CancelledError(),
        Unavailable("gone", dependency="store", code="write_conflict"),
        Unavailable("full", dependency="store", code="disk_full"),
        CircuitOpen("inner", 1.0),
        Broken("a bug of ours that one request has found"),
        OverflowError("an integer beyond 64 bits"),
        ValueError("bug"),
    ],
    ids=lambda e: getattr(e, "code", type(e).__name__),
)
@virtual
async def test_what_says_nothing_of_the_dependency_never_opens_it(error):
    guard = make_guard()
    await failing(guard, error, times=50)
    assert guard.state == 0
    await failing(guard, times=4)
    await failing(guard, error)
    await failing(guard)
    assert guard.state == 2, "nor does it end a row of failures"


@pytest.mark.parametrize("error", [DOWN, Broken("the engine failed", code="store_failed"), ConnectionError()], ids=repr)
@virtual
async def test_what_says_that_the_dependency_cannot_work_is_a_failure(error):
    guard = make_guard()
    await failing(guard, error, times=5)
    assert guard.state == 2


@pytest.mark.parametrize(("out_s", "state"), [(4.9, 0), (5.0, 2)])
@virtual
async def test_a_hang_is_noticed_though_the_callers_give_up_first(out_s, state):
    guard = make_guard(patience_s=5)
    for _ in range(5):
        caller = asyncio.create_task(guard.call("search", lambda: answers(60)))
        await asyncio.sleep(out_s)
        caller.cancel()
        await asyncio.wait([caller])
    assert guard.state == state
    guard = make_guard(patience_s=5)
    await failing(guard, Expired("search"), times=5, after_s=out_s)
    assert guard.state == state


@pytest.mark.parametrize("error", [Expired("request"), asyncio.CancelledError()], ids=["expired", "cancelled"])
@virtual
async def test_a_deadline_of_one_client_says_nothing_while_another_is_answered(error):
    guard = make_guard(patience_s=5)
    hasty = [asyncio.create_task(guard.call("search", lambda: fails(error, 6))) for _ in range(50)]
    await asyncio.sleep(1)
    assert await guard.call("search", answers) == "yes"
    await asyncio.gather(*hasty, return_exceptions=True)
    assert guard.state is BreakerState.CLOSED
    await failing(guard, Expired("request"), times=5, after_s=6)
    assert guard.state is BreakerState.OPEN, "it has answered nobody since"


async def learnt(guard: Guard, took_s: float, times: int = 16) -> None:
    for _ in range(times):
        await guard.call("search", lambda: answers(took_s))


async def hangs_for(guard: Guard, deadline_s: float, times: int = 5) -> None:
    """Call a dependency that hangs, with callers that give up after their deadline."""
    for _ in range(times):
        caller = asyncio.create_task(guard.call("search", lambda: answers(3600)))
        await asyncio.sleep(deadline_s)
        caller.cancel()
        await asyncio.wait([caller])


@pytest.mark.parametrize(
    ("took_s", "patience_s"),
    [(0.001, 0.25), (0.03, 0.3), (0.3, 3.0), (2.0, 5.0)],
    ids=["quick: the least", "ten times", "ten times, longer", "slow: the most"],
)
@virtual
async def test_patience_is_ten_times_what_nine_of_ten_calls_take_within_its_bounds(took_s, patience_s):
    guard = make_guard(patience_s=5)
    await learnt(guard, took_s, times=15)
    assert guard.patience_s("search") == 5.0, "too few to know"
    await learnt(guard, took_s, times=1)
    assert guard.patience_s("search") == pytest.approx(patience_s, rel=0.05)
    assert guard.patience_s("upsert") == 5.0, "each operation has its own"


@pytest.mark.parametrize(("known", "state"), [(True, BreakerState.OPEN), (False, BreakerState.CLOSED)])
@virtual
async def test_callers_with_half_a_second_notice_a_hang_of_what_used_to_be_quick(known, state):
    guard = make_guard(patience_s=5)
    if known:
        await learnt(guard, 0.005)
    await hangs_for(guard, 0.5)
    assert guard.state is state


@virtual
async def test_callers_in_a_hurry_prove_nothing_against_what_always_takes_its_time():
    guard = make_guard(patience_s=5)
    await learnt(guard, 0.3)
    await hangs_for(guard, 0.5, times=50)
    assert guard.state is BreakerState.CLOSED


@virtual
async def test_failed_calls_do_not_change_the_patience():
    guard = make_guard(patience_s=5)
    await learnt(guard, 0.03)
    for _ in range(20):
        await failing(guard, Invalid("bad"), after_s=3)
        await failing(guard, Expired("search"), after_s=0.2)
    assert guard.patience_s("search") == pytest.approx(0.3, rel=0.05)


@virtual
async def test_a_dependency_started_anew_may_be_slow_at_first():
    guard = make_guard(patience_s=5)
    await learnt(guard, 0.005)
    guard.reset()
    assert guard.patience_s("search") == 5.0


def test_the_least_patience_never_exceeds_the_most():
    assert make_guard(patience_s=0.1)._patience_s_min == 0.1


@virtual
async def test_a_cancelled_call_is_no_failure_of_the_dependency():
    guard = make_guard(failures=1)
    for _ in range(50):
        caller = asyncio.create_task(guard.call("search", lambda: answers(60)))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
    assert guard.state is BreakerState.CLOSED


@virtual
async def test_of_a_crowd_only_the_probes_reach_a_dependency_that_may_be_back():
    guard, reached = make_guard(), []
    await failing(guard, times=5)
    await asyncio.sleep(30)

    async def probe() -> str:
        reached.append(True)
        return await answers(1)

    outcomes = await asyncio.gather(*(guard.call("search", probe) for _ in range(1000)), return_exceptions=True)
    assert len(reached) == guard._settings.probes == 1
    assert sum(isinstance(outcome, CircuitOpen) for outcome in outcomes) == 999
    assert guard.state is BreakerState.HALF_OPEN


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("ends_s", [1, 31], ids=["while open", "while half-open"])
@virtual
async def test_a_call_admitted_before_an_opening_tells_nothing_after_it(good, ends_s):
    guard = make_guard(successes=1)
    late = asyncio.create_task(guard.call("search", lambda: answers(ends_s) if good else fails(DOWN, ends_s)))
    await asyncio.sleep(0)
    await failing(guard, times=5)
    await asyncio.sleep(30.5 if ends_s > 30 else 0.5)
    probe = None
    if ends_s > 30:
        probe = asyncio.create_task(guard.call("search", lambda: answers(5)))
        await asyncio.sleep(0)
    before = guard.state
    await asyncio.gather(late, return_exceptions=True)
    assert guard.state is before
    if probe is not None:
        assert await probe == "yes"
        assert guard.state is BreakerState.CLOSED


@virtual
async def test_a_handler_behind_a_guard_answers_as_before_and_is_left_alone_while_it_is_open():
    guard, asked = make_guard(), []

    async def embed(message: str, ctx: Context) -> str:
        asked.append((message, ctx))
        return await (fails(DOWN) if message == "bad" else answers())

    handler, ctx = guard.handler("embed", embed), Context.background()
    assert await handler("good", ctx) == "yes"
    for _ in range(5):
        with pytest.raises(Unavailable, match="down"):
            await handler("bad", ctx)
    assert guard.retry_after_s() == 30.0
    with pytest.raises(CircuitOpen):
        await handler("good", ctx)
    assert asked == [("good", ctx)] + [("bad", ctx)] * 5


@virtual
async def test_a_slow_answer_is_an_answer():
    guard = make_guard(patience_s=5)
    await failing(guard, times=4)
    assert await guard.call("upsert", lambda: answers(60)) == "yes"
    await failing(guard)
    assert guard.state == 0


@virtual
async def test_a_call_that_cannot_even_be_made_is_reported():
    guard = make_guard()
    reports = []
    guard._breaker.report = lambda _ticket, outcome, _now_s: reports.append(outcome)
    with pytest.raises(ZeroDivisionError):
        await guard.call("search", lambda: 1 / 0)
    assert reports == [CallOutcome.IGNORED]


@virtual
async def test_a_dependency_started_anew_is_trusted_again():
    guard = make_guard()
    late = asyncio.create_task(guard.call("search", lambda: fails(DOWN, 50)))
    await asyncio.sleep(0)
    await failing(guard, times=5)
    guard.reset()
    assert guard.turns[-1] == GuardStateChange("qdrant", BreakerState.OPEN, BreakerState.CLOSED, "started anew")
    assert await guard.call("search", answers) == "yes"
    await failing(guard, times=4)
    await asyncio.wait([late])
    assert isinstance(late.exception(), Unavailable)
    assert guard.state == 0, "what the old one did does not count against the new one"
    told = len(guard.turns)
    guard.reset()
    assert len(guard.turns) == told


@virtual
async def test_turns_of_a_breaker_that_was_replaced_are_not_told():
    guard = make_guard()
    late = [asyncio.create_task(guard.call("search", lambda: fails(DOWN, 1))) for _ in range(5)]
    await asyncio.sleep(0)
    guard.reset()
    await asyncio.wait(late)
    assert [str(task.exception()) for task in late] == ["down"] * 5
    assert (guard.turns, guard.state) == ([], 0)


def test_its_repr_is_a_status_line():
    assert repr(make_guard()) == "<Guard qdrant closed>"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=8))
def test_each_admitted_call_is_reported_exactly_once_wherever_it_is_cancelled(calls):
    """Each call waits six times; it is cancelled at any of them, or before it begins, or never."""

    async def main() -> None:
        guard = make_guard(failures=3)
        reports = []
        report = guard._breaker.report
        guard._breaker.report = lambda ticket, outcome, now_s: (
            reports.append((ticket, outcome)),
            report(ticket, outcome, now_s),
        )[1]
        made = 0

        async def call(good: bool) -> None:  # noqa: FBT001
            nonlocal made
            made += 1
            for _ in range(6):
                await asyncio.sleep(0)
            if not good:
                raise DOWN

        tasks = []
        for good, steps in calls:
            task = asyncio.create_task(guard.call("search", lambda good=good: call(good)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(reports) == made
        assert len({id(ticket) for ticket, _ in reports}) == made
        assert all(ticket.reported for ticket, _ in reports)
        ended = [task for task in tasks if not task.cancelled() and not isinstance(task.exception(), CircuitOpen)]
        assert sum(outcome is not CallOutcome.IGNORED for _, outcome in reports) == len(ended)

    run(main())
