"""Watch over the keys of a server: those of its store, of a file and of the environment."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from penstock.app.external_backends import build_key_store
from penstock.kernel.access import (
    PLAIN_ID,
    ActiveKeys,
    ApiKey,
    KeyRing,
    NewKey,
    Scope,
    digest_of,
    make_key,
    parse_key,
)
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.settings import Settings
from penstock.stores.key_store import KEYS_FILE, KeyFile, KeyStore

log = logging.getLogger(__name__)

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
        active: The keys that are accepted now.
        local: Key of this run of the server, for commands on its data directory and its own indexing.
        local_agent: Key of this run that reads, for agents that the data directory's owner starts.
    """

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.active = ActiveKeys()
        self.local: NewKey = make_key(ApiKey("", "local", "", Scope.ADMIN.label), 0)
        # An agent does what it reads, and what it reads may be anybody's text.
        self.local_agent: NewKey = make_key(ApiKey("", "local-agent", "", Scope.SEARCH.label), 0)
        self._required = requires_keys(settings, data_dir)
        self._fixed = [self.local.key, self.local_agent.key, *environment_key(settings.server.api_key)]
        self._stores: list[KeyStore] = [build_key_store(settings, data_dir)]
        if settings.server.keys_file:
            self._stores.append(KeyFile(Path(settings.server.keys_file)))
        self._known: list[list[ApiKey] | None] = [None] * len(self._stores)
        self._complaints = [""] * len(self._stores)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeyWatch {self.active!r}>"

    async def start(self) -> None:
        """Read the keys, and look for changes from now on.

        Raises:
            PenstockError: They cannot be read. A server does not start without the keys that it was told of.
        """
        self._known = [await store.read() for store in self._stores]
        if self._stores[1:] and self._known[1] is None:
            raise Invalid(f"there is no file {self._stores[1].label} (PENSTOCK_KEYS_FILE)", field="server.keys_file")
        self._apply()
        self._task = asyncio.create_task(self._keep(), name="keys")

    async def reload(self) -> None:
        """Read the keys again. Those of a store that cannot be read stay as they were."""
        changed = False
        for number, store in enumerate(self._stores):
            try:
                found = await store.read()
            except PenstockError as error:
                self._complain(number, error.detail)
                # Keys that are there and cannot be read are no reason to serve everybody.
                changed |= isinstance(error, Invalid) and not self._required
                self._required |= isinstance(error, Invalid)
                continue
            if found is None and self._known[number] is not None:
                # Gone, not empty: they were not revoked one by one.
                self._complain(number, f"{store.label} is gone")
                continue
            self._complaints[number] = ""
            changed |= found != self._known[number]
            self._known[number] = found
        if changed:
            self._apply()
            log.info("keys were read again", extra={"keys": sum(len(known or ()) for known in self._known)})

    def _complain(self, number: int, why: str) -> None:
        """Say once that a store cannot be read."""
        if self._complaints[number] != why:
            self._complaints[number] = why
            log.warning("keys cannot be read; those before stay", extra={"why": why})

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for store in self._stores:
            await store.close()

    def _apply(self) -> None:
        if not self._required and all(found is None for found in self._known):
            return
        self._required = True
        self.active.replace(KeyRing([*self._fixed, *(key for found in self._known for key in found or ())]))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.reload()
