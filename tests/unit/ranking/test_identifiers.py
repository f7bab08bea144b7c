from dataclasses import dataclass

import pytest

from penstock.ranking.identifiers import IDENTIFIERS_MAX, Definition, Identifier, find_definition, parse_identifiers


@dataclass(frozen=True)
class Piece:
    path: str = ""
    symbol: str = ""
    text: str = ""


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("urlsplit", [("urlsplit", [])]),
        ("JSONDecoder.decode", [("decode", ["jsondecoder"])]),
        ("Vec::push", [("push", ["vec"])]),
        ("how does urlOpen work", [("urlOpen", [])]),
        ("what calls raw_decode and __init__", [("raw_decode", []), ("__init__", [])]),
        ("decode_header()", [("decode_header", [])]),
        ("what does shield() do", [("shield", [])]),
        ("what does `shield` do", [("shield", [])]),
        ("read a file of URLs", []),
        ("parse a JSON string", []),
        ("", []),
        ("( ` . ::", []),
    ],
)
def test_names_are_told_from_words(query, names):
    assert [(name.word, sorted(name.qualifiers)) for name in parse_identifiers(query)] == names


def test_a_pasted_program_gives_few_names():
    assert len(parse_identifiers(" ".join(f"name_{n}" for n in range(1000)))) == IDENTIFIERS_MAX


@pytest.mark.parametrize(
    "text",
    [
        "def find(x):",
        "    async def find(self):",
        "class Find(Base):",
        "func (s *Server) Find(x int) error {",
        "pub fn find<T>(x: T) -> T {",
        "export default function find() {",
        "export const find = (x) => x",
        "find = partial(g, 1)",
        "find() {",
        "  def self.find(x)",
        "public static <T> List<T> find(String x) {",
        "int Tree::find(const Key& key) const {",
        "static int\nfind (int x)\n{\n",
        "#define FIND(x) (x)",
        "function tree.find(x)",
        "\tfun find(x: Int): Int {",
    ],
)
def test_definitions_are_known_in_many_languages(text):
    assert find_definition(Piece(text=text), [Identifier("find")])


@pytest.mark.parametrize(
    "text",
    [
        "x = find(y)",
        "    find = other",
        "return find",
        "if find == 1:",
        "find(x);",
        "    if find(x) {",
        "} else if find(x) {",
    ],
)
def test_uses_are_no_definitions(text):
    assert not find_definition(Piece(text=text), [Identifier("find")])


def test_a_definition_in_letters_of_another_case_is_told_from_one_as_typed():
    both = Piece(text="def formatter(): ...\n\nclass Formatter: ...")
    assert find_definition(both, [Identifier("Formatter")]) is Definition.AS_TYPED
    assert find_definition(both, [Identifier("formatter")]) is Definition.AS_TYPED
    assert find_definition(both, [Identifier("FORMATTER")]) is Definition.OTHER_CASE


def test_a_letter_whose_lower_case_is_longer_hides_no_definition():
    assert find_definition(Piece(text='NAME = "İ"\ndef find(): ...'), [Identifier("find")]) is Definition.AS_TYPED


def test_a_name_inside_a_longer_word_is_nothing():
    assert not find_definition(Piece(text="def find_all(refind):"), [Identifier("find")])


def test_what_stands_around_a_name_must_be_there_too():
    piece = Piece("asyncio/tasks.py", "gather", "def gather(*fs):")
    assert find_definition(piece, [Identifier("gather")])
    assert find_definition(piece, [Identifier("gather", frozenset({"asyncio"}))])
    assert not find_definition(piece, [Identifier("gather", frozenset({"trio"}))])
    method = Piece("tree.py", "Tree.find", "    def find(self):")
    assert find_definition(method, [Identifier("find", frozenset({"tree"}))])


@pytest.mark.timeout(5)
def test_a_text_that_means_harm_is_matched_in_bounded_time():
    for text in ("x find(" * 1200, "find(\n" * 1400, "a " * 4000 + "find", "(" * 8000, "\n".join(["int find ("] * 700)):
        find_definition(Piece(text=text), [Identifier("find")])
