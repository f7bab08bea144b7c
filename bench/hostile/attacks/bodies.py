"""Request bodies: unknown names, numbers, nesting, counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from bench.hostile.attack import Attack, Got
from bench.hostile.target import NDJSON, Answer, Target

SEARCH: Final = "/v1/search"
DOCUMENTS: Final = "/v1/collections/hostile/documents"

#: Refusals that say what is wrong with the request.
CALLERS: Final = frozenset({400, 413, 422})
#: An answer to a refused request may not be much longer than what it says.
REFUSAL_BYTES_MAX: Final = 4_096
TEN_MB: Final = 9_900_000


def refused(answer: Answer, sent: int) -> Got:
    """A short answer that blames the request."""
    kept = answer.status in CALLERS and answer.size <= REFUSAL_BYTES_MAX
    return Got(f"{answer}, {answer.size} bytes", kept, sent)


def answered(answer: Answer, sent: int) -> Got:
    """A short refusal, or the answer; never a fault of the server."""
    return Got(str(answer), answer.status in CALLERS | {200, 207}, sent)


def _send(path: str, make: Callable[[], bytes], judge: Callable[[Answer, int], Got], target: Target) -> Got:
    body = make()
    if path == DOCUMENTS:
        target.ask("PUT", "/v1/collections/hostile", {})
    return judge(target.ask("POST", path, body), len(body))


def _lines(line: bytes, count: int, target: Target) -> Got:
    """Lines of NDJSON that are no documents; the answer may not be much larger than the request."""
    target.ask("PUT", "/v1/collections/hostile", {})
    body = (line + b"\n") * count
    answer = target.ask("POST", DOCUMENTS, body, NDJSON)
    return Got(
        f"{answer}, {answer.size} bytes", answer.status in CALLERS | {207} and answer.size <= 2 * len(body), len(body)
    )


def _numbers(bodies: Iterable[tuple[str, bytes]], target: Target) -> Got:
    """Numbers that cannot be stored, often enough to open a breaker if they were the store's fault."""
    target.ask("PUT", "/v1/collections/hostile", {})
    got: set[str] = set()
    sent = 0
    for path, body in bodies:
        for _ in range(12):
            answer = target.ask("POST", path, body)
            got.add(str(answer))
            sent += len(body)
    after = target.search({"query": "still there"})
    ready = target.ask("GET", "/readyz")
    kept = all(one.split()[0] in {"400", "422"} for one in got) and (after.status, ready.status) == (200, 200)
    return Got(f"{', '.join(sorted(got))}; then a search {after}, ready {ready}", kept, sent)


def _impatient(target: Target) -> Got:
    """Searches with a deadline nobody could keep must not look like a store that fails."""
    got = {str(target.search({"query": f"at once {n}", "timeout_ms": 1})) for n in range(30)}
    after = target.search({"query": "still there"})
    return Got(f"{', '.join(sorted(got))}; then a search {after}", after.status == 200)


def _tiny(target: Target) -> Got:
    """Very many documents with a short deadline: over when it is over."""
    target.ask("PUT", "/v1/collections/hostile", {})
    count = 300_000
    lines = b"\n".join(b'{"id":"%d","text":"x"}' % n for n in range(count))
    answer = target.ask("POST", DOCUMENTS, lines, {**NDJSON, "x-request-timeout-ms": "2000"})
    kept = answer.status in {207, 413, 422, 429, 503, 504} and answer.took_s < 6
    return Got(f"{answer} after {answer.took_s:.1f} s", kept, len(lines))


def _nulls(target: Target) -> Got:
    target.index("hostile", {"id": "n", "text": "x", "path": None, "language": None, "metadata": None})
    search = target.search({"query": "x", "filter": None, "weights": None, "limit": None, "rerank": None}, "hostile")
    return Got(str(search), search.status == 200)


def _language(target: Target) -> Got:
    target.index("hostile", {"id": "python", "text": "parse a document", "language": "Python"})
    answer = target.search({"query": "parse", "filter": {"language": "Python"}}, "hostile")
    found = [hit["id"] for hit in json.loads(answer.body).get("hits", [])]
    return Got(f"{answer}: {found}", "python" in found)


def _filter(make: Callable[[], Any], target: Target) -> Got:
    body = json.dumps({"query": "a", "filter": make()}).encode()
    return refused(target.search(body), len(body))


def _body(row: str, name: str, path: str, make: Callable[[], bytes], judge: Any = refused) -> Attack:
    expected = "a short 400, 413 or 422" if judge is refused else "the answer, or a short refusal"
    return Attack(row, name, expected, partial(_send, path, make, judge))


def _document(fields: bytes) -> bytes:
    return b'{"documents":[{"id":"a","text":"t",%b}]}' % fields


BIG: Final = b"18446744073709551616"
NUMBERS: Final = {
    "a document": (DOCUMENTS, _document(b'"metadata":{"n":%b}' % BIG)),
    "a document, inside": (DOCUMENTS, _document(b'"metadata":{"a":[{"b":[-%b]}]}' % BIG)),
    "a filter": (SEARCH, b'{"query":"x","filter":{"metadata.n":%b}}' % BIG),
    "a filter's list": (SEARCH, b'{"query":"x","filter":{"metadata.n":[1,%b]}}' % BIG),
    "a filter's range": (SEARCH, b'{"query":"x","filter":{"metadata.n":{"gte":%b}}}' % (b"9" * 400)),
}

ATTACKS: Final = (
    _body(
        "H1",
        "a field's name of 160 KB, made for expressions",
        SEARCH,
        lambda: json.dumps({"query": "x", " - at `$" * 20_000 + "\n": 1}).encode(),
    ),
    _body(
        "H1",
        "a field's name of 9 MB of backticks",
        SEARCH,
        lambda: json.dumps({"query": "x", "`" * 9_000_000: 1}).encode(),
    ),
    _body(
        "H1",
        "NaN behind a key of 100 KB and 60 000 values",
        SEARCH,
        lambda: b'{"query":"x","filter":{"%b":[%b1],"z":NaN}}' % (b"k" * 100_000, b"1," * 60_000),
    ),
    _body(
        "H1",
        "NaN behind 100 000 keys",
        SEARCH,
        lambda: b'{"query":"x","filter":{%b"z":NaN}}' % b"".join(b'"k%d":[1],' % n for n in range(100_000)),
    ),
    _body("H1", "half a surrogate pair behind 9 MB", SEARCH, lambda: b'{"query":"%b\\ud800"}' % (b"a" * 9_000_000)),
    Attack(
        "H1",
        "500 000 lines of one digit",
        "207 or a refusal, no longer than twice the request",
        partial(_lines, b"1", 500_000),
    ),
    Attack(
        "H1",
        "5 000 000 empty lines and braces",
        "207 or a refusal, no longer than twice the request",
        partial(_lines, b"{", 4_000_000),
    ),
    Attack(
        "H1",
        "300 000 lines with an unknown field",
        "207 or a refusal, no longer than twice the request",
        partial(_lines, b'{"id":"a","text":"","c":1}', 300_000),
    ),
    _body("H1", "10 MB of brackets as a search", SEARCH, lambda: b"[" * TEN_MB),
    _body(
        "H1",
        "10 MB of empty lists as a filter",
        SEARCH,
        lambda: b'{"query":"x","filter":{"metadata.a":[%b[]]}}' % (b"[]," * 3_200_000),
    ),
    _body(
        "H1",
        "10 MB of empty lists as metadata",
        DOCUMENTS,
        lambda: _document(b'"metadata":{"a":[%b[]]}' % (b"[]," * 3_200_000)),
    ),
    _body(
        "H1",
        "10 MB of nested objects as metadata",
        DOCUMENTS,
        lambda: _document(b'"metadata":{"a":%b1%b}' % (b'{"a":' * 1_600_000, b"}" * 1_600_000)),
    ),
    _body("H1", "5 000 000 numbers for documents", DOCUMENTS, lambda: b'{"documents":[%b1]}' % (b"1," * 4_900_000)),
    _body("H1", "3 000 000 empty texts to embed", "/v1/embed", lambda: b'{"texts":[%b""]}' % (b'"",' * 3_000_000)),
    _body(
        "H1",
        "1 000 000 ids to delete",
        "/v1/collections/hostile/documents",
        lambda: b'{"documents":[],"ids":[%b"a"]}' % (b'"a",' * 2_000_000),
    ),
    _body(
        "H1",
        "a text of 9.9 MB of escapes",
        DOCUMENTS,
        lambda: b'{"documents":[{"id":"a","text":"%b"}]}' % (b"\\u0041" * 1_640_000),
        answered,
    ),
    _body("H1", "a query of 9.9 MB", SEARCH, lambda: b'{"query":"%b"}' % (b"ab " * 3_290_000), answered),
    _body(
        "H2",
        "a filter of 20 000 keys",
        SEARCH,
        lambda: json.dumps({"query": "a", "filter": {f"metadata.k{n}": 1 for n in range(20_000)}}).encode(),
    ),
    _body(
        "H2",
        "a filter of 200 000 keys",
        SEARCH,
        lambda: json.dumps({"query": "a", "filter": {f"metadata.k{n}": 1 for n in range(200_000)}}).encode(),
    ),
    Attack(
        "H2",
        "a filter of 65 keys",
        "a short 400, 413 or 422",
        partial(_filter, lambda: {f"metadata.k{n}": 1 for n in range(65)}),
    ),
    Attack(
        "H2",
        "a filter of 1 001 values",
        "a short 400, 413 or 422",
        partial(_filter, lambda: {"id": [str(n) for n in range(1_001)]}),
    ),
    *(
        Attack(
            "H2",
            f"a number beyond 64 bits in {where}, twelve times",
            "400 or 422; searches go on",
            partial(_numbers, [body]),
        )
        for where, body in NUMBERS.items()
    ),
    Attack("H2", "thirty searches with a deadline of 1 ms", "searches go on", _impatient),
    Attack("H1", "300 000 tiny documents with a deadline of 2 s", "refused, or over within 6 s", _tiny),
    Attack("H2", "`null` for what may be left out", "200", _nulls, watched=False),
    Attack("H2", "the filter `Python` for a document in `Python`", "found", _language, watched=False),
)
