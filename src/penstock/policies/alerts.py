"""Alerts: from measured values to what a person should look at (SPEC §10), with hysteresis in value and in time."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from penstock.kernel.errors import Invalid
from penstock.policies.bounds import at_least
from penstock.policies.ladder import Rung

#: Rules and subjects that are looked at more closely at once: they are near an alert, or active.
SUBJECTS_MAX: Final = 200

#: Alerts called off that are remembered.
HISTORY_MAX: Final = 100


class Severity(enum.StrEnum):
    """How soon somebody should look."""

    WARNING = "warning"
    CRITICAL = "critical"


class Measure(enum.StrEnum):
    """What is measured, and of what."""

    #: Of a topic: the share of its buffer in use, 0 to 1.
    QUEUE = "queue"
    #: asyncio tasks.
    TASKS = "tasks"
    #: Of a dependency: 0 closed, 1 half-open, 2 open.
    BREAKER = "breaker"
    #: The share of the memory limit in use, 0 to 1.
    MEMORY = "memory"
    #: How late the event loop is, in seconds.
    LOOP_LAG = "loop_lag"
    #: Of a class of requests: the rung of the degradation ladder.
    LADDER = "ladder"


@dataclass(frozen=True, slots=True)
class Rule:
    """When to raise an alert and when to call it off. Times in seconds.

    Attributes:
        name: Names the alert.
        severity: How soon somebody should look.
        measure: What its values measure.
        bound: Raised above this.
        clear: Called off below this.
        hold_s: Below ``clear`` for so long without a break before it is called off.
        detail: One sentence for a person, of ``{subject}`` and ``{value}``.
        for_s: Above ``bound`` for so long without a break before it is raised.
        inclusive: Whether ``bound`` itself counts as above.

    Raises:
        Invalid: ``clear`` above ``bound``, or a negative time.
    """

    name: str
    severity: Severity
    measure: Measure
    bound: float
    clear: float
    hold_s: float
    detail: str
    for_s: float = 0.0
    inclusive: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0.0, "for_s", "hold_s")
        if not self.clear <= self.bound:
            raise Invalid(f"clear must not lie above {self.bound:g}, the bound, but is {self.clear:g}", field="clear")

    def above(self, value: float) -> bool:
        """Return whether the condition holds for a value."""
        return value >= self.bound if self.inclusive else value > self.bound


#: The server's alerts. ``deploy/prometheus/penstock.rules.yml`` has the same for Prometheus.
RULES: Final = (
    Rule(
        "queue_filling",
        Severity.WARNING,
        Measure.QUEUE,
        bound=0.80,
        clear=0.70,
        hold_s=10.0,
        detail="topic {subject} is {value:.0%} full",
    ),
    Rule(
        "queue_full",
        Severity.CRITICAL,
        Measure.QUEUE,
        bound=0.95,
        clear=0.85,
        hold_s=10.0,
        detail="topic {subject} is {value:.0%} full; requests for it are refused",
    ),
    Rule(
        "many_tasks",
        Severity.WARNING,
        Measure.TASKS,
        bound=10_000,
        clear=9_000,
        hold_s=10.0,
        detail="{value:.0f} tasks exist; something may be leaking them",
    ),
    Rule(
        "breaker_open",
        Severity.CRITICAL,
        Measure.BREAKER,
        bound=2,
        clear=1,
        hold_s=10.0,
        detail="{subject} has failed repeatedly and is left alone",
        inclusive=True,
    ),
    Rule(
        "memory_short",
        Severity.CRITICAL,
        Measure.MEMORY,
        bound=0.90,
        clear=0.85,
        hold_s=30.0,
        detail="memory is {value:.0%} full; large requests are refused",
        inclusive=True,
    ),
    Rule(
        "loop_late",
        Severity.WARNING,
        Measure.LOOP_LAG,
        bound=0.25,
        clear=0.10,
        hold_s=30.0,
        detail="the event loop is {value:.2f} s late",
        for_s=10.0,
    ),
    Rule(
        "quality_reduced",
        Severity.WARNING,
        Measure.LADDER,
        bound=Rung.ONE_ARM,
        clear=Rung.ONE_ARM,
        hold_s=30.0,
        detail="searches of class {subject} have gone without an arm or worse for a minute",
        for_s=60.0,
        inclusive=True,
    ),
)


class Moment(NamedTuple):
    """The present.

    Attributes:
        s: On the loop's clock: durations are counted on it.
        wall_s: Since the epoch, to be shown.
    """

    s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that was raised.

    Attributes:
        rule: Its rule.
        subject: What it is about; empty if there is only one.
        value: The value that raised it.
        since: When it was raised.
        until: When it was called off, ``None`` while it is active.
    """

    rule: Rule
    subject: str
    value: float
    since: Moment
    until: Moment | None = None

    @property
    def active(self) -> bool:
        """Whether it has not been called off."""
        return self.until is None

    @property
    def detail(self) -> str:
        """One sentence for a person."""
        return self.rule.detail.format(subject=self.subject, value=self.value)


@dataclass(frozen=True, slots=True)
class Change:
    """An alert raised, or called off: then it is not active any more."""

    alert: Alert


@dataclass(slots=True)
class _Case:
    """A rule and subject that is not calm.

    Attributes:
        turned_s: Since when the value speaks against the present state; ``None`` while it does not.
        alert: The active alert, ``None`` before it is raised.
    """

    turned_s: float | None = None
    alert: Alert | None = None


class Alerts:
    """What is active, what is about to be, and what was.

    Raised and called off alternate for each rule and subject. A value that is no number changes nothing.

    Bounds: ``SUBJECTS_MAX`` cases, ``HISTORY_MAX`` alerts that were called off.

    Attributes:
        overlooked: Observations above their bound that were not taken in for want of room.
    """

    __slots__ = ("_cases", "_history", "overlooked")

    def __init__(self) -> None:
        self._cases: dict[tuple[str, str], _Case] = {}
        self._history: deque[Alert] = deque(maxlen=HISTORY_MAX)
        self.overlooked = 0

    def __repr__(self) -> str:
        return f"<Alerts {len(self.active())} active, {len(self._history)} called off>"

    def observe(self, rule: Rule, subject: str, value: float, now: Moment) -> Change | None:
        """Take in a value; return what it changes, if anything."""
        if value != value:  # noqa: PLR0124 - NaN
            return None
        key = rule.name, subject
        case = self._cases.get(key)
        if case is not None and case.alert is not None:
            return self._judge_active(case, case.alert, value, now)
        if not rule.above(value):
            self._cases.pop(key, None)
            return None
        if case is None:
            if len(self._cases) >= SUBJECTS_MAX:
                self.overlooked += 1
                return None
            case = self._cases[key] = _Case(now.s)
        if case.turned_s is not None and now.s - case.turned_s < rule.for_s:
            return None
        case.turned_s, case.alert = None, Alert(rule, subject, value, now)
        return Change(case.alert)

    def subjects(self, rule: Rule) -> list[str]:
        """Return the subjects of a rule that are active or about to be."""
        return [subject for name, subject in self._cases if name == rule.name]

    def active(self) -> list[Alert]:
        """Return the active alerts, the latest first."""
        alerts = [case.alert for case in self._cases.values() if case.alert is not None]
        return sorted(alerts, key=lambda alert: alert.since.s, reverse=True)

    def called_off(self) -> list[Alert]:
        """Return those called off, the latest first."""
        return list(reversed(self._history))

    def _judge_active(self, case: _Case, alert: Alert, value: float, now: Moment) -> Change | None:
        rule = alert.rule
        if value >= rule.clear:
            case.turned_s = None
            return None
        if case.turned_s is None:
            case.turned_s = now.s
        if now.s - case.turned_s < rule.hold_s:
            return None
        del self._cases[rule.name, alert.subject]
        ended = Alert(rule, alert.subject, alert.value, alert.since, until=now)
        self._history.append(ended)
        return Change(ended)
