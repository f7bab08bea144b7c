"""What the documentation says is complete and leads somewhere."""

import re
from pathlib import Path

import click
import pytest

from penstock.cli.main import penstock
from penstock.cli.settings_schema import setting_entries
from penstock.kernel.messages import Topic
from penstock.kernel.setting_spec import ENV_PREFIX

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"])
DOCS = ROOT / "docs"
#: Pages that are written to be read once, from beginning to end.
ONE_PASS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted(DOCS.glob("*.md"))]
ONE_PASS += [*sorted((DOCS / "concepts").glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]
README_WORDS_MAX = 700
COLUMNS_MAX = 140
AVOIDED = r"\b(?:nobody|anew|whoever|by way of|lately|mend|thereby|meanwhile)\b"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

PROMISES = {
    "P": 8,
    "B": 7,
    "D": 9,
    "L": 6,
    "T": 9,
    "W": 2,
    "M": 6,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for one in setting_entries():
        assert f"| `{one.yaml_name}` | `{one.spec.env}` |" in text, f"{one.yaml_name} is missing or differs"
        assert one.spec.doc in text


def test_general_names_are_nowhere_told_without_their_prefix():
    """A name that is told (in code type, or with a value) is one that is read."""
    general = "|".join(
        one.spec.env.removeprefix(ENV_PREFIX) for one in setting_entries() if one.spec.env.startswith(ENV_PREFIX)
    )
    told = re.compile(rf"`(?:{general})`|(?<![A-Z_$ ])\b(?:{general})=|\"(?:{general})\":|\((?:{general})\)")
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    files = [*pages, *(one for one in (ROOT / "deploy").rglob("*") if one.is_file()), *(ROOT / "src").rglob("*.py")]
    files += [*(ROOT / "bench").rglob("*.py"), *(ROOT / "tests" / "e2e").glob("*.py")]
    found = {str(file.relative_to(ROOT)): told.findall(file.read_text()) for file in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_promise_has_its_row_and_every_named_test_exists():
    text = (ROOT / "docs" / "spec.md").read_text()
    rows = dict(re.findall(r"^\| \[([A-Z]\d+)\]\(requirements\.md#\w+\) \| .* \| (.*) \|$", text, re.MULTILINE))
    named = {f"{letter}{n}" for letter, count in PROMISES.items() for n in range(1, count + 1)}
    assert named <= set(rows)
    assert all(shown_by for shown_by in rows.values())


def test_every_test_that_is_named_exists():
    text = (ROOT / "docs" / "spec.md").read_text()
    named = re.findall(r"`((?:tests|src|bench)/[^`:]*)(?:::(\w+))?`", text)
    assert len(named) > 80
    for path, name in named:
        assert (ROOT / path).exists(), f"{path} is not there"
        assert not name or re.search(rf"def {name}\(", (ROOT / path).read_text()), f"{path} has no {name}"


def test_every_command_is_on_the_page_of_commands():
    text = (ROOT / "docs" / "commands.md").read_text()
    for name in penstock.list_commands(click.Context(penstock)):
        assert f"penstock {name}" in text, f"penstock {name} is not in docs/commands.md"


def test_the_readme_names_the_two_commands_and_three_of_the_program():
    text = (ROOT / "README.md").read_text()
    for command in ("make serve", "make test", "penstock search", "penstock index", "penstock top"):
        assert command in text


def test_the_readme_has_at_most_700_words():
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS_MAX


@pytest.mark.parametrize("page", ONE_PASS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_for_one_pass_has_short_lines_and_plain_words(page):
    text = page.read_text()
    prose = re.sub(r"^(```.*?^```|\|.*?)$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > COLUMNS_MAX] == []
    assert re.findall(AVOIDED, text, re.IGNORECASE) == []


def test_the_index_lists_every_page():
    listed = {(DOCS / target).resolve() for target in LINK.findall((DOCS / "README.md").read_text())}
    apart = {DOCS / "decisions", DOCS / "benchmarks"}
    pages = {page for page in DOCS.rglob("*.md") if not apart & set(page.parents)} - {DOCS / "README.md"}
    assert pages - listed == set()


def test_every_topic_of_the_specification_exists():
    assert {topic.value for topic in Topic} >= {
        "ml.embed",
        "ml.sparse",
        "ml.rerank",
        "search.request",
        "index.request",
        "index.progress",
        "index.complete",
        "collection.created",
        "collection.deleted",
        "alert.triggered",
        "search.complete",
    }


def test_no_page_names_a_path_of_the_machine_it_was_written_on():
    for page in PAGES:
        assert not re.search(r"/(?:work|root)/", page.read_text()), page
