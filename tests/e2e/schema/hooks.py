"""What schemathesis has to be told of this API: a form of body it cannot write, and what OpenAPI cannot say."""

import json
import os
import re
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure, ServerError
from schemathesis.core.transport import Response
from schemathesis.generation.meta import CoverageScenario
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from penstock.http.decoding import NDJSON
from penstock.search.filters import VALUES_MAX
from penstock.tasks.records import TASK_ID

#: Whoever grants less than this may find that it was too little, with nothing wrong on either side.
SHORT_MS = 10_000

#: The collection that the path's example names; it stays, or nothing could be searched after a while.
KEPT = "default"


@schemathesis.serializer(NDJSON)
def lines(_context: Any, value: Any) -> bytes:
    """Write one JSON value a line; what is no list is a line by itself."""
    each = value if isinstance(value, list) else [value]
    return "".join(json.dumps(one) + "\n" for one in each).encode()


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Close the records of answers: a field that is not described is a difference, though clients pass over it."""
    for schema in raw_schema["components"]["schemas"].values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """Spare the collection that the others work on, and ask for a task that is there: nobody guesses an id."""
    if "{task}" in case.operation.label and re.fullmatch(TASK_ID, str(case.path_parameters.get("task"))):
        case.path_parameters["task"] = os.environ["TASK"]
    if case.operation.label == "GET /v1/flow":
        # It goes on for ten minutes, unless its deadline says otherwise.
        case.headers = {**(case.headers or {})}
        case.headers.setdefault("X-Request-Timeout-Ms", "300")
        if re.fullmatch(r"\d{3,}", str(case.headers["X-Request-Timeout-Ms"])):
            case.headers["X-Request-Timeout-Ms"] = "300"
    if "{key}" in case.operation.label and re.fullmatch("[a-z0-9]+", str(case.path_parameters.get("key"))):
        # One to rotate, one to revoke.
        rotated, revoked = os.environ["KEYS"].split()
        case.path_parameters["key"] = revoked if case.method == "DELETE" else rotated
    if case.operation.label == "DELETE /v1/collections/{name}" and case.path_parameters.get("name") == KEPT:
        case.path_parameters["name"] = f"not-{KEPT}"


@schemathesis.hook
def filter_failure(_context: Any, failure: Failure, case: schemathesis.Case, response: Response) -> bool:
    """Drop what is no difference between the description and the server."""
    return not (
        _ran_out_of_time(failure, case, response)
        or _snapshots_take_turns(failure, response)
        or _only_a_line_failed(failure, case, response)
        or _only_a_header_is_unknown(failure, case)
        or _dimensions_are_not_the_model_s(failure, case)
        or _time_of_a_key_is_over(failure, response)
        or _ids_are_not_distinct(failure, response)
        or _ids_are_not_of_their_source(failure, response)
        or _lists_are_long_together(failure, case)
        or _cursor_is_of_no_answer(failure, response)
        or _collections_are_named_twice(failure, case)
        or _documents_were_deleted_not_their_list(failure)
    )


def _code(response: Response) -> str:
    """Return an error's code; empty where the vendor's form of it has none."""
    told = response.json()
    return str(told["error"]["code"] if isinstance(told.get("error"), dict) else told.get("code", ""))


def _dimensions_are_not_the_model_s(failure: Failure, case: schemathesis.Case) -> bool:
    """Say whether vectors of another length were asked for: the description is the same for every model."""
    asked = isinstance(case.body, dict) and case.body.get("dimensions") is not None
    return isinstance(failure, RejectedPositiveData) and asked


def _ran_out_of_time(failure: Failure, case: schemathesis.Case, response: Response) -> bool:
    """Say whether the caller's own deadline ended the request: 504, or 503 beforehand, is described and right."""
    if not isinstance(failure, ServerError) or response.status_code not in (503, 504):
        return False
    granted_ms = (case.headers or {}).get("X-Request-Timeout-Ms")
    if isinstance(case.body, dict) and case.body.get("timeout_ms") is not None:
        granted_ms = case.body["timeout_ms"]
    return granted_ms is not None and float(granted_ms) < SHORT_MS and _code(response) in ("timeout", "hopeless", "")


def _snapshots_take_turns(failure: Failure, response: Response) -> bool:
    """Say whether a snapshot was still being made for a caller that had not granted it the time."""
    return isinstance(failure, ServerError) and response.status_code == 503 and _code(response) == "snapshot_busy"


def _only_a_line_failed(failure: Failure, case: schemathesis.Case, response: Response) -> bool:
    """Say whether bad NDJSON is told line by line: 207 is how its lines are refused, and a task's result tells them."""
    told = response.status_code in (202, 207)
    return isinstance(failure, AcceptedNegativeData) and case.media_type == NDJSON and told


def _only_a_header_is_unknown(failure: Failure, case: schemathesis.Case) -> bool:
    """Say whether nothing was wrong but a header that is not described: HTTP lets those pass (RFC 9110 §5.1)."""
    scenario = getattr(case.meta.phase.data, "scenario", None) if case.meta else None
    where = getattr(case.meta.phase.data, "parameter_location", None) if case.meta else None
    unknown = scenario is CoverageScenario.OBJECT_UNEXPECTED_PROPERTIES and where == "header"
    return isinstance(failure, AcceptedNegativeData) and unknown


def _time_of_a_key_is_over(failure: Failure, response: Response) -> bool:
    """Say whether a key was to end in the past, or in a thousand years: JSON Schema has no word for now."""
    return isinstance(failure, RejectedPositiveData) and response.json().get("field") == "expires_at"


def _ids_are_not_distinct(failure: Failure, response: Response) -> bool:
    """Say whether two documents had one id: JSON Schema has no word for it."""
    return isinstance(failure, RejectedPositiveData) and _code(response) == "duplicate_id"


def _ids_are_not_of_their_source(failure: Failure, response: Response) -> bool:
    """Say whether a document's id did not begin with its source: JSON Schema has no word for it."""
    return isinstance(failure, RejectedPositiveData) and _code(response) == "invalid_source"


def _lists_are_long_together(failure: Failure, case: schemathesis.Case) -> bool:
    """Say whether the values of all keys of a filter are too many: JSON Schema has no word for a sum."""
    conditions = case.body.get("filter") if isinstance(case.body, dict) else None
    if not isinstance(failure, RejectedPositiveData) or not conditions:
        return False
    return sum(len(one) if isinstance(one, list) else 1 for one in conditions.values()) > VALUES_MAX


def _collections_are_named_twice(failure: Failure, case: schemathesis.Case) -> bool:
    """Say whether a body named collections beside the one of the path: the two routes have one body."""
    several = isinstance(case.body, dict) and case.body.get("collections") is not None
    return isinstance(failure, RejectedPositiveData) and several and "{name}" in case.operation.label


def _cursor_is_of_no_answer(failure: Failure, response: Response) -> bool:
    """Say whether a cursor was made up: JSON Schema has no word for those that were given."""
    return isinstance(failure, RejectedPositiveData) and _code(response) == "invalid_cursor"


def _documents_were_deleted_not_their_list(failure: Failure) -> bool:
    """Say whether a list was taken for deleted: its DELETE takes documents out, the list stays."""
    return isinstance(failure, UseAfterFree) and failure.free.endswith("/documents")
