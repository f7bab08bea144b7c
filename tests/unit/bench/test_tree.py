"""The tree that is indexed, and what the model gets to read of it."""

from bench.tree import dense_texts, plant
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model
from penstock.models.tokenizer import TextTokenizer


def test_planted_files_become_texts_with_their_place_in_front(tmp_path):
    prepared = prepare_model(find_source(), tmp_path / "models")
    tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
    assert plant(tmp_path / "tree", 2) == 2
    found = dense_texts(tmp_path / "tree", tokenizer)
    assert found
    assert all(text.startswith("asyncio ") for text in found)
    assert not any(tokenizer.truncated(text) for text in found)
