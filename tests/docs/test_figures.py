"""The figures that texts quote are those that the benchmarks wrote."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from bench.hostile.attacks import ATTACKS
from bench.hostile.results import TABLE, Outcome, table

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"
ARMS = ("sparse", "dense", "hybrid", "default")


def measured(bench: str) -> dict[str, float]:
    figures = json.loads((BENCHMARKS / f"{bench}.json").read_text())["figures"]
    return {figure["name"]: figure["value"] for figure in figures}


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks/quality.md"])
@pytest.mark.parametrize("collection", ["cranfield", "cisi", "cosqa-dev"])
def test_the_quality_that_a_page_quotes_was_measured(page: str, collection: str) -> None:
    (row,) = re.findall(rf"^\| {collection} .*", (ROOT / page).read_text(), re.MULTILINE)
    quoted = re.findall(r"\| (?:nDCG@10 \| )?\**(\.\d+)\b", row)
    found = measured("quality")
    assert quoted == [f"{found[f'{collection}, {arm}, nDCG@10']:.3f}".removeprefix("0") for arm in ARMS]


def test_the_table_of_attacks_is_the_one_that_was_measured() -> None:
    outcomes = msgspec.convert(json.loads((BENCHMARKS / "hostile.json").read_text())["results"], list[Outcome])
    page = (BENCHMARKS / "hostile.md").read_text()
    assert page.partition(TABLE)[2].strip() == table(outcomes)


def test_every_attack_stands_in_the_table() -> None:
    page = (BENCHMARKS / "hostile.md").read_text()
    assert [attack.name for attack in ATTACKS if f"| {attack.name} |" not in page] == []
