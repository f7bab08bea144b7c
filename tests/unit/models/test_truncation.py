"""Texts whose end a model does not read are told by number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.models.bm25 import CHARACTERS_MAX, Bm25Runner, Bm25Settings
from penstock.models.contract import ModelInfo, OffloadedModel
from penstock.models.token_estimate import TokenEstimator
from penstock.models.tokenizer import TextTokenizer
from penstock.models.truncation import INLINE_CHARACTERS_MAX, token_usage, truncation_checks
from tests.clock import virtual

LONG = "ba " * 100


class Threads:
    """Runs a call at once, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def run(self, call: Any) -> Any:
        self.calls += 1
        return call()


def models(tokenizer: Any, rerank: str = "builtin") -> Any:
    used = [ModelInfo("dense", "builtin", "d"), ModelInfo("sparse", "bm25", "s"), ModelInfo("rerank", rerank, "r")]
    return SimpleNamespace(
        tokenizer=tokenizer, sparse=Bm25Runner(Bm25Settings()), rerank=OffloadedModel("r"), infos=used
    )


@pytest.fixture
def tokenizer(tiny: Any) -> TextTokenizer:
    return TextTokenizer(tiny.tokenizer, 16)


@virtual
async def test_the_builtin_models_tell_of_texts_and_query(tokenizer: TextTokenizer) -> None:
    threads = Threads()
    found = truncation_checks(models(tokenizer), threads.run)
    assert await found.dense(["ba", LONG, "", LONG]) == [1, 3]
    assert await found.sparse([LONG]) == []
    assert await found.rerank("ba", [LONG, "ba"]) == (False, [0])
    assert await found.rerank(LONG, ["ba"]) == (True, [])
    assert threads.calls == 0


@virtual
async def test_many_characters_are_counted_in_a_thread(tokenizer: TextTokenizer) -> None:
    threads = Threads()
    found = truncation_checks(models(tokenizer), threads.run)
    assert await found.dense(["ba", "x" * INLINE_CHARACTERS_MAX]) == [1]
    assert await found.sparse(["x" * CHARACTERS_MAX, "x" * (CHARACTERS_MAX + 1)]) == [1]
    assert threads.calls == 2


@virtual
async def test_nothing_is_told_of_what_another_server_reads() -> None:
    found = truncation_checks(models(TokenEstimator(256), "tei"), Threads().run)
    assert await found.dense([LONG]) is None
    assert await found.rerank("q", [LONG]) is None


@virtual
async def test_tokens_are_those_that_the_model_reads(tokenizer: TextTokenizer) -> None:
    threads = Threads()
    usage = token_usage(models(tokenizer), threads.run)
    whole = len(tokenizer.token_ids(["ba"])[0])
    assert usage.tokens_max == 16
    assert await usage.count_read(["ba", LONG]) == whole + 16
    assert threads.calls == 0
    assert await usage.count_read(["ba", "x" * INLINE_CHARACTERS_MAX]) > whole
    assert threads.calls == 1


@pytest.mark.parametrize("counter", ["tokenizer", "estimator"])
@virtual
async def test_a_text_is_cut_behind_a_token(tokenizer: TextTokenizer, counter: str) -> None:
    counts = tokenizer if counter == "tokenizer" else TokenEstimator(16)
    usage = token_usage(models(counts), Threads().run)
    assert await usage.cut(["ba", "bad"], 3) == ["ba", "bad"]
    cut = await usage.cut([LONG, "ba"], 3)
    assert LONG.startswith(cut[0])
    assert counts.count(cut)[0] == 3
    assert cut[1] == "ba"
    assert await usage.count_read([LONG]) == 16
