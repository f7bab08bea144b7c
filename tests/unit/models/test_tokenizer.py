"""Token ids are cut, padded and counted as the model and the chunker need them."""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING

import pytest
import tiny_bert

from penstock.kernel.errors import Invalid
from penstock.models.tokenizer import CHARACTERS_PER_TOKEN_MAX, TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.models.model_source import ModelSource


@pytest.fixture
def tokenizer(tiny: ModelSource) -> TextTokenizer:
    return TextTokenizer(tiny.tokenizer, tiny_bert.TOKENS_MAX)


def test_encode_pads_on_the_right(tokenizer: TextTokenizer) -> None:
    ids, mask = tokenizer.encode(["ba be", "", "bi"])
    word = tiny_bert.VOCABULARY.index
    assert ids.tolist() == [[2, word("ba"), word("be"), 3], [2, 3, 0, 0], [2, word("bi"), 3, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert ids.dtype == mask.dtype == "int32"


def test_encode_of_nothing_is_empty(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode([])[0].shape == (0, 0)


def test_text_at_the_limit_is_whole_and_one_more_is_cut(tokenizer: TextTokenizer) -> None:
    fits, over = " ".join(["ba"] * 14), " ".join(["ba"] * 15)
    assert not tokenizer.truncated(fits)
    assert tokenizer.truncated(over)
    assert tokenizer.token_ids([over]) == tokenizer.token_ids([fits])
    assert tokenizer.count([fits, over, ""]) == [14, 15, 0]


def test_huge_text_is_cut_like_its_beginning(tokenizer: TextTokenizer) -> None:
    assert tokenizer.token_ids(["ba bi " * 200_000]) == tokenizer.token_ids(["ba bi " * 8])


def test_lone_surrogate_is_replaced(tokenizer: TextTokenizer) -> None:
    assert tokenizer.token_ids(["ba \ud800 be"]) == tokenizer.token_ids(["ba ? be"])
    assert tokenizer.count(["\udcff"]) == [1]


def test_pickled_tokenizer_counts_alike(tokenizer: TextTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.count(["ba be dou"]) == tokenizer.count(["ba be dou"])
    assert (copy.path, copy.tokens_max) == (tokenizer.path, tokenizer.tokens_max)


def test_unreadable_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Invalid, match=r"tokenizer\.json"):
        TextTokenizer(tmp_path / "tokenizer.json", 16)


@pytest.mark.parametrize("text", ["ba " * 200_000, "(" * 500_000, " " * 500_000, "b" * 500_000, "é" * 100_000])
def test_counting_a_huge_text_reads_its_beginning_alone(tokenizer: TextTokenizer, text: str) -> None:
    counted: list[int] = []
    count = tokenizer.count
    tokenizer.count = lambda texts: counted.extend(map(len, texts)) or count(texts)
    assert tokenizer.truncated(text)
    assert sum(counted) <= tokenizer.tokens_max * CHARACTERS_PER_TOKEN_MAX


@pytest.mark.parametrize("seed", range(20))
def test_a_first_reading_gives_the_tokens_of_the_whole_text(tokenizer: TextTokenizer, seed: int) -> None:
    luck = random.Random(seed)
    pieces = ["ba", "be ", " ", "bi" * 60, "z" * 150, "(", "\n", "é", "中", " " * 70]
    for _ in range(20):
        text = "".join(luck.choices(pieces, k=luck.randint(0, 60)))[: tokenizer.tokens_max * CHARACTERS_PER_TOKEN_MAX]
        (whole,) = tokenizer._cut.encode_batch([text])
        assert tokenizer.token_ids([text]) == [whole.ids]
        assert tokenizer.truncated(text) == (tokenizer.count([text])[0] > tokenizer.text_tokens_max)


def test_a_text_is_known_where_the_vocabulary_has_half_of_it(tokenizer: TextTokenizer) -> None:
    assert tokenizer.knows("")
    assert tokenizer.knows("no word of it, but ASCII")
    assert tokenizer.knows("ba 茶")
    assert not tokenizer.knows("ba 茶叶")
    assert tokenizer.knows("ba " * 200 + "茶" * 1000)
