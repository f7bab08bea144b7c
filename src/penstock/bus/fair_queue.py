"""Fair queue: orders a topic's messages by class, client and age (DESIGN §4). Pure; time is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields, replace
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

from penstock.kernel.context import Criticality
from penstock.kernel.settings import BusSettings
from penstock.policies.bounds import within
from penstock.policies.congestion import Congestion, CongestionSettings

#: A message costs at least this much, so that no client is served for nothing.
COST_S_MIN = 1e-6
#: Dead entries and idle clients are swept out when there are more of them than of live ones, and than this.
SWEEP_MIN = 64
#: How often the age of the oldest message is looked at.
AGE_CHECK_S = 0.001
#: Before the oldest has waited so long, or for this share of the time that it has in all, none is overtaken: a delay
#: too short for a person to notice is no reason to leave the order.
OVERDUE_S = 0.25
OVERDUE_DEADLINE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Discipline:
    """Mechanisms of a topic's queue; each can be switched off to measure its worth.

    Attributes:
        classes: Interactive before standard before bulk.
        class_floor: Share of the service kept for each waiting class below the one in front.
        fair_clients: Clients of one class share its service.
        client_share: Share of the buffer one client may fill; 1 for all of it.
        newest_first: Within a client, while the class is congested and its oldest has waited long (``OVERDUE_S``,
            ``OVERDUE_DEADLINE_SHARE``); where there are classes, not in ``bulk``, whose callers want all of it and not
            the latest of it.
        discard: What can no longer end in time is not begun.
        refuse_hopeless: What could not end in time is refused.
    """

    classes: bool = True
    class_floor: float = 0.1
    fair_clients: bool = True
    client_share: float = 0.25
    newest_first: bool = True
    discard: bool = True
    refuse_hopeless: bool = True

    def __post_init__(self) -> None:
        within(self, 0.0, 0.3, "class_floor")
        within(self, 0.001, 1.0, "client_share")

    @classmethod
    def of(cls, settings: BusSettings) -> Discipline:
        """Return the mechanisms that the settings ask for."""
        asked = cls(*(getattr(settings, one.name) for one in fields(cls)))
        if settings.discipline == "fifo":
            return replace(
                asked, classes=False, class_floor=0.0, fair_clients=False, client_share=1.0, newest_first=False
            )
        return asked


class QueueItem:
    """Item of a fair queue; it is pushed once in its life.

    Attributes:
        client: The client that its cost is charged to.
        rank: Its criticality.
        ordered: Whether no later one of its client and class may overtake it (events).
        cost_s: Seconds of service charged to its client.
        expected_s: Seconds it adds to the wait of those behind it; 0 while nothing is known.
        since_s: When it was pushed.
        at_s: The moment after which its answer is of no use.
        flow: Its client's queue; ``None`` while it is not queued.
    """

    __slots__ = ("at_s", "client", "cost_s", "expected_s", "flow", "ordered", "rank", "since_s")

    client: str
    rank: int
    ordered: bool
    cost_s: float
    expected_s: float
    since_s: float
    at_s: float
    flow: _ClientFlow | None


W = TypeVar("W", bound=QueueItem)


class _ClientFlow:
    """Messages of one client in one class.

    Attributes:
        items: Its messages, some of them dead.
        live: How many are not.
        ordered: How many of those are ordered.
        expected_s: Their expected service time.
        finish: Up to where it is charged, in virtual time.
        heap_id: Its place in the heap; -1 while it has none.
    """

    __slots__ = ("expected_s", "finish", "heap_id", "items", "live", "ordered")

    def __init__(self) -> None:
        self.items: deque[QueueItem] = deque()
        self.live = self.ordered = 0
        self.expected_s = self.finish = 0.0
        self.heap_id = -1


class _CriticalityQueue:
    __slots__ = (
        "arrivals",
        "backlogged",
        "checked_s",
        "congestion",
        "count",
        "credit",
        "expected_s",
        "flows",
        "heap",
        "latest",
        "newest_first",
        "overdue",
        "unswept",
        "virtual",
    )

    def __init__(self, congestion: CongestionSettings, *, newest_first: bool) -> None:
        self.congestion = Congestion(congestion)
        self.newest_first = newest_first
        self.overdue = False
        self.arrivals: deque[QueueItem] = deque()
        self.flows: dict[str, _ClientFlow] = {}
        self.heap: list[tuple[float, int, _ClientFlow]] = []
        self.checked_s = 0.0
        self.count = self.backlogged = self.unswept = 0
        self.credit = self.expected_s = self.virtual = self.latest = 0.0

    def reset(self) -> None:
        """Reset an empty class: no message waits, no client owes, nothing is earned."""
        self.overdue = False
        self.expected_s = 0.0
        self.virtual = self.latest
        self.credit = min(self.credit, 0.0)
        self.arrivals.clear()
        self.heap.clear()

    def check_oldest(self, now_s: float) -> None:
        """Pass the age of the oldest message to the congestion detector, and note whether it is overdue."""
        self.checked_s = now_s
        age_s = self.oldest_age_s(now_s)
        if self.arrivals:
            oldest = self.arrivals[0]
            self.overdue = age_s >= min(OVERDUE_S, OVERDUE_DEADLINE_SHARE * (oldest.at_s - oldest.since_s))
        self.congestion.observe(age_s, now_s)

    def oldest_age_s(self, now_s: float) -> float:
        """Return the age of the oldest message, 0 where none waits."""
        arrivals = self.arrivals
        while arrivals and arrivals[0].flow is None:
            arrivals.popleft()
        return now_s - arrivals[0].since_s if arrivals else 0.0

    def serves_newest(self, flow: _ClientFlow) -> bool:
        """Return whether the newest of a client's messages is next."""
        return self.newest_first and self.overdue and self.congestion.congested and not flow.ordered

    def sweep_dead(self) -> None:
        """Drop what is dead. Done after as many pushes as there are messages: O(1) for each, amortised."""
        self.unswept = 0
        self.arrivals = deque(entry for entry in self.arrivals if entry.flow is not None)
        self.heap = [place for place in self.heap if place[2].heap_id == place[1]]
        heapify(self.heap)
        if len(self.flows) > SWEEP_MIN + self.count:
            self.flows = self._remembered()
        for flow in self.flows.values():
            if len(flow.items) > flow.live:
                flow.items = deque(entry for entry in flow.items if entry.flow is not None)

    def _remembered(self) -> dict[str, _ClientFlow]:
        """Return the clients that wait or owe; of too many that owe, none: they start like new ones."""
        kept = {client: flow for client, flow in self.flows.items() if flow.live or flow.finish > self.virtual}
        if len(kept) > SWEEP_MIN + self.count:
            return {client: flow for client, flow in kept.items() if flow.live}
        return kept


class FairQueue(Generic[W]):
    """Messages in the order in which they should be served.

    **Classes** are strict, but each waiting class below the one in front earns ``class_floor`` of all service:
    it is served once it has earned anything, and owes what its message costs. So expensive messages of a
    low class get no more than their share, however few pops they take. What it owes is
    remembered when it has nothing waiting, what it has earned is not. **Clients** of a class share it by
    start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each pop goes to the client charged
    least so far, and charges it the message's cost. Deficit round robin gives the same shares, but needs a
    quantum as large as the most expensive message to be O(1), and then serves thirty cheap ones in a row.
    **Within a client** first in first out; newest first while the class is congested, its oldest has waited long, it
    is not ``bulk`` and none of the client's messages is ``ordered``.

    Bounds: ``capacity`` messages, and as many dead ones again; O(log clients) for each operation, amortised.

    Attributes:
        count: Messages here.
        expected_s: Their expected service time.
    """

    def __init__(self, capacity: int, discipline: Discipline, congestion: CongestionSettings) -> None:
        self.capacity = capacity
        self.count = 0
        self.expected_s = 0.0
        self._discipline = discipline
        newest = discipline.newest_first
        self._classes = (
            [
                _CriticalityQueue(congestion, newest_first=newest and rank is not Criticality.BULK)
                for rank in Criticality
            ]
            if discipline.classes
            else [_CriticalityQueue(congestion, newest_first=newest)]
        )
        self._has_credit = False
        self._heap_ids = count()

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        waiting = "+".join(str(one.count) for one in self._classes)
        return f"<FairQueue {waiting} of {self.capacity}{' congested' if self.congested else ''}>"

    @property
    def congested(self) -> bool:
        """True where any class is congested."""
        return any(one.congestion.congested for one in self._classes)

    @property
    def head_rank(self) -> int:
        """The most urgent class that waits; 0 where nothing waits, or classes count for nothing."""
        return next((rank for rank, one in enumerate(self._classes) if one.count), 0)

    def pressure(self, rank: int, now_s: float) -> float:
        """Return the age of a class's oldest message as a share of its target; without classes all share one."""
        one = self._classes[rank if self._discipline.classes else 0]
        return one.oldest_age_s(now_s) / one.congestion.target_s

    def set_service_time(self, service_s: float) -> None:
        """Tell all classes the typical service time, in seconds."""
        for one in self._classes:
            one.congestion.retarget(service_s)

    def push(self, entry: W, now_s: float) -> None:
        """Take a message; the caller has looked that there is room."""
        discipline = self._discipline
        one = self._classes[entry.rank if discipline.classes else 0]
        client = entry.client if discipline.fair_clients else ""
        flow = one.flows.get(client)
        if flow is None:
            flow = one.flows[client] = _ClientFlow()
        if not flow.live:
            # An idle client saves up no service: it begins at the present virtual time. Its debt stays.
            flow.finish = max(flow.finish, one.virtual)
            flow.heap_id = next(self._heap_ids)
            heappush(one.heap, (flow.finish, flow.heap_id, flow))
            one.backlogged += 1
        entry.flow = flow
        entry.since_s = now_s
        flow.items.append(entry)
        flow.live += 1
        if entry.ordered:
            flow.ordered += 1
        flow.expected_s += entry.expected_s
        one.expected_s += entry.expected_s
        self.expected_s += entry.expected_s
        one.arrivals.append(entry)
        one.count += 1
        self.count += 1
        one.unswept += 1
        if one.unswept > SWEEP_MIN + one.count:
            one.sweep_dead()
        if now_s - one.checked_s >= AGE_CHECK_S:
            one.check_oldest(now_s)

    def pop(self, now_s: float) -> W | None:
        """Return the message to serve next; ``None`` when nothing waits."""
        if not self.count:
            return None
        for front in self._classes:
            if front.count:
                break
        one = front if front.count == self.count else self._next_class(front)
        heap = one.heap
        # Removal leaves a client's place in the heap; its id is stale by then.
        while heap[0][2].heap_id != heap[0][1]:
            heappop(heap)
        start, turn, flow = heap[0]
        one.virtual = start
        items = flow.items
        newest = one.serves_newest(flow)
        # A withdrawn message stays in its deque until it is met here or swept.
        entry: W = items.pop() if newest else items.popleft()  # type: ignore[assignment]
        while entry.flow is None:
            entry = items.pop() if newest else items.popleft()  # type: ignore[assignment]
        cost_s = entry.cost_s
        if cost_s < COST_S_MIN:  # noqa: PLR1730 - a call less
            cost_s = COST_S_MIN
        flow.finish = finish = start + cost_s
        if finish > one.latest:  # noqa: PLR1730
            one.latest = finish
        if flow.live > 1:
            heapreplace(heap, (finish, turn, flow))
        else:
            heappop(heap)
        if self._has_credit or one.count != self.count:
            self._update_credit(front, one, cost_s)
        self._account_removal(one, flow, entry, now_s)
        return entry

    def remove(self, entry: W, now_s: float) -> bool:
        """Take out a message, wherever it stands; return whether it was here."""
        flow = entry.flow
        if flow is None:
            return False
        self._account_removal(self._locate(entry.rank, "")[0], flow, entry, now_s)
        return True

    def ahead_s(self, client: str, rank: int, cost_s: float) -> float:
        """Return the expected service time of what would be served before a message pushed now.

        Higher classes come first, as far as the floor lets them. Until a client's own queue is through, each
        other one gets as much as it, or ends before.
        """
        one, client = self._locate(rank, client)
        flow = one.flows.get(client)
        own_s, others = 0.0, one.backlogged
        if flow is not None and flow.live:
            others -= 1
            # Newest first: the client's older messages come after this one.
            own_s = 0.0 if one.serves_newest(flow) else flow.expected_s
        class_s = min(one.expected_s, own_s + others * (own_s + cost_s))
        higher_s = sum(other.expected_s for other in self._classes[: self._classes.index(one)])
        floor = self._discipline.class_floor
        # The floor bounds the wait for higher classes: this class gets at least that share of the service.
        if higher_s and floor:
            return min(higher_s + class_s, (class_s + cost_s) / floor)
        return higher_s + class_s

    def _locate(self, rank: int, client: str) -> tuple[_CriticalityQueue, str]:
        discipline = self._discipline
        return self._classes[rank if discipline.classes else 0], client if discipline.fair_clients else ""

    def _next_class(self, front: _CriticalityQueue) -> _CriticalityQueue:
        """Return the class to serve: the lowest that has earned it, else the first that waits."""
        for one in reversed(self._classes):
            if one.credit > 0.0:
                return one
        return front

    def _update_credit(self, front: _CriticalityQueue, served: _CriticalityQueue, cost_s: float) -> None:
        """Update the credit that classes have earned by the floor."""
        earned_s = cost_s * self._discipline.class_floor
        self._has_credit = False
        for one in self._classes:
            credit = one.credit + earned_s
            if one is served is not front:
                credit -= cost_s
            # Credit is earned by waiting behind others: not by the front class, nor by an empty one. Debt stays.
            if credit > 0.0 and (one is front or not one.count):
                credit = 0.0
            one.credit = credit
            self._has_credit = self._has_credit or credit != 0.0

    def _account_removal(self, one: _CriticalityQueue, flow: _ClientFlow, entry: W, now_s: float) -> None:
        entry.flow = None
        self.count -= 1
        one.count -= 1
        flow.live -= 1
        if entry.ordered:
            flow.ordered -= 1
        # Set at zero, because rounding errors of the sums would add up.
        self.expected_s = self.expected_s - entry.expected_s if self.count else 0.0
        one.expected_s -= entry.expected_s
        flow.expected_s -= entry.expected_s
        if not flow.live:
            flow.heap_id = -1
            flow.expected_s = 0.0
            flow.items.clear()
            one.backlogged -= 1
            if not one.count:
                one.reset()
                one.check_oldest(now_s)
                return
        if now_s - one.checked_s >= AGE_CHECK_S:
            one.check_oldest(now_s)
