"""What of Penstock runs in a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings
from penstock.pools.house import POOLS


@dataclass(frozen=True, slots=True)
class Role:
    """What of Penstock runs in this process.

    Attributes:
        http: Whether it answers HTTP, and has the data directory for itself.
        pools: Which pools work here.
    """

    http: bool = True
    pools: frozenset[str] = POOLS

    @property
    def stores(self) -> bool:
        """Whether it needs the points."""
        return self.http or bool(self.pools & {"search", "index"})

    @property
    def alone(self) -> bool:
        """Whether nobody else touches the points: all that does is in this process."""
        return self.http and {"search", "index"} <= self.pools

    def check(self, settings: Settings) -> None:
        """Refuse a part of Penstock that could not reach the rest.

        Raises:
            Invalid: Naming the setting.
        """
        if self == Role():
            return
        if settings.bus.backend == "memory":
            detail = "a part of Penstock needs a broker to reach the rest: set BUS_BACKEND to redis or kafka"
            raise Invalid(detail, field="concurrency.bus.backend")
        if self.stores and not self.alone and settings.store.backend == "edge":
            detail = (
                "here other processes need the points too: set STORE_BACKEND to qdrant, or serve search and index here"
            )
            raise Invalid(detail, field="store.backend")


#: Everything in one process.
ALL: Final = Role()
