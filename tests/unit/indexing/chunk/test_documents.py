"""Documents are cut by their headings, paragraphs and sentences."""

from collections.abc import Callable

from penstock.indexing.chunk import Chunk

Cut = Callable[..., list[Chunk]]
Symbols = Callable[..., dict[str, tuple[int, int]]]

WORDS = "some words that fill a paragraph of this section so that it stands alone here, yes"

MARKDOWN = f"""\
---
title: not a heading
# nor this
---
Before any heading. {WORDS}

# Install
{WORDS}

## Docker ##
{WORDS}

```sh
# not a heading
{WORDS}
```

~~~
# nor this
```
# nor that
~~~

### `compose` [file](x.md) ![badge](y.svg)
{WORDS}

Usage
=====
{WORDS}

Details
-------
{WORDS}

- item
---
#nospace is text, {WORDS}
"""


def test_markdown_sections_bear_their_heading_trail(symbols: Symbols) -> None:
    assert list(symbols(MARKDOWN, "markdown", 60)) == [
        "",
        "Install",
        "Install > Docker",
        "Install > Docker > compose file",
        "Usage",
        "Usage > Details",
    ]


def test_unclosed_fence_runs_to_the_end(symbols: Symbols) -> None:
    assert list(symbols(f"# A\n{WORDS}\n```\n# b\n{WORDS}\n", "markdown", 60)) == ["A"]


def test_small_sections_share_a_chunk_under_their_parent(cut: Cut) -> None:
    text = "# Top\nintro\n\n## One\nfirst\n\n## Two\nsecond\n"
    assert [(one.symbol, one.start_line, one.end_line) for one in cut(text, "markdown")] == [("Top", 1, 8)]


def test_long_section_is_cut_at_paragraphs_under_its_heading(cut: Cut) -> None:
    text = "# Long\n" + "\n\n".join([WORDS] * 9)
    chunks = cut(text, "markdown", 40)
    assert {one.symbol for one in chunks} == {"Long"}
    assert len(chunks) >= 4


def test_restructured_levels_follow_from_first_appearance(symbols: Symbols) -> None:
    text = f"""\
=====
 Top
=====
{WORDS}

One
===
{WORDS}

:mod:`deep`
-----------
{WORDS}

Two
===
{WORDS}

===== =====
table rows
===== =====
"""
    assert list(symbols(text, "rst", 60)) == ["Top", "Top > One", "Top > One > deep", "Top > Two"]


def test_text_is_cut_between_paragraphs_into_about_equal_parts(cut: Cut) -> None:
    text = "\n\n".join(["\n".join([WORDS] * 2)] * 3)
    assert [(one.start_line, one.end_line) for one in cut(text, "text", 70)] == [
        (1, 2),
        (4, 5),
        (7, 8),
    ]


def test_long_line_is_cut_at_spaces_with_its_number_kept(cut: Cut) -> None:
    chunks = cut("short\n" + f"{WORDS} " * 20 + "\nend", "text", 50)
    pieces = [one for one in chunks if one.start_line == 2]
    assert len(pieces) > 5
    assert "".join(one.text for one in pieces).split() == (f"{WORDS} " * 20).split()
    assert all(one.end_line == 2 and one.text[-1].isspace() for one in pieces[:-1])


def test_a_long_title_is_cut_in_the_trail_of_every_section_below_it(cut: Cut) -> None:
    title = "x" * 100_000
    text = f"{title}\n{'=' * len(title)}\n\n" + "".join(f"Part{n}\n------\n{WORDS}\n\n" for n in range(50))
    chunks = cut(text, "rst", 60)
    assert max(len(chunk.symbol) for chunk in chunks) < 300
    assert chunks[-1].symbol.endswith("x > Part49")


def test_a_trail_has_at_most_as_many_levels_as_markdown(symbols: Symbols) -> None:
    rules = "=-~^+*#"
    text = "".join(f"Level{n}\n{rule * 8}\n{WORDS}\n\n" for n, rule in enumerate(rules))
    assert list(symbols(text, "rst", 30))[-1].count(" > ") == 5


def test_restructured_titles_lose_their_markup(symbols: Symbols) -> None:
    text = f"The :py:class:`Lock <threading.Lock>` of ``a`` *b*::`c`\n{'=' * 60}\n{WORDS}\n"
    assert list(symbols(text, "rst", 60)) == ["The Lock  of a b::c"]


def test_markdown_titles_lose_their_markup(symbols: Symbols) -> None:
    text = f"# [![badge](b.svg)](ci.html) **Title** <br> with [a link][1] {{#id .class}} ##\n{WORDS}\n"
    assert list(symbols(text, "markdown", 60)) == ["Title  with a link"]
