"""Store of keys in memory."""

from __future__ import annotations

from penstock.kernel.access import ApiKey
from penstock.stores.key_store import KeyEdit


class MemoryKeyStore:
    """Keeps keys in memory.

    Attributes:
        keys: The keys; ``None`` where there never were any.
    """

    label = "memory"

    def __init__(self, keys: list[ApiKey] | None = None) -> None:
        self.keys = keys

    async def read(self) -> list[ApiKey] | None:
        """Return the keys."""
        return self.keys

    async def change(self, edit: KeyEdit) -> None:
        """Replace the keys."""
        self.keys = edit(self.keys or [])

    async def close(self) -> None:
        """Do nothing."""
