"""Documents as the API takes them in and tells what became of them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from msgspec import UNSET
from starlette.requests import Request

from penstock.http import answers, bodies
from penstock.http.media import JSON, NDJSON
from penstock.http.problem import problem_of
from penstock.indexing.records import Document, Outcome, Status
from penstock.kernel.errors import Invalid, PenstockError


async def entries(request: Request) -> tuple[list[tuple[int, Document | Invalid]], int | None]:
    """Return the body's documents with their lines (0 for JSON), bad lines as their errors, and the time limit in it.

    Raises:
        Invalid: The body cannot be read.
    """
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    data = (await request.body()).removeprefix(codecs.BOM_UTF8)
    if kind == NDJSON:
        return list(bodies.decode_lines(data)), None
    documents, timeout_ms = bodies.decode_documents(data)
    return [(0, document) for document in documents], timeout_ms


def raise_if_all_failed(outcomes: Sequence[Outcome]) -> None:
    """Let a request of which nothing came to pass fail as one, with a status that tells why."""
    errors = [o.error for o in outcomes if o.error is not None]
    if errors and len(errors) == len(outcomes):
        raise errors[0]


def told(entry: Outcome | Invalid, line: int, request_id: str) -> answers.DocumentOutcome:
    """Return an outcome as the API tells it."""
    where = line or UNSET
    if isinstance(entry, PenstockError):
        return answers.DocumentOutcome(Status.FAILED, 0, line=where, error=problem_of(entry, request_id))
    error = problem_of(entry.error, request_id) if entry.error else UNSET
    return answers.DocumentOutcome(entry.status, entry.chunks, entry.id, where, error)
