"""Texts for the models and the chunkers: many, long, made for parsers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bench.hostile.attack import Attack, Got
from bench.hostile.attacks.bodies import CALLERS, TEN_MB
from bench.hostile.target import Answer, Target

COLLECTION: Final = "hostile"
#: What a page may ask a model for in one request.
TEXTS: Final = 1_000

BOMBS: Final[dict[str, tuple[str, Callable[[int], str]]]] = {
    "a Markdown heading with spaces inside": ("a.md", lambda n: "# a" + " " * n + "b"),
    "a Markdown heading of brackets": ("a.md", lambda n: "# " + "[" * n),
    "a Markdown heading of images": ("a.md", lambda n: "# " + "![" * (n // 2)),
    "a reStructuredText title of roles": ("a.rst", lambda n: ":a:`" * (n // 4) + "\n" + "=" * n + "\n"),
    "round brackets": ("a.py", lambda n: "(" * n),
    "curly brackets": ("a.js", lambda n: "{" * n),
    "angle brackets": ("a.tsx", lambda n: "<a " * (n // 3)),
    "a line of words": ("a.txt", lambda n: "ab " * (n // 3)),
    "combining marks": ("a.txt", lambda n: "\u0301" * (n // 2)),
}
#: A thousand whole windows are some 15 s of work for two cores that do nothing else.
PATIENCE_S: Final = 240.0
#: A few characters on which a grammar has been seen never to end.
HANG: Final = 'e"t/*\n(t]e%%w::*/b'


def _many(path: str, body: dict[str, Any], expected: frozenset[int], target: Target) -> Got:
    # Other texts in each try: those of the last one are remembered.
    data = json.dumps({**body, "texts": [f"{time.monotonic_ns()} {text}" for text in body["texts"]]}).encode()
    answer = target.ask("POST", path, data, timeout_s=PATIENCE_S)
    return Got(f"{answer} after {answer.took_s:.1f} s", answer.status in expected, len(data))


def _told(target: Target) -> Got:
    """What the model did not read is told."""
    long = "the quick brown fox " * 3_000
    embed = json.loads(target.ask("POST", "/v1/embed", {"texts": ["short", long]}).body)
    rerank = json.loads(target.ask("POST", "/v1/rerank", {"query": "fox", "texts": ["short", long]}).body)
    kept = bool(embed.get("truncated")) and bool(rerank.get("truncated"))
    return Got(f"embed {embed.get('truncated')}, rerank {rerank.get('truncated')}", kept)


def _bomb(path: str, make: Callable[[int], str], size: int, target: Target) -> Got:
    """A file made for a parser, and a small one of somebody else beside it."""
    text = f"{make(size)}\n{time.monotonic_ns()}\n"  # another one in each try
    small: list[Answer] = []
    target.ask("PUT", f"/v1/collections/{COLLECTION}", {})

    def beside() -> None:
        time.sleep(0.2)
        small.append(target.index(COLLECTION, {"id": "small", "text": f"# fine {time.time()}", "path": "fine.md"}))

    other = threading.Thread(target=beside)
    other.start()
    answer = target.index(COLLECTION, {"id": f"bomb {path} {time.time()}", "text": text, "path": path})
    other.join()
    said = f"{answer} after {answer.took_s:.1f} s; a small one beside it {small[0]} after {small[0].took_s:.1f} s"
    kept = answer.status in CALLERS | {200, 207} and small[0].status == 200 and small[0].took_s < 20
    return Got(said, kept, len(text.encode()))


def _heavy(target: Target) -> Got:
    """Long answers for many at once."""
    metadata = {"k": "x" * 60_000}
    for first in range(0, 200, 50):
        target.index(
            "heavy", *({"id": str(n), "text": f"line {n}", "metadata": metadata} for n in range(first, first + 50))
        )
    got: list[Answer] = []
    asked = [
        threading.Thread(target=lambda n=n: got.append(target.search({"query": f"line {n}", "limit": 1_000}, "heavy")))
        for n in range(8)
    ]
    for one in asked:
        one.start()
    for one in asked:
        one.join()
    kept = all(one.status in {200, 400, 413, 422, 429, 503} for one in got)
    return Got(
        f"{', '.join(sorted({str(one) for one in got}))}, up to {max(one.size for one in got):,} bytes",
        kept,
        sum(one.size for one in got),
    )


LONG: Final = [f"word{n} " + f"lorem ipsum dolor ({n}) " * 400 for n in range(TEXTS)]
DONE: Final = frozenset({200})
DONE_OR_NOT: Final = frozenset({200, 400, 413, 422, 429, 503})

ATTACKS: Final = (
    Attack("H1", "1 000 texts of 10 KB to embed", "200", partial(_many, "/v1/embed", {"texts": LONG}, DONE)),
    Attack("H1", "1 000 texts of 10 KB to encode as words", "200", partial(_many, "/v1/sparse", {"texts": LONG}, DONE)),
    Attack(
        "H1",
        "1 000 texts of 10 KB to rerank",
        "200, or a refusal at once",
        partial(_many, "/v1/rerank", {"query": "lorem", "texts": LONG}, DONE_OR_NOT),
    ),
    Attack(
        "H1",
        "one text of 9.9 MB to embed",
        "200 or a refusal",
        partial(_many, "/v1/embed", {"texts": ["(" * TEN_MB]}, DONE_OR_NOT),
    ),
    Attack(
        "H1",
        "a query of 9.9 MB to rerank by",
        "200 or a refusal",
        partial(_many, "/v1/rerank", {"query": "ab " * (TEN_MB // 3), "texts": ["a"]}, DONE_OR_NOT),
    ),
    Attack(
        "H1",
        "a million words to encode",
        "200 or a refusal",
        partial(_many, "/v1/sparse", {"texts": ["".join(f"{n:x} " for n in range(1_400_000))]}, DONE_OR_NOT),
    ),
    Attack("Q6", "a text longer than the model reads", "told by embed and by rerank", _told, watched=False),
    Attack("H1", "eight searches for 1 000 hits with 60 KB of metadata each", "answered or refused, bounded", _heavy),
    *(
        Attack(
            "H1",
            f"a file of 1 MB: {name}",
            "indexed or refused; others' small files too",
            partial(_bomb, path, make, 1_000_000),
        )
        for name, (path, make) in BOMBS.items()
    ),
    *(
        Attack(
            "H1",
            f"a file of 9 MB: {name}",
            "indexed or refused; others' small files too",
            partial(_bomb, path, make, 9_000_000),
            quick=False,
        )
        for name, (path, make) in BOMBS.items()
        if name in {"round brackets", "combining marks", "a Markdown heading with spaces inside"}
    ),
    Attack(
        "S5",
        "17 characters that a TSX parser never ends on",
        "indexed; others' small files too",
        partial(_bomb, "a.tsx", lambda _: HANG, 0),
    ),
)
