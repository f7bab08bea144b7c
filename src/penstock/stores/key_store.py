"""Stores of API keys: the contract, the file in a data directory, and the changes that people make."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta

from penstock.kernel.access import AGE_S_MAX, KEYS_MAX, ApiKey, NewKey, make_key
from penstock.kernel.errors import DECODE_ERRORS, Invalid, Unavailable
from penstock.kernel.files import read_regular

KEYS_FILE: Final = "keys.json"
_LOCK_FILE: Final = "keys.lock"

#: Tries to lock the file, and seconds between them.
LOCK_ATTEMPTS_MAX: Final = 200
LOCK_PAUSE_S: Final = 0.05

#: Makes another list of keys out of one. It may be called more than once, and in a thread.
KeyEdit = Callable[[list[ApiKey]], list[ApiKey]]

#: Seconds that the former key of a rotation goes on, where nothing is said.
GRACE_S: Final = 86_400

T = TypeVar("T")


class KeyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys as they are stored.

    Attributes:
        keys: The keys, without their secrets.
        version: Version of this form.
    """

    keys: Annotated[list[ApiKey], Meta(max_length=KEYS_MAX)]
    version: Annotated[int, Meta(ge=1, le=1)] = 1


class KeyInfo(msgspec.Struct, frozen=True):
    """A key as people see it: without its digest.

    Attributes:
        id: Its id, the part of the key before the last `_`.
        name: What people call it.
        scope: `search`, `write` or `admin`.
        collections: Patterns of the collections that it may use. Empty for every collection.
        rate: Requests a second that it may make. Null for the server's limit.
        created_at: When it was made, RFC 3339 in UTC.
        expires_at: When it ends, RFC 3339 in UTC. Null for never.
        expired: Whether its time is over.
    """

    id: str
    name: str
    scope: str
    collections: tuple[str, ...]
    rate: float | None
    created_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    expires_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None
    expired: bool

    @classmethod
    def of(cls, key: ApiKey, now_s: float) -> KeyInfo:
        """Return what people see of a key.

        Args:
            key: As it is kept.
            now_s: Unix time.
        """
        return cls(
            key.id,
            key.name,
            key.scope,
            key.collections,
            key.rate or None,
            utc_rfc3339(key.created_at),
            utc_rfc3339(key.expires_at) if key.expires_at else None,
            key.expired(now_s),
        )


def utc_rfc3339(at_s: float) -> str:
    """Return Unix time as RFC 3339 in UTC, in whole seconds."""
    return datetime.fromtimestamp(int(at_s), UTC).isoformat().replace("+00:00", "Z")


class KeyStore(Protocol):
    """A place where keys are kept. ``close`` it.

    Attributes:
        label: The place, for people.
    """

    label: str

    async def read(self) -> list[ApiKey] | None:
        """Return the keys, ``None`` where there never were any.

        Raises:
            Invalid: They cannot be read (``keys_unreadable``).
            Unavailable: The place cannot be reached.
        """

    async def change(self, edit: KeyEdit) -> None:
        """Replace the keys by what ``edit`` makes of them. Of two changes at once neither is lost.

        Raises:
            PenstockError: As of :meth:`read` and of ``edit``; nothing is changed then.
        """

    async def close(self) -> None:
        """Close the connections to it."""


def encode_keys(keys: Sequence[ApiKey]) -> bytes:
    """Return keys as they are stored.

    Raises:
        Invalid: There are too many (``too_many_keys``).
    """
    if len(keys) > KEYS_MAX:
        detail = f"a server has at most {KEYS_MAX} keys; revoke some that are not used"
        raise Invalid(detail, code="too_many_keys")
    return msgspec.json.format(msgspec.json.encode(KeyDocument(list(keys)))) + b"\n"


def decode_keys(data: bytes, label: str) -> list[ApiKey]:
    """Return stored keys.

    Raises:
        Invalid: They cannot be read (``keys_unreadable``).
    """
    try:
        return msgspec.json.decode(data, type=KeyDocument).keys
    except DECODE_ERRORS as error:
        # msgspec tells the place and the type, and repeats no value.
        detail = f"the keys in {label} cannot be read: {error}; put a copy back, or remove it to make new keys"
        raise Invalid(detail, field="keys", code="keys_unreadable") from error


class KeyFile:
    """A file of keys, replaced as a whole.

    Args:
        path: The file. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        self._read: tuple[tuple[int, ...], list[ApiKey]] = (), []

    def __repr__(self) -> str:
        return f"<KeyFile {self._path}>"

    async def read(self) -> list[ApiKey] | None:
        """Return the keys, ``None`` where there is no file."""
        return await asyncio.to_thread(self.read_now)

    def read_now(self) -> list[ApiKey] | None:
        """Return the keys, ``None`` where there is no file. Blocks.

        A file that is the same as before is not read again.
        """
        try:
            found = self._path.stat()
            same = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if self._read[0] == same:
                return self._read[1]
            data = read_regular(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            detail = f"the keys in {self.label} cannot be read: {error.strerror}"
            raise Invalid(detail, field="keys", code="keys_unreadable") from error
        self._read = same, decode_keys(data, self.label)
        return self._read[1]

    async def change(self, edit: KeyEdit) -> None:
        """Replace the keys by what ``edit`` makes of them. Threads do what the disk may delay.

        Cancellation: Nothing is changed. Once the file is locked, the change is made before anything else is heard.
        """
        try:
            fd = await _run_to_end(self._open_lock)
        except OSError as error:
            raise self._not_written(error) from error
        try:
            await self._lock(fd)
            await _run_to_end(lambda: self._replace(edit))
        except OSError as error:
            raise self._not_written(error) from error
        finally:
            os.close(fd)

    def _open_lock(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self._path.with_name(_LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def close(self) -> None:
        """Do nothing: a file is open only while it is read."""

    async def _lock(self, fd: int) -> None:
        """Take the lock of a file, trying for some seconds.

        Raises:
            Unavailable: Another process holds it (``keys_locked``).
        """
        for _ in range(LOCK_ATTEMPTS_MAX):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            await asyncio.sleep(LOCK_PAUSE_S)
        detail = f"another command is changing the keys in {self.label}; try again"
        raise Unavailable(detail, dependency="data directory", code="keys_locked")

    def _replace(self, edit: KeyEdit) -> None:
        data = encode_keys(edit(self.read_now() or []))
        draft = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def _not_written(self, error: OSError) -> Unavailable:
        detail = f"the keys cannot be written to {self.label}: {error.strerror}; they are as they were"
        return Unavailable(detail, dependency="data directory", code="keys_not_written")


async def _run_to_end(work: Callable[[], T]) -> T:
    """Return what a thread has done.

    Cancellation: It is heard when the thread has ended, at the next place where the caller waits.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        # Once more, and as often as before: a timeout counts.
        task.uncancel()
        task.cancel()
        return running.result()


def with_key(new: ApiKey) -> KeyEdit:
    """Return the change that adds a key.

    Raises:
        Invalid: When it is made: the name is taken (``key_exists``).
    """

    def edit(keys: list[ApiKey]) -> list[ApiKey]:
        # A name that is another key's id would make both mean the same on the command line.
        if any(new.name in (key.name, key.id) or new.id == key.name for key in keys):
            detail = f"there is a key {new.name!r} already; revoke it, or rotate it to get a new secret"
            raise Invalid(detail, field="name", code="key_exists")
        return [*keys, new]

    return edit


def without_keys(wanted: str) -> KeyEdit:
    """Return the change that removes the keys of a name, or the one of an id."""

    def edit(keys: list[ApiKey]) -> list[ApiKey]:
        gone = find_keys(keys, wanted)
        return [key for key in keys if key not in gone]

    return edit


class KeyRotation:
    """The change that adds a key like the newest of a name, and lets those before it end.

    Args:
        wanted: The name, or the id of one of its keys.
        now_s: Unix time.
        grace_s: Seconds that those before go on.

    Attributes:
        new: The new key, once the change was made.
        former: The keys that end.
    """

    def __init__(self, wanted: str, now_s: int, grace_s: int) -> None:
        self._wanted, self._now_s, self._until_s = wanted, now_s, now_s + grace_s
        self.new: NewKey | None = None
        self.former: list[ApiKey] = []

    def __call__(self, keys: list[ApiKey]) -> list[ApiKey]:
        """Return the keys with the new one.

        Raises:
            Invalid: There is none of this name (``key_not_found``).
        """
        name = find_keys(keys, self._wanted)[0].name
        self.former = [key for key in keys if key.name == name]
        newest = max(self.former, key=lambda key: (key.created_at, key.expires_at or math.inf))
        lasts_s = min(newest.expires_at - newest.created_at, AGE_S_MAX) if newest.expires_at else 0
        expires_at = self._now_s + lasts_s if lasts_s else 0
        self.new = make_key(msgspec.structs.replace(newest, expires_at=expires_at), self._now_s)
        return [*(self._ending(key) if key.name == name else key for key in keys), self.new.key]

    @property
    def made(self) -> NewKey:
        """The new key of a change that was made."""
        assert self.new is not None  # noqa: S101 - for the type checker
        return self.new

    def _ending(self, key: ApiKey) -> ApiKey:
        ends_at = min(self._until_s, key.expires_at) if key.expires_at else self._until_s
        return msgspec.structs.replace(key, expires_at=ends_at)


def without_key(id: str, others: Sequence[ApiKey], now_s: float) -> KeyEdit:
    """Return the change that removes the key of an id, unless none would be left that may make keys.

    Args:
        id: The key's id.
        others: Keys of other places, which stay.
        now_s: Unix time.

    Raises:
        Invalid: When it is made: there is none of this id (``key_not_found``), or it is the last (``last_admin_key``).
    """

    def edit(keys: list[ApiKey]) -> list[ApiKey]:
        gone = find_key(keys, id)
        rest = [key for key in keys if key is not gone]
        if gone.administers(now_s) and not any(key.administers(now_s) for key in (*rest, *others)):
            detail = (
                "it is the last key that administers the server; make another one first,"
                " or revoke it on the server with `penstock keys revoke`"
            )
            raise Invalid(detail, code="last_admin_key")
        return rest

    return edit


def find_key(keys: Sequence[ApiKey], id: str) -> ApiKey:
    """Return the key of an id.

    Raises:
        Invalid: There is none (``key_not_found``).
    """
    for key in keys:
        if key.id == id:
            return key
    raise Invalid(f"there is no key of the id {id[:80]!r}", code="key_not_found")


def find_keys(keys: Sequence[ApiKey], wanted: str) -> list[ApiKey]:
    """Return the keys of a name, or the one of an id.

    Raises:
        Invalid: There is none (``key_not_found``).
    """
    found = [key for key in keys if wanted in (key.name, key.id)]
    if not found:
        raise Invalid(f"there is no key {wanted[:80]!r}; `penstock keys list` shows them", code="key_not_found")
    return found
