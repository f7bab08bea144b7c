"""Role of a process: the part of Penstock that runs in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings
from penstock.pools.permits import POOL_NAMES


@dataclass(frozen=True, slots=True)
class Role:
    """Part of Penstock that runs in this process.

    Attributes:
        serves_api: Whether it serves the API, and has the data directory for itself.
        pools: Which pools work here.
    """

    serves_api: bool = True
    pools: frozenset[str] = POOL_NAMES

    @property
    def needs_store(self) -> bool:
        """True if this role uses the store."""
        return self.serves_api or bool(self.pools & {"search", "index"})

    @property
    def owns_store(self) -> bool:
        """True if no other process uses the store."""
        return self.serves_api and {"search", "index"} <= self.pools

    def check(self, settings: Settings) -> None:
        """Refuse a role that could not reach the rest of Penstock.

        Raises:
            Invalid: Naming the setting.
        """
        if self == Role():
            return
        if settings.bus.backend == "memory":
            detail = "a part of Penstock needs a broker to reach the rest: set BUS_BACKEND to redis or kafka"
            raise Invalid(detail, field="concurrency.bus.backend")
        if self.needs_store and not self.owns_store and settings.store.backend == "edge":
            detail = (
                "here other processes need the points too: set STORE_BACKEND to qdrant, or serve search and index here"
            )
            raise Invalid(detail, field="store.backend")


#: Everything in one process.
ALL_IN_ONE: Final = Role()
