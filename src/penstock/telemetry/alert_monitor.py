"""Alert monitor: evaluates the alert rules, logs and reports changes, and keeps the alerts for ``/v1/alerts``."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from penstock.kernel.context import Clock
from penstock.policies.alerts import ALERT_RULES, AlertRule, AlertTracker, Measure, RaisedAlert, Severity, Timestamp
from penstock.telemetry.metrics import CallbackMetric, Sample

log = logging.getLogger(__name__)

#: Reads a measure: each subject (empty if there is only one) with its value.
MeasureSource = Callable[[], Iterable[tuple[str, float]]]


class AlertMonitor:
    """Evaluates the alert rules, and reports every alert raised or resolved.

    Args:
        sources: Readers of the measures. A measure without a source is not watched.
        clock: The loop's clock, on which durations are counted.
        wall_clock: The wall clock that alerts show, in seconds since the epoch.

    Bounds: those of :class:`AlertTracker`, and one count for each rule.

    Attributes:
        on_change: Called with each alert raised or resolved. It must not raise. May be set later.
    """

    def __init__(
        self,
        sources: Mapping[Measure, MeasureSource],
        clock: Clock,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_change: Callable[[RaisedAlert], None] = lambda _: None
        self._sources = dict(sources)
        self._clock = clock
        self._wall_clock = wall_clock
        self._rules = {measure: [rule for rule in ALERT_RULES if rule.measure is measure] for measure in sources}
        self._alerts = AlertTracker()
        self._raised = Counter({(rule.name, str(rule.severity)): 0 for rule in ALERT_RULES})
        self._failing_sources: set[Measure] = set()

    def __repr__(self) -> str:
        return f"<AlertMonitor on {len(self._sources)} measures, {self._alerts!r}>"

    def evaluate(self) -> None:
        """Evaluate every rule and report the changes. Call once a second, and after every event of interest.

        A source that raises leaves its alerts as they are and the other sources alone; it is logged once,
        until it works again. A subject that its source no longer names counts as calm.
        """
        now = Timestamp(self._clock.now(), self._wall_clock())
        for measure, source in self._sources.items():
            try:
                values = dict(source())
            except Exception:
                # Whatever is broken there: alerts are what must go on when something is broken.
                if measure not in self._failing_sources:
                    log.exception("an alert's measure cannot be read", extra={"measure": measure})
                    self._failing_sources.add(measure)
                continue
            self._failing_sources.discard(measure)
            for rule in self._rules[measure]:
                self._evaluate_rule(rule, values, now)

    def alerts(self) -> list[RaisedAlert]:
        """Return the active alerts, then the recently resolved ones, the newest first in each."""
        return [*self._alerts.active(), *self._alerts.resolved()]

    def callback_metrics(self) -> list[CallbackMetric]:
        """Return how many alerts are active, and how often each was raised."""

        def active() -> list[Sample]:
            counts = Counter(alert.rule.severity for alert in self._alerts.active())
            return [((severity.value,), float(counts[severity])) for severity in Severity]

        def raised() -> list[Sample]:
            return [(key, float(times)) for key, times in self._raised.items()]

        return [("alerts_active", active), ("alerts_raised_total", raised)]

    def _evaluate_rule(self, rule: AlertRule, values: dict[str, float], now: Timestamp) -> None:
        gone = {subject: -math.inf for subject in self._alerts.subjects(rule) if subject not in values}
        for subject, value in (values | gone).items():
            alert = self._alerts.observe(rule, subject, value, now)
            if alert is not None:
                self._notify(alert)

    def _notify(self, alert: RaisedAlert) -> None:
        rule = alert.rule
        facts = {"alert": rule.name, "severity": rule.severity.value, "subject": alert.subject}
        if alert.active:
            self._raised[rule.name, str(rule.severity)] += 1
            level = logging.ERROR if rule.severity is Severity.CRITICAL else logging.WARNING
            log.log(level, "alert: %s", alert.detail, extra=facts)
        else:
            log.info("alert resolved: %s", alert.detail, extra=facts)
        self.on_change(alert)
