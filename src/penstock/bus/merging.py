"""One state of a topic, of what is asked, served and told of it in one instance."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from penstock.bus.books import Counts
from penstock.bus.contract import TopicState


def merged(asked: TopicState | None, served: TopicState | None, told: list[TopicState], extra: Counts) -> TopicState:
    """Return one state of a topic from its parts.

    Where it is asked here, its messages are counted there, once, from their beginning to their end; of what serves them
    here only what is not known there is added.

    Args:
        asked: Requests that wait here.
        served: Requests that are worked here.
        told: Events, of each subscriber.
        extra: What the parts do not know.
    """
    parts = [asked] if asked is not None else [served] if served is not None else []
    counts = reduce(Counts.plus, (one.counts for one in (*parts, *told)), Counts())
    for one in told:  # an event that was not begun in time is lost, whoever notices
        late = one.counts.expired_waiting
        counts = replace(counts, expired_waiting=counts.expired_waiting - late)
    if asked is not None and served is not None:
        counts = replace(counts, raised=counts.raised + served.raised, late=counts.late + served.late)
        extra = Counts(late=extra.late, lost=extra.lost, offered=extra.lost)
    counts = counts.plus(extra)
    parts += told
    return TopicState(
        parts[0].name,
        sum(one.waiting for one in parts),
        sum(one.capacity for one in parts) if asked is None else asked.capacity,
        sum(one.running for one in parts),
        counts.raised,
        counts.late,
        counts.lost,
        blocked=sum(one.blocked for one in parts),
        level=max(one.level for one in parts),
        congested=any(one.congested for one in parts),
        stopping=sum(one.stopping for one in parts),
        counts=counts,
    )
