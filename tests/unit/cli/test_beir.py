import pytest

from penstock.cli.beir import read_benchmark
from penstock.kernel.errors import Invalid

CORPUS = '{"_id": "1", "title": "Wings", "text": "Lift."}\n{"_id": "2", "title": "", "text": "Drag."}\n'
QUERIES = '{"_id": "q1", "text": "lift"}\n\n{"_id": "q2", "text": "drag"}\n{"_id": "q3", "text": "x"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\t1\t2\nq2\t2\t0\n"


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(CORPUS)
    (tmp_path / "queries.jsonl").write_text(QUERIES)
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    return tmp_path


def test_a_directory_is_read_and_queries_without_relevant_documents_are_left_out(directory):
    benchmark = read_benchmark(directory)
    assert [query.id for query in benchmark.queries] == ["q1"]
    assert benchmark.gains == {"q1": {"1": 2.0}, "q2": {"2": 0.0}}
    assert [document.whole for document in benchmark.documents] == ["Wings\nLift.", "Drag."]
    assert benchmark.name == directory.name


def test_judgements_without_a_header_are_read(directory):
    (directory / "qrels" / "test.tsv").write_text("q1\t1\t1\n")
    assert read_benchmark(directory).gains == {"q1": {"1": 1.0}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("corpus.jsonl", '{"_id": "1", "text": "a"}\n{"_id": 2', "corpus.jsonl line 2"),
        ("queries.jsonl", '{"text": "a"}', "queries.jsonl line 1"),
        ("qrels/test.tsv", "q1\t1\t1\nq1 1 1\n", "test.tsv line 2"),
        ("qrels/test.tsv", "", "no query with a relevant document"),
        ("queries.jsonl", None, "BEIR-layout"),
    ],
)
def test_what_is_broken_or_absent_is_named(name, text, said, directory):
    (directory / name).unlink() if text is None else (directory / name).write_text(text)
    with pytest.raises(Invalid, match=said):
        read_benchmark(directory)
