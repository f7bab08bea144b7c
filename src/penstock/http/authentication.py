"""Authentication at the gate: a request's key becomes its principal, or a refusal that costs microseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.http.page_files import PAGE_FILES
from penstock.http.problem import PreparedRefusal
from penstock.http.request_context import request_state
from penstock.kernel.access import ANYONE, UNAUTHENTICATED, ActiveKeys, Principal, key_errors
from penstock.kernel.settings import HttpSettings
from penstock.policies.bucket import RateLimiter, RateSettings
from penstock.telemetry.audit_log import AuditTrail

#: Health checks, which a server with keys answers to anyone.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz"})
METRICS_PATHS: Final = frozenset({"/metrics"})
DOCS_PATHS: Final = frozenset({"/docs", "/openapi.json"})

#: Wrong keys that an address may send: at once, and a second. After that it is told to slow down.
FAILURES: Final = RateSettings(rate=1.0, burst=20.0)

#: Characters of a path that the audit log shows.
AUDITED_PATH_CHARACTERS_MAX: Final = 200

_BEARER: Final = b"bearer "
_HEADERS: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})


class Authenticator:
    """Finds the principal of each request.

    A right key always passes, also from an address that sends wrong ones: clients behind one proxy share an address,
    and a secret of 256 bits is not found by trying.

    Args:
        keys: The keys that the server accepts now.
        settings: Whether metrics and documentation are open.
        now_s: Unix time, for the ends of keys.

    Bounds: the addresses of a :class:`RateLimiter`.
    """

    def __init__(self, keys: ActiveKeys, settings: HttpSettings, now_s: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now_s = now_s
        # The page itself holds nothing of the server's, and it is where people sign in.
        self._open_paths = OPEN_PATHS.union(PAGE_FILES)
        if settings.metrics_open:
            self._open_paths |= METRICS_PATHS
        if settings.docs_open:
            self._open_paths |= DOCS_PATHS
        self._refusals = {code: PreparedRefusal(error) for code, error in key_errors().items()}
        self._failures = RateLimiter(FAILURES)

    def authenticate(self, scope: Mapping[str, Any], address: str, now_s: float) -> Principal | PreparedRefusal:
        """Return the principal of a request, or why it has none.

        Args:
            scope: Of the request. Its path is compared as the router compares it, decoded once.
            address: The client's.
            now_s: Seconds on the loop's clock.
        """
        ring = self._keys.ring
        if ring is None:
            return ANYONE
        is_open = scope["path"] in self._open_paths
        found = _sent_keys(scope)
        if len(found) != 1:
            return UNAUTHENTICATED if is_open else self._refusals["key_ambiguous" if found else "key_missing"]
        unix_s = self._now_s()
        known = ring.authenticate(found.pop().decode("latin-1"), unix_s)
        if is_open:
            # A key is not needed, but tells who may know more.
            return known if isinstance(known, Principal) and not known.collections else UNAUTHENTICATED
        if isinstance(known, Principal):
            self._keys.used_at_s[known.id] = unix_s
            return known
        if known == "key_unknown" and not self._failures.decide(address, now_s).allowed:
            known = "too_many_failed_attempts"
        return self._refusals[known]


def audited_act(scope: Mapping[str, Any]) -> str:
    """Return a request as the audit log names it, cut where it is long."""
    return f"{scope['method']} {scope['path'][:AUDITED_PATH_CHARACTERS_MAX]}"


def denial_recorder(audit: AuditTrail) -> Callable[[Mapping[str, Any], str], None]:
    """Return what writes a refused attempt to the audit log, given the request's scope and the code of the refusal."""

    def record(scope: Mapping[str, Any], code: str) -> None:
        state = request_state(scope)
        audit.refused(state.arrived_s, **state.who, act=audited_act(scope), code=code, request_id=state.request_id)

    return record


def _sent_keys(scope: Mapping[str, Any]) -> set[bytes]:
    """Return the keys that a request's headers have. Credentials of another scheme than Bearer are none."""
    found = set()
    for name, value in scope["headers"]:
        if name in _HEADERS:
            if name != b"authorization":
                found.add(value.strip())
            elif value[: len(_BEARER)].lower() == _BEARER:
                found.add(value[len(_BEARER) :].strip())
    return found
