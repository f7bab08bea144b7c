"""Watch over the keys of a server: those of its store, of a file and of the environment."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from penstock.app.external_backends import build_key_store
from penstock.kernel.access import (
    PLAIN_ID,
    ActiveKeys,
    ApiKey,
    NewKey,
    Scope,
    digest_of,
    make_key,
    parse_key,
)
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings
from penstock.stores.key_store import KEYS_FILE, KeyFile, KeyStore
from penstock.stores.server_keys import ServerKeys

#: Seconds between two looks at the stores.
POLL_S: Final = 1.0
#: Characters of a key that a person chose, at least.
CHOSEN_KEY_CHARACTERS_MIN: Final = 32


def requires_keys(settings: Settings, data_dir: Path) -> bool:
    """Return whether a server serves only requests with a key.

    It is so once a first key was made, also when that one has been revoked: a server does not open by itself.
    """
    server = settings.server
    return bool(server.api_key or server.keys_file or settings.redis.keys or os.path.lexists(data_dir / KEYS_FILE))


def environment_key(text: str) -> list[ApiKey]:
    """Return the key that ``PENSTOCK_API_KEY`` holds, if it holds one.

    Raises:
        Invalid: It is too short to be safe.
    """
    if not text:
        return []
    id, secret = parse_key(text) or (PLAIN_ID, text)
    if not text.isascii() or not text.isprintable():
        # In a header others cannot be sent, or come in another encoding.
        raise Invalid("PENSTOCK_API_KEY has characters that are not printable ASCII", field="server.api_key")
    if len(text) < CHOSEN_KEY_CHARACTERS_MIN:
        least = CHOSEN_KEY_CHARACTERS_MIN
        detail = f"PENSTOCK_API_KEY is shorter than {least} characters; `openssl rand -hex 32` makes one"
        raise Invalid(detail, field="server.api_key")
    return [ApiKey(id, PLAIN_ID, digest_of(secret), Scope.ADMIN.label)]


class KeyWatch:
    """Keeps the keys that a server accepts up to date. ``start`` it, ``close`` it.

    Args:
        settings: Where keys are.
        data_dir: The data directory.

    Bounds: one task; a look at each store a second.

    Attributes:
        keys: The server's keys from every place, for those who change them.
        local: Key of this run of the server, for commands on its data directory and its own indexing.
        local_agent: Key of this run that reads, for agents that the data directory's owner starts.
    """

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.local: NewKey = make_key(ApiKey("", "local", "", Scope.ADMIN.label), 0)
        # An agent does what it reads, and what it reads may be anybody's text.
        self.local_agent: NewKey = make_key(ApiKey("", "local-agent", "", Scope.SEARCH.label), 0)
        stores: list[KeyStore] = [build_key_store(settings, data_dir)]
        if settings.server.keys_file:
            stores.append(KeyFile(Path(settings.server.keys_file)))
        self.keys = ServerKeys(
            stores,
            environment_key(settings.server.api_key),
            [self.local.key, self.local_agent.key],
            required=requires_keys(settings, data_dir),
        )
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeyWatch {self.active!r}>"

    @property
    def active(self) -> ActiveKeys:
        """The keys that are accepted now."""
        return self.keys.active

    async def start(self) -> None:
        """Read the keys, and look for changes from now on.

        Raises:
            PenstockError: They cannot be read. A server does not start without the keys that it was told of.
        """
        await self.keys.start()
        self._task = asyncio.create_task(self._keep(), name="keys")

    async def reload(self) -> None:
        """Read the keys again. Those of a store that cannot be read stay as they were."""
        await self.keys.reload()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.keys.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.reload()
