"""References to requirements and to sections of the design, in code and pages, lead to their anchor in ``docs``."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REQUIREMENTS = (DOCS / "requirements.md").read_text()
DESIGN = (DOCS / "design.md").read_text()
SPEC = (DOCS / "spec.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "tests" / "README.md"])

ANCHOR = re.compile(r'<a id="([\w-]+)"></a>')
ANCHORS = {"SPEC": set(ANCHOR.findall(REQUIREMENTS)), "DESIGN": set(ANCHOR.findall(DESIGN))}
ROW_LINE = re.compile(r'^(?:\| )?<a id="([a-z]\d+)"></a>(.*)$', re.MULTILINE)
ROWS = {anchor.upper() for anchor in ANCHORS["SPEC"] if re.fullmatch(r"[a-z]\d+", anchor)}
LETTERS = "".join(sorted({row[0] for row in ROWS}))

#: A row by itself, as in "T5 limits each part". Names such as MiniLM-L6 and L2-normalised are none.
BARE = re.compile(rf"(?<![\w%./-])[{LETTERS}]\d{{1,2}}(?![\w%-])")
#: Rows in parentheses. Any letter counts here, so that a letter without rows is reported.
IN_PARENTHESES = re.compile(r"\(([A-Z]\d{1,2}\b[^()]*)\)")
ROW = re.compile(r"(?<![\w%./-])[A-Z]\d{1,2}(?![\w%-])")
RANGE = re.compile(r"(?<![\w-])([A-Z])(\d{1,2})(?:–| to )\1(\d{1,2})(?!\w)")
SECTION = r"§\d+(?:\.\d+)*"
SECTIONS = re.compile(rf"\b(SPEC|DESIGN)((?:(?:,? and |, ?| )(?:{SECTION}|[A-Z]\d{{1,2}}(?:–[A-Z]?\d{{1,2}})?))+)")


def rows_in(text: str) -> set[str]:
    """Return the row ids of a text, ranges written out."""
    rows = set(ROW.findall(text))
    for letter, first, last in RANGE.findall(text):
        rows |= {f"{letter}{n}" for n in range(int(first), int(last) + 1)}
    return rows


def references(text: str, *, prose: bool) -> set[str]:
    """Return the references of a text, such as ``D2`` and ``SPEC §7``. In prose a row needs no parentheses."""
    text = re.sub(r"\s+", " ", text)
    found: set[str] = set()
    for inside in IN_PARENTHESES.findall(text):
        found |= rows_in(inside)
    for document, chain in SECTIONS.findall(text):
        found |= {f"{document} {section}" for section in re.findall(SECTION, chain)} | rows_in(chain)
    if prose:
        found |= set(BARE.findall(text)) | {row for row in rows_in(text) if row in ROWS}
    return found


def python_references(path: Path) -> Iterator[str]:
    """Yield what comments, docstrings and other strings of a module refer to."""
    source = path.read_text()
    comments = [
        token.string.lstrip("#: ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    yield from references("\n".join(comments), prose=True)
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from references(node.value, prose=id(node) in docstrings)
            if path.is_relative_to(ROOT / "bench") and ROW.fullmatch(node.value):
                yield node.value


def all_references() -> dict[str, set[str]]:
    """Return what each file refers to."""
    found: dict[str, set[str]] = {}
    for folder in ("src", "bench", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__):
                found[str(path.relative_to(ROOT))] = set(python_references(path))
    for page in PAGES:
        found[str(page.relative_to(ROOT))] = references(page.read_text(), prose=True)
    return found


def resolves(reference: str) -> bool:
    """Return whether a reference leads to an anchor."""
    if "§" not in reference:
        return reference in ROWS
    document, section = reference.split(" §")
    return f"{document.lower()}-{section.replace('.', '-')}" in ANCHORS[document]


def shown_by_evidence() -> dict[str, str]:
    """Return the rows that ``spec.md`` lists: ``shown``, or ``in part`` where every line says so."""
    shown: dict[str, str] = {}
    for promise, evidence in re.findall(r"^\| (.*) \| ([^|]*) \|$", SPEC, re.MULTILINE):
        for row, in_part in re.findall(r"\[([A-Z]\d+)\]\(requirements\.md#\w+\)( in part)?", promise):
            assert evidence.strip(), f"{row} has no evidence"
            if not in_part or row not in shown:
                shown[row] = "in part" if in_part else "shown"
    return shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a whole search (T3)", {"T3"}),
        ("refused (D1: those that can wait)", {"D1"}),
        ("a letter without rows (X9)", {"X9"}),
        ("(SPEC B6, DESIGN §6)", {"B6", "DESIGN §6"}),
        ("rules (DESIGN §4.4) of SPEC §3, B1–B3", {"DESIGN §4.4", "SPEC §3", "B1", "B2", "B3"}),
        ("all of SPEC\n    §99", {"SPEC §99"}),
        ("T5 limits each part; pools P1 to P3", {"T5", "P1", "P2", "P3"}),
        ("L2-normalised vectors of all-MiniLM-L6-v2, c%C3%BC, AVX2, RFC 9112 §3", set()),
    ],
)
def test_references_of_every_form_are_found(text, expected):
    assert references(text, prose=True) == expected


def test_every_reference_leads_to_an_anchor():
    found = all_references()
    assert sum(map(len, found.values())) > 200
    dangling = {name: sorted(one for one in refs if not resolves(one)) for name, refs in found.items()}
    assert {name: refs for name, refs in dangling.items() if refs} == {}


@pytest.mark.parametrize("text", [REQUIREMENTS, DESIGN], ids=["requirements", "design"])
def test_anchors_are_unique(text):
    anchors = ANCHOR.findall(text)
    assert len(anchors) == len(set(anchors))


@pytest.mark.parametrize(("text", "name"), [(REQUIREMENTS, "spec"), (DESIGN, "design")])
def test_every_section_has_the_anchor_of_its_number(text, name):
    sections = re.findall(r"^## (\d+)\. ", text, re.MULTILINE)
    assert sections == [str(n) for n in range(1, len(sections) + 1)]
    assert re.findall(rf'<a id="{name}-(\d+)"></a>\n\n## (\d+)\. ', text) == [(n, n) for n in sections]


def test_every_row_has_the_anchor_of_its_id():
    for anchor, rest in ROW_LINE.findall(REQUIREMENTS):
        assert re.match(rf"(?:\*\*)?{anchor.upper()}\b", rest), f"#{anchor} is followed by {rest[:40]!r}"
    assert {anchor.upper() for anchor, _ in ROW_LINE.findall(REQUIREMENTS)} == ROWS


def test_links_into_the_two_documents_lead_to_an_anchor():
    targets = {"requirements.md": ANCHORS["SPEC"], "design.md": ANCHORS["DESIGN"]}
    for page in PAGES:
        for file, fragment in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", page.read_text()):
            name = Path(file).name or page.name
            assert fragment in targets.get(name, {fragment}), f"{page.name}: {file}#{fragment}"


def test_links_to_rows_bear_the_id_of_the_row():
    for page in PAGES:
        for label, fragment in re.findall(r"\[([A-Z]\d+)\]\([^)]*#(\w+)\)", page.read_text()):
            assert label.lower() == fragment, f"{page.name}: [{label}] leads to #{fragment}"


def test_planned_rows_are_those_without_evidence():
    marks = {"*Planned.*": "planned", "*In part.*": "in part"}
    marked = {
        anchor.upper(): next((name for mark, name in marks.items() if mark in rest), "shown")
        for anchor, rest in ROW_LINE.findall(REQUIREMENTS)
    }
    evidence = shown_by_evidence()
    assert marked == {row: evidence.get(row, "planned") for row in ROWS}
    assert set(evidence) <= ROWS


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/README.md"])
def test_entry_pages_link_to_both_documents(name):
    page = ROOT / name
    linked = {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())}
    assert {DOCS / "requirements.md", DOCS / "design.md"} <= linked
