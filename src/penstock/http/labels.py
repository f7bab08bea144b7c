"""The label under which a request's work travels: deadline, class, client, ids."""

from __future__ import annotations

from starlette.requests import Request

from penstock.http import bodies, decoding
from penstock.http.head import CRITICALITIES
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context, Criticality
from penstock.kernel.deadline import Deadline
from penstock.kernel.errors import Expired, Invalid


def check_headers(request: Request) -> None:
    """Refuse headers that say something unusable, whether or not the route's work goes by them.

    Raises:
        Invalid: One of them does.
    """
    _criticality(request, Criticality.BULK)
    _timeout_header(request)


def label(request: Request, clock: Clock, timeout_ms: float | None = None) -> Context:
    """Return the label under which a request's work travels; its deadline is noted in the request's scope.

    Its time began when the request arrived at the gate: a body that took long has used some of it up.

    Args:
        request: As the gate let it through.
        clock: The loop's clock.
        timeout_ms: What the body asks for; before the header, if it is there.

    Raises:
        Invalid: A header says something unusable.
        Expired: The deadline has passed already; nothing waits in line for that.
    """
    scope = request.scope
    made = Context(
        Deadline.never(),
        _criticality(request, scope["penstock.criticality"]),
        scope["penstock.client"],
        scope["penstock.request_id"],
        scope["penstock.traceparent"],
    )
    wish_ms = timeout_ms if timeout_ms is not None else _timeout_header(request)
    if wish_ms is None:
        return made
    made = made.within(wish_ms / 1000, "request", scope["penstock.arrived_s"])
    if made.deadline.passed(clock.now()):
        raise Expired("request", "the deadline passed while the request was still arriving")
    scope["penstock.deadline_s"] = made.deadline.at_s
    return made


def _timeout_header(request: Request) -> int | None:
    """Return ``X-Request-Timeout-Ms``, if the caller sent it."""
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return None
    return decoding.whole_number(text, "X-Request-Timeout-Ms", bodies.TIMEOUT_MS_MAX)


def _criticality(request: Request, most: Criticality) -> Criticality:
    """Return the class the caller asks for; nobody gets above the route's own."""
    text = request.headers.get("x-criticality")
    if text is None:
        return most
    asked = CRITICALITIES.get(text.strip().lower())
    if asked is None:
        raise Invalid(f"X-Criticality must be one of {', '.join(CRITICALITIES)}", field="X-Criticality")
    return max(most, asked)
