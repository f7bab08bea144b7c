"""Alarms: reads what the alert rules measure, tells the log and whoever listens, remembers for ``/v1/alerts``."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.kernel.clock import Clock
from penstock.policies.alerts import RULES, Alert, Alerts, Measure, Moment, Rule, Severity
from penstock.telemetry.metrics import Reading, Sample

log = logging.getLogger(__name__)

#: Reads a measure: each subject (empty if there is only one) with its value.
Source = Callable[[], Iterable[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An alert as it is told.

    Attributes:
        name: Its rule.
        severity: ``warning`` or ``critical``.
        subject: The topic, dependency or class it is about; empty if it is the process.
        detail: One sentence for a person.
        active: Whether it has not been called off.
        since: When it was raised, RFC 3339 in UTC.
        until: When it was called off, ``None`` while it is active.
    """

    name: str
    severity: str
    subject: str
    detail: str
    active: bool
    since: str
    until: str | None


class Alarms:
    """Watches over what the rules measure.

    Args:
        sources: What reads each measure; a measure without a source is not watched.
        clock: The loop's clock; durations are counted on it.
        wall: The wall clock, in seconds since the epoch; alerts show it.
        rules: What is an alert.

    Bounds: those of :class:`Alerts`; one count for each rule.

    Attributes:
        on_change: Called with each alert raised or called off; must not raise. May be set later.
    """

    def __init__(
        self,
        sources: Mapping[Measure, Source],
        clock: Clock,
        wall: Callable[[], float] = time.time,
        rules: tuple[Rule, ...] = RULES,
    ) -> None:
        self.on_change: Callable[[AlertRecord], None] = lambda _: None
        self._sources = dict(sources)
        self._clock = clock
        self._wall = wall
        self._rules = {measure: [rule for rule in rules if rule.measure is measure] for measure in sources}
        self._alerts = Alerts()
        self._raised = Counter({(rule.name, str(rule.severity)): 0 for rule in rules})
        self._blind: set[Measure] = set()

    def __repr__(self) -> str:
        return f"<Alarms on {len(self._sources)} measures, {self._alerts!r}>"

    def look(self) -> None:
        """Read everything and tell what has changed; call once a second, and whenever something has happened.

        A source that raises leaves its alerts as they are and the other sources alone; it is logged once,
        until it works again. A subject that its source no longer names counts as calm.
        """
        now = Moment(self._clock.now(), self._wall())
        for measure, source in self._sources.items():
            try:
                values = dict(source())
            except Exception:
                # Whatever is broken there: alerts are what must go on when something is broken.
                if measure not in self._blind:
                    log.exception("an alert's measure cannot be read", extra={"measure": measure})
                    self._blind.add(measure)
                continue
            self._blind.discard(measure)
            for rule in self._rules[measure]:
                self._judge(rule, values, now)

    def records(self) -> list[AlertRecord]:
        """Return the active alerts, then those called off lately, the newest first in each."""
        return [_record(alert) for alert in (*self._alerts.active(), *self._alerts.called_off())]

    def readings(self) -> list[Reading]:
        """Return how many alerts are active, and how often each was raised."""

        def active() -> list[Sample]:
            counts = Counter(alert.rule.severity for alert in self._alerts.active())
            return [((severity.value,), float(counts[severity])) for severity in Severity]

        def raised() -> list[Sample]:
            return [(key, float(times)) for key, times in self._raised.items()]

        return [("alerts_active", active), ("alerts_raised_total", raised)]

    def _judge(self, rule: Rule, values: dict[str, float], now: Moment) -> None:
        gone = {subject: -math.inf for subject in self._alerts.subjects(rule) if subject not in values}
        for subject, value in (values | gone).items():
            change = self._alerts.observe(rule, subject, value, now)
            if change is not None:
                self._tell(change.alert)

    def _tell(self, alert: Alert) -> None:
        rule, record = alert.rule, _record(alert)
        facts = {"alert": record.name, "severity": record.severity, "subject": record.subject}
        if alert.active:
            self._raised[rule.name, str(rule.severity)] += 1
            level = logging.ERROR if rule.severity is Severity.CRITICAL else logging.WARNING
            log.log(level, "alert: %s", record.detail, extra=facts)
        else:
            log.info("alert called off: %s", record.detail, extra=facts)
        self.on_change(record)


def _record(alert: Alert) -> AlertRecord:
    rule, until = alert.rule, alert.until
    return AlertRecord(
        name=rule.name,
        severity=rule.severity.value,
        subject=alert.subject,
        detail=alert.detail,
        active=alert.active,
        since=_utc(alert.since.wall_s),
        until=_utc(until.wall_s) if until is not None else None,
    )


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
