"""In which order a topic serves: classes, clients, age. Pure: time is a number here."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.bus.dispatcher import Dispatcher
from penstock.bus.envelope import Envelope
from penstock.bus.fair_queue import COST_S_MIN, OVERDUE_S, SWEEP_MIN, Discipline, FairQueue
from penstock.bus.topic_queue import TopicQueue
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import BusSettings
from penstock.policies.congestion import CongestionSettings
from penstock.pools.permits import Permits

INTERACTIVE, STANDARD, BULK = Criticality
#: Congested after a tenth of a second above a millisecond.
TOUCHY = CongestionSettings(target_s_min=0.001, window_s_min=0.1)


async def nothing(_message: Any, _ctx: Context) -> None:
    """Handle nothing."""


INTAKE = Dispatcher(TopicQueue("t", 1), nothing, Permits("t", 1), BusSettings(), MonotonicClock())


def note(
    name: object,
    client: str = "a",
    rank: Criticality = STANDARD,
    cost_s: float = 1.0,
    *,
    ordered: bool = False,
    at_s: float = math.inf,
) -> Envelope:
    """Return something that waits."""
    reply: Any = None if ordered else object()
    one = Envelope(name, Context(Deadline(at_s, "test"), rank, client), INTAKE, 0.0, reply)
    one.cost_s = one.expected_s = cost_s
    return one


def queue(
    capacity: int = 10_000, congestion: CongestionSettings | None = None, **switches: object
) -> FairQueue[Envelope]:
    return FairQueue(capacity, Discipline(**switches), congestion or CongestionSettings())  # type: ignore[arg-type]


def drain(waiting: FairQueue[Envelope], now_s: float = 0.0) -> list[object]:
    return [one.message for one in iter(lambda: waiting.pop(now_s), None) if one is not None]


def class_congested(waiting: FairQueue[Any], rank: Criticality) -> bool:
    """Return the verdict on which the order of a class depends."""
    classes = waiting._classes
    return classes[rank if len(classes) > 1 else 0].congestion.congested


def congest(waiting: FairQueue[Envelope], *ranks: int) -> float:
    """Let a message stand long enough that its class is congested; return the time."""
    for rank in ranks or (STANDARD,):
        waiting.push(note("old", "somebody", rank), 0.0)
        waiting.push(note("later", "somebody", rank), 10.0)
    return 10.0


# --- Settings


@pytest.mark.parametrize("wrong", [{"class_floor": 0.4}, {"class_floor": -0.1}, {"client_share": 0.0}])
def test_a_discipline_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        Discipline(**wrong)  # type: ignore[arg-type]


def test_its_repr_is_a_status_line() -> None:
    waiting = queue(10, TOUCHY)
    waiting.push(note(1, rank=BULK), 0.0)
    assert repr(waiting) == "<FairQueue 0+0+1 of 10>"
    congest(waiting)
    assert repr(waiting) == "<FairQueue 0+2+1 of 10 congested>"
    assert len(waiting) == waiting.count == 3


# --- Classes


def test_more_urgent_classes_go_first() -> None:
    waiting = queue(class_floor=0.0)
    for n, rank in enumerate([BULK, STANDARD, INTERACTIVE] * 2):
        waiting.push(note((rank.name, n), rank=rank), 0.0)
    assert [name for name, _ in drain(waiting)] == ["INTERACTIVE"] * 2 + ["STANDARD"] * 2 + ["BULK"] * 2  # type: ignore[misc]


def shares(costs: dict[Criticality, float], pops: int, floor: float = 0.1) -> dict[Criticality, float]:
    """Return what share of the service each class has while all of them always wait."""
    waiting = queue(class_floor=floor)
    served = dict.fromkeys(Criticality, 0.0)
    for rank, cost_s in costs.items():
        waiting.push(note(rank, rank=rank, cost_s=cost_s), 0.0)
        waiting.push(note(rank, rank=rank, cost_s=cost_s), 0.0)
    for _ in range(pops):
        one = waiting.pop(0.0)
        assert one is not None
        served[Criticality(one.rank)] += one.cost_s
        waiting.push(note(one.message, rank=one.rank, cost_s=one.cost_s), 0.0)
    total_s = sum(served.values())
    return {rank: cost_s / total_s for rank, cost_s in served.items()}


@pytest.mark.parametrize("bulk_s", [0.01, 1.0, 30.0])
def test_a_lower_class_keeps_a_tenth_of_the_service_however_dear_its_messages_are(bulk_s: float) -> None:
    found = shares({INTERACTIVE: 1.0, BULK: bulk_s}, 20_000)
    assert found[BULK] == pytest.approx(0.1, abs=0.01)


def test_each_lower_class_keeps_its_own_tenth() -> None:
    found = shares({INTERACTIVE: 1.0, STANDARD: 3.0, BULK: 0.5}, 20_000)
    assert found[STANDARD] == pytest.approx(0.1, abs=0.01)
    assert found[BULK] == pytest.approx(0.1, abs=0.01)


def test_without_a_floor_a_lower_class_waits_for_ever() -> None:
    assert shares({INTERACTIVE: 1.0, BULK: 1.0}, 1000, floor=0.0)[BULK] == 0.0


def test_the_second_class_is_in_front_when_the_first_is_empty() -> None:
    found = shares({STANDARD: 1.0, BULK: 1.0}, 5000)
    assert found[BULK] == pytest.approx(0.1, abs=0.01)


def test_a_class_that_comes_one_message_at_a_time_gets_no_more_than_its_tenth() -> None:
    # Otherwise a sequential client of the lowest class would be served after every urgent message.
    waiting, served = queue(), Counter[str]()
    for _ in range(3):
        waiting.push(note("interactive", rank=INTERACTIVE), 0.0)
    away = True
    for _ in range(5000):
        if away:
            waiting.push(note("bulk", rank=BULK), 0.0)
        one = waiting.pop(0.0)
        assert one is not None
        served[str(one.message)] += 1
        away = one.message == "bulk"
        if not away:
            waiting.push(note("interactive", rank=INTERACTIVE), 0.0)
    assert served["bulk"] / served.total() == pytest.approx(0.1, abs=0.01)


def test_a_class_earns_nothing_while_it_is_away() -> None:
    waiting = queue()
    for _ in range(1000):
        waiting.push(note("interactive", rank=INTERACTIVE), 0.0)
        waiting.push(note("standard", rank=STANDARD), 0.0)
    for _ in range(900):
        waiting.pop(0.0)
    for _ in range(100):
        waiting.push(note("bulk", rank=BULK), 0.0)
    assert sum(one is not None and one.message == "bulk" for one in [waiting.pop(0.0) for _ in range(50)]) <= 6


# --- Clients


def test_clients_share_a_class_by_cost_not_by_count() -> None:
    waiting, served = queue(), Counter[str]()
    for n in range(3000):
        waiting.push(note(n, "cheap", cost_s=0.01), 0.0)
        waiting.push(note(n, "dear", cost_s=0.3), 0.0)
    while served.total() < 62:
        one = waiting.pop(0.0)
        assert one is not None
        served[one.client] += 1
    assert served == {"cheap": 60, "dear": 2}


def test_a_flood_does_not_hold_up_a_client_that_asks_now_and_then() -> None:
    waiting = queue()
    for n in range(1000):
        waiting.push(note(n, "flood"), 0.0)
    for turn in range(20):
        waiting.push(note("mine", "small"), 0.0)
        assert "mine" in [waiting.pop(0.0).message for _ in range(2)], turn  # type: ignore[union-attr]


def test_many_small_clients_do_not_starve_a_heavy_one() -> None:
    waiting, served = queue(), Counter[str]()
    for n in range(100):
        waiting.push(note(n, "heavy", cost_s=5.0), 0.0)
    for n in range(9000):
        waiting.push(note(n, f"small {n % 9}"), 0.0)
    cost_s = 0.0
    while cost_s < 1000:
        one = waiting.pop(0.0)
        assert one is not None
        served[one.client] += int(one.cost_s)
        cost_s += one.cost_s
    assert all(share == pytest.approx(100, abs=10) for share in served.values()), served


def test_an_idle_client_saves_up_nothing() -> None:
    waiting = queue()
    for n in range(100):
        waiting.push(note(n, "busy"), 0.0)
    waiting.push(note("hello", "idle"), 0.0)
    for _ in range(60):
        waiting.pop(0.0)
    for n in range(40):
        waiting.push(note(n, "idle"), 0.0)
    next_ones = Counter(waiting.pop(0.0).client for _ in range(20))  # type: ignore[union-attr]
    assert next_ones == {"idle": 10, "busy": 10}


def test_a_client_owes_what_it_had_even_if_it_waits_for_nothing_in_between() -> None:
    waiting = queue()
    for n in range(100):
        waiting.push(note(n, "other"), 0.0)
    served = Counter[str]()
    waiting.push(note("dear", "mine", cost_s=10.0), 0.0)
    for _ in range(11):
        one = waiting.pop(0.0)
        assert one is not None
        served[one.client] += 1
        if one.client == "mine":  # at once the next
            waiting.push(note("dear", "mine", cost_s=10.0), 0.0)
    assert served == {"mine": 1, "other": 10}


def test_a_message_that_costs_nothing_is_charged_a_little() -> None:
    waiting = queue()
    for n in range(10):
        waiting.push(note(n, "free", cost_s=0.0), 0.0)
        waiting.push(note(n, "tiny", cost_s=COST_S_MIN), 0.0)
    assert Counter(waiting.pop(0.0).client for _ in range(10)) == {"free": 5, "tiny": 5}  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 5.0)), min_size=1, max_size=200), st.data())
def test_two_clients_that_wait_are_never_further_apart_than_their_dearest_messages(
    messages: list[tuple[str, float]], data: st.DataObject
) -> None:
    # The fairness bound of start-time fair queueing, over every interval in which both wait.
    waiting, left = queue(), Counter[str]()
    for n, (client, cost_s) in enumerate(messages):
        waiting.push(note(n, client, cost_s=cost_s), 0.0)
        left[client] += 1
    had = {"a": 0.0, "b": 0.0}
    gaps = [0.0]
    while left["a"] and left["b"]:
        one = waiting.pop(0.0)
        assert one is not None
        left[one.client] -= 1
        had[one.client] += one.cost_s
        gaps.append(had["a"] - had["b"])
    dearest_s = sum(max((cost for name, cost in messages if name == client), default=0.0) for client in "ab")
    assert max(gaps) - min(gaps) <= dearest_s + 1e-6


# --- Age


def test_one_client_is_served_in_the_order_of_its_messages() -> None:
    waiting = queue()
    for n in range(50):
        waiting.push(note(n), 0.0)
    assert drain(waiting) == list(range(50))


def test_a_congested_class_serves_the_newest_first() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting)
    assert waiting.congested
    for n in range(3):
        waiting.push(note(n), now_s)
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("age_s", "time_s", "served"),
    [
        (OVERDUE_S - 0.01, math.inf, [0, 1, 2]),
        (OVERDUE_S, math.inf, [2, 1, 0]),
        (OVERDUE_S - 0.01, 10.0, [0, 1, 2]),
        (0.15, 0.3, [2, 1, 0]),
        (0.15, 0.31, [0, 1, 2]),
    ],
)
def test_nobody_is_overtaken_before_the_oldest_has_waited_long(
    age_s: float, time_s: float, served: list[object]
) -> None:
    waiting = queue(congestion=TOUCHY)
    for n in range(3):
        waiting.push(note(n, at_s=time_s), 0.0 if n == 0 else age_s)
    waiting.push(note("other", "b"), age_s + 1e-9)
    assert waiting.congested
    assert [name for name in drain(waiting, age_s + 1e-9) if isinstance(name, int)] == served


def test_a_client_that_always_has_something_waiting_is_served_in_order_while_waits_are_short() -> None:
    waiting, now_s, callers = queue(congestion=TOUCHY), 0.0, 16
    for n in range(callers):
        waiting.push(note(n), now_s)
    served = []
    for n in range(callers, 500):  # each caller asks again when it has been answered
        now_s += 0.005
        one = waiting.pop(now_s)
        assert one is not None
        served.append(one.message)
        waiting.push(note(n), now_s)
    assert waiting.congested
    assert served == sorted(served)


def test_bulk_work_keeps_its_order_however_congested_it_is() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting, BULK)
    for n in range(3):
        waiting.push(note(n, rank=BULK), now_s)
    assert class_congested(waiting, BULK)
    assert waiting.ahead_s("a", BULK, 1.0) > 0.0
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == [0, 1, 2]


def test_ordered_messages_are_never_overtaken_by_later_ones_of_their_client() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting)
    for n in range(6):
        waiting.push(note(n, ordered=n % 2 == 0), now_s)
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == list(range(6))


def test_newest_first_comes_back_when_the_last_ordered_one_has_gone() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting)
    event = note("event", ordered=True)
    waiting.push(event, now_s)
    for n in range(3):
        waiting.push(note(n), now_s)
    waiting.remove(event, now_s)
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == [2, 1, 0]


def test_a_class_is_congested_by_itself() -> None:
    waiting = queue(congestion=TOUCHY)
    congest(waiting, BULK)
    assert [class_congested(waiting, rank) for rank in Criticality] == [False, False, True]
    assert waiting.congested
    together = queue(congestion=TOUCHY, classes=False)
    congest(together, BULK)
    assert all(class_congested(together, rank) for rank in Criticality)


def test_pressure_is_the_age_of_a_classs_oldest_as_a_share_of_its_target() -> None:
    waiting = queue(congestion=TOUCHY)
    waiting.set_service_time(2.0)
    target_s = 2.0 * TOUCHY.target_services
    assert [waiting.pressure(rank, 10.0) for rank in Criticality] == [0.0, 0.0, 0.0]
    first, second = note(1, rank=BULK), note(2, rank=BULK)
    waiting.push(first, 10.0)
    waiting.push(second, 11.0)
    assert [waiting.pressure(rank, 12.0) for rank in Criticality] == [0.0, 0.0, 2.0 / target_s]
    waiting.remove(first, 12.0)
    assert waiting.pressure(BULK, 12.0) == 1.0 / target_s
    assert waiting.pop(12.0) is second
    assert waiting.pressure(BULK, 12.0) == 0.0


def test_an_empty_queue_is_not_congested() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting)
    drain(waiting, now_s)
    assert not waiting.congested


def test_the_target_follows_the_service_time() -> None:
    waiting = queue(congestion=TOUCHY)
    waiting.set_service_time(20.0)
    congest(waiting)
    assert not waiting.congested


# --- Removal


@pytest.mark.parametrize("place", range(5))
def test_a_message_is_taken_out_at_any_place(place: int) -> None:
    waiting = queue()
    notes = [note(n) for n in range(5)]
    for one in notes:
        waiting.push(one, 0.0)
    assert waiting.remove(notes[place], 0.0)
    assert not waiting.remove(notes[place], 0.0)
    assert drain(waiting) == [n for n in range(5) if n != place]


def test_what_is_not_here_is_not_taken_out() -> None:
    waiting = queue()
    assert not waiting.remove(note(1), 0.0)
    assert waiting.pop(0.0) is None


def test_dead_messages_are_skipped_from_both_ends() -> None:
    waiting = queue(congestion=TOUCHY)
    now_s = congest(waiting)
    notes = [note(n) for n in range(6)]
    for one in notes:
        waiting.push(one, now_s)
    for n in (0, 5, 4):
        waiting.remove(notes[n], now_s)
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == [3, 2, 1]


def sizes(waiting: FairQueue[Envelope]) -> int:
    """Return the longest of its inner lists."""
    return max(
        max(len(one.arrivals), len(one.heap), len(one.flows), *(len(flow.items) for flow in one.flows.values()), 0, 0)
        for one in waiting._classes
    )


@pytest.mark.parametrize("clients", [1, 7, 1_000_000])
@pytest.mark.parametrize("leave", ["remove newest", "remove oldest", "pop"])
def test_what_is_dead_is_swept_out(clients: int, leave: str) -> None:
    # One message stays, so that the class never begins anew; all others come and go.
    waiting = queue()
    waiting.push(note("stays", "stays", cost_s=1e12), 0.0)
    waiting.pop(0.0)
    waiting.push(note("stays", "stays"), 0.0)
    here: deque[Envelope] = deque()
    for n in range(3000):
        one = note(n, f"client {n % clients}", cost_s=n % 5)
        waiting.push(one, 0.0)
        here.append(one)
        if len(here) > 3:
            if leave == "pop":
                waiting.pop(0.0)
                here.popleft()
            else:
                waiting.remove(here.pop() if leave == "remove newest" else here.popleft(), 0.0)
        assert sizes(waiting) <= 2 * (SWEEP_MIN + waiting.count + 1), n


def test_of_too_many_clients_that_owe_the_debts_are_forgotten() -> None:
    # All owe more than the one that always waits has ever paid: none can be told to be even.
    waiting = queue(class_floor=0.0)
    waiting.push(note("stays", "stays", cost_s=1.0), 0.0)
    for n in range(500):
        waiting.push(note(n, f"client {n}", cost_s=1e6), 0.0)
        waiting.push(note("stays", "stays", cost_s=1.0), 0.0)
        waiting.pop(0.0)
    assert sizes(waiting) <= 2 * (SWEEP_MIN + waiting.count + 1)


# --- What waits ahead


def ahead(waiting: FairQueue[Envelope], client: str = "a", rank: int = STANDARD, cost_s: float = 1.0) -> float:
    return waiting.ahead_s(client, rank, cost_s)


def test_nothing_is_ahead_of_the_first() -> None:
    assert ahead(queue()) == 0.0


def test_all_of_ones_own_is_ahead_and_as_much_of_each_other_client() -> None:
    waiting = queue()
    for n in range(3):
        waiting.push(note(n), 0.0)
    assert ahead(waiting) == 3.0
    for n in range(100):
        waiting.push(note(n, "flood"), 0.0)
    assert ahead(waiting) == 3.0 + (3.0 + 1.0)
    assert ahead(waiting, "new") == 2 * 1.0
    waiting.push(note(1, "short"), 0.0)
    assert ahead(waiting, "flood") == 104.0  # no more than there is


def test_ones_own_is_not_ahead_while_the_newest_goes_first() -> None:
    waiting = queue(congestion=TOUCHY)
    congest(waiting)
    assert ahead(waiting, "somebody") == 0.0


def test_higher_classes_are_ahead_as_far_as_the_floor_lets_them() -> None:
    waiting = queue()
    for n in range(5):
        waiting.push(note(n, rank=INTERACTIVE), 0.0)
    assert ahead(waiting, rank=BULK) == 5.0
    for n in range(500):
        waiting.push(note(n, rank=INTERACTIVE), 0.0)
    assert ahead(waiting, rank=BULK) == pytest.approx(10.0)
    assert ahead(waiting, rank=INTERACTIVE) == 505.0
    no_floor = queue(class_floor=0.0)
    for n in range(500):
        no_floor.push(note(n, rank=INTERACTIVE), 0.0)
    assert ahead(no_floor, rank=BULK) == 500.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Criticality), st.floats(0, 10)), max_size=60))
def test_never_more_is_ahead_than_there_is(messages: list[tuple[str, Criticality, float]]) -> None:
    waiting = queue()
    for n, (client, rank, cost_s) in enumerate(messages):
        waiting.push(note(n, client, rank, cost_s), 0.0)
    total_s = sum(cost_s for _, _, cost_s in messages)
    assert waiting.expected_s == pytest.approx(total_s)
    for rank in Criticality:
        assert -1e-9 <= ahead(waiting, rank=rank) <= total_s + 1e-9


# --- Each mechanism switched off


def test_without_classes_all_are_one() -> None:
    waiting = queue(classes=False)
    for n, rank in enumerate([BULK, INTERACTIVE, STANDARD]):
        waiting.push(note(n, rank=rank), 0.0)
    assert drain(waiting) == [0, 1, 2]
    assert repr(waiting) == "<FairQueue 0 of 10000>"


def test_without_fair_clients_the_first_goes_first() -> None:
    waiting = queue(fair_clients=False)
    for n in range(20):
        waiting.push(note(n, "flood" if n < 19 else "small"), 0.0)
    assert ahead(waiting, "small") == 20.0
    assert drain(waiting) == list(range(20))


def test_without_newest_first_a_congested_class_keeps_the_order() -> None:
    waiting = queue(congestion=TOUCHY, newest_first=False)
    now_s = congest(waiting)
    for n in range(3):
        waiting.push(note(n), now_s)
    assert waiting.congested
    assert [name for name in drain(waiting, now_s) if isinstance(name, int)] == [0, 1, 2]


def test_plain_first_in_first_out_switches_everything_off() -> None:
    waiting: FairQueue[Envelope] = FairQueue(100, Discipline.of(BusSettings(discipline="fifo")), TOUCHY)
    ranks = list(Criticality)
    for n in range(30):
        waiting.push(note(n, f"client {n % 4}", ranks[n % 3], 1.0 + n), n / 10)
    assert waiting.congested
    assert drain(waiting, 3.0) == list(range(30))


# --- Against a model


class Model:
    """What waits, and which of a client's messages of one class is the right one, without regard to speed."""

    def __init__(self, discipline: Discipline) -> None:
        self.discipline = discipline
        self.waiting: list[Envelope] = []

    def key(self, one: Envelope) -> tuple[int, str]:
        rank = one.rank if self.discipline.classes else 0
        return rank, one.client if self.discipline.fair_clients else ""

    def may_be_next(self, one: Envelope, *, newest: bool) -> bool:
        """Return whether ``one`` is the right one of its client and class."""
        same = [other for other in self.waiting if self.key(other) == self.key(one)]
        if newest and not any(other.ordered for other in same):
            return one is same[-1]
        return one is same[0]


class DisciplineMachine(RuleBasedStateMachine):
    """A queue beside its model; costs, clients, classes, time and removals at random."""

    capacity = 12

    @initialize(
        classes=st.booleans(),
        fair=st.booleans(),
        newest=st.booleans(),
        floor=st.sampled_from([0.0, 0.1, 0.3]),
    )
    def begin(self, classes: bool, fair: bool, newest: bool, floor: float) -> None:  # noqa: FBT001
        rules = Discipline(classes, floor, fair, 1.0, newest)
        self.queue: FairQueue[Envelope] = FairQueue(self.capacity, rules, TOUCHY)
        self.model = Model(rules)
        self.now_s = 1000.0
        self.sent = 0
        self.gone: list[Envelope] = []

    @precondition(lambda self: len(self.model.waiting) < self.capacity)
    @rule(
        client=st.sampled_from("abc"),
        rank=st.sampled_from(Criticality),
        cost_s=st.sampled_from([0.0, 0.01, 0.5, 7.0]),
        ordered=st.booleans(),
    )
    def push(self, client: str, rank: Criticality, cost_s: float, ordered: bool) -> None:  # noqa: FBT001
        self.sent += 1
        one = note(self.sent, client, rank, cost_s, ordered=ordered)
        self.queue.push(one, self.now_s)
        self.model.waiting.append(one)

    @rule()
    def pop(self) -> None:
        rules = self.model.discipline
        congested = {rank: class_congested(self.queue, rank) for rank in Criticality}
        late = {rank: self.queue._classes[rank if rules.classes else 0].overdue for rank in Criticality}
        one = self.queue.pop(self.now_s)
        if not self.model.waiting:
            assert one is None
            return
        assert one is not None
        assert one in self.model.waiting
        hurried = one.rank != BULK or not rules.classes
        newest = rules.newest_first and hurried and congested[Criticality(one.rank)] and late[one.rank]
        assert self.model.may_be_next(one, newest=newest)
        if self.model.discipline.classes and not self.model.discipline.class_floor:
            assert one.rank == min(other.rank for other in self.model.waiting)
        self.model.waiting.remove(one)
        self.gone.append(one)

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.model.waiting))
        assert self.queue.remove(one, self.now_s)
        self.model.waiting.remove(one)
        self.gone.append(one)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def remove_what_has_gone(self, data: st.DataObject) -> None:
        assert not self.queue.remove(data.draw(st.sampled_from(self.gone)), self.now_s)

    @rule(seconds=st.sampled_from([0.0001, 0.01, 0.2, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def counts_are_right(self) -> None:
        assert self.queue.count == len(self.model.waiting) <= self.capacity
        assert sum(one.count for one in self.queue._classes) == self.queue.count
        for one in self.queue._classes:
            assert one.backlogged == sum(flow.live > 0 for flow in one.flows.values())
            assert one.count == sum(flow.live for flow in one.flows.values())

    @invariant()
    def expectations_are_right(self) -> None:
        assert self.queue.expected_s == pytest.approx(sum(one.expected_s for one in self.model.waiting), abs=1e-9)

    @invariant()
    def nothing_dead_piles_up(self) -> None:
        assert sizes(self.queue) <= 2 * (SWEEP_MIN + self.queue.count + 1)

    @invariant()
    def only_what_waits_has_a_place(self) -> None:
        assert all(one.flow is not None for one in self.model.waiting)
        assert all(one.flow is None for one in self.gone)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            while self.model.waiting:
                self.pop()
            assert self.queue.pop(self.now_s) is None
            assert len(self.gone) == len({id(one) for one in self.gone}) == self.sent


TestDisciplineAgainstItsModel = DisciplineMachine.TestCase
TestDisciplineAgainstItsModel.settings = settings(max_examples=80, stateful_step_count=60)
