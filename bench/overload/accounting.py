"""From attempts and permits to numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bench.overload.records import Attempt, End
from bench.overload.trial import Trial
from bench.overload.workload import CLASSES, KINDS
from bench.report import percentile

#: Recovery is looked for in windows this long, this far apart.
RECOVERY_WINDOW_S: Final = 1.0
RECOVERY_STRIDE_S: Final = 0.1
#: Length of a point in the course of the step, in seconds.
POINT_S: Final = 0.5


class Summary(msgspec.Struct, frozen=True):
    """One trial in numbers. Shares are 0 to 1, loads in multiples of C, times in milliseconds.

    Attributes:
        offered: What was asked after the warm-up, retries included, in C.
        goodput: Answered in time, by count, in C.
        goodput_full: The same without degraded answers.
        goodput_work: By work: service time of what was answered in time, a degraded answer at what it cost,
            over what the permits had to give.
        by_kind: Share of each kind's requests answered in time.
        by_class: The same for each criticality class.
        small: The same for all clients but the hog.
        latency_p50_ms: Of what was answered in time, from the scheduled send.
        latency_p99_ms: The same.
        refusal_p99_ms: Of what was refused; 0 when nothing was.
        refused: Share of attempts refused.
        lost: Share of attempts whose client gave up, or that failed.
        wasted: Share of the permits' time spent on what nobody received.
        lag_p99_ms: How late the generator sent.
        generator: Share of its core that the generator used.
        cpu_ms: The server's processor time for each attempt.
        core: Share of its core that the server used.
        starved: Share of the time in which others kept the server from its core.
        recovery_s: Seconds after a step until goodput is back; infinity for never, -1 where there is no step.
        new_recovery_s: The same until new requests are served as before.
        storm_s: The same until no more than C is asked, retries included.
        course: Share answered in time over time, where there is a step.
        phases: Share answered in time in each phase of the dependency, of those that ask it and of the others.
        counts: What the system counted itself.
    """

    offered: float
    goodput: float
    goodput_full: float
    goodput_work: float
    by_kind: dict[str, float]
    by_class: dict[str, float]
    small: float
    latency_p50_ms: float
    latency_p99_ms: float
    refusal_p99_ms: float
    refused: float
    lost: float
    wasted: float
    lag_p99_ms: float
    generator: float
    cpu_ms: float
    core: float
    starved: float
    recovery_s: float
    new_recovery_s: float
    storm_s: float
    course: list[float]
    phases: dict[str, dict[str, float]]
    counts: dict[str, int]


def summary(trial: Trial) -> Summary:
    """Return a trial's numbers."""
    attempts, load, served, sent = trial.counted(), trial.load, trial.served, trial.sent
    whole = (trial.scenario.end_s - trial.scenario.warm_s) * load.capacity
    good = [attempt for attempt in attempts if trial.good(attempt)]
    took_ms = [(attempt.ended_s - attempt.due_s) * 1000 for attempt in good]
    refused_ms = [(a.ended_s - a.due_s) * 1000 for a in attempts if a.end is End.REFUSED]
    lost = sum(attempt.end in (End.GAVE_UP, End.UNSENT, End.FAILED) for attempt in attempts)
    lag_ms = [(attempt.sent_s - attempt.due_s) * 1000 for attempt in attempts]
    steps = trial.scenario.retries > 0
    recoveries = _recoveries(trial) if steps else (-1.0, -1.0, -1.0)
    return Summary(
        offered=len(attempts) / whole,
        goodput=len(good) / whole,
        goodput_full=sum(attempt.end is End.ANSWERED for attempt in good) / whole,
        goodput_work=_worth_s(trial, good) * load.capacity / whole / load.permits,
        by_kind=_shares(trial, attempts, [kind.name for kind in KINDS], "kind"),
        by_class=_shares(trial, attempts, [name for name, _ in CLASSES], "criticality"),
        small=trial.share_good([a for a in attempts if trial.requests[a.request].client != 0]),
        latency_p50_ms=_percentile(took_ms, 0.5),
        latency_p99_ms=_percentile(took_ms, 0.99),
        refusal_p99_ms=_percentile(refused_ms, 0.99),
        refused=len(refused_ms) / max(1, len(attempts)),
        lost=lost / max(1, len(attempts)),
        wasted=_wasted(trial),
        lag_p99_ms=_percentile(lag_ms, 0.99),
        generator=sent.cpu_s / sent.wall_s,
        cpu_ms=served.cpu_s * 1000 / max(1, len(sent.attempts)),
        core=served.cpu_s / served.wall_s,
        starved=served.waited_s / served.wall_s,
        recovery_s=recoveries[0],
        new_recovery_s=recoveries[1],
        storm_s=recoveries[2],
        course=_course(trial) if steps else [],
        phases=_phases(trial) if trial.scenario.dependency else {},
        counts=served.counts,
    )


def _worth_s(trial: Trial, good: Sequence[Attempt]) -> float:
    """Return the service time of what was done for attempts."""
    received = {attempt.number for attempt in good}
    return sum(held.worth_s for held in trial.served.held if held.attempt in received)


def _wasted(trial: Trial) -> float:
    """Return the share of the permits' time that went into what nobody received in time."""
    received = {attempt.number for attempt in trial.sent.attempts if trial.good(attempt)}
    held = [one for one in trial.served.held if one.began_s >= trial.scenario.warm_s]
    total_s = sum(one.took_s for one in held)
    return sum(one.took_s for one in held if one.attempt not in received) / total_s if total_s else 0.0


def _recovery_s(trial: Trial, measure: Callable[[Sequence[Attempt]], float]) -> float:
    """Return how long after the step a measure is at 0.95 of what it was before; infinity for never.

    Looked for is the first second-long window, by scheduled send, in which it is.
    """
    calm_s, step_s = (segment.seconds for segment in trial.scenario.segments[1:3])
    began_s = trial.scenario.warm_s
    ended_s = began_s + calm_s + step_s
    before = measure(trial.counted(began_s, began_s + calm_s)) / calm_s
    at_s = 0.0
    while ended_s + at_s + RECOVERY_WINDOW_S <= trial.scenario.end_s:
        since_s = ended_s + at_s
        if measure(trial.counted(since_s, since_s + RECOVERY_WINDOW_S)) / RECOVERY_WINDOW_S >= 0.95 * before:
            return at_s
        at_s += RECOVERY_STRIDE_S
    return float("inf")


def _recoveries(trial: Trial) -> tuple[float, float, float]:
    """Return when goodput is back, when new requests are served as before, and when the storm of retries is over."""
    calm_s = trial.scenario.segments[1].seconds

    def goodput(attempts: Sequence[Attempt]) -> float:
        return sum(map(trial.good, attempts))

    def new_served(attempts: Sequence[Attempt]) -> float:
        seconds = calm_s if attempts and attempts[0].due_s < trial.scenario.warm_s + calm_s else RECOVERY_WINDOW_S
        return trial.share_good([attempt for attempt in attempts if attempt.tries == 0]) * seconds

    ended_s = trial.scenario.end_s - trial.scenario.segments[-1].seconds
    due_s = sorted(attempt.due_s - ended_s for attempt in trial.sent.attempts)
    over_s = 0.0
    while over_s < trial.scenario.segments[-1].seconds - RECOVERY_WINDOW_S:
        if sum(over_s <= at_s < over_s + RECOVERY_WINDOW_S for at_s in due_s) <= trial.load.capacity:
            break
        over_s += RECOVERY_STRIDE_S
    return _recovery_s(trial, goodput), _recovery_s(trial, new_served), over_s


def _course(trial: Trial) -> list[float]:
    """Return goodput over time, all attempts, in C; by scheduled send, in points of ``POINT_S``."""
    points = [0.0] * round((trial.scenario.end_s - trial.scenario.warm_s) / POINT_S)
    for attempt in trial.counted():
        point = int((attempt.due_s - trial.scenario.warm_s) / POINT_S)
        if trial.good(attempt) and point < len(points):
            points[point] += 1 / (trial.load.capacity * POINT_S)
    return points


def _phases(trial: Trial) -> dict[str, dict[str, float]]:
    shares: dict[str, dict[str, float]] = {}
    since_s = trial.scenario.warm_s
    for until_s, phase in trial.scenario.phases()[1:]:
        attempts = trial.counted(since_s, until_s)
        name = "well again" if phase in shares else phase
        shares[name] = {
            "asking": trial.share_good([a for a in attempts if trial.requests[a.request].asks]),
            "others": trial.share_good([a for a in attempts if not trial.requests[a.request].asks]),
        }
        since_s = until_s
    return shares


def _shares(trial: Trial, attempts: Sequence[Attempt], names: Sequence[str], field: str) -> dict[str, float]:
    groups: list[list[Attempt]] = [[] for _ in names]
    for attempt in attempts:
        groups[getattr(trial.requests[attempt.request], field)].append(attempt)
    return {name: trial.share_good(group) for name, group in zip(names, groups, strict=True)}


def _percentile(values: Sequence[float], share: float) -> float:
    return percentile(values, share) if values else 0.0
