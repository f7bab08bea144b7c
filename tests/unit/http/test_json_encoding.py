"""Answers as JSON, in slices."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from penstock.http import responses
from penstock.http.routes import SLICE_BYTES, SLICED_ITEMS_MIN, encode_in_slices, to_json
from penstock.kernel.vectors import Embeddings
from penstock.search.request import SearchHit, SearchResult
from tests.clock import virtual


def result(hits: int, text: str = "text") -> SearchResult:
    found = [SearchHit(str(n), n, 1 / (n + 1), "", 1, 1, text, "", "", {"n": [n]}) for n in range(hits)]
    return SearchResult(found, 1.5, {"arms": 0.5}, [])


@pytest.mark.parametrize("hits", [0, 1, SLICED_ITEMS_MIN, SLICED_ITEMS_MIN + 1, 1000])
@virtual
async def test_slices_make_the_same_answer(hits: int) -> None:
    assert await encode_in_slices(result(hits)) == msgspec.json.encode(result(hits))


@virtual
async def test_fields_that_are_absent_stay_absent() -> None:
    ranking = responses.RerankResponse([responses.RankedText(n, 0.5) for n in range(100)])
    assert set(msgspec.json.decode(await encode_in_slices(ranking))) == {"results"}


@virtual
async def test_arrays_are_written_as_their_numbers() -> None:
    dense = np.linspace(0, 1, 80, dtype=np.float32).reshape(40, 2)
    told = msgspec.json.decode(await encode_in_slices(responses.embed_response("m", Embeddings(dense), [3])))
    assert told == {"model": "m", "dim": 2, "embeddings": dense.tolist(), "truncated": [3]}
    assert responses.embed_response("m", Embeddings(dense), None).truncated is UNSET


def test_other_objects_are_no_json() -> None:
    with pytest.raises(TypeError, match="object cannot be written"):
        to_json(responses.Readiness(True, [object()]))  # type: ignore[list-item]


@virtual
async def test_others_have_the_loop_after_each_slice() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    size = len(await encode_in_slices(result(1000, "x" * 10_000)))
    task.cancel()
    assert turns >= size // SLICE_BYTES // 2
