import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from penstock.cli.search import search_options
from penstock.cli.search_results import (
    FoundHit,
    Layout,
    best_line,
    best_lines,
    crop_line,
    facet_line,
    lines_wanted,
    print_answer,
    query_words,
    result_lines,
    shown_path,
)
from penstock.cli.terminal import shows_links
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


def console(out, *, terminal):
    return Console(
        file=out,
        force_terminal=terminal,
        width=80,
        highlight=False,
        markup=False,
        color_system="standard" if terminal else None,
        soft_wrap=True,
    )


PLAIN = Layout()


def printed_all(found, query, layout=PLAIN, *, terminal=False, linked=False):
    out = io.StringIO()
    for text in result_lines(found, query_words(query), layout, 80 if terminal else None, linked=linked):
        console(out, terminal=terminal).print(text)
    return out.getvalue()


def printed(one, query, *, terminal):
    return printed_all([FoundHit(one)], query, terminal=terminal)


@pytest.fixture(autouse=True)
def _cwd(monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: CWD)


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
    print_answer(SearchResponse([], degraded=["no_dense"], coverage=0.43), "cat", [])
    _, said = capsys.readouterr()
    assert said.splitlines()[:2] == [
        "degraded: no_dense",
        "43% of the chunks are found by meaning so far, all by words",
    ]
    print_answer(SearchResponse([]), "cat", [])
    assert "by meaning" not in capsys.readouterr().err


def ranked(*hits):
    return [FoundHit(one, number) for number, one in enumerate(hits, 1)]


def other(first, **changes):
    fields = {"start_line": first, "end_line": first, "text": f"parse {first}", "symbol": f"s{first}", "score": 0.3}
    return hit(**(fields | changes))


def test_hits_of_a_file_stand_below_its_path_in_the_order_of_the_best_one():
    elsewhere = other(7, id="/srv/project/b.py", path="b.py", symbol="")
    assert printed_all(ranked(hit(), elsewhere, other(40), other(20)), "parse", Layout(heading=True)) == (
        "src/a.py\n"
        "    #1   10-14  parse  0.5124\n"
        "    10   def parse(text):\n"
        "    11       '''Parse a JSON string.'''\n"
        "    #3   40-40  s40  0.3000\n"
        "    40   parse 40\n"
        "    #4   20-20  s20  0.3000\n"
        "    20   parse 20\n"
        "\n"
        "b.py\n"
        "    #2   7-7  0.3000\n"
        "     7   parse 7\n"
    )


def test_a_heading_names_the_collection_and_two_of_one_path_are_two():
    found = ranked(hit(collection="one"), hit(collection="two"), other(40, collection="one"))
    heads = [line for line in printed_all(found, "parse", Layout(heading=True)).splitlines() if "src" in line]
    assert heads == ["one  src/a.py", "two  src/a.py"]


def test_without_headings_hits_stay_as_ranked():
    elsewhere = other(7, id="/srv/project/b.py", path="b.py", symbol="")
    heads = [line for line in printed_all(ranked(hit(), elsewhere, other(40)), "parse").splitlines() if "py:" in line]
    assert heads == ["src/a.py:10-14  parse  0.5124", "b.py:7-7  0.3000", "src/a.py:40-40  s40  0.3000"]


def test_context_is_marked_as_grep_marks_it():
    text = "def parse(text):\n    a = 1\n\n    b = 2\n    c = 3\n    return parse(b)\n"
    around = {8: "import json", 9: "", 16: "", 17: "def load(text):", 18: "    pass"}
    one = FoundHit(hit(text=text, end_line=16), around=around)
    assert printed_all([one], "parse", Layout(before=1, after=2)) == (
        "src/a.py:10-16  parse  0.5124\n"
        "     9-\n"
        "    10:  def parse(text):\n"
        "    11-      a = 1\n"
        "    12-\n"
        "    --\n"
        "    14-      c = 3\n"
        "    15:      return parse(b)\n"
        "    16-\n"
        "    17-  def load(text):\n"
    )


def test_lines_are_wanted_only_beyond_the_hits_own():
    long = "\n".join(["x"] * 5 + ["parse"] + ["x"] * 5)
    assert lines_wanted(hit(text=long, start_line=20), ["parse"], Layout(before=5, after=5)) == (0, 0)
    assert lines_wanted(hit(text=long, start_line=20), ["parse"], Layout(before=7, after=9)) == (2, 4)
    assert lines_wanted(hit(text=long, start_line=2), ["parse"], Layout(before=50)) == (1, 0)
    assert lines_wanted(hit(text=long), ["parse"], Layout()) == (0, 0)
    assert lines_wanted(hit(text=""), ["parse"], Layout(before=1, after=1)) == (0, 0)


def test_context_keeps_its_indentation_where_a_line_is_cut():
    text = "def parse():\n" + "        " + "x" * 200
    shown = printed_all([FoundHit(hit(text=text))], "parse", Layout(after=1))
    assert "    11-          xxx" in shown
    assert shown.splitlines()[-1].endswith("x…")


def test_controls_in_the_context_never_reach_the_terminal():
    one = FoundHit(hit(text="parse", end_line=10), around={11: "\x1b[2J\x9b\u202e"})
    assert (
        printed_all([one], "parse", Layout(after=1)).splitlines()[-1]
        == "    11-  \N{REPLACEMENT CHARACTER}[2J" + 2 * "�"
    )


def test_the_best_line_is_the_first_with_the_most_words():
    text = "a json\nnothing\nparse json\njson parse"
    assert best_line(hit(text=text), ["parse", "json"]) == 12
    assert best_line(hit(text="\none\ntwo"), ["zzz"]) == 11
    assert best_line(hit(text="", start_line=0), []) == 1


def test_a_path_is_a_link_where_its_file_is_here(tmp_path):
    (tmp_path / "a b\x1b.py").write_text("parse")
    here = hit(id="s:a b\x1b.py", path="a b\x1b.py")
    found = [FoundHit(here, roots={"s": str(tmp_path)})]
    shown = printed_all(found, "parse", Layout(heading=True), terminal=True, linked=True)
    assert re.match(rf"\x1b]8;id=\d+;file://[^/]+{tmp_path}/a%20b%1B\.py\x1b\\", shown)
    assert "\x1b]8" not in printed_all(found, "parse", Layout(heading=True), terminal=True)
    gone = [FoundHit(hit(id="s:b.py", path="b.py"), roots={"s": str(tmp_path)})]
    assert "\x1b]8" not in printed_all(gone, "parse", terminal=True, linked=True)


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "6003"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "4602"}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, True),
        ({"TERM": "xterm-256color", "WT_SESSION": "1"}, True),
        ({"TERM": "tmux-256color", "VTE_VERSION": "6003"}, False),
        ({"TERM": "screen", "KITTY_WINDOW_ID": "1"}, False),
        ({"TERM": "xterm", "FORCE_HYPERLINK": "1"}, True),
        ({"TERM": "xterm-kitty", "FORCE_HYPERLINK": "0"}, False),
        ({"TERM": "dumb", "FORCE_HYPERLINK": "1"}, False),
        ({}, False),
    ],
)
def test_links_are_for_terminals_that_are_known_to_show_them(environ, shown):
    assert shows_links(console(io.StringIO(), terminal=True), environ) is shown
    assert not shows_links(console(io.StringIO(), terminal=False), environ)
