"""Definitions are chunks with their qualified names, in each language."""

from collections.abc import Callable

import pytest

from penstock.indexing.chunk import Chunk

Cut = Callable[..., list[Chunk]]
Symbols = Callable[..., dict[str, tuple[int, int]]]

BODY = "a1 b2 c3 d4 e5 f6 g7 h8".split()


def calls(indent: str, end: str = "", form: str = "{0}({0}, {0})") -> str:
    """Return eight statements, enough for a definition to stand alone."""
    return "\n".join(indent + form.format(name) + end for name in BODY)


# One source a language, written densely so that the table can be overseen.
# ruff: noqa: E501, ISC004, SIM905
SOURCES = {
    "python": (f"import os\n\nclass A:\n    '''Doc.'''\n    def m(self):\n{calls('        ')}\n"
               f"\n@wraps\ndef f():\n{calls('    ')}\n", ["A.m", "f"]),
    "javascript": (f"class A extends B {{\n  m() {{\n{calls('    ', ';')}\n  }}\n  g = () => {{\n{calls('    ', ';')}\n  }}\n}}\n"
                   f"export const h = (a) => {{\n{calls('  ', ';')}\n}};\nfoo.prototype.bar = function () {{\n{calls('  ', ';')}\n}};\n",
                   ["A.m", "A.g", "h", "foo.bar"]),
    "jsx": (f"export default function App() {{\n{calls('  ', ';')}\n  return <div/>;\n}}\n", ["App"]),
    "typescript": (f"namespace N {{\n  export class C<T> {{\n    m(): void {{\n{calls('      ', ';')}\n    }}\n  }}\n}}\n"
                   f"export const f = (x: number): number => {{\n{calls('  ', ';')}\n}};\n", ["N.C.m", "f"]),
    "tsx": (f"export function App(p: P) {{\n{calls('  ', ';')}\n  return <a/>;\n}}\n", ["App"]),
    "go": (f"package m\n\n// M does.\nfunc (s *S[T]) M() int {{\n{calls('  ')}\n}}\n\nfunc F() {{\n{calls('  ')}\n}}\n",
           ["S.M", "F"]),
    "rust": (f"/// Doc.\n#[inline]\npub fn f() {{\n{calls('    ', ';')}\n}}\n"
             f"impl<T> Tr for S<T> {{\n    fn m(&self) {{\n{calls('        ', ';')}\n    }}\n}}\n", ["f", "S.m"]),
    "java": (f"package a;\nclass A {{\n  @Override\n  void m() {{\n{calls('    ', ';')}\n  }}\n  A() {{\n{calls('    ', ';')}\n  }}\n}}\n",
             ["A.m", "A.A"]),
    "c": (f"#ifndef A_H\n#define A_H\nstatic int *f(int a) {{\n{calls('  ', ';')}\n}}\nint g(void) {{\n{calls('  ', ';')}\n}}\n#endif\n",
          ["f", "g"]),
    "cpp": (f"namespace n {{\nclass A {{\npublic:\n  void m() {{\n{calls('    ', ';')}\n  }}\n}};\n}}\n"
            f"int &A::h(int i) {{\n{calls('  ', ';')}\n}}\ntemplate <class T>\nT f(T a) {{\n{calls('  ', ';')}\n}}\n",
            ["n.A.m", "A.h", "f"]),
    "csharp": (f"namespace N {{\n  class A {{\n    public void M() {{\n{calls('      ', ';')}\n    }}\n  }}\n}}\n", ["N.A.M"]),
    "ruby": (f"module M\n  class A < B\n    def m\n{calls('      ')}\n    end\n    class << self\n      def z\n{calls('        ')}\n"
             "      end\n    end\n  end\nend\n", ["M.A.m", "M.A.z"]),
    "php": (f"<?php\nclass A {{\n  function m() {{\n{calls('    ', ';')}\n  }}\n}}\nfunction f() {{\n{calls('  ', ';')}\n}}\n",
            ["A.m", "f"]),
    "shell": (f"set -e\n\nf() {{\n{calls('  ', form='{0} --{0} {0}')}\n}}\nfunction g {{\n{calls('  ', form='{0} --{0} {0}')}\n}}\n",
              ["f", "g"]),
    "kotlin": (f"class A {{\n  fun m() {{\n{calls('    ')}\n  }}\n}}\nfun f() {{\n{calls('  ')}\n}}\n", ["A.m", "f"]),
    "swift": (f"class A {{\n  func m() {{\n{calls('    ')}\n  }}\n}}\nfunc f() {{\n{calls('  ')}\n}}\n", ["A.m", "f"]),
    "scala": (f"object O {{\n  def m() = {{\n{calls('    ')}\n  }}\n}}\n", ["O.m"]),
    "lua": (f"local function g()\n{calls('  ')}\nend\nfunction M:b()\n{calls('  ')}\nend\nM.c = function()\n{calls('  ')}\nend\n",
            ["g", "M.b", "M.c"]),
}  # fmt: skip


@pytest.mark.parametrize("language", SOURCES)
def test_definitions_are_named_and_whole(symbols: Symbols, language: str) -> None:
    text, expected = SOURCES[language]
    found = symbols(text, language)
    assert [name for name in found if name in expected] == expected
    lines = text.split("\n")
    for name in expected:
        start, end = found[name]
        assert "a1" in "\n".join(lines[start - 1 : end])
        assert any("h8" in line for line in lines[start - 1 : end])


PYTHON = f"""\
# What follows is imported.
import os
import sys

LIMIT = 3


# About f.
# More about f.
@first
@second(1)
def f(a):
{calls("    ")}


class Small:
    a = 1

    def one(self):
        return 1

    def two(self):
        return 2


def tiny_one():
    return 1


def tiny_two():
    return 2


class Large(Base):
    '''Something large.'''

    def first(self):
{calls("        ")}

    def second(self):
        def inner():
            return 1
{calls("        ")}
        if a:
{calls("            ")}
"""


def test_comments_and_decorators_stay_with_their_definition(symbols: Symbols) -> None:
    start, _ = symbols(PYTHON, "python")["f"]
    assert PYTHON.split("\n")[start - 1] == "# About f."


def test_imports_and_constants_share_a_chunk(symbols: Symbols) -> None:
    assert symbols(PYTHON, "python")[""] == (1, 5)


def test_small_class_stays_whole_and_small_siblings_share_a_chunk(cut: Cut) -> None:
    (small,) = [one for one in cut(PYTHON, "python") if "class Small" in one.text]
    assert small.symbol == "Small"
    assert "return 2" in small.text
    (tiny,) = [one for one in cut(PYTHON, "python") if "def tiny_one" in one.text]
    assert tiny.symbol == "Small" or "def tiny_two" in tiny.text


def test_large_function_is_cut_between_statements_under_its_name(cut: Cut) -> None:
    pieces = [one for one in cut(PYTHON, "python") if one.symbol.startswith("Large.second")]
    assert len(pieces) >= 2
    assert all(piece.text.count("(") == piece.text.count(")") for piece in pieces)


def test_head_of_a_class_is_found_under_the_class(cut: Cut) -> None:
    (head,) = [one for one in cut(PYTHON, "python") if "Something large" in one.text]
    assert head.symbol.startswith("Large")


def test_closing_brackets_are_never_alone(cut: Cut) -> None:
    text = "class A {\n" + "  void f() {\n    if (a) {\n      b(c, d, e, f, g, h);\n    }\n  }\n" * 30 + "}\n"
    for tokens_max in (20, 30, 50):
        assert all(any(map(str.isalnum, one.text)) for one in cut(text, "java", tokens_max))


def test_closing_keywords_stay_with_what_they_close(cut: Cut) -> None:
    assert "M" not in [one.symbol for one in cut(SOURCES["ruby"][0], "ruby")]


def test_code_that_does_not_parse_is_cut_at_blank_lines(cut: Cut) -> None:
    text = "\n\n".join(f"%% ?? {name} (((\n:: {name} }}}} {{{{ ]]\n<< {name} >> ;;" for name in BODY)
    chunks = cut(text, "java", 30)
    assert all(one.symbol == "" for one in chunks)
    assert all(one.text.startswith("%%") for one in chunks)


def test_c_header_of_another_dialect_is_parsed_as_that(symbols: Symbols) -> None:
    text = f"namespace n {{\nclass A : public B {{\n public:\n  void m() {{\n{calls('    ', ';')}\n  }}\n}};\n}}\n"
    assert "n.A.m" in symbols(text, "c")


def test_wide_characters_do_not_shift_lines(symbols: Symbols) -> None:
    text = f"X = 'äöü漢字🙂'; Y = 1\n\n\ndef f():\n    '''äöü漢字🙂'''\n{calls('    ')}\n"
    assert symbols(text, "python")["f"] == (4, 13)


def test_windows_line_ends_keep_line_numbers(symbols: Symbols) -> None:
    text = f"\n\n\ndef f():\n{calls('    ')}\n".replace("\n", "\r\n")
    assert symbols(text, "python")["f"] == (4, 12)


def test_characters_that_the_shell_grammar_cannot_be_given_move_no_line(cut: Cut) -> None:
    text = f"# \U0001f600\nf() {{\n  echo {{\U0010fffd}}\n{calls('  ')}\n}}\n"
    assert [(one.symbol, one.text) for one in cut(text, "shell")] == [
        (one.symbol, one.text.replace("____", "\U0001f600", 1).replace("____", "\U0010fffd"))
        for one in cut(text.replace("\U0001f600", "____").replace("\U0010fffd", "____"), "shell")
    ]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("lua", 'x = ,\ntype\n"""\n@d\n"""'),
        ("go", "func () M() {}"),
    ],
)
def test_grammar_that_recovers_from_nonsense_may_leave_out_children(cut: Cut, language: str, text: str) -> None:
    assert "".join("".join(one.text.split()) for one in cut(text, language, 3)) == "".join(text.split())
