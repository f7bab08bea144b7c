"""Memory of the version of each collection's text, by which queries and documents are prepared."""

from __future__ import annotations

import math
from typing import Final

from penstock.kernel.context import Clock, Context
from penstock.stores.commands import DescribeCollection
from penstock.stores.contract import VectorStore

#: Collections whose version is remembered; beyond that number all are asked for again.
VERSIONS_MAX: Final = 10_000

#: Seconds for which a version is remembered where other servers may change it.
SHARED_LIFETIME_S: Final = 10.0


class TextVersions:
    """Versions of collections' texts, asked for once.

    Args:
        store: Knows them.
        clock: The loop's clock.
        shared: Whether other servers write to the store too.

    Bounds: ``VERSIONS_MAX`` versions.
    """

    def __init__(self, store: VectorStore, clock: Clock, *, shared: bool) -> None:
        self._store = store
        self._clock = clock
        self._lifetime_s = SHARED_LIFETIME_S if shared else math.inf
        self._versions: dict[str, tuple[int, float]] = {}
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<TextVersions {len(self._versions)} collections>"

    async def version(self, collection: str, ctx: Context) -> int:
        """Return a collection's version.

        Raises:
            PenstockError: The store has no such collection, or does not answer.
        """
        now_s = self._clock.now()
        version, until_s = self._versions.get(collection, (0, -math.inf))
        if now_s < until_s:
            return version
        forgotten = self._forgotten
        version = (await self._store.run(DescribeCollection(collection), ctx)).text_version
        # What was asked before a change must not be remembered after it.
        if forgotten == self._forgotten:
            if len(self._versions) >= VERSIONS_MAX:
                self._versions.clear()
            self._versions[collection] = (version, now_s + self._lifetime_s)
        return version

    def forget(self, collection: str) -> None:
        """Forget a collection's version: it changes, or another collection takes the place."""
        self._versions.pop(collection, None)
        self._forgotten += 1
