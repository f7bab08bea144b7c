"""What ``penstock search`` asks for around its hits, and where it opens one of them."""

import asyncio

import pytest

from penstock.cli.main import run
from penstock.cli.search import (
    document_lines,
    lines_around,
    place_to_open,
    take_layout,
    warn_of_stale,
    with_open_number,
)
from penstock.cli.search_results import FoundHit, Layout
from penstock.client import DocumentChunk, FullDocument, Hit
from penstock.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("--open", "--open=1"),
        ("--open parse json", "--open=1 parse json"),
        ("--open 3 parse", "--open 3 parse"),
        ("parse --open", "parse --open=1"),
        ("--open --limit 5 x", "--open=1 --limit 5 x"),
        ("--open=4 x", "--open=4 x"),
        ("--open -- 3", "--open=1 -- 3"),
        ("-- --open 3", "-- --open 3"),
    ],
)
def test_only_a_number_right_behind_open_is_its_value(typed, read):
    assert with_open_number(typed.split()) == read.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("x --open 0", "0 is not in the range x>=1"),
        ("x -C 51", "51 is not in the range 0<=x<=50"),
        ("x -C -1", "-1 is not in the range"),
        ("x --json --open", "--json is for programs; leave out --open"),
        ("x --json -A 1", "--json is for programs; leave out --context"),
        ("--open", "say what to look for"),
        ("--open 3", "say what to look for"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(arguments, said, capsys):
    assert run(["search", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


def test_an_editor_is_looked_for_before_anything_is_searched(capsys, monkeypatch):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert run(["search", "x", "--open"]) == 2
    assert "no editor is set" in capsys.readouterr().err


def layout(*, on_terminal=False, **said):
    wishes = dict.fromkeys(("heading", "context", "before_context", "after_context")) | said | {"limit": 3}
    made = take_layout(wishes, on_terminal=on_terminal)
    assert wishes == {"limit": 3}
    return made


def test_headings_are_for_terminals_unless_said():
    assert layout(on_terminal=True) == Layout(heading=True)
    assert layout() == Layout()
    assert layout(heading=True) == Layout(heading=True)
    assert layout(heading=False, on_terminal=True) == Layout()


def test_before_and_after_are_more_exact_than_context():
    assert layout(context=3) == Layout(before=3, after=3)
    assert layout(context=3, after_context=0) == Layout(before=3)
    assert layout(before_context=2) == Layout(before=2)


def test_between_chunks_are_blank_lines_but_not_in_a_notebook():
    chunks = [DocumentChunk(0, "a\nb", 3, 4), DocumentChunk(1, "c", 7, 7), DocumentChunk(2, "d", 8, 8)]
    assert document_lines(chunks, blank_between=True) == {3: "a", 4: "b", 5: "", 6: "", 7: "c", 8: "d"}
    assert document_lines(chunks, blank_between=False) == {3: "a", 4: "b", 7: "c", 8: "d"}


def test_parts_of_an_over_long_line_are_one_line():
    chunks = [DocumentChunk(0, "aaa", 1, 1), DocumentChunk(1, "bbb", 1, 1), DocumentChunk(2, "c", 2, 2)]
    assert document_lines(chunks, blank_between=True) == {1: "aaa", 2: "c"}


class Documents:
    """Stand-in for the API: one document of 100 chunks of two lines, a blank line between them."""

    def __init__(self, refusal=None):
        self.refusal = refusal
        self.asked = []

    async def get_document(self, id, collection, *, chunk, limit):
        self.asked.append((id, collection, chunk, limit))
        if self.refusal:
            raise self.refusal
        numbers = range(chunk, min(100, chunk + limit))
        return FullDocument(id, [DocumentChunk(n, f"a{n}\nb{n}", 3 * n + 1, 3 * n + 2) for n in numbers])


def hit(number=10, **changes):
    fields = {"text": f"a{number}\nb{number}", "start_line": 3 * number + 1, "end_line": 3 * number + 2}
    return Hit("s:a.py", 0.5, path="a.py", chunk=number, **(fields | changes))


def test_lines_around_come_from_the_index_and_only_as_many_chunks_as_needed():
    api = Documents()
    lines = asyncio.run(lines_around(api, hit(), "default", (2, 1)))
    assert api.asked == [("s:a.py", "default", 7, 6)]
    assert [lines[number] for number in range(29, 35)] == ["b9", "", "a10", "b10", "", "a11"]
    assert asyncio.run(lines_around(api, hit(), "default", (0, 0))) == {}
    assert len(api.asked) == 1
    asyncio.run(lines_around(api, hit(0, collection="other"), "one,other", (5, 0)))
    asyncio.run(lines_around(api, hit(99), "default", (0, 50)))
    assert api.asked[1:] == [("s:a.py", "other", 0, 1), ("s:a.py", "default", 99, 52)]


def test_a_document_that_changed_since_the_search_is_not_mixed_in(capsys):
    assert asyncio.run(lines_around(Documents(), hit(text="other"), "default", (1, 1))) == {}
    assert "no lines around a.py: it was indexed again just now" in capsys.readouterr().err


def test_hits_are_shown_without_context_where_it_cannot_be_read(capsys):
    gone = Invalid("there is no document\x1b", code="document_not_found")
    assert asyncio.run(lines_around(Documents(gone), hit(), "default", (1, 1))) == {}
    assert capsys.readouterr().err == "no lines around a.py: there is no document�\n"


@pytest.fixture
def root(tmp_path):
    """Return the root of a source with one file."""
    (tmp_path / "a.py").write_text("import x\n\n\ndef parse(text):\n    return load(text)\n")
    return tmp_path


def found(root, **changes):
    fields = {"text": "def parse(text):\n    return load(text)", "start_line": 4, "end_line": 5}
    return [FoundHit(Hit("s:a.py", 0.5, path="a.py", **(fields | changes)), roots={"s": str(root)})]


def test_a_hit_opens_at_the_line_that_matches_best(root, capsys):
    assert place_to_open(found(root), 1, ["load", "text"]) == (root / "a.py", 5)
    assert place_to_open(found(root), 1, ["zzz"]) == (root / "a.py", 4)
    assert capsys.readouterr().err == ""


def test_a_line_that_has_moved_is_opened_where_it_is_now(root, capsys):
    (root / "a.py").write_text("# new\n# lines\n" + (root / "a.py").read_text())
    assert place_to_open(found(root), 1, ["load"]) == (root / "a.py", 7)
    assert "a.py has changed since it was indexed: line 5 is now line 7\n" in capsys.readouterr().err


def test_a_line_that_is_gone_is_told_and_opened_where_it_was(root, capsys):
    (root / "a.py").write_text("x\ny\nz")
    assert place_to_open(found(root), 1, ["load"]) == (root / "a.py", 3)
    assert "line 5 may be elsewhere" in capsys.readouterr().err


def test_lines_of_a_notebook_are_not_compared(root, capsys):
    (root / "a.ipynb").write_text("{}")
    one = FoundHit(Hit("s:a.ipynb", 0.5, "load()", "a.ipynb", 7, 7), roots={"s": str(root)})
    assert place_to_open([one], 1, ["load"]) == (root / "a.ipynb", 7)
    assert capsys.readouterr().err == ""


def test_a_hit_that_was_not_found_cannot_be_opened(root):
    with pytest.raises(Invalid, match="there is no hit 2; --open takes 1 to 1"):
        place_to_open(found(root), 2, [])


def test_each_stale_file_is_told_once(root, capsys):
    hits = found(root) + found(root, start_line=9)
    (root / "a.py").unlink()
    warn_of_stale(hits)
    assert capsys.readouterr().err == f"{root}/a.py is gone since it was indexed; its lines are shown as they were\n"
