"""From attempts and contents to figures. Pure.

A request counts when its end came: what was sent shortly before a blow and refused because of it belongs to the blow.
One that never came to an end counts when it was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from bench.faults.load import CUT, SILENT, UNREACHED, Attempt
from bench.report import percentile

#: A second in which so much of what ends is answered is a good one.
GOOD: Final = 0.95
OK: Final = 200


class Phase(msgspec.Struct, frozen=True):
    """One fault and what follows, until the next; in seconds since the load began.

    Attributes:
        name: The fault.
        said: What exactly was done.
        began_s: The blow.
        mended_s: When nothing was in its way any more.
        end_s: The next phase's beginning.
    """

    name: str
    said: str
    began_s: float
    mended_s: float
    end_s: float


class Contents(msgspec.Struct, frozen=True):
    """What the collection holds in the end.

    Attributes:
        chunks: Chunks of each complete document, by id.
        whole: Chunks in all, as the store counts them.
        again: Documents that were refused at first and, sent again, are there.
        missing: Documents that were refused at first and could not be written afterwards either.
    """

    chunks: dict[str, int]
    whole: int
    again: int = 0
    missing: int = 0


class Tally(msgspec.Struct, frozen=True):
    """What became of a phase's requests.

    Attributes:
        requests: Those whose end came in it, and those sent in it that had none.
        answered: With 200; an index request with every document in place.
        lesser: Of those, searches that say that something was left out.
        refused: By status and code: the client was told, and knows what to do.
        unreached: Nobody took the connection: the server was being restarted.
        lost: Accepted and never answered, or answered as done and not there in the end.
        bad_s: Seconds of the phase with less than ``GOOD`` answered.
        recovery_s: From the blow to the end of the last such second; ``None`` where that is the phase's last.
        after_mending_s: The same from when nothing was in its way any more; 0 where it was over before,
            ``None`` as above.
        still_s: The longest time in which nothing was answered.
        worst_s: The longest that an answered request took.
        median_ms: What half of them took at most.
    """

    requests: int
    answered: int
    lesser: int
    refused: dict[str, int]
    unreached: int
    lost: int
    bad_s: int
    recovery_s: float | None
    after_mending_s: float | None
    still_s: float
    worst_s: float
    median_ms: float


def answered(attempt: Attempt) -> bool:
    """Return whether a request got what it asked for."""
    return attempt.status == OK and set(attempt.documents) <= set(attempt.acknowledged)


def lost(attempt: Attempt, there: Mapping[str, int]) -> bool:
    """Return whether a request was accepted and went unanswered, or its answer was not true."""
    return attempt.status in (CUT, SILENT) or any(id not in there for id in attempt.acknowledged)


def counted_s(attempt: Attempt) -> float:
    """Return when a request counts, in seconds since the load began."""
    return attempt.sent_s if attempt.status in (CUT, SILENT) else attempt.ended_s


def tally(phase: Phase, attempts: Sequence[Attempt], contents: Contents) -> Tally:
    """Count a phase."""
    ended = [one for one in attempts if phase.began_s <= counted_s(one) < phase.end_s]
    good = [one for one in ended if answered(one)]
    took_s = [one.ended_s - one.sent_s for one in good]
    refused = [one for one in ended if one.status > UNREACHED and not answered(one)]
    bad = _bad(phase, ended)
    recovery_s = max(bad) + 1.0 if bad else 0.0
    recovered = not bad or phase.began_s + recovery_s < phase.end_s - 1
    moments = sorted([phase.began_s, phase.end_s, *(one.ended_s for one in good)])
    return Tally(
        requests=len(ended),
        answered=len(good),
        lesser=sum(one.lesser for one in good),
        refused=dict(Counter(f"{one.status} {one.code}" for one in refused)),
        unreached=sum(one.status == UNREACHED for one in ended),
        lost=sum(lost(one, contents.chunks) for one in ended),
        bad_s=len(bad),
        recovery_s=recovery_s if recovered else None,
        after_mending_s=max(0.0, phase.began_s + recovery_s - phase.mended_s) if recovered else None,
        still_s=max(after - before for before, after in pairwise(moments)),
        worst_s=max(took_s, default=0.0),
        median_ms=percentile(took_s, 0.5) * 1000 if took_s else 0.0,
    )


def _bad(phase: Phase, ended: Sequence[Attempt]) -> list[int]:
    """Return the seconds since the blow in which too little of what ended then was answered."""
    seconds: dict[int, list[bool]] = {}
    for one in ended:
        seconds.setdefault(int(counted_s(one) - phase.began_s), []).append(answered(one))
    return sorted(second for second, ends in seconds.items() if sum(ends) < GOOD * len(ends))


def course(attempts: Sequence[Attempt]) -> list[list[int]]:
    """Return for each second since the load began how many requests were answered, refused and had no other end."""
    seconds = [[0, 0, 0] for _ in range(1 + int(max(map(counted_s, attempts), default=0.0)))]
    for one in attempts:
        kind = 0 if answered(one) else 1 if one.status > UNREACHED else 2
        seconds[int(counted_s(one))][kind] += 1
    return seconds


def doubled(attempts: Sequence[Attempt], contents: Contents) -> int:
    """Return how many chunks are there beyond those that were told, in a document or in the collection: had twice."""
    told = {id: chunks for one in attempts for id, chunks in one.acknowledged.items() if chunks}
    off = [contents.chunks[id] - chunks for id, chunks in told.items() if id in contents.chunks]
    return sum(map(abs, off)) + abs(contents.whole - sum(contents.chunks.values()))


def refused_documents(attempts: Sequence[Attempt]) -> list[str]:
    """Return the documents whose senders know that they are perhaps not there, and would send them again."""
    return [id for one in attempts for id in one.documents if id not in one.acknowledged]
