"""Access: scopes, principals and API keys, with the check of a key. Pure; no I/O.

A key is ``psk_<id>_<secret>``. Its secret has 256 random bits, so one round of SHA-256 keeps it as safe as a slow hash
would: secrets of that length cannot be tried, and the gate checks a key in microseconds.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.kernel.errors import Invalid, PenstockError, Rejected

KEY_PREFIX: Final = "psk"
ID_CHARACTERS: Final = 12
SECRET_CHARACTERS: Final = 43
#: Id of a key that has another form: one that a person chose.
PLAIN_ID: Final = "environment"
#: Keys of a server at most, and patterns of a key.
KEYS_MAX: Final = 10_000
PATTERNS_MAX: Final = 100
NAME_CHARACTERS_MAX: Final = 64
#: Requests a second of a key, and seconds until it ends: ten years.
RATE_MAX: Final = 1_000_000
AGE_S_MAX: Final = 3653 * 86_400

_ALPHABET: Final = string.ascii_letters + string.digits
_KEY: Final = re.compile(rf"{KEY_PREFIX}_([0-9A-Za-z]{{{ID_CHARACTERS}}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})")
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{NAME_CHARACTERS_MAX - 1}}}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,64}")


#: The same as patterns of JSON Schema.
KEY_NAME_PATTERN: Final = f"^{_NAME.pattern}$"
COLLECTIONS_PATTERN: Final = f"^{_PATTERN.pattern}$"


class Scope(enum.IntEnum):
    """Scope of a key. Each includes those before it.

    ``SEARCH`` reads, ``WRITE`` also changes documents, sources and collections, ``ADMIN`` does everything.
    """

    SEARCH = 1
    WRITE = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The scope as people write it."""
        return self.name.lower()


SCOPES: Final = {scope.label: scope for scope in Scope}


class AccessDenied(Invalid):
    """The key may not do this, or there is no key that is known.

    Attributes:
        scope: The scope that is lacking, ``None`` where no scope would help.
    """

    def __init__(self, detail: str, *, code: str, field: str = "", scope: Scope | None = None) -> None:
        super().__init__(detail, code=code, field=field)
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Principal:
    """The one on whose behalf a request is made.

    Attributes:
        id: Id of the key; empty where the server has no keys.
        name: Name of the key, for people.
        scope: What the key may do.
        collections: Patterns of the collections that it may use, where ``*`` is any text; empty for every collection.
        rate: Requests a second that it may make; 0 for the server's limit.
    """

    id: str = ""
    name: str = ""
    scope: Scope = Scope.ADMIN
    collections: tuple[str, ...] = ()
    rate: float = 0.0

    def allows(self, scope: Scope) -> bool:
        """Return whether the key's scope includes another."""
        return self.scope >= scope

    def may_see(self, collection: str) -> bool:
        """Return whether the key may use a collection."""
        return not self.collections or any(_matches(collection, pattern) for pattern in self.collections)

    def require(self, scope: Scope) -> None:
        """Refuse what the key's scope does not include.

        Raises:
            AccessDenied: It lacks the scope (``scope_missing``).
        """
        if not self.allows(scope):
            detail = f"this needs a key of scope {scope.label}, and this key has {self.scope.label}"
            raise AccessDenied(detail, code="scope_missing", scope=scope)

    def require_collections(self, names: Iterable[str]) -> None:
        """Refuse collections that the key may not use.

        Whether such a collection exists is not said.

        Raises:
            AccessDenied: One of them (``collection_not_allowed``).
        """
        if not self.collections:
            return
        for name in names:
            if not self.may_see(name):
                detail = f"this key may not use the collection {name!r}; `penstock keys list` shows which it may"
                raise AccessDenied(detail, code="collection_not_allowed", field="collection")

    def require_every_collection(self) -> None:
        """Refuse a key that is for some collections only.

        Raises:
            AccessDenied: It is such a one (``collection_not_allowed``).
        """
        if self.collections:
            detail = "this concerns every collection, and this key is for some; use a key without --collections"
            raise AccessDenied(detail, code="collection_not_allowed", field="collection")


#: The principal of every request to a server without keys.
ANYONE: Final = Principal()
#: The principal of requests without a key to the open paths of a server with keys. It may see nothing.
UNAUTHENTICATED: Final = Principal(scope=Scope.SEARCH, collections=("",))


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as it is kept: without its secret.

    Attributes:
        id: Its id, which is part of the key and no secret.
        name: What people call it.
        digest: SHA-256 of its secret, in hexadecimal digits.
        scope: ``search``, ``write`` or ``admin``.
        collections: Patterns of the collections that it may use; empty for every collection.
        created_at: When it was made, as Unix time.
        expires_at: When it ends, as Unix time; 0 for never.
        rate: Requests a second; 0 for the server's limit.
    """

    id: Annotated[str, Meta(pattern=rf"^[0-9A-Za-z]{{{ID_CHARACTERS}}}$")]
    name: Annotated[str, Meta(pattern=KEY_NAME_PATTERN)]
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scope: Annotated[str, Meta(pattern=f"^({'|'.join(SCOPES)})$")] = Scope.SEARCH.label
    collections: Annotated[
        tuple[Annotated[str, Meta(pattern=COLLECTIONS_PATTERN)], ...], Meta(max_length=PATTERNS_MAX)
    ] = ()
    created_at: int = 0
    expires_at: int = 0
    rate: Annotated[float, Meta(ge=0, le=RATE_MAX)] = 0.0

    @property
    def principal(self) -> Principal:
        """The key's principal."""
        return Principal(self.id, self.name, SCOPES[self.scope], self.collections, self.rate)

    def expired(self, now_s: float) -> bool:
        """Return whether its time is over.

        Args:
            now_s: Unix time.
        """
        return bool(self.expires_at) and now_s >= self.expires_at

    def administers(self, now_s: float) -> bool:
        """Return whether it may do everything, in every collection, at this time.

        Args:
            now_s: Unix time.
        """
        return self.scope == Scope.ADMIN.label and not self.collections and not self.expired(now_s)


def check_key_name(name: str) -> None:
    """Refuse a name that a key cannot have.

    Raises:
        Invalid: It is such a one (``invalid_name``).
    """
    if not _NAME.fullmatch(name):
        detail = (
            f"{name[:80]!r} cannot be a key's name: letters, digits, '.', '_', '@', '-'; {NAME_CHARACTERS_MAX} at most"
        )
        raise Invalid(detail, field="name", code="invalid_name")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that no collection's name can match.

    Raises:
        Invalid: It is such a one.
    """
    if not _PATTERN.fullmatch(pattern):
        detail = f"{pattern[:80]!r} is no pattern of collections, such as 'team-*'"
        raise Invalid(detail, field="collections")


def _check_new_key(key: ApiKey, now_s: int) -> None:
    """Refuse a key that could not be read again, or that would be of no use.

    Raises:
        Invalid: It is such a one. The error names the field.
    """
    check_key_name(key.name)
    if key.scope not in SCOPES:
        raise Invalid(f"{key.scope[:80]!r} is no scope; there are {', '.join(SCOPES)}", field="scope")
    if len(key.collections) > PATTERNS_MAX:
        raise Invalid(f"a key has at most {PATTERNS_MAX} patterns; `*` in one stands for many", field="collections")
    for pattern in key.collections:
        check_pattern(pattern)
    if key.expires_at and not now_s < key.expires_at <= now_s + AGE_S_MAX:
        over = key.expires_at <= now_s
        detail = "this time has passed; name a later one" if over else "a key ends within ten years, or never"
        raise Invalid(detail, field="expires_at")
    if key.rate and not 1 <= key.rate <= RATE_MAX:
        raise Invalid(f"a key's rate is between 1 and {RATE_MAX} requests a second", field="rate")


def _matches(name: str, pattern: str) -> bool:
    """Return whether a name has a pattern's pieces in their order, the first and the last at its ends."""
    first, *others = pattern.split("*")
    if not others:
        return name == first
    if not name.startswith(first) or not name.endswith(others[-1]):
        return False
    place, end = len(first), len(name) - len(others[-1])
    for piece in others[:-1]:
        found = name.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return place <= end


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_CHARACTERS))


def new_key_id() -> str:
    """Return a random id of a key."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARACTERS))


def digest_of(secret: str) -> str:
    """Return the digest under which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def format_key(id: str, secret: str) -> str:
    """Return a key as its user sends it."""
    return f"{KEY_PREFIX}_{id}_{secret}"


def parse_key(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of a key, ``None`` for what is no key."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found is not None else None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be made, and its text.

    Attributes:
        key: As it is kept.
        text: As its user sends it. It is shown once.
    """

    key: ApiKey
    text: str


def make_key(template: ApiKey, now_s: int) -> NewKey:
    """Return a new key that is like another, but for its id, its secret and its age.

    Raises:
        Invalid: The name, a pattern, the end or the rate is not allowed.
    """
    _check_new_key(template, now_s)
    id, secret = new_key_id(), new_secret()
    key = msgspec.structs.replace(template, id=id, digest=digest_of(secret), created_at=now_s)
    return NewKey(key, format_key(id, secret))


class KeyRing:
    """The keys of a server, by their ids.

    Args:
        keys: The keys. A later one replaces an earlier one of the same id.

    Bounds: :data:`KEYS_MAX` keys.
    """

    __slots__ = ("_entries",)

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._entries = {key.id: (key, bytes.fromhex(key.digest), key.principal) for key in keys}

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self)} keys>"

    def __contains__(self, id: str) -> bool:
        """Return whether there is a key of an id."""
        return id in self._entries

    def name_of(self, id: str) -> str:
        """Return the name of a key; empty where there is none of an id."""
        entry = self._entries.get(id)
        return entry[0].name if entry is not None else ""

    def authenticate(self, text: str, now_s: float) -> Principal | str:
        """Return the principal of a key, or the code of the error in :func:`key_errors`.

        An unknown id costs as much time as a wrong secret, so that ids cannot be found by measuring.

        Args:
            text: The key as it was sent.
            now_s: Unix time.
        """
        id, secret = parse_key(text) or (PLAIN_ID, text)
        entry = self._entries.get(id)
        digest = hashlib.sha256(secret.encode()).digest()
        if not hmac.compare_digest(digest, entry[1] if entry is not None else _NO_DIGEST) or entry is None:
            return "key_unknown"
        key, _, principal = entry
        return "key_expired" if key.expired(now_s) else principal


class ActiveKeys:
    """The keys that a server accepts now. They are replaced as a whole when they change.

    Attributes:
        ring: The keys; ``None`` while the server has none and serves anyone.
        on_change: Called when they were replaced.
        used_at_s: When each key was used last, by its id, as Unix time.

    Bounds: times of the ring's keys, and of those that were revoked since it was replaced.
    """

    __slots__ = ("on_change", "ring", "used_at_s")

    def __init__(self, ring: KeyRing | None = None) -> None:
        self.ring = ring
        self.used_at_s: dict[str, float] = {}
        self.on_change: Callable[[], None] = lambda: None

    def replace(self, ring: KeyRing) -> None:
        """Accept these keys from now on, and no others."""
        self.ring = ring
        self.used_at_s = {id: at_s for id, at_s in self.used_at_s.items() if id in ring}
        self.on_change()

    def __repr__(self) -> str:
        return f"<ActiveKeys {self.ring!r}>"


def key_errors() -> dict[str, PenstockError]:
    """Return the errors of requests without a usable key, by code; each has a form that depends on nothing sent."""
    missing = "the server has keys, and this request has none; send one as `Authorization: Bearer psk_…`"
    ambiguous = "the request has several keys; send one"
    expired = "this key has expired; `penstock keys rotate` makes a new one"
    flood = "too many wrong keys came from this address; slow down"
    return {
        "key_missing": AccessDenied(missing, code="key_missing", field="Authorization"),
        "key_ambiguous": AccessDenied(ambiguous, code="key_ambiguous", field="Authorization"),
        "key_expired": AccessDenied(expired, code="key_expired", field="Authorization"),
        "key_unknown": AccessDenied("the server does not know this key", code="key_unknown", field="Authorization"),
        "too_many_failed_attempts": Rejected(flood, code="too_many_failed_attempts", by_client=True),
    }


_NO_DIGEST: Final = bytes(32)
