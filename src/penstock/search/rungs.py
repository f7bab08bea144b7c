"""The degradation ladder while the server runs: one for each class of searches, fed by what waits."""

from __future__ import annotations

import logging
from collections.abc import Callable

from penstock.kernel.clock import Clock
from penstock.kernel.context import Criticality
from penstock.kernel.settings import DegradationSettings
from penstock.policies.ladder import Change, Ladder, LadderSettings, Rung

log = logging.getLogger(__name__)


class Rungs:
    """A ladder for each criticality class.

    Classes are served strictly, so a crawl that is congested in the lowest says nothing of those above it: it
    alone gives up quality. A class in front that is congested starves the ones behind, which then are congested too.

    Args:
        settings: When to move, and how far.
        congested: Whether searches of a class have waited too long, with hysteresis.
        pressed: Whether the buffer they wait in is nearly full.
        clock: The loop's clock.

    Bounds: three ladders.

    Attributes:
        moves: How often a rung was reached, by class and rung, so far.
    """

    def __init__(
        self,
        settings: DegradationSettings,
        congested: Callable[[Criticality], bool],
        pressed: Callable[[], bool],
        clock: Clock,
    ) -> None:
        policy = LadderSettings(up_s=settings.up, down_s=settings.down, highest=Rung[settings.highest.upper()])
        self._ladders = {criticality: Ladder(policy) for criticality in Criticality}
        self._congested = congested
        self._pressed = pressed
        self._clock = clock
        self.moves: dict[tuple[Criticality, Rung], int] = {}

    def __repr__(self) -> str:
        rungs = ", ".join(f"{one.name.lower()} {ladder.rung.name.lower()}" for one, ladder in self._ladders.items())
        return f"<Rungs {rungs}>"

    def observe(self) -> None:
        """Look at every class; call some ten times a second."""
        for criticality in self._ladders:
            self.rung(criticality)

    def rung(self, criticality: Criticality) -> Rung:
        """Return where a class stands now."""
        ladder = self._ladders[criticality]
        change = ladder.observe(self._congested(criticality), self._clock.now(), pressed=self._pressed())
        if change is not None:
            self._tell(criticality, change)
        return ladder.rung

    def state(self) -> dict[Criticality, Rung]:
        """Return where each class stood when it was last looked at."""
        return {criticality: ladder.rung for criticality, ladder in self._ladders.items()}

    def _tell(self, criticality: Criticality, change: Change) -> None:
        place = criticality, change.after
        self.moves[place] = self.moves.get(place, 0) + 1
        level = logging.WARNING if change.after > change.before else logging.INFO
        facts = {"criticality": criticality.name.lower(), "rung": change.after.name.lower()}
        log.log(level, "searches of a class %s", "degrade" if change.after > change.before else "recover", extra=facts)
