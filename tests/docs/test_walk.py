"""A stranger's walk: from README by links alone, in few hops, to the lines where the product does what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOPS_MAX = 5
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def linked(page: Path) -> list[Path]:
    """Return the files and directories that a page of Markdown links to."""
    found = (page.parent / target for target in _LINK.findall(page.read_text()) if "://" not in target)
    return [path.resolve() for path in found if path.exists()]


def hops(wanted: Path) -> int:
    """Return how many links lie between README and a file; a linked directory takes one more hop to each file in it."""
    seen, edge, count = {ROOT / "README.md"}, [ROOT / "README.md"], 0
    while edge and wanted not in seen:
        count += 1
        following: list[Path] = []
        for place in edge:
            if place.is_dir():
                following += place.iterdir()
            elif place.suffix == ".md":
                following += linked(place)
        edge = [path for path in dict.fromkeys(following) if path not in seen]
        seen.update(edge)
    return count if wanted in seen else HOPS_MAX + 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("http/gate.py", r"await \w+\.refuse\(refusal, "),
        ("ranking/fusion.py", r"scores\[point\] = .* weight / \(k \+ rank"),
        ("bus/backends/kafka/reader.py", r"async def ack\("),
    ],
    ids=["a request is refused", "two rankings are fused", "a Kafka record is acknowledged"],
)
def test_a_stranger_finds_the_line_in_five_hops(file: str, line: str) -> None:
    path = ROOT / "src/penstock" / file
    assert hops(path) <= HOPS_MAX
    assert re.search(line, path.read_text())
