"""How long a kind of message takes to serve, and whether one that waits is still worth it."""

from __future__ import annotations

import math

from penstock.policies.discard import Discard, DiscardSettings, Verdict
from penstock.policies.estimate import Estimate, EstimateSettings

#: Messages quicker than this are measured one in ``STRIDE``: taking the measure costs microseconds too.
QUICK_S = 0.001
STRIDE = 16


class Service:
    """One kind of message: its service time as numbers at hand, and its discard rule.

    Args:
        estimate: How it learns.
        discard: When it doubts.

    Attributes:
        cost_s: What a message is charged; a guess until there are samples.
        expected_s: What it adds to the wait of others; 0 until there are samples.
        typical_s: Its own median; 0 until there are samples.
        likely_s: Its 90th percentile; 0 until there are samples.
        served_s: When one was last let through without a question; who does it notes it.
        skip: How many of the next messages need not be measured; who measures counts it down.
    """

    __slots__ = ("_estimate", "_rule", "cost_s", "expected_s", "likely_s", "served_s", "skip", "typical_s")

    def __init__(self, estimate: EstimateSettings, discard: DiscardSettings) -> None:
        self._estimate = Estimate(estimate)
        self._rule = Discard(discard)
        self.skip = 0
        self.served_s = -math.inf
        self.cost_s = self._estimate.mean_s
        self.expected_s = self.typical_s = self.likely_s = 0.0

    def __repr__(self) -> str:
        return f"<Service {self._estimate!r}>"

    def observe(self, seconds: float) -> None:
        """Take in how long one took."""
        estimate = self._estimate
        estimate.observe(seconds)
        self.cost_s = estimate.mean_s
        if estimate.ready:
            self.expected_s = self.cost_s
            self.typical_s = estimate.p50_s
            self.likely_s = estimate.p90_s
            self.skip = STRIDE - 1 if self.likely_s < QUICK_S else 0

    def judge(self, deadline_s: float, now_s: float, *, contended: bool) -> Verdict:
        """Return whether to serve one that is next (:meth:`penstock.policies.discard.Discard.on_pop`).

        One that has ``likely_s`` until its deadline need not be asked about: note it in ``served_s``.
        """
        if self.served_s > -math.inf:
            self._rule.on_pop(math.inf, self.served_s, self._estimate, contended=True)
            self.served_s = -math.inf
        return self._rule.on_pop(deadline_s, now_s, self._estimate, contended=contended)

    def probe_ended(self, *, in_time: bool) -> None:
        """Take in whether a probe met its deadline."""
        self._rule.probe_ended(in_time=in_time)
