"""The keys of a server from every place that has some: read together, and changed where people change them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from penstock.kernel.access import ActiveKeys, ApiKey, KeyRing, NewKey, key_errors
from penstock.kernel.errors import Invalid, PenstockError
from penstock.stores.key_store import KeyEdit, KeyRotation, KeyStore, find_key, with_key, without_key

log = logging.getLogger(__name__)

#: Places of keys, as the API names them.
STORE: Final = "store"
FILE: Final = "file"
ENVIRONMENT: Final = "environment"

_PLACES: Final = (STORE, FILE)
_WHERE: Final = {FILE: "the file that PENSTOCK_KEYS_FILE names", ENVIRONMENT: "PENSTOCK_API_KEY"}


class PlacedKey(NamedTuple):
    """A key, and where it is kept.

    Attributes:
        key: The key.
        place: :data:`STORE`, :data:`FILE` or :data:`ENVIRONMENT`. Only those of the store can be changed here.
    """

    key: ApiKey
    place: str


class ServerKeys:
    """The keys of a server, and the changes that its administrators make. A change counts here at once.

    Args:
        stores: The store that changes are made in, and after it what is only read. None where keys are of no use.
        environment: The key of the environment, if there is one.
        local: Keys of this run of the server. They are not listed.
        required: Whether the server serves only requests with a key, also while no store has one.

    Bounds: one change at a time, and those of a store.

    Attributes:
        active: The keys that are accepted now.
    """

    def __init__(
        self,
        stores: Sequence[KeyStore] = (),
        environment: Sequence[ApiKey] = (),
        local: Sequence[ApiKey] = (),
        *,
        required: bool = False,
    ) -> None:
        self.active = ActiveKeys()
        self._stores, self._environment, self._local = stores, environment, local
        self._required = required
        self._known: list[list[ApiKey] | None] = [None] * len(stores)
        self._complaints = [""] * len(stores)
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<ServerKeys {self.active!r}>"

    @property
    def required(self) -> bool:
        """True while the server serves only requests with a key."""
        return self._required

    def listed(self) -> list[PlacedKey]:
        """Return the keys that people have made, as they were known last."""
        stored = [
            PlacedKey(key, place) for place, known in zip(_PLACES, self._known, strict=False) for key in known or ()
        ]
        return stored + [PlacedKey(key, ENVIRONMENT) for key in self._environment]

    async def start(self) -> None:
        """Read the keys for the first time.

        Raises:
            PenstockError: They cannot be read. A server does not start without the keys that it was told of.
        """
        self._known = [await store.read() for store in self._stores]
        if self._stores[1:] and self._known[1] is None:
            raise Invalid(f"there is no file {self._stores[1].label} (PENSTOCK_KEYS_FILE)", field="server.keys_file")
        self._apply()

    async def reload(self) -> None:
        """Read the keys again. Those of a store that cannot be read stay as they were."""
        # What was read before a change would undo it here for a while.
        async with self._lock:
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

    async def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            await store.close()

    async def create(self, new: NewKey, *, first: bool = False) -> None:
        """Add a key.

        Args:
            new: The key.
            first: Whether it is asked for by a request without a key, which the server takes while it has none.

        Raises:
            Invalid: The name is taken (``key_exists``), or there are too many keys (``too_many_keys``).
            AccessDenied: It was to be the first, and is not (``key_missing``).
            Unavailable: The store cannot be reached or written.
        """
        others = self._fixed_keys()

        def edit(keys: list[ApiKey]) -> list[ApiKey]:
            if first and (keys or self._required):
                raise key_errors()["key_missing"]
            with_key(new.key)(others)
            return with_key(new.key)(keys)

        await self._change(edit)

    async def rotate(self, id: str, now_s: int, grace_s: int) -> KeyRotation:
        """Add a key like another, and let that one and others of its name end.

        Args:
            id: The other key's id.
            now_s: Unix time.
            grace_s: Seconds that those before go on.

        Raises:
            Invalid: There is none of this id (``key_not_found``), or it is kept elsewhere (``key_not_changeable``).
            Unavailable: The store cannot be reached or written.
        """
        self._check_changeable(id)
        rotation = KeyRotation(id, now_s, grace_s)

        def edit(keys: list[ApiKey]) -> list[ApiKey]:
            find_key(keys, id)
            return rotation(keys)

        await self._change(edit)
        return rotation

    async def revoke(self, id: str, now_s: float) -> ApiKey:
        """End a key, and return it.

        Args:
            id: Its id.
            now_s: Unix time.

        Raises:
            Invalid: There is none of this id (``key_not_found``), it is kept elsewhere (``key_not_changeable``), or is
                the last that may make others (``last_admin_key``).
            Unavailable: The store cannot be reached or written.
        """
        self._check_changeable(id)
        found: list[ApiKey] = []

        def edit(keys: list[ApiKey]) -> list[ApiKey]:
            found[:] = [find_key(keys, id)]
            return without_key(id, self._fixed_keys(), now_s)(keys)

        await self._change(edit)
        return found[0]

    def _fixed_keys(self) -> list[ApiKey]:
        return [one.key for one in self.listed() if one.place != STORE]

    def _check_changeable(self, id: str) -> None:
        for key, place in self.listed():
            if key.id == id and place != STORE:
                detail = f"this key comes from {_WHERE[place]}; change it there"
                raise Invalid(detail, code="key_not_changeable")

    async def _change(self, edit: KeyEdit) -> None:
        if not self._stores:
            raise Invalid("this server keeps no keys", code="key_not_changeable")
        written: list[ApiKey] = []

        def noted(keys: list[ApiKey]) -> list[ApiKey]:
            # Of a change that is tried again, what was written last counts.
            written[:] = edit(keys)
            return list(written)

        async with self._lock:
            await self._stores[0].change(noted)
            self._known[0] = written
            self._apply()

    def _complain(self, number: int, why: str) -> None:
        """Say once that a store cannot be read."""
        if self._complaints[number] != why:
            self._complaints[number] = why
            log.warning("keys cannot be read; those before stay", extra={"why": why})

    def _apply(self) -> None:
        if not self._required and all(found is None for found in self._known):
            return
        self._required = True
        stored = (key for found in self._known for key in found or ())
        self.active.replace(KeyRing([*self._local, *self._environment, *stored]))
