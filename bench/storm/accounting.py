"""From answers to numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench.report import percentile
from bench.storm.generator import Answer

WHOLE = "whole"
#: Share of whole answers in a second from which the server is itself again.
BACK = 0.95


class Summary(msgspec.Struct, frozen=True):
    """One load in numbers. Shares are 0 to 1 of what was sent, goodput in C, times in milliseconds.

    Attributes:
        sent: Requests.
        offered: Requests a second, in C.
        answers: Answered in time, by what was given up; ``whole`` for nothing.
        goodput: Answered in time a second.
        goodput_whole: The same, whole answers only.
        told: Share answered, or told when to come back (429 or 503 with ``Retry-After``).
        refused: Share told to come back.
        refusals: Refusals by status.
        expired: Share told that it was too late (504).
        other: Share with another end, a 503 without ``Retry-After`` included.
        unanswered: Share left without an answer before the deadline.
        errors: Of those, the most frequent.
        p50_ms: Of answers.
        p99_ms: The same.
        refusal_p50_ms: Of refusals; 0 for none.
        refusal_p99_ms: The same.
        cpu: Shares of a core that the server's processes used.
    """

    sent: int
    offered: float
    answers: dict[str, int]
    goodput: float
    goodput_whole: float
    told: float
    refused: float
    refusals: dict[str, int]
    expired: float
    other: float
    unanswered: float
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    cpu: dict[str, float]


def is_refusal(one: Answer) -> bool:
    """Return whether a caller was told when to come back."""
    return one.code in (429, 503) and one.returns


def summary(answers: Sequence[Answer], seconds: float, capacity: float, cpu: Mapping[str, float]) -> Summary:
    """Return a load's numbers.

    Args:
        answers: What became of the requests.
        seconds: How long they were sent.
        capacity: C, in requests a second.
        cpu: Shares of a core.
    """
    sent = max(1, len(answers))
    good = [one for one in answers if one.code == 200]
    refusals = [one for one in answers if is_refusal(one)]
    expired = sum(one.code == 504 for one in answers)
    silent = [one for one in answers if not one.code]
    whole_s = seconds * capacity
    return Summary(
        sent=len(answers),
        offered=len(answers) / whole_s,
        answers=dict(Counter(one.rung or WHOLE for one in good).most_common()),
        goodput=len(good) / whole_s,
        goodput_whole=sum(not one.rung for one in good) / whole_s,
        told=(len(good) + len(refusals)) / sent,
        refused=len(refusals) / sent,
        refusals=dict(Counter(str(one.code) for one in refusals)),
        expired=expired / sent,
        other=(len(answers) - len(good) - len(refusals) - expired - len(silent)) / sent,
        unanswered=len(silent) / sent,
        errors=dict(Counter(one.error.rpartition(": ")[2] for one in silent).most_common(3)),
        p50_ms=_percentile(good, 0.5),
        p99_ms=_percentile(good, 0.99),
        refusal_p50_ms=_percentile(refusals, 0.5),
        refusal_p99_ms=_percentile(refusals, 0.99),
        cpu=dict(cpu),
    )


def course(answers: Sequence[Answer]) -> list[dict[str, float]]:
    """Return, for each second since the first request, the share of each end: a rung, ``refused``, ``none``."""
    if not answers:
        return []
    began_s = answers[0].at_s
    seconds = [Counter[str]() for _ in range(int(answers[-1].at_s - began_s) + 1)]
    for one in answers:
        seconds[int(one.at_s - began_s)][_end(one)] += 1
    return [{end: count / second.total() for end, count in sorted(second.items())} for second in seconds]


def back_s(answers: Sequence[Answer], ended_s: float) -> float | None:
    """Return how long after a moment whole answers are the rule again, in windows of a second; ``None`` for never."""
    return _first(answers, ended_s, lambda one: one.code == 200 and not one.rung)


def served_s(answers: Sequence[Answer], ended_s: float) -> float | None:
    """Return how long after a moment answers of any rung are the rule again; ``None`` for never."""
    return _first(answers, ended_s, lambda one: one.code == 200)


def _first(answers: Sequence[Answer], ended_s: float, good: Callable[[Answer], bool]) -> float | None:
    last_s = answers[-1].at_s if answers else ended_s
    at_s = 0.0
    while ended_s + at_s + 1 <= last_s:
        window = [one for one in answers if 0 <= one.at_s - ended_s - at_s < 1]
        if window and sum(map(good, window)) >= BACK * len(window):
            return at_s
        at_s = round(at_s + 0.25, 2)
    return None


def _end(one: Answer) -> str:
    if one.code == 200:
        return one.rung or WHOLE
    return "refused" if is_refusal(one) else "none" if not one.code else str(one.code)


def _percentile(answers: Sequence[Answer], share: float) -> float:
    return percentile([one.ms for one in answers], share) if answers else 0.0
