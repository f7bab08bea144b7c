"""Error hierarchy, grouped by what the caller should do next.

========== ==================================== =========================
family     the caller should                    HTTP (see ``http.problem``)
========== ==================================== =========================
Rejected   retry later, after ``retry_after_s`` 429 or 503
Expired    ask for less, or allow more time     504
Unavailable wait until a dependency is back     503
Invalid    fix the request                      400, 404, 409, 413, 415, 422
Broken     report a bug                         500
========== ==================================== =========================

Vendors' errors never leave their backend: it translates them to one of these.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

#: Errors of JSON or MessagePack that cannot be read: of another shape, broken, not UTF-8, or nested too deeply. All of
#: them are expected wherever something from outside of the process is decoded.
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: Characters of a caller's text that an error repeats.
TRUNCATED_CHARACTERS_MAX: Final = 80


def truncated(text: str) -> str:
    """Return a caller's text as an error shows it: cut where it is long."""
    return text if len(text) <= TRUNCATED_CHARACTERS_MAX else f"{text[:TRUNCATED_CHARACTERS_MAX]}…"


class PenstockError(Exception):
    """Base of every error that Penstock raises on purpose.

    Attributes:
        code: Stable machine-readable word, e.g. ``collection_not_found``.
        retryable: Whether the same request may succeed later unchanged.
        detail: One sentence for a person: what is wrong and what to do next.
        status: The HTTP status that it came with, 0 where it was raised in this process.
        request_id: Id of the request that it came with, empty likewise.
    """

    code: str = "error"
    retryable: bool = False
    status: int = 0
    request_id: str = ""

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all attributes, whatever arguments a family's constructor needs."""
        return _unpickle, (type(self), self.args, self.__dict__.copy())


def _unpickle(family: type[PenstockError], args: tuple[Any, ...], state: dict[str, Any]) -> PenstockError:
    error = family.__new__(family, *args)
    error.__dict__.update(state)
    return error


class Rejected(PenstockError):
    """Refused to protect the server; nothing was done.

    Attributes:
        retry_after_s: Seconds after which another try makes sense.
        by_client: True when the client's own doing is the reason (429 rather than 503).
    """

    code = "overloaded"
    retryable = True

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after_s: float = 1.0,
        by_client: bool = False,
    ) -> None:
        super().__init__(detail, code=code)
        self.retry_after_s = retry_after_s
        self.by_client = by_client


class Expired(PenstockError):
    """Time ran out before the work was done.

    Attributes:
        operation: The operation whose limit was the tightest (``search``, ``embed``, …).
    """

    code = "timeout"
    retryable = True

    def __init__(self, operation: str, detail: str | None = None) -> None:
        super().__init__(detail or f"{operation} did not finish within its time limit")
        self.operation = operation


class Unavailable(PenstockError):
    """A dependency cannot serve now."""

    code = "unavailable"
    retryable = True

    def __init__(self, detail: str, *, dependency: str, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.dependency = dependency


class Invalid(PenstockError):
    """The request, the file or the setting cannot be honoured as it is.

    Attributes:
        field: Path of the offending field (``documents[3].id``) or file, empty if none.
    """

    code = "invalid"

    def __init__(self, detail: str, *, field: str = "", code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.field = field


class Broken(PenstockError):
    """A bug or a damaged state of our own; logged with its traceback."""

    code = "internal"


#: The families by the name that travels between processes.
FAMILIES: Final[dict[str, type[PenstockError]]] = {
    "rejected": Rejected,
    "expired": Expired,
    "unavailable": Unavailable,
    "invalid": Invalid,
    "broken": Broken,
    "error": PenstockError,
}

#: Attributes that travel besides family, code and detail, where the error has them.
TRANSFERRED_ATTRIBUTES: Final = ("retryable", "retry_after_s", "by_client", "operation", "dependency", "field")


class ErrorRecord(NamedTuple):
    """An error as it travels between processes.

    Attributes:
        family: A name in ``FAMILIES``.
        code: The error's code.
        detail: Its sentence.
        facts: Those of ``TRANSFERRED_ATTRIBUTES`` that it has.
    """

    family: str
    code: str
    detail: str
    facts: dict[str, str | float | bool]


def to_record(error: PenstockError) -> ErrorRecord:
    """Return an error as it travels; a subclass travels as its family."""
    family = next(name for name, family in FAMILIES.items() if isinstance(error, family))
    facts = {name: value for name in TRANSFERRED_ATTRIBUTES if (value := getattr(error, name, None)) is not None}
    return ErrorRecord(family, error.code, error.detail, facts)


def from_record(record: ErrorRecord) -> PenstockError:
    """Return an error received from another process. An unknown family becomes ``Broken``."""
    kind = FAMILIES.get(record.family, Broken)
    error = kind.__new__(kind, record.detail)
    PenstockError.__init__(error, record.detail, code=record.code)
    for name, value in record.facts.items():
        if name in TRANSFERRED_ATTRIBUTES:
            setattr(error, name, value)
    return error
