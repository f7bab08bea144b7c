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
TRACKED_SUBJECTS_MAX: Final = 200

#: Alerts called off that are remembered.
HISTORY_MAX: Final = 100


class Severity(enum.StrEnum):
    """Urgency of an alert."""

    WARNING = "warning"
    CRITICAL = "critical"


class Measure(enum.StrEnum):
    """Quantity that an alert rule watches."""

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
class AlertRule:
    """Alert rule: conditions for raising an alert and for calling it off. Times in seconds.

    Attributes:
        name: Names the alert.
        severity: Urgency of the alert.
        measure: The quantity that it watches.
        threshold: Raised above this.
        clear_below: Called off below this.
        keep_firing_s: Below ``clear_below`` for so long without a break before it is called off.
        detail: One sentence for a person, of ``{subject}`` and ``{value}``.
        for_s: Above ``threshold`` for so long without a break before it is raised.
        inclusive: Whether ``threshold`` itself counts as above.

    Raises:
        Invalid: ``clear_below`` above ``threshold``, or a negative time.
    """

    name: str
    severity: Severity
    measure: Measure
    threshold: float
    clear_below: float
    keep_firing_s: float
    detail: str
    for_s: float = 0.0
    inclusive: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0.0, "for_s", "keep_firing_s")
        if not self.clear_below <= self.threshold:
            raise Invalid(
                f"clear_below must not lie above the threshold, {self.threshold:g}, but is {self.clear_below:g}",
                field="clear_below",
            )

    def above(self, value: float) -> bool:
        """Return whether the condition holds for a value."""
        return value >= self.threshold if self.inclusive else value > self.threshold


#: The server's alerts. ``deploy/prometheus/penstock.rules.yml`` has the same for Prometheus.
ALERT_RULES: Final = (
    AlertRule(
        "queue_filling",
        Severity.WARNING,
        Measure.QUEUE,
        threshold=0.80,
        clear_below=0.70,
        keep_firing_s=10.0,
        detail="topic {subject} is {value:.0%} full",
    ),
    AlertRule(
        "queue_full",
        Severity.CRITICAL,
        Measure.QUEUE,
        threshold=0.95,
        clear_below=0.85,
        keep_firing_s=10.0,
        detail="topic {subject} is {value:.0%} full; requests for it are refused",
    ),
    AlertRule(
        "many_tasks",
        Severity.WARNING,
        Measure.TASKS,
        threshold=10_000,
        clear_below=9_000,
        keep_firing_s=10.0,
        detail="{value:.0f} tasks exist; something may be leaking them",
    ),
    AlertRule(
        "breaker_open",
        Severity.CRITICAL,
        Measure.BREAKER,
        threshold=2,
        clear_below=1,
        keep_firing_s=10.0,
        detail="{subject} has failed repeatedly and is left alone",
        inclusive=True,
    ),
    AlertRule(
        "memory_short",
        Severity.CRITICAL,
        Measure.MEMORY,
        threshold=0.90,
        clear_below=0.85,
        keep_firing_s=30.0,
        detail="memory is {value:.0%} full; large requests are refused",
        inclusive=True,
    ),
    AlertRule(
        "loop_late",
        Severity.WARNING,
        Measure.LOOP_LAG,
        threshold=0.25,
        clear_below=0.10,
        keep_firing_s=30.0,
        detail="the event loop is {value:.2f} s late",
        for_s=10.0,
    ),
    AlertRule(
        "quality_reduced",
        Severity.WARNING,
        Measure.LADDER,
        threshold=Rung.ONE_ARM,
        clear_below=Rung.ONE_ARM,
        keep_firing_s=30.0,
        detail="searches of class {subject} have gone without an arm or worse for a minute",
        for_s=60.0,
        inclusive=True,
    ),
)


class Timestamp(NamedTuple):
    """The present.

    Attributes:
        loop_s: On the loop's clock: durations are counted on it.
        wall_s: Since the epoch, to be shown.
    """

    loop_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """An alert that was raised.

    Attributes:
        rule: Its rule.
        subject: The topic, dependency or class concerned; empty if there is only one.
        value: The value that raised it.
        since: When it was raised.
        until: When it was called off, ``None`` while it is active.
    """

    rule: AlertRule
    subject: str
    value: float
    since: Timestamp
    until: Timestamp | None = None

    @property
    def active(self) -> bool:
        """True until the alert is called off."""
        return self.until is None

    @property
    def detail(self) -> str:
        """Description of the alert for a person, one sentence."""
        return self.rule.detail.format(subject=self.subject, value=self.value)


@dataclass(slots=True)
class _SubjectState:
    """A rule and subject that is not calm.

    Attributes:
        pending_since_s: Since when the value speaks against the present state; ``None`` while it does not.
        alert: The active alert, ``None`` before it is raised.
    """

    pending_since_s: float | None = None
    alert: RaisedAlert | None = None


class AlertTracker:
    """Tracker of active, pending and called-off alerts.

    Raising and calling off alternate for each rule and subject. NaN changes nothing.

    Bounds: ``TRACKED_SUBJECTS_MAX`` rules and subjects, ``HISTORY_MAX`` alerts that were called off.

    Attributes:
        dropped: Observations above their threshold that were ignored because the tracker was full.
    """

    __slots__ = ("_history", "_subjects", "dropped")

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], _SubjectState] = {}
        self._history: deque[RaisedAlert] = deque(maxlen=HISTORY_MAX)
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<AlertTracker {len(self.active())} active, {len(self._history)} called off>"

    def observe(self, rule: AlertRule, subject: str, value: float, now: Timestamp) -> RaisedAlert | None:
        """Take in a value; return the alert that it raises or calls off, if any."""
        if value != value:  # noqa: PLR0124 - NaN
            return None
        key = rule.name, subject
        case = self._subjects.get(key)
        if case is not None and case.alert is not None:
            return self._judge_active(case, case.alert, value, now)
        if not rule.above(value):
            self._subjects.pop(key, None)
            return None
        if case is None:
            if len(self._subjects) >= TRACKED_SUBJECTS_MAX:
                self.dropped += 1
                return None
            case = self._subjects[key] = _SubjectState(now.loop_s)
        if case.pending_since_s is not None and now.loop_s - case.pending_since_s < rule.for_s:
            return None
        case.pending_since_s, case.alert = None, RaisedAlert(rule, subject, value, now)
        return case.alert

    def subjects(self, rule: AlertRule) -> list[str]:
        """Return the subjects of a rule that are active or about to be."""
        return [subject for name, subject in self._subjects if name == rule.name]

    def active(self) -> list[RaisedAlert]:
        """Return the active alerts, the latest first."""
        alerts = [case.alert for case in self._subjects.values() if case.alert is not None]
        return sorted(alerts, key=lambda alert: alert.since.loop_s, reverse=True)

    def resolved(self) -> list[RaisedAlert]:
        """Return the alerts that were called off, the latest first."""
        return list(reversed(self._history))

    def _judge_active(
        self, case: _SubjectState, alert: RaisedAlert, value: float, now: Timestamp
    ) -> RaisedAlert | None:
        rule = alert.rule
        if value >= rule.clear_below:
            case.pending_since_s = None
            return None
        if case.pending_since_s is None:
            case.pending_since_s = now.loop_s
        if now.loop_s - case.pending_since_s < rule.keep_firing_s:
            return None
        del self._subjects[rule.name, alert.subject]
        ended = RaisedAlert(rule, alert.subject, alert.value, alert.since, until=now)
        self._history.append(ended)
        return ended
