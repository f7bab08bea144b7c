"""Endpoints of the API: each is declared at its operation, and router, OpenAPI and backpressure check are made of them.

The records of an endpoint are those of its operation's signature: ``body`` is its body, what it returns its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from penstock.http.decoding import JSON, NoQuery
from penstock.http.problem import PROBLEM_DETAILS, ErrorFormat
from penstock.kernel.access import Principal, Scope
from penstock.kernel.context import Criticality
from penstock.kernel.messages import Topic
from penstock.tasks.records import TaskKind

F = TypeVar("F", bound=Callable[..., Any])

_DECLARED: Final = "__endpoints__"
_IN_COLLECTION: Final = "/v1/collections/{name}"


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """A route of the API, and the decorator of its operation.

    Attributes:
        method: HTTP method.
        path: Path with ``{parameters}``.
        body: Record of the request's body, if it has one, or several of which it is one. Given only where the
            operation reads the body itself.
        body_required: Whether a request must have a body, or else query parameters in its place.
        ndjson: Whether the body may also be NDJSON.
        query: Record of its query parameters. Where there is a body too, they may replace it.
        topics: Topics that queue its work. When one of them is nearly full, the gate refuses (D2).
        criticality: Class of its work. Callers may ask for a lower one.
        scope: Scope that a key must have. What declares none needs the highest.
        error_format: Form of its errors, also of those below its path.
        task: The kind of task that does its work where the query says `wait=false`.
        media_type: Media type of a 200.
        cache_control: Header ``Cache-Control`` of a 200. Empty for none.
        error_statuses: Statuses of problems that only some endpoints have. Any request may get the others.
        owner: Class of its operation, as the next four from the definition.
        operation: Name of the method.
        description: Its docstring: a line, then what else there is to say.
        response: Record of a 200, or several of which it is one, or a list.
        takes_body: Whether it takes the body as a record.
    """

    method: str
    path: str
    body: type | UnionType | None = None
    body_required: bool = True
    ndjson: bool = False
    query: type[msgspec.Struct] = NoQuery
    topics: tuple[Topic, ...] = ()
    criticality: Criticality = Criticality.STANDARD
    scope: Scope = Scope.ADMIN
    error_format: ErrorFormat = PROBLEM_DETAILS
    task: TaskKind | None = None
    media_type: str = JSON
    cache_control: str = ""
    error_statuses: tuple[int, ...] = ()
    owner: type = object
    operation: str = ""
    description: str = ""
    response: type | UnionType = object
    takes_body: bool = False

    def __call__(self, operation: F) -> F:
        """Declare a method as the endpoint's operation."""
        operation.__dict__.setdefault(_DECLARED, []).append(self)
        return operation

    @property
    def bodies(self) -> tuple[type, ...]:
        """The records of which the body is one."""
        return record_types(self.body)

    def check_access(self, principal: Principal, path_params: Mapping[str, str]) -> None:
        """Refuse a principal whose key lacks the scope, or is not for the collection that the path names.

        Collections that only the body or the query names are the operation's to check.

        Raises:
            AccessDenied: Saying what is lacking.
        """
        principal.require(self.scope)
        if self.path.startswith(_IN_COLLECTION):
            principal.require_collections([path_params["name"]])
        elif self.scope is Scope.ADMIN:
            principal.require_every_collection()

    def of(self, owner: type, operation: Callable[..., Any]) -> ApiEndpoint:
        """Return the endpoint with what its operation's definition says."""
        hints = get_type_hints(operation)
        return replace(
            self,
            owner=owner,
            operation=operation.__name__,
            description=operation.__doc__ or "",
            response=hints["return"],
            body=hints.get("body", self.body),
            takes_body="body" in hints,
        )


def record_types(kind: type | UnionType | None) -> tuple[type, ...]:
    """Return the records of a union, the one of a type, or none."""
    return () if kind is None else get_args(kind) if isinstance(kind, UnionType) else (kind,)


def declared_endpoints(*owners: type) -> tuple[ApiEndpoint, ...]:
    """Return the endpoints of classes, in the order of their methods."""
    return tuple(
        endpoint.of(owner, operation)
        for owner in owners
        for operation in vars(owner).values()
        # Decorators run from the last to the first.
        for endpoint in reversed(getattr(operation, _DECLARED, ()))
    )
