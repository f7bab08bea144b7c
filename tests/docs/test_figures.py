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


@pytest.mark.parametrize("collection", ["cranfield", "cisi", "cosqa-dev"])
def test_the_quality_that_the_page_quotes_was_measured(collection: str) -> None:
    (row,) = re.findall(rf"^\| {collection} .*", (BENCHMARKS / "quality.md").read_text(), re.MULTILINE)
    quoted = re.findall(r"\| (?:nDCG@10 \| )?\**(\.\d+)\b", row)
    found = measured("quality")
    assert quoted == [f"{found[f'{collection}, {arm}, nDCG@10']:.3f}".removeprefix("0") for arm in ARMS]


def test_the_goodput_that_the_readme_quotes_was_measured() -> None:
    text = (ROOT / "README.md").read_text()
    ((ours, others),) = re.findall(r"At 20 times .* ([\d.]+) times .* others ([\d.]+)\.$", text, re.MULTILINE)
    assert ours == f"{measured('overload')['goodput at 20 C']:.2f}"
    (table,) = re.findall(
        r"^By count, waiting work.*?\n\n(.*?)\n\n", (BENCHMARKS / "overload.md").read_text(), re.MULTILINE | re.DOTALL
    )
    peers = [row.split(" | ") for row in table.splitlines()[2:] if "penstock" not in row]
    assert float(others) == max(float(row[-1].removesuffix(" |")) for row in peers)


def test_the_table_of_attacks_is_the_one_that_was_measured() -> None:
    outcomes = msgspec.convert(json.loads((BENCHMARKS / "hostile.json").read_text())["results"], list[Outcome])
    page = (BENCHMARKS / "hostile.md").read_text()
    assert page.partition(TABLE)[2].strip() == table(outcomes)


def test_every_attack_stands_in_the_table() -> None:
    page = (BENCHMARKS / "hostile.md").read_text()
    assert [attack.name for attack in ATTACKS if f"| {attack.name} |" not in page] == []
