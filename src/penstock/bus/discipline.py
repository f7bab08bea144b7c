"""In which order a topic's messages are served (DESIGN §4): classes, clients, age. Pure; time is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from math import inf
from typing import Generic, TypeVar

from penstock.kernel.context import Criticality
from penstock.policies.bounds import within
from penstock.policies.congestion import Congestion, CongestionSettings

#: A message costs at least this much, so that no client is served for nothing.
COST_S_MIN = 1e-6
#: Dead entries and idle clients are swept out when there are more of them than of live ones, and than this.
SWEEP_MIN = 64
#: How often the age of the oldest message is looked at.
WATCH_S = 0.001
#: Before the oldest has waited so long, or for this share of the time that it has in all, nobody is overtaken: whom a
#: queue delays by less than he notices, it may as well serve in order.
NOTICED_S = 0.25
PATIENCE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Discipline:
    """Which mechanisms decide about the order; each can be switched off to see what it is worth.

    Attributes:
        classes: Interactive before standard before bulk.
        class_floor: Share of the service kept for each waiting class below the one in front.
        fair_clients: Clients of one class share its service.
        client_share: Share of the buffer one client may fill; 1 for all of it.
        newest_first: Within a client, while the class is congested and its oldest has waited long (``NOTICED_S``,
            ``PATIENCE_SHARE``); where there are classes, not in ``bulk``, whose callers want all of it and not the
            latest of it.
    """

    classes: bool = True
    class_floor: float = 0.1
    fair_clients: bool = True
    client_share: float = 0.25
    newest_first: bool = True

    def __post_init__(self) -> None:
        within(self, 0.0, 0.3, "class_floor")
        within(self, 0.001, 1.0, "client_share")

    @classmethod
    def fifo(cls) -> Discipline:
        """Return plain first in first out."""
        return cls(classes=False, class_floor=0.0, fair_clients=False, client_share=1.0, newest_first=False)


class Waiting:
    """What waits, or will; it is pushed once in its life.

    Args:
        client: Whom its cost is charged to.
        rank: Its criticality.
        ordered: Whether no later one of its client and class may overtake it (events).

    Attributes:
        cost_s: What its client is charged, in seconds of service.
        expected_s: What it adds to the wait of those behind it; 0 while nothing is known.
        since_s: When it was pushed.
        at_s: Until when its answer is of use.
        flow: Its client's queue; ``None`` while it is not queued.
    """

    __slots__ = ("at_s", "client", "cost_s", "expected_s", "flow", "ordered", "rank", "since_s")

    def __init__(self, client: str, rank: int, *, ordered: bool) -> None:
        self.client = client
        self.rank = rank
        self.ordered = ordered
        self.cost_s = self.expected_s = self.since_s = 0.0
        self.at_s = inf
        self.flow: _Flow | None = None


W = TypeVar("W", bound=Waiting)


class _Flow:
    """One client's messages of one class.

    Attributes:
        items: Its messages, some of them dead.
        live: How many are not.
        ordered: How many of those are ordered.
        expected_s: Their expected service time.
        finish: Up to where it is charged, in virtual time.
        turn: Its place in the heap; -1 while it has none.
    """

    __slots__ = ("expected_s", "finish", "items", "live", "ordered", "turn")

    def __init__(self) -> None:
        self.items: deque[Waiting] = deque()
        self.live = self.ordered = 0
        self.expected_s = self.finish = 0.0
        self.turn = -1


class _Class:
    """The messages of one criticality."""

    __slots__ = (
        "arrivals",
        "backlogged",
        "congestion",
        "count",
        "credit",
        "expected_s",
        "flows",
        "heap",
        "late",
        "latest",
        "newest_first",
        "unswept",
        "virtual",
        "watched_s",
    )

    def __init__(self, congestion: CongestionSettings, *, newest_first: bool) -> None:
        self.congestion = Congestion(congestion)
        self.newest_first = newest_first
        self.late = False
        self.arrivals: deque[Waiting] = deque()
        self.flows: dict[str, _Flow] = {}
        self.heap: list[tuple[float, int, _Flow]] = []
        self.watched_s = 0.0
        self.count = self.backlogged = self.unswept = 0
        self.credit = self.expected_s = self.virtual = self.latest = 0.0

    def clear(self) -> None:
        """Begin anew: nobody waits, no client owes, nothing is earned."""
        self.late = False
        self.expected_s = 0.0
        self.virtual = self.latest
        self.credit = min(self.credit, 0.0)
        self.arrivals.clear()
        self.heap.clear()

    def watch(self, now_s: float) -> None:
        """Tell the verdict on congestion how long the oldest has waited, and note whether that is long."""
        self.watched_s = now_s
        arrivals = self.arrivals
        while arrivals and arrivals[0].flow is None:
            arrivals.popleft()
        age_s = 0.0
        if arrivals:
            oldest = arrivals[0]
            age_s = now_s - oldest.since_s
            self.late = age_s >= min(NOTICED_S, PATIENCE_SHARE * (oldest.at_s - oldest.since_s))
        self.congestion.observe(age_s, now_s)

    def reverses(self, flow: _Flow) -> bool:
        """Return whether the newest of a client's messages is next."""
        return self.newest_first and self.late and self.congestion.congested and not flow.ordered

    def sweep(self) -> None:
        """Drop what is dead. Done after as many pushes as there are messages: O(1) for each, amortised."""
        self.unswept = 0
        self.arrivals = deque(entry for entry in self.arrivals if entry.flow is not None)
        self.heap = [place for place in self.heap if place[2].turn == place[1]]
        heapify(self.heap)
        if len(self.flows) > SWEEP_MIN + self.count:
            self.flows = self._remembered()
        for flow in self.flows.values():
            if len(flow.items) > flow.live:
                flow.items = deque(entry for entry in flow.items if entry.flow is not None)

    def _remembered(self) -> dict[str, _Flow]:
        """Return the clients that wait or owe; of too many that owe, none: they start like new ones."""
        kept = {client: flow for client, flow in self.flows.items() if flow.live or flow.finish > self.virtual}
        if len(kept) > SWEEP_MIN + self.count:
            return {client: flow for client, flow in kept.items() if flow.live}
        return kept


class FairQueue(Generic[W]):
    """Messages in the order in which they should be served.

    **Classes** are strict, but each waiting class below the one in front earns ``class_floor`` of all service:
    it is served once it has earned anything, and owes what its message costs; so dear messages of a
    low class get no more than their share, however few pops they take. What it owes is
    remembered when it has nothing waiting, what it has earned is not. **Clients** of a class share it by
    start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each pop goes to the client charged
    least so far, and charges it the message's cost. Deficit round robin gives the same shares, but needs a
    quantum as large as the dearest message to be O(1), and then serves thirty cheap ones in a row.
    **Within a client** first in first out; newest first while the class is congested, its oldest has waited long, it
    is not ``bulk`` and none of the client's messages is ``ordered``.

    Args:
        capacity: Messages at most.
        discipline: What is switched on.
        congestion: Targets and windows.

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
            [_Class(congestion, newest_first=newest and rank is not Criticality.BULK) for rank in Criticality]
            if discipline.classes
            else [_Class(congestion, newest_first=newest)]
        )
        self._uneven = False
        self._turns = count()

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        waiting = "+".join(str(one.count) for one in self._classes)
        return f"<FairQueue {waiting} of {self.capacity}{' congested' if self.congested else ''}>"

    @property
    def congested(self) -> bool:
        """Whether any class is."""
        return any(one.congestion.congested for one in self._classes)

    @property
    def front(self) -> int:
        """The most urgent class that waits; 0 where nothing waits, or classes count for nothing."""
        return next((rank for rank, one in enumerate(self._classes) if one.count), 0)

    def congests(self, rank: int) -> bool:
        """Return whether this class is congested; without classes all share one verdict."""
        return self._classes[rank if self._discipline.classes else 0].congestion.congested

    def retarget(self, service_s: float) -> None:
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
            flow = one.flows[client] = _Flow()
        if not flow.live:
            flow.finish = max(flow.finish, one.virtual)
            flow.turn = next(self._turns)
            heappush(one.heap, (flow.finish, flow.turn, flow))
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
            one.sweep()
        if now_s - one.watched_s >= WATCH_S:
            one.watch(now_s)

    def pop(self, now_s: float) -> W | None:
        """Return the message to serve next; ``None`` when nothing waits."""
        if not self.count:
            return None
        for front in self._classes:
            if front.count:
                break
        one = front if front.count == self.count else self._floor(front)
        heap = one.heap
        while heap[0][2].turn != heap[0][1]:
            heappop(heap)
        start, turn, flow = heap[0]
        one.virtual = start
        items = flow.items
        newest = one.reverses(flow)
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
        if self._uneven or one.count != self.count:
            self._charge(front, one, cost_s)
        self._leave(one, flow, entry, now_s)
        return entry

    def remove(self, entry: W, now_s: float) -> bool:
        """Take out a message, wherever it stands; return whether it was here."""
        flow = entry.flow
        if flow is None:
            return False
        self._leave(self._place(entry.rank, "")[0], flow, entry, now_s)
        return True

    def ahead_s(self, client: str, rank: int, cost_s: float) -> float:
        """Return the expected service time of what would be served before a message pushed now.

        Higher classes come first, as far as the floor lets them. Until a client's own queue is through, each
        other one gets as much as it, or ends before.
        """
        one, client = self._place(rank, client)
        flow = one.flows.get(client)
        own_s, others = 0.0, one.backlogged
        if flow is not None and flow.live:
            others -= 1
            own_s = 0.0 if one.reverses(flow) else flow.expected_s
        class_s = min(one.expected_s, own_s + others * (own_s + cost_s))
        higher_s = sum(other.expected_s for other in self._classes[: self._classes.index(one)])
        floor = self._discipline.class_floor
        if higher_s and floor:
            return min(higher_s + class_s, (class_s + cost_s) / floor)
        return higher_s + class_s

    def _place(self, rank: int, client: str) -> tuple[_Class, str]:
        discipline = self._discipline
        return self._classes[rank if discipline.classes else 0], client if discipline.fair_clients else ""

    def _floor(self, front: _Class) -> _Class:
        """Return the class to serve: the lowest that has earned it, else the first that waits."""
        for one in reversed(self._classes):
            if one.credit > 0.0:
                return one
        return front

    def _charge(self, front: _Class, served: _Class, cost_s: float) -> None:
        """Keep the account of the floor."""
        earned_s = cost_s * self._discipline.class_floor
        self._uneven = False
        for one in self._classes:
            credit = one.credit + earned_s
            if one is served is not front:
                credit -= cost_s
            if credit > 0.0 and (one is front or not one.count):
                credit = 0.0
            one.credit = credit
            self._uneven = self._uneven or credit != 0.0

    def _leave(self, one: _Class, flow: _Flow, entry: W, now_s: float) -> None:
        """Enter in the books that a message has gone."""
        entry.flow = None
        self.count -= 1
        one.count -= 1
        flow.live -= 1
        if entry.ordered:
            flow.ordered -= 1
        self.expected_s = self.expected_s - entry.expected_s if self.count else 0.0
        one.expected_s -= entry.expected_s
        flow.expected_s -= entry.expected_s
        if not flow.live:
            flow.turn = -1
            flow.expected_s = 0.0
            flow.items.clear()
            one.backlogged -= 1
            if not one.count:
                one.clear()
                one.watch(now_s)
                return
        if now_s - one.watched_s >= WATCH_S:
            one.watch(now_s)
