from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.sources.index_stats import VanishedDocuments
from penstock.indexing.sources.local_files import IndexableFile, IndexRoot, indexable_file, is_below_any, project_of
from penstock.indexing.sources.request_batches import batches

ROOT = Path("/p")


def one(name, size=1):
    return IndexableFile(f"p:{name}", name, size, f"/p/{name}", "p")


def test_a_file_belongs_to_the_source_of_the_innermost_root():
    roots = [IndexRoot(Path("/p"), Path("/p"), "p"), IndexRoot(Path("/p/sub/deep"), Path("/p/sub"), "s")]
    assert indexable_file(Path("/p/a.py"), 1, roots).path == "a.py"
    assert indexable_file(Path("/p/sub/deep/b.py"), 1, roots).path == "deep/b.py"
    assert indexable_file(Path("/p/sub/deep/b.py"), 1, roots).id == "s:deep/b.py"
    assert indexable_file(Path("/p/sub/deep/b.py"), 1, roots).file == "/p/sub/deep/b.py"


def test_a_named_file_is_shown_relative_to_its_project():
    assert indexable_file(Path("/p/src/a.py"), 1, [IndexRoot(Path("/p/src/a.py"), Path("/p"), "p")]).path == "src/a.py"


def test_a_name_that_is_no_text_has_no_document():
    assert indexable_file(Path("/p/b\udcff"), 1, [IndexRoot(ROOT, ROOT, "p")]) is None


@pytest.mark.parametrize(
    ("id_", "path", "root"),
    [
        ("/p/src/a.py", "src/a.py", "/p"),
        ("/p/b.py", "b.py", "/p"),
        ("/a.py", "a.py", "/"),
        ("note", "x", None),
        ("note", "", None),
        ("/p/b.py", "c.py", None),
    ],
)
def test_roots_are_read_off_the_listing(id_, path, root):
    assert project_of(id_, path) == root


@pytest.mark.parametrize(
    ("name", "directories", "below"),
    [
        ("/p/a/gone", ["/p/a"], True),
        ("/p/a", ["/p/a"], True),
        ("/p/ab", ["/p/a"], False),
        ("note-1", ["/p/a"], False),
        ("/x", ["/"], True),
        ("/p/b/x", ["/p/a", "/p/b"], True),
        ("/x", [], False),
    ],
)
def test_what_lies_below_a_directory(name, directories, below):
    assert is_below_any(name, map(Path, directories)) is below


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 5), st.integers(1, 40))
def test_batches_keep_the_order_and_their_bounds(sizes, count_max, bytes_max):
    items = [(one(str(n)), b"x" * size) for n, size in enumerate(sizes)]
    made = list(batches(items, count_max, bytes_max))
    assert [item for batch in made for item in batch] == items
    for batch in made:
        assert 1 <= len(batch) <= count_max
        assert len(batch) == 1 or sum(len(data) for _, data in batch) <= bytes_max


@pytest.mark.parametrize(
    ("has_files", "listed", "vanished", "doubtful"),
    [
        (False, 5, 5, True),
        (False, 1, 1, True),
        (False, 0, 0, False),
        (False, 5, 0, False),
        (True, 10, 5, False),
        (True, 10, 6, True),
        (True, 10, 10, True),
        (True, 5, 4, False),
        (True, 6, 5, True),
        (True, 1, 1, False),
        (True, 1000, 500, False),
        (True, 1000, 501, True),
    ],
)
def test_a_loss_is_doubtful_when_all_or_most_is_gone(has_files, listed, vanished, doubtful):
    assert VanishedDocuments(Path("/p"), has_files, listed, vanished).looks_unmounted is doubtful
