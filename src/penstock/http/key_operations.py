"""Operations about the keys of a server: list, make, rotate, revoke. A secret is in one answer only."""

from __future__ import annotations

import datetime as dt
import ipaddress
import time
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from penstock.core.core import Core
from penstock.http import request_bodies, responses
from penstock.http.endpoints import ApiEndpoint
from penstock.http.request_context import RequestState, request_state
from penstock.kernel.access import ANYONE, AccessDenied, ApiKey, NewKey, Scope, make_key
from penstock.kernel.errors import Invalid
from penstock.stores.server_keys import STORE
from penstock.stores.timestamps import to_utc_rfc3339

_KEY: Final = "/v1/keys/{key}"
_NO_STORE: Final = "no-store"
#: Headers of proxies. A request that has one may come from another machine than its connection does.
_FORWARDED: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})


class KeyOperations:
    """The operations, one method for each endpoint."""

    def __init__(self, core: Core, now_s: Callable[[], float] = time.time) -> None:
        self._keys, self._audit = core.deps.keys, core.deps.audit
        self._now_s = now_s

    @ApiEndpoint("GET", "/v1/keys")
    async def list_keys(self, request: Request) -> responses.KeyList:
        """List the keys of the server, without their secrets."""
        now_s, used_at_s = self._now_s(), self._keys.active.used_at_s
        found = [
            responses.ListedKey.listed(key, place, now_s, used_at_s.get(key.id)) for key, place in self._keys.listed()
        ]
        own = request_state(request.scope).principal.id or None
        return responses.KeyList(found, own, open=not self._keys.required)

    @ApiEndpoint("POST", "/v1/keys", cache_control=_NO_STORE, error_statuses=(409,))
    async def create_key(self, request: Request, body: request_bodies.KeyBody) -> responses.CreatedKey:
        """Make a key. Its secret is in this answer only.

        The first key of a server that has none closes it: from then on it serves only requests with a key. Such a key
        must have the scope `admin` and no `collections`, and `close_server` must say that this is meant. It can be made
        from the server's own machine only.
        """
        state = request_state(request.scope)
        now_s = int(self._now_s())
        collections = tuple(dict.fromkeys(body.collections))
        expires_at = _unix_s(body.expires_at) if body.expires_at is not None else 0
        new = make_key(ApiKey("", body.name, "", body.scope, collections, 0, expires_at, body.rate or 0), now_s)
        if first := state.principal is ANYONE:
            _check_first_key(request, new.key, meant=body.close_server)
        await self._keys.create(new, first=first)
        self._act("key_created", state, key=new.key.id, name=new.key.name, scope=new.key.scope)
        return self._told(new, now_s)

    @ApiEndpoint("POST", f"{_KEY}/rotate", body_required=False, cache_control=_NO_STORE, error_statuses=(404, 409))
    async def rotate_key(self, request: Request, body: request_bodies.RotateBody) -> responses.CreatedKey:
        """Make a new key like another one, whose secret is in this answer only. The former key goes on for a while."""
        state, now_s = request_state(request.scope), int(self._now_s())
        done = await self._keys.rotate(request.path_params["key"], now_s, int(body.grace_s))
        new = done.made
        self._act("key_rotated", state, key=new.key.id, name=new.key.name, former=[key.id for key in done.former])
        return self._told(new, now_s)

    @ApiEndpoint("DELETE", _KEY, error_statuses=(404, 409))
    async def revoke_key(self, request: Request) -> responses.ListedKey:
        """End a key at once. The last key that administers the server is not ended here."""
        id, state, now_s = request.path_params["key"], request_state(request.scope), self._now_s()
        # A key that revokes itself is told so.
        state.outlives_key = id == state.principal.id
        gone = await self._keys.revoke(id, now_s)
        self._act("key_revoked", state, key=gone.id, name=gone.name)
        return responses.ListedKey.listed(gone, STORE, now_s, None)

    def _act(self, event: str, state: RequestState, **facts: object) -> None:
        """Write a change of keys as the commands write it, beside the request itself."""
        who = state.who
        self._audit.act(
            event, by="request", by_key=who["key"], address=who["address"], request_id=state.request_id, **facts
        )

    def _told(self, new: NewKey, now_s: float) -> responses.CreatedKey:
        return responses.CreatedKey(responses.ListedKey.listed(new.key, STORE, now_s, None), new.text)


def _check_first_key(request: Request, key: ApiKey, *, meant: bool) -> None:
    """Refuse a first key that is not meant to close the server, or would lock out its owner.

    Raises:
        Invalid: Nothing says that it is meant (``server_would_close``), or it could not administer the server
            (``first_key_not_admin``).
        AccessDenied: It does not come from the server's own machine (``first_key_not_local``).
    """
    if not _is_local(request):
        detail = "the first key of a server is made on its own machine: `penstock keys create NAME --scope admin`"
        raise AccessDenied(detail, code="first_key_not_local", scope=None)
    if key.scope != Scope.ADMIN.label or key.collections:
        detail = "the first key closes the server, so it must administer it: of scope admin, for every collection"
        raise Invalid(detail, field="collections" if key.collections else "scope", code="first_key_not_admin")
    if not meant:
        detail = (
            "with its first key the server serves only requests with a key; say `close_server: true` if that is meant"
        )
        raise Invalid(detail, field="close_server", code="server_would_close")


def _is_local(request: Request) -> bool:
    """Return whether a request comes from a program on this machine, and from no proxy there that says so."""
    peer = request.scope.get("client")
    if not peer or any(name in _FORWARDED for name, _ in request.scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(peer[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _unix_s(time: str) -> int:
    """Return a time as Unix time.

    Raises:
        Invalid: It is none.
    """
    read = to_utc_rfc3339(time)
    if read is None:
        raise Invalid("`expires_at` must be a time such as 2027-01-31T12:00:00Z", field="expires_at")
    return int(dt.datetime.fromisoformat(read).timestamp())
