"""Media types of request bodies: JSON, and NDJSON where a route takes it. No web page can send either unasked."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers

from penstock.http.problem import UnsupportedMediaType

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

_UTF8: Final = frozenset({"utf-8", "utf8"})


def check_media(headers: Headers, taken: tuple[str, ...]) -> None:
    """Refuse a body of another type, before any of it is read; one that is not there needs no type.

    Args:
        headers: The request's.
        taken: Media types that the route takes.

    Raises:
        UnsupportedMediaType: The type, its charset or its coding is another.
    """
    if headers.get("content-length", "0").strip("0") == "" and "transfer-encoding" not in headers:
        return
    coding = ",".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"bodies come as they are, not in the coding {coding[:40]}", "accept-encoding", "identity"
        )
    said = headers.getlist("content-type")
    kind, *parameters = (part.strip().lower() for part in (said[0] if len(said) == 1 else "").split(";"))
    charsets = {
        value.strip('"') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    }
    if kind not in taken or charsets - _UTF8:
        came = f"as {said[0][:80]}" if kind else f"with {len(said)} types" if len(said) > 1 else "without a type"
        detail = f"the body must come as {' or '.join(taken)} in UTF-8, not {came}"
        raise UnsupportedMediaType(detail, "accept", ", ".join(taken))
