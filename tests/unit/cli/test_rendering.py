import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from penstock.cli.search import (
    best_lines,
    crop_line,
    facet_line,
    hit_lines,
    print_answer,
    query_words,
    search_options,
    shown_path,
)
from penstock.client import FacetCount, FacetCounts, Hit, OtherHit, SearchResponse

CWD = Path("/srv/project")
TEXT = "def parse(text):\n    '''Parse a JSON string.'''\n\n    return load(text)\n"


def hit(**changes):
    fields = {
        "id": "/srv/project/src/a.py",
        "score": 0.51239,
        "text": TEXT,
        "path": "src/a.py",
        "start_line": 10,
        "end_line": 14,
        "symbol": "parse",
    }
    return Hit(**(fields | changes))


def printed(one, query, *, terminal):
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=80,
        highlight=False,
        markup=False,
        color_system="standard" if terminal else None,
        soft_wrap=True,
    )
    for text in hit_lines(one, query_words(query), shown_path(one, CWD, {}), 80 if terminal else None):
        console.print(text)
    return out.getvalue()


def test_a_hit_is_plain_when_piped():
    assert printed(hit(), "parse a JSON string", terminal=False) == (
        "src/a.py:10-14  parse  0.5124\n    10   def parse(text):\n    11       '''Parse a JSON string.'''\n"
    )


def test_a_hit_is_coloured_on_a_terminal_and_its_words_stand_out():
    shown = printed(hit(), "parse a JSON string", terminal=True)
    assert "\x1b[1;36msrc/a.py" in shown
    assert "\x1b[1;33mJSON" in shown


def test_escape_sequences_of_a_file_never_reach_the_terminal():
    shown = printed(
        hit(text="\x1b]0;owned\x07 parse \x1b[31m\u202e", symbol="\x1b[5m", id="x\x1b[2J", path="x\x1b[2J"),
        "parse",
        terminal=False,
    )
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown


def test_brackets_in_a_file_are_not_markup():
    assert "[bold]parse[/bold]" in printed(hit(text="[bold]parse[/bold]"), "parse", terminal=False)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "src/a.py"),
        ({"id": "/other/src/a.py"}, "/other/src/a.py"),
        ({"id": "note-7", "path": "notes/7"}, "notes/7"),
        ({"id": "note-7", "path": ""}, "note-7"),
        ({"id": "/issue/7", "path": "Issue seven"}, "Issue seven"),
        ({"id": "here:src/a.py"}, "src/a.py"),
        ({"id": "there:src/a.py"}, "/there/src/a.py"),
        ({"id": "remote:src/a.py"}, "remote:src/a.py"),
        ({"id": "unknown:src/a.py"}, "src/a.py"),
        ({"id": "here:7", "path": "Issue seven"}, "Issue seven"),
    ],
)
def test_the_path_opens_from_the_current_directory(changes, path):
    roots = {"here": str(CWD), "there": "/there", "remote": ""}
    assert shown_path(hit(**changes), CWD, roots) == path


def test_hits_without_lines_or_symbol_have_a_short_headline():
    assert printed(hit(start_line=0, symbol="", text=""), "x", terminal=False).startswith("src/a.py  0.5124")


def pointed_out(line):
    return [line.plain[start:end] for start, end, _ in line.spans]


def test_the_lines_with_most_words_are_shown_in_the_files_order():
    text = "\n".join(["a json", "nothing", "parse json text", "parse"] + ["json"] * 10)
    lines = best_lines(text, 5, ["parse", "json", "text"], 3)
    assert [number for number, _ in lines] == [5, 7, 8]


def test_the_first_lines_are_shown_where_no_word_is_found():
    assert [line.plain for _, line in best_lines("\n\none\ntwo\nthree\nfour", 1, ["zzz"], 4)] == ["one", "two"]


def test_common_words_are_left_out_unless_there_are_no_others():
    assert query_words("How do I parse a JSON string?") == ["parse", "json", "string"]
    assert query_words("to be") == ["to", "be"]
    assert query_words("???") == []


def test_short_words_match_alone_and_longer_ones_inside_others():
    ((_, line),) = best_lines("rank of HTMLParser or ran", 1, ["ran", "parser"], 5)
    assert pointed_out(line) == ["Parser", "ran"]


@given(st.text(alphabet="ab c\t", max_size=60), st.integers(20, 40))
def test_a_cut_line_fits_and_its_spans_lie_on_their_words(text, width):
    for _, line in best_lines(text, 1, ["aa", "bbbb"], 100):
        short = crop_line(line, width)
        assert len(short) <= width
        assert all(0 <= start < end <= len(short) for start, end, _ in short.spans)
    assert len(crop_line(Text(""), width)) == 0


def test_a_long_line_is_cut_around_its_first_word():
    ((_, line),) = best_lines("x" * 300 + " needle " + "y" * 300, 1, ["needle"], 6)
    short = crop_line(line, 60)
    assert short.plain.startswith("…")
    assert short.plain.endswith("…")
    assert pointed_out(short) == ["needle"]


def test_a_word_that_is_wider_than_the_line_is_shown_from_its_beginning():
    ((_, line),) = best_lines("  " + "w" * 60 + " tail", 1, ["w" * 60], 6)
    assert crop_line(line, 20).plain == "w" * 19 + "…"


def test_a_request_says_only_what_was_asked_for():
    plain = {"limit": 10, "path_prefix": None, "source": (), "language": (), "no_rerank": False, "explain": False}
    assert search_options(**plain) == {"limit": 10}
    assert search_options(**plain, group=None, offset=0) == {"limit": 10}
    narrowed = {"path_prefix": "./src/", "source": ("a", "b"), "language": ("Python", "go")}
    wishes = {"limit": 3, "no_rerank": True, "explain": True, **narrowed}
    assert search_options(**wishes, group="document", offset=5) == {
        "limit": 3,
        "group": "document",
        "offset": 5,
        "filter": {"path_prefix": "src/", "source": ["a", "b"], "language": ["python", "go"]},
        "rerank": False,
        "explain": True,
    }


def test_a_grouped_hit_tells_where_the_other_chunks_of_its_document_are():
    others = [OtherHit(number, start_line=first, end_line=first + 9) for number, first in enumerate((90, 40, 60))]
    assert printed(hit(others=others, others_total=3), "parse", terminal=False).endswith(
        "         also 40-49, 60-69, 90-99\n"
    )
    many = [OtherHit(number, start_line=number, end_line=number) for number in range(1, 21)]
    assert "also 1-1, 2-2, 3-3, 4-4, 5-5 and 25 more" in printed(
        hit(others=many, others_total=30), "parse", terminal=False
    )


def test_a_hit_of_several_collections_tells_its_own():
    assert printed(hit(collection="notes"), "parse", terminal=False).startswith("notes  src/a.py:10-14  parse")


def test_a_facet_is_a_line():
    counts = [FacetCount("python", 12), FacetCount("go\x1b", 3)]
    assert facet_line(FacetCounts("language", counts, 256, 2)) == "language of 256: python 12, go� 3 and 2 more"
    assert facet_line(FacetCounts("metadata.x", [], 7)) == "metadata.x of 7: none"


def test_an_answer_says_what_it_had_to_do_without_and_what_has_vectors(capsys):
    print_answer(SearchResponse([], degraded=["no_dense"], coverage=0.43), "cat", {})
    _, said = capsys.readouterr()
    assert said.splitlines()[:2] == [
        "degraded: no_dense",
        "43% of the chunks are found by meaning so far, all by words",
    ]
    print_answer(SearchResponse([]), "cat", {})
    assert "by meaning" not in capsys.readouterr().err
