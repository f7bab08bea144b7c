"""Single flight: who leads, who follows, and who goes on when a leader is gone."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Broken, Expired, Rejected, Unavailable
from penstock.kernel.messages import TextKind
from penstock.pools.encoding_cache import EncodingCache
from penstock.pools.single_flight import HANDOVERS_MAX, SingleFlight
from penstock.stores.memory_cache import MemoryCache
from tests.clock import BEGIN_S, VirtualLoop, quiet, tick, virtual

WORK = replace(Context.background("anna"), criticality=Criticality.STANDARD)
BERT = replace(WORK, client="bert")
URGENT = replace(WORK, criticality=Criticality.INTERACTIVE)
KEY = b"k"


def until(seconds: float, ctx: Context = WORK) -> Context:
    return replace(ctx, deadline=Deadline(BEGIN_S + seconds, "search"))


@dataclass
class Sky:
    """A single flight whose work ends when the test says so.

    Attributes:
        flown: What each piece of work was for, in the order of their beginning.
    """

    flights: SingleFlight[str] = field(default_factory=SingleFlight)
    flown: list[list[bytes]] = field(default_factory=list)
    ends: list[asyncio.Future[None]] = field(default_factory=list)

    def ask(self, *keys: bytes, ctx: Context = WORK) -> asyncio.Task[dict[bytes, str]]:
        async def fly(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
            self.flown.append(led)
            number = len(self.flown)
            self.ends.append(asyncio.get_running_loop().create_future())
            await self.ends[-1]
            for key in led:
                land(key, f"{key.decode()}{number}")

        return asyncio.create_task(self.flights.run(keys or (KEY,), ctx, fly))

    def end(self, number: int = -1, error: Exception | None = None) -> None:
        if error is None:
            self.ends[number].set_result(None)
        else:
            self.ends[number].set_exception(error)


@virtual
async def test_the_same_key_asked_for_at_once_is_worked_once():
    sky = Sky()
    callers = [sky.ask() for _ in range(5)]
    await quiet()
    sky.end()
    assert await asyncio.gather(*callers) == [{KEY: "k1"}] * 5
    assert (sky.flown, len(sky.flights)) == ([[KEY]], 0)


@virtual
async def test_who_asks_after_the_end_works_anew():
    sky = Sky()
    for _ in range(2):
        caller = sky.ask()
        await quiet()
        sky.end()
        await caller
    assert len(sky.flown) == 2


@virtual
async def test_a_batch_leads_what_nobody_works_on_and_follows_the_rest():
    sky = Sky()
    first, second = sky.ask(b"a", b"b"), sky.ask(b"c", b"b", b"a", b"c")
    await quiet()
    assert sky.flown == [[b"a", b"b"], [b"c"]]
    sky.end(0)
    sky.end(1)
    assert await first == {b"a": "a1", b"b": "b1"}
    assert await second == {b"a": "a1", b"b": "b1", b"c": "c2"}


@virtual
async def test_two_batches_that_wait_for_each_other_both_end():
    sky = Sky()
    first, second = sky.ask(b"a", b"b"), sky.ask(b"b", b"c", b"a")
    await quiet()
    sky.end(0, Unavailable("down", dependency="m"))
    sky.end(1)
    assert [type(e) for e in await asyncio.gather(first, second, return_exceptions=True)] == [Unavailable] * 2
    assert len(sky.flights) == 0


@virtual
async def test_a_result_reaches_followers_before_the_rest_of_the_batch_ends():
    sky: SingleFlight[str] = SingleFlight()
    rest = asyncio.Event()

    async def fly(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
        land(led[0], "early")
        await rest.wait()
        for key in led[1:]:
            land(key, "late")

    leader = asyncio.create_task(sky.run([b"a", b"b"], WORK, fly))
    await quiet()
    assert await sky.run([b"a"], WORK, fly) == {b"a": "early"}
    rest.set()
    assert await leader == {b"a": "early", b"b": "late"}


@virtual
async def test_a_cancelled_leader_hands_over_to_a_follower():
    sky = Sky()
    leader, *followers = [sky.ask() for _ in range(3)]
    await quiet()
    leader.cancel()
    await quiet()
    assert len(sky.flown) == 2
    sky.end()
    assert await asyncio.gather(*followers) == [{KEY: "k2"}] * 2
    assert leader.cancelled()


@virtual
async def test_the_most_urgent_follower_with_the_most_time_leads_on():
    sky = Sky()
    leader = sky.ask(ctx=replace(URGENT, client="boss"))
    followers = {
        "late bulk": until(90, replace(WORK, criticality=Criticality.BULK)),
        "early urgent": until(5, URGENT),
        "late urgent": until(50, URGENT),
    }
    asked = {name: sky.ask(ctx=ctx) for name, ctx in followers.items()}
    await quiet()
    leader.cancel()
    await quiet()
    asked["late urgent"].cancel()
    await quiet()
    assert len(sky.flown) == 3, "it had been the one that led"
    asked["late bulk"].cancel()
    await quiet()
    assert len(sky.flown) == 3, "it had not"
    sky.end()
    assert await asked["early urgent"] == {KEY: "k3"}


@virtual
async def test_a_follower_told_to_lead_and_cancelled_in_the_same_moment_passes_it_on():
    sky = Sky()
    leader, heir, last = [sky.ask() for _ in range(3)]
    await quiet()
    leader.cancel()
    await asyncio.sleep(0)  # now the heir has been told, but has not run yet
    heir.cancel()
    await quiet()
    assert len(sky.flown) == 2
    sky.end()
    assert await last == {KEY: "k2"}
    assert len(sky.flights) == 0


@virtual
async def test_a_follower_told_to_lead_and_failed_by_another_key_passes_it_on():
    sky = Sky()
    leader, failing, heir, last = sky.ask(b"a"), sky.ask(b"b"), sky.ask(b"a", b"b"), sky.ask(b"a")
    await quiet()
    leader.cancel()
    sky.end(1, Unavailable("down", dependency="m"))
    await quiet()
    assert [type(caller.exception()) for caller in (failing, heir)] == [Unavailable] * 2
    assert sky.flown == [[b"a"], [b"b"], [b"a"]]
    sky.end()
    assert await last == {b"a": "a3"}
    assert len(sky.flights) == 0


@virtual
async def test_a_follower_that_goes_leaves_nothing_behind():
    sky = Sky()
    leader, follower = sky.ask(), sky.ask()
    await quiet()
    follower.cancel()
    await quiet()
    assert not sky.flights._flights[KEY][0].waiters
    sky.end()
    assert await leader == {KEY: "k1"}


@virtual
async def test_when_all_go_the_key_is_free():
    sky = Sky()
    callers = [sky.ask() for _ in range(3)]
    await quiet()
    for caller in callers:
        caller.cancel()
    await quiet()
    assert len(sky.flights) == 0


@virtual
async def test_an_error_reaches_all_who_wait_and_nobody_after_them():
    sky = Sky()
    callers = [sky.ask(), sky.ask(), sky.ask(ctx=until(99, BERT))]
    await quiet()
    error = Unavailable("down", dependency="m", code="circuit_open")
    sky.end(error=error)
    raised = await asyncio.gather(*callers, return_exceptions=True)
    assert [(type(e), e.detail, e.code, e.dependency) for e in raised] == [
        (Unavailable, "down", "circuit_open", "m")
    ] * 3
    assert raised[0] is error
    assert raised[1] is not raised[2], "each has a traceback of its own"
    after = sky.ask()
    await quiet()
    sky.end()
    assert await after == {KEY: "k2"}


@virtual
async def test_an_error_that_is_not_ours_reaches_all_as_it_is():
    sky = Sky()
    callers = [sky.ask(), sky.ask()]
    await quiet()
    sky.end(error=ValueError("bug"))
    assert [repr(e) for e in await asyncio.gather(*callers, return_exceptions=True)] == ["ValueError('bug')"] * 2


@pytest.mark.parametrize("error", [Rejected("full"), Expired("search")])
@virtual
async def test_a_refusal_reaches_those_who_would_fare_no_better_and_one_of_the_others_tries(error):
    sky = Sky()
    leader = sky.ask(ctx=until(5))
    sooner, same = sky.ask(ctx=until(4)), sky.ask(ctx=until(5))
    later, other = sky.ask(ctx=until(6)), sky.ask(ctx=until(4, BERT))
    await quiet()
    sky.end(error=error)
    await quiet()
    assert [type(caller.exception()) for caller in (leader, sooner, same)] == [type(error)] * 3
    assert len(sky.flown) == 2
    sky.end()
    assert await asyncio.gather(later, other) == [{KEY: "k2"}] * 2


@virtual
async def test_refusals_do_not_go_on_and_on():
    sky = Sky()
    callers = [sky.ask(ctx=replace(WORK, client=f"client {number}")) for number in range(20)]
    await quiet()
    for _ in range(HANDOVERS_MAX + 1):
        sky.end(error=Rejected("full"))
        await quiet()
    assert [type(caller.exception()) for caller in callers] == [Rejected] * 20
    assert len(sky.flown) == HANDOVERS_MAX + 1


@virtual
async def test_a_follower_waits_no_longer_than_its_own_deadline():
    sky = Sky()
    leader, follower = sky.ask(), sky.ask(ctx=until(5))
    with pytest.raises(Expired) as caught:
        await follower
    assert caught.value.operation == "search"
    sky.end()
    assert await leader == {KEY: "k1"}


@virtual
async def test_urgent_work_does_not_wait_behind_work_of_a_lower_class():
    sky = Sky()
    bulk, urgent, later = sky.ask(), sky.ask(ctx=URGENT), sky.ask()
    await quiet()
    assert len(sky.flown) == 2
    sky.end(1)
    assert await urgent == {KEY: "k2"}
    assert await later == {KEY: "k2"}
    sky.end(0)
    assert await bulk == {KEY: "k1"}
    assert len(sky.flights) == 0


@virtual
@pytest.mark.parametrize("landed", [False, True])
async def test_who_is_told_to_lead_follows_a_more_urgent_caller_that_has_begun_meanwhile(*, landed: bool):
    sky = Sky()
    leader, heir, friend = sky.ask(), sky.ask(ctx=BERT), sky.ask(ctx=BERT)
    await quiet()
    sky.end(0, Rejected("full"))
    await asyncio.sleep(0)  # the leader has handed over; the heir has not been woken
    urgent = sky.ask(ctx=replace(URGENT, client="bert"))
    if landed:
        await asyncio.sleep(0)
        sky.end(1)
    await quiet()
    if not landed:
        sky.end(1)
    assert await asyncio.gather(heir, friend, urgent) == [{KEY: "k2"}] * 3
    assert isinstance((await asyncio.gather(leader, return_exceptions=True))[0], Rejected)
    assert (len(sky.flown), len(sky.flights)) == (2, 0)


@virtual
async def test_a_flight_left_behind_by_a_more_urgent_one_is_followed_again_when_that_has_gone():
    sky = Sky()
    slow, urgent = sky.ask(), sky.ask(ctx=URGENT)
    await quiet()
    urgent.cancel()
    await quiet()
    later = sky.ask()
    await quiet()
    assert len(sky.flown) == 2
    sky.end(0)
    assert await asyncio.gather(slow, later) == [{KEY: "k1"}] * 2
    assert len(sky.flights) == 0


@pytest.mark.parametrize("landed", [False, True])
def test_those_an_urgent_leader_leaves_behind_follow_the_slower_flight_instead_of_flying_again(landed):
    @virtual
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        flown, land_now, rest = [], asyncio.Event(), asyncio.Event()

        async def fly(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
            flown.append(led)
            await land_now.wait()
            land(KEY, "there")
            await rest.wait()

        async def never(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
            flown.append(led)
            await asyncio.sleep(1000)

        slow = asyncio.create_task(flights.run([KEY], WORK, fly))
        await quiet()
        urgent = asyncio.create_task(flights.run([KEY], URGENT, never))
        await quiet()
        later = [asyncio.create_task(flights.run([KEY], WORK, never)) for _ in range(2)]
        await quiet()
        if landed:
            land_now.set()
            await quiet()
        urgent.cancel()
        await quiet()
        assert all(caller.done() for caller in later) == landed
        land_now.set()
        rest.set()
        assert await asyncio.gather(slow, *later) == [{KEY: "there"}] * 3
        assert (len(flown), len(flights)) == (2, 0)

    scenario()


@virtual
async def test_who_is_cancelled_at_any_step_leaves_nothing_behind_and_hurts_nobody_else():
    batches = [(b"a", b"b"), (b"b", b"c"), (b"c", b"a"), (b"b",)]
    for gone in itertools.product([0], range(8), [1, 2, 3], range(8)):
        flights: SingleFlight[str] = SingleFlight()

        async def fly(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
            for key in led:
                await asyncio.sleep(0)
                land(key, key.decode())
            await asyncio.sleep(0)

        callers = [asyncio.create_task(flights.run(batch, WORK, fly)) for batch in batches]
        first, first_step, second, second_step = gone
        for step in range(8):
            if step == first_step:
                callers[first].cancel()
            if step == second_step:
                callers[second].cancel()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert len(flights) == 0
        for number, (batch, answer) in enumerate(zip(batches, answers, strict=True)):
            if isinstance(answer, BaseException):
                assert isinstance(answer, asyncio.CancelledError)
                assert number in (first, second)
            else:
                assert answer == {key: key.decode() for key in batch}


@virtual
async def test_work_that_forgets_a_result_is_a_bug_and_nobody_hangs():
    flights: SingleFlight[str] = SingleFlight()

    async def fly(led: list[bytes], land: Callable[[bytes, str], None]) -> None:
        await asyncio.sleep(1)
        land(led[0], "there")

    leader = asyncio.create_task(flights.run([b"a", b"b"], WORK, fly))
    follower = asyncio.create_task(flights.run([b"b"], WORK, fly))
    raised = await asyncio.gather(leader, follower, return_exceptions=True)
    assert [type(error) for error in raised] == [Broken] * 2
    assert len(flights) == 0


CLASSES = [Criticality.INTERACTIVE, Criticality.STANDARD]
ENDS = ["answer", "down", "full", "bug"]
ERRORS = {"down": Unavailable("down", dependency="m"), "full": Rejected("full"), "bug": ValueError("bug")}


@dataclass(eq=False)
class Encoding:
    """A run of the model that the machine ends."""

    texts: list[str]
    ctx: Context
    end: asyncio.Future[str]


class MemoryMachine(RuleBasedStateMachine):
    """Callers with batches that overlap, cancelled at any moment, over a cache that forgets at any moment.

    Whatever happens: nobody waits for work that nobody does, a text is encoded twice at once only for a more urgent
    caller, every answer is right and in order, no error is remembered, and in the end nothing is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(None)
        self.clock = _At(self.loop)
        self.cache = MemoryCache("c", 3, 10_000, self.clock)
        self.memory: EncodingCache[str] = EncodingCache(self.cache, "m", str.encode, bytes.decode)
        self.running: list[Encoding] = []
        self.callers: dict[asyncio.Task[list[str]], list[str]] = {}
        self.cancelled: set[Any] = set()

    @rule(
        texts=st.lists(st.sampled_from("abcde"), max_size=4),
        rank=st.sampled_from(CLASSES),
        client=st.sampled_from("xy"),
        left_s=st.sampled_from([5.0, 50.0]),
    )
    def ask(self, texts: list[str], rank: Criticality, client: str, left_s: float) -> None:
        ctx = Context(Deadline(self.loop.time() + left_s, "search"), rank, client)

        async def encode(missing: list[str]) -> list[str]:
            encoding = Encoding(missing, ctx, self.loop.create_future())
            self.running.append(encoding)
            try:
                end = await encoding.end
            finally:
                self.running.remove(encoding)
            if end != "answer":
                raise ERRORS[end]
            return [text.upper() for text in missing]

        task = self.loop.create_task(self.memory.get_or_encode(texts, TextKind.QUERY, ctx, encode))
        self.callers[task] = texts

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def finish(self, data: st.DataObject, end: str) -> None:
        encoding = data.draw(st.sampled_from(self.running))
        if not encoding.end.done():
            encoding.end.set_result(end)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(list(self.callers)))
        if caller.cancel():
            self.cancelled.add(caller)

    @rule(share=st.sampled_from([0.0, 0.5]))
    def forget(self, share: float) -> None:
        self.cache.shrink(share)

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.loop.spend(seconds)

    @rule(times=st.integers(1, 3))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            tick(self.loop)

    @invariant()
    def a_text_is_encoded_twice_at_once_only_for_a_more_urgent_caller(self) -> None:
        for number, earlier in enumerate(self.running):
            for later in self.running[number + 1 :]:
                if set(earlier.texts) & set(later.texts) and not earlier.end.done():
                    assert later.ctx.criticality < earlier.ctx.criticality

    @invariant()
    def every_answer_is_right(self) -> None:
        for caller in [caller for caller in self.callers if caller.done()]:
            texts = self.callers.pop(caller)
            if caller.cancelled():
                assert caller in self.cancelled
            elif caller.exception() is None:
                assert caller.result() == [text.upper() for text in texts]
            else:
                assert isinstance(caller.exception(), Unavailable | Rejected | Expired | ValueError)
            self.cancelled.discard(caller)

    @invariant()
    def nobody_waits_for_work_that_nobody_does(self) -> None:
        if not self.loop._ready:
            waiting = {text for texts in self.callers.values() for text in texts}
            assert not self.callers or self.running, f"nobody encodes {waiting}"

    def teardown(self) -> None:
        for _ in range(500):
            for encoding in self.running:
                if not encoding.end.done():
                    encoding.end.set_result("answer")
            tick(self.loop)
            self.every_answer_is_right()
            if not self.callers:
                break
        assert not self.callers
        assert len(self.memory._flights) == 0
        for _ in range(3):
            tick(self.loop)
        self.loop.check()
        self.loop.close()


class _At:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=150, stateful_step_count=40)
