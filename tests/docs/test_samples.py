"""Lines of code that a page quotes as the answer to a search are those of the file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial.md")


@pytest.mark.parametrize("page", PAGES)
def test_quoted_lines_are_the_files(page: str) -> None:
    path, quoted = None, 0
    for line in (ROOT / page).read_text().splitlines():
        if head := re.fullmatch(r"(src/\S+\.py):(\d+)-(\d+)  .*", line):
            path, first, last = ROOT / head[1], int(head[2]), int(head[3])
        elif head := re.fullmatch(r"src/\S+\.py", line):
            path = ROOT / head[0]
        elif path and (place := re.fullmatch(r" +#\d+   (\d+)-(\d+)  .*", line)):
            first, last = int(place[1]), int(place[2])
        elif path and (code := re.fullmatch(r" +(\d+)   (.*)", line)):
            number = int(code[1])
            assert first <= number <= last
            assert path.read_text().splitlines()[number - 1] == code[2]
            quoted += 1
        else:
            path = None
    assert quoted or page != "README.md"


@pytest.mark.parametrize("page", PAGES)
def test_quoted_answers_name_the_lines_of_their_symbol(page: str) -> None:
    answers = re.findall(
        r'"path": "(src/\S+\.py)",\s+"start_line": (\d+),\s+"end_line": (\d+),.*?"symbol": "(\w+)"',
        (ROOT / page).read_text(),
        re.DOTALL,
    )
    for path, first, last, symbol in answers:
        lines = (ROOT / path).read_text().splitlines()[int(first) - 1 : int(last)]
        assert re.match(rf"\s*(async )?(def|class) {symbol}\b", lines[0]), path
    assert answers or page == "README.md"
