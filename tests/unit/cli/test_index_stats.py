from pathlib import Path

from rich.console import Console

from penstock.cli.index import print_report, summary_lines
from penstock.cli.index_progress import Throughput, progress_line
from penstock.indexing.sources.index_stats import ERRORS_MAX, IndexStats, SourceStats, VanishedDocuments


def test_the_progress_line_tells_files_chunks_rate_and_time_left():
    pace, tally = Throughput(), IndexStats(files_total=9, bytes_total=900)
    pace.record(0, tally)
    tally.files_done, tally.bytes_done, tally.chunks = 3, 300, 10
    pace.record(2, tally)
    assert progress_line(tally, pace, 2) == "3/9 files · 10 chunks · 5 chunks/s · 4s left"


def test_the_object_has_exactly_the_promised_members():
    tally = IndexStats(indexed=2, unchanged=1, removed=1, chunks=9, chunks_pending=4, searchable_s=0.5, took_s=1.23456)
    tally.skipped.update({"binary": 2, "a": 1})
    tally.encodings.update({"cp1252": 1})
    tally.shared.update({"p@fix": 3})
    tally.add_failure("/p/x", "timeout", "too slow")
    tally.kept_directories.append(VanishedDocuments(Path("/p/disk"), listed=5, vanished=5))
    tally.sources["p"] = SourceStats("/p", indexed=2, kept=5)
    assert tally.as_json("docs") == {
        "collection": "docs",
        "indexed": 2,
        "unchanged": 1,
        "removed": 1,
        "failed": 1,
        "refused": 0,
        "skipped": {"a": 1, "binary": 2},
        "encodings": {"cp1252": 1},
        "shared": {"p@fix": 3},
        "chunks": 9,
        "pending": 4,
        "searchable_s": 0.5,
        "took_s": 1.235,
        "errors": [{"path": "/p/x", "code": "timeout", "detail": "too slow"}],
        "sources": [{"name": "p", "root": "/p", "indexed": 2, "unchanged": 0, "removed": 0, "failed": 0, "kept": 5}],
        "notes": [],
        "kept": [{"path": "/p/disk", "documents": 5, "vanished": 5}],
    }


def test_listed_failures_are_bounded_and_counted_ones_are_not():
    tally = IndexStats()
    for number in range(ERRORS_MAX + 5):
        tally.add_failure(str(number), "x", "y")
    assert tally.failed == ERRORS_MAX + 5
    assert len(tally.errors) == ERRORS_MAX


def test_the_summary_tells_counts_skips_and_speed():
    tally = IndexStats(indexed=2, failed=1, chunks=30, searchable_s=1.5, took_s=3.0)
    tally.skipped.update({"binary": 2})
    tally.encodings.update({"cp1252": 3, "gb18030": 1})
    tally.shared.update({"p@fix\x1b": 1, "p": 9})
    assert summary_lines(tally, "docs") == [
        "docs: 2 indexed, 1 failed",
        "shared 10: 9 with p, 1 with p@fix\N{REPLACEMENT CHARACTER}",
        "skipped 2: binary 2",
        "not UTF-8 4: read as cp1252 3, gb18030 1",
        "30 chunks: found by words after 1.5 s, by meaning after 3.0 s, 10 chunks/s",
    ]
    assert summary_lines(IndexStats(), "docs")[0] == "docs: 0 indexed"


def test_a_directory_that_keeps_its_documents_is_told_with_what_to_do(capsys):
    tally = IndexStats(unchanged=2)
    tally.kept_directories.append(VanishedDocuments(Path("/p/di\x1b[31msk"), listed=7, vanished=7))
    print_report(tally, "docs", Console(stderr=True), as_json=False)
    out, err = capsys.readouterr()
    assert out.startswith("docs: 0 indexed, 2 unchanged")
    assert err.startswith("kept: /p/di\N{REPLACEMENT CHARACTER}[31msk: no file to index is in it; 7 of the 7 documents")
    assert err.endswith("If the files are really gone, `penstock index --prune` removes them.\n")
