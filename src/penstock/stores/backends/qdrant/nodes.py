"""Nodes of a Qdrant server: which address is asked next, and which are left alone. Pure; the connection acts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from penstock.kernel.context import Clock
from penstock.kernel.errors import Broken, PenstockError, Unavailable
from penstock.policies.breaker import BreakerSettings, BreakerState, CallOutcome, CircuitBreaker, Ticket
from penstock.policies.jitter import Rng
from penstock.policies.retry import RetryBudget, RetrySettings

#: Answers in a row by which a node says that it cannot, after which it is left alone. One that cannot be reached is
#: left alone at once.
FAILURES: Final = 3

#: How long a node is left alone at first, and at most. Health checks ask it all the same, and bring it back sooner.
AWAY_S: Final = 1.0
AWAY_S_MAX: Final = 10.0

#: Codes of answers that another node may make up for: this one is away, broken, or another program.
NODE_FAULTS: Final = frozenset({"store_unreachable", "store_failed", "store_not_qdrant", "store_bad_response"})

#: Those after which nothing has to be waited for: one such answer tells enough.
_CERTAIN: Final = frozenset({"store_unreachable", "store_not_qdrant"})

_BREAKER: Final = BreakerSettings(
    failures=FAILURES, rate_calls_min=1_000_000, timeout_s=AWAY_S, timeout_s_max=AWAY_S_MAX, successes=1
)


def ignore(_: Any) -> None:
    """Ignore a change."""


@dataclass(slots=True, eq=False)
class Node:
    """A node of a Qdrant server.

    Attributes:
        url: Its address.
        breaker: Its breaker.
        version: Its version, as it last told.
        clock: The loop's clock.
        is_ready: Whether it takes part in its cluster; before there is a leader it does not.
        is_lost: Whether it cannot be reached: then it is asked for its health alone.
        reason: Why it is left alone, for people.
        on_state_change: Taken for what watches breakers; the state is read at each alert's evaluation.
    """

    url: str
    breaker: CircuitBreaker
    version: tuple[int, int]
    clock: Clock
    is_ready: bool = True
    is_lost: bool = False
    reason: str = ""
    on_state_change: Callable[[Any], None] = ignore

    @property
    def dependency(self) -> str:
        """Its name in metrics."""
        return f"store {self.url}"

    @property
    def state(self) -> BreakerState:
        """The state of its breaker."""
        return self.breaker.state

    def retry_after_s(self) -> float:
        """Return the seconds until it may be asked again; 0 if it may now."""
        return self.breaker.retry_after_s(self.clock.now())


def is_node_fault(error: PenstockError) -> bool:
    """Return whether an error is the fault of the node that was asked, so that another one may answer."""
    return isinstance(error, Unavailable | Broken) and error.code in NODE_FAULTS


class NodeSet:
    """The nodes of a server, asked in turn.

    Args:
        urls: Their addresses.
        version: What they are taken for until they have told.
        burst: Requests that may be out at once: so many fail together when a node dies, and may go elsewhere.
        clock: The loop's clock.
        rng: For the jitter of the breakers.

    Bounds: a breaker for each address, and the budget of what goes elsewhere.
    """

    def __init__(self, urls: Collection[str], version: tuple[int, int], burst: int, clock: Clock, rng: Rng) -> None:
        self.nodes: Final = [Node(url, CircuitBreaker(_BREAKER, rng), version, clock) for url in urls]
        self._turn = 0
        self._rng = rng
        self._budget = RetryBudget(RetrySettings(ratio=0.2, saved_max=float(burst), per_s_min=float(burst)))

    def __repr__(self) -> str:
        return f"<NodeSet {len(self.nodes) - len(self.away())}/{len(self.nodes)} there>"

    def away(self) -> list[Node]:
        """Return the nodes that are left alone."""
        return [node for node in self.nodes if node.state is not BreakerState.CLOSED]

    def first(self, now_s: float) -> tuple[Node, Ticket | None]:
        """Return the node to ask, and the right to ask it; where all are left alone, the one whose time is over first.

        Those that are ready come before those that are not.
        """
        self._budget.earn()
        found = self._admitted((), now_s)
        return found or (min(self.nodes, key=lambda node: node.breaker.retry_after_s(now_s)), None)

    def next(self, tried: Collection[Node], now_s: float) -> tuple[Node, Ticket | None] | None:
        """Return another node to ask, ``None`` where there is none or the budget is spent."""
        found = self._admitted(tried, now_s)
        if found is None or not self._budget.spend(now_s):
            return None
        return found

    def report(self, node: Node, ticket: Ticket | None, error: BaseException | None, now_s: float) -> None:
        """Take in how a request to a node ended."""
        failed = isinstance(error, PenstockError) and is_node_fault(error)
        outcome = CallOutcome.FAILURE if failed else CallOutcome.SUCCESS if error is None else CallOutcome.IGNORED
        if isinstance(error, PenstockError) and failed:
            node.reason = error.detail
        if ticket is not None:
            node.breaker.report(ticket, outcome, now_s)
        if isinstance(error, PenstockError) and error.code in _CERTAIN:
            self.lose(node, error.detail, now_s)

    def lose(self, node: Node, reason: str, now_s: float) -> None:
        """Leave a node alone."""
        node.reason, node.is_lost = reason, True
        while (ticket := node.breaker.admit(now_s).ticket) is not None:
            node.breaker.report(ticket, CallOutcome.FAILURE, now_s)

    def found(self, node: Node, version: tuple[int, int] | None, *, is_ready: bool) -> bool:
        """Take a node back that has answered its health check; return whether all had been lost.

        One that fails otherwise is left alone as its breaker says: to tell its version is the least of its work.
        """
        node.version, node.is_ready = version or node.version, is_ready
        was_out = all(one.is_lost for one in self.nodes)
        if node.is_lost:
            node.breaker, node.reason, node.is_lost = CircuitBreaker(_BREAKER, self._rng), "", False
        return was_out

    def _admitted(self, tried: Collection[Node], now_s: float) -> tuple[Node, Ticket] | None:
        self._turn += 1
        count = len(self.nodes)
        order = [self.nodes[(self._turn + place) % count] for place in range(count)]
        for node in sorted(order, key=lambda one: (one.is_lost, not one.is_ready)):
            if node not in tried and (ticket := node.breaker.admit(now_s).ticket) is not None:
                return node, ticket
        return None
