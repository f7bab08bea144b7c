"""Whatever the text: each written line is in exactly one chunk, and no chunk is over the limit."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.indexing.chunk import Chunk, TokenCount, chunk_text
from penstock.indexing.chunk.grammar import GRAMMARS

Cut = Callable[..., list[Chunk]]
LANGUAGES = [*GRAMMARS, "markdown", "rst", "text", "json"]
LINES = st.sampled_from(
    [
        "",
        "   ",
        "class A:",
        "class A {",
        "  def f(self):",
        "    return 1",
        "function f(a) {",
        "  if (a) { b(); }",
        "}",
        "# Heading",
        "```",
        "Title",
        "=====",
        "// comment",
        "@decorator",
        "import x",
        "x = [1, 2, 3, 'words of a string']",
        "é" * 30 + "\r",
        "one two three four five six seven eight nine ten",
        "func (s *S) M() {}",
        '"""',
        "a\x0cb\u2028c\x85d",
    ]
)
TEXTS = st.one_of(st.lists(LINES, max_size=60).map("\n".join), st.text(max_size=400))


def check(count: TokenCount, text: str, chunks: list[Chunk], tokens_max: int) -> None:
    lines = text.split("\n")
    covered: dict[int, str] = {}
    for one in chunks:
        assert count([one.text])[0] <= tokens_max
        assert 1 <= one.start_line <= one.end_line <= len(lines)
        whole = "\n".join(lines[one.start_line - 1 : one.end_line])
        if one.text == whole:
            for line in range(one.start_line, one.end_line + 1):
                assert line not in covered
                covered[line] = lines[line - 1]
        else:
            assert one.start_line == one.end_line
            covered[one.start_line] = covered.get(one.start_line, "") + one.text
    for number, written in enumerate(lines, 1):
        assert "".join(covered.get(number, "").split()) == "".join(written.split())
    assert [one.start_line for one in chunks] == sorted(one.start_line for one in chunks)


@settings(max_examples=300)
@given(TEXTS, st.sampled_from(LANGUAGES), st.integers(1, 40))
def test_every_line_is_in_exactly_one_chunk(count: TokenCount, text: str, language: str, tokens_max: int) -> None:
    check(count, text, chunk_text(text, language, tokens_max=tokens_max, count=count), tokens_max)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a" * 200_000, "text"),
        ("[" * 100_000 + "]" * 100_000, "javascript"),
        ("\n".join(" " * depth + "if x:" for depth in range(800)), "python"),
        ("function f(){\n" * 2_000 + "}\n" * 2_000, "javascript"),
        ("(\n" * 20_000, "python"),
        ("a.b(c);" * 20_000, "typescript"),
        ("word " * 20_000, "markdown"),
        ("}\n" * 20_000, "c"),
        ("a\n" + "\n" * 100_000 + "b", "text"),
        ("word " * 200_000, "text"),
        ("\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}\N{ZERO WIDTH JOINER}" * 20_000, "text"),
        ("\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED} \N{RIGHT-TO-LEFT OVERRIDE}" * 20_000, "markdown"),
        ("e\N{COMBINING ACUTE ACCENT}" * 50_000, "python"),
        ("\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 50_000, "text"),
    ],
)
def test_extreme_texts_are_cut_without_recursion(count: TokenCount, cut: Cut, text: str, language: str) -> None:
    check(count, text, cut(text, language, 200), 200)


@pytest.mark.parametrize("text", ["", "\n\n", "  \t\r\n", " " * 100_000])
def test_blank_text_gives_no_chunk(cut: Cut, text: str) -> None:
    assert cut(text, "python") == []


def test_word_unknown_to_the_model_is_bounded_by_its_length() -> None:
    chunks = chunk_text("a" * 100_000, "text", tokens_max=10, count=lambda texts: [1] * len(texts))
    assert max(len(one.text) for one in chunks) < 11 * 32
    assert "".join(one.text for one in chunks) == "a" * 100_000


def test_tokens_are_counted_once_for_all_lines(count: TokenCount) -> None:
    calls: list[int] = []

    def counting(texts: object) -> list[int]:
        calls.append(1)
        return count(texts)  # type: ignore[arg-type]

    chunk_text("def f():\n    return 1\n" * 200, "python", tokens_max=50, count=counting)
    assert len(calls) == 1


def test_limit_must_be_positive(cut: Cut) -> None:
    with pytest.raises(ValueError, match="positive"):
        cut("a", "text", 0)
