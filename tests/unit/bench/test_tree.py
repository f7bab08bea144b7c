"""The tree that is indexed, and what the model gets to read of it."""

from bench.tree import dense_texts, documented, generate, plant
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


def test_a_generated_tree_has_code_and_documentation_and_is_always_the_same(tmp_path):
    assert [generate(tmp_path / name, 30) for name in ("one", "other")] == [30, 30]
    one, other = ({p.relative_to(root): p.read_text() for p in root.rglob("*.*")} for root in tmp_path.iterdir())
    assert one == other
    assert {path.suffix for path in one} == {".py", ".md"}


def test_what_a_source_documents_is_found_where_its_head_is_one_line():
    source = 'class A:\n    """Of A."""\n\n    def f(self, b: int) -> int:\n        r"""Of f.\n\n        More."""\n'
    assert documented(source) == [("A", "Of A."), ("f", "Of f.\n\n        More.")]
    assert documented('def g():\n    x = """none"""\n') == []
