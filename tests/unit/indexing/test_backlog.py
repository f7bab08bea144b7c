"""The order in which chunks get their vectors."""

import pytest

from penstock.indexing import backlog as backlog_module
from penstock.indexing.backlog import Backlog, Turn, turn_of
from penstock.stores.data_model import PendingChunk


@pytest.mark.parametrize(
    ("path", "language", "turn"),
    [
        ("src/a.py", "python", Turn.SOURCE),
        ("", "", Turn.SOURCE),
        ("tests/test_a.py", "python", Turn.TEST),
        ("README.md", "markdown", Turn.DOCUMENTATION),
        ("docs/conf.py", "python", Turn.DOCUMENTATION),
        ("package.json", "json", Turn.DATA),
        ("tests/data.yaml", "yaml", Turn.TEST),
    ],
)
def test_a_document_has_its_turn(path, language, turn):
    assert turn_of(path, language) is turn


def chunk(document: str, number: int = 0, path: str = "") -> PendingChunk:
    return PendingChunk(document, number, path or f"{document}.py", "python")


def test_source_comes_before_tests_documentation_and_data_and_what_was_found_before_all():
    backlog = Backlog()
    backlog.add(
        [
            PendingChunk("data", 0, "x.json", "json"),
            chunk("guide", path="guide.md"),
            chunk("test", path="tests/test_x.py"),
            chunk("b"),
            chunk("a"),
        ]
    )
    backlog.prefer([("guide", 0), ("new", 7)])
    assert len(backlog) == 6
    assert [document for document, _ in backlog.take(10)] == ["guide", "new", "b", "a", "test", "data"]
    assert (len(backlog), backlog.take(1)) == (0, [])


def test_a_chunk_is_there_once_and_keeps_its_place():
    backlog = Backlog()
    backlog.add([chunk("a"), chunk("b"), chunk("a")])
    backlog.prefer([("b", 0)])
    backlog.add([chunk("b")])
    assert backlog.take(2) == [("b", 0), ("a", 0)]


def test_a_full_backlog_knows_that_there_are_more(monkeypatch):
    monkeypatch.setattr(backlog_module, "CHUNKS_MAX", 2)
    backlog = Backlog(listed=True)
    backlog.add([chunk("a"), chunk("b")])
    assert backlog.listed
    backlog.add([chunk("a")])
    assert backlog.listed
    backlog.prefer([("c", 0)])
    assert (len(backlog), backlog.listed) == (2, False)
    assert repr(backlog) == "<Backlog of 2 chunks and perhaps more>"
