"""Records of tasks, as they lie in the spool."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from penstock.kernel.errors import ErrorRecord

#: Pattern of a task's id.
TASK_ID: Final = "[0-9a-f]{20}"

_NOTHING: Final = msgspec.Raw(b"null")


class TaskKind(enum.StrEnum):
    """Operation that a task does."""

    INDEX_DOCUMENTS = "index_documents"
    RENEW_COLLECTION = "renew_collection"
    MAKE_SNAPSHOT = "make_snapshot"
    RESTORE_SNAPSHOT = "restore_snapshot"

    @property
    def repeatable(self) -> bool:
        """True where it does no harm to do it again after an interruption.

        A restore replaces collections: repeated after a restart, it would undo what was written since.
        """
        return self is not TaskKind.RESTORE_SNAPSHOT


class TaskStatus(enum.StrEnum):
    """Status of a task."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True once nothing will change any more."""
        return self not in (TaskStatus.WAITING, TaskStatus.RUNNING)


class TaskRecord(msgspec.Struct, frozen=True):
    """A task as the spool keeps it.

    Attributes:
        id: Its id. Later tasks have greater ones.
        kind: The operation.
        client: Who asked for it: id of a key, or an address.
        collection: The collection concerned; empty for all of them.
        arguments: What the operation needs beside its body.
        body_bytes: Length of the body.
        body_digest: BLAKE2b-128 of the body, hexadecimal.
        accepted_at: When it was accepted, RFC 3339 in UTC.
        total: How many documents there are, 0 where that is not known.
        status: How far it is.
        attempts: How often it was begun. An orderly stop takes its attempt back.
        started_at: When it was begun last; empty before.
        ended_at: When it ended; empty before.
        error: Why it failed.
        result: What it brought, as JSON.
    """

    id: str
    kind: TaskKind
    client: str
    collection: str = ""
    arguments: dict[str, str] = {}
    body_bytes: int = 0
    body_digest: str = ""
    accepted_at: str = ""
    total: int = 0
    status: TaskStatus = TaskStatus.WAITING
    attempts: int = 0
    started_at: str = ""
    ended_at: str = ""
    error: ErrorRecord | None = None
    result: msgspec.Raw = _NOTHING

    def without_result(self) -> TaskRecord:
        """Return the record as it is kept in memory: results stay on the disk."""
        return msgspec.structs.replace(self, result=_NOTHING)

    def changed(self, **fields: Any) -> TaskRecord:
        """Return the record with other values."""
        return msgspec.structs.replace(self, **fields)
