"""Texts made to hang, crash or feed a parser, cut in real processes: each is cut, in time, and costs no other text."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from penstock.indexing import chunk_worker
from penstock.indexing.chunk import Chunk
from penstock.indexing.chunk.grammar import GRAMMARS
from penstock.indexing.chunk_worker import CALL_BYTES_MAX, CHUNKS_MAX, FallbackChunker
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import ChunkText
from penstock.models.token_estimate import TokenEstimator
from penstock.pools.process_pool import ProcessPool

LANGUAGES: Final = (*GRAMMARS, "markdown", "rst", "json", "text")
SIZE: Final = 60_000
#: Far more than a text of any kind takes, far less than a parser that never ends.
SECONDS_MAX: Final = 30.0

FAMILIES: Final[dict[str, Callable[[int], str]]] = {
    "brackets": lambda size: "(" * size,
    "nested lines": lambda size: ("([" * 50 + "\n") * (size // 101),
    "balanced": lambda size: ("(" * 400 + ")" * 400 + "\n") * (size // 801),
    "half open": lambda size: "if (x) { foo(a, [\n" * (size // 18),
    "classes": lambda size: "class A { void f() { if (x) {\n" * (size // 30),
    "ends": lambda size: "class A\n" * (size // 8),
    "quotes": lambda size: '"""\'`<![CDATA[/*\n' * (size // 16),
    "tags": lambda size: "<a b={c => <d>\n" * (size // 15),
    "generics": lambda size: "a<b<c<d<\n" * (size // 9),
    "statements": lambda size: "a;\n" * (size // 3),
    "signs": lambda size: "! - ~ * & \n" * (size // 11),
    "else": lambda size: "else if x: \n" * (size // 12),
    "titles": lambda size: "# [![\n===\n" * (size // 10),
    "blanks": lambda size: "# a" + " " * size + "b",
    "one line": lambda size: "x" * size,
    "words": lambda size: "ab " * (size // 3),
    "line feeds": lambda size: "\n" * size,
    "marks": lambda size: "\u0301" * size,
}
HANGING: Final = 'e"t/*\n(t]e%%w::*/b'


@asynccontextmanager
async def chunkers(count: int = 1) -> AsyncIterator[ProcessPool]:
    processes = ProcessPool(count, chunk_worker.init_process, (TokenEstimator(256),))
    try:
        yield processes
    finally:
        await processes.close()


def lines_of(chunks: list[Chunk]) -> str:
    return "".join("".join(chunk.text.split()) for chunk in chunks)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_keeps_a_chunker(language: str) -> None:
    async def main() -> dict[str, float]:
        took = {}
        async with chunkers() as processes:
            cutter = FallbackChunker(processes.run)
            for name, family in FAMILIES.items():
                text = family(SIZE)
                started = time.monotonic()
                chunks = await cutter(ChunkText(text, language))
                took[name] = time.monotonic() - started
                assert lines_of(chunks) == "".join(text.split()), name
        return took

    took = asyncio.run(main())
    assert {name: seconds for name, seconds in took.items() if seconds > SECONDS_MAX} == {}


def test_a_parser_that_never_ends_is_ended_and_costs_no_other_text(caplog: pytest.LogCaptureFixture) -> None:
    small = "export function card() {\n  return 1\n}\n"

    async def main() -> tuple[list[Chunk], list[list[Chunk]]]:
        async with chunkers(2) as processes:
            cutter = FallbackChunker(processes.run)
            hanging = asyncio.create_task(cutter(ChunkText(HANGING, "tsx")))
            others = await asyncio.gather(*(cutter(ChunkText(small, "tsx")) for _ in range(20)))
            return await hanging, others

    with caplog.at_level(logging.WARNING):
        hanging, others = asyncio.run(main())
    assert [chunk.text for chunk in hanging] == [HANGING]
    assert [[chunk.symbol for chunk in chunks] for chunks in others] == [["card"]] * 20
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory")
def test_memory_that_a_call_takes_is_bounded_and_given_back() -> None:
    async def main() -> tuple[object, int, int]:
        async with chunkers() as processes:
            first = await processes.run(_status)
            failed = await asyncio.gather(processes.run(_hoard), return_exceptions=True)
            await processes.run(_grow)
            return failed[0], first, await processes.run(_status)

    failed, first, second = asyncio.run(main())
    assert getattr(failed, "code", None) == "worker_died"
    assert second < first + (64 << 20)


def test_a_text_of_ten_megabytes_takes_a_few_times_its_size() -> None:
    size = 9_700_000

    async def main() -> dict[str, int]:
        peaks = {}
        for name in ("brackets", "line feeds", "words", "one line", "statements"):
            async with chunkers() as processes:
                before = await processes.run(_peak)
                with suppress(Invalid):
                    chunks = await FallbackChunker(processes.run)(ChunkText(FAMILIES[name](size), "python"))
                    assert chunks or name == "line feeds"
                peaks[name] = await processes.run(_peak) - before
        return peaks

    peaks = asyncio.run(main())
    assert {name: peak for name, peak in peaks.items() if peak > 8 * size} == {}


def test_a_text_of_too_many_chunks_for_its_size_is_refused() -> None:
    async def main() -> tuple[list[int], list[str]]:
        counts, refused = [], []
        async with chunkers() as processes:
            cutter = FallbackChunker(processes.run)
            for text in ("書" * 3_000_000, "(" * 1_000_000, "(" * 3_000_000, "(" * 9_000_000):
                try:
                    counts.append(len(await cutter(ChunkText(text, "python"))))
                except Invalid as error:
                    refused.append(error.detail)
        return counts, refused

    counts, refused = asyncio.run(main())
    assert counts[0] > CHUNKS_MAX > counts[1]
    assert [detail.partition(" chunks")[0].rpartition(" ")[2] for detail in refused] == ["10000", "22500"]


def _status() -> int:
    return _told("VmRSS")


def _peak() -> int:
    return _told("VmHWM")


def _told(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _hoard() -> int:
    return len([bytearray(1 << 20) for _ in range(2 * CALL_BYTES_MAX >> 20)])


KEPT: Final[list[bytearray]] = []


def _grow() -> None:
    KEPT.extend(bytearray(b"x" * (1 << 20)) for _ in range(300))
