"""Figures, settings, metrics and codes on the pages of concepts and how-tos are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.bus.fair_queue import Discipline
from penstock.bus.service_registry import HELLOS_MISSED, INSTANCE_TTL_S, PRESENCE_S
from penstock.cli.mcp_bridge import KEY_VARIABLE
from penstock.cli.settings_schema import setting_entries
from penstock.kernel.messages import REQUEST_TOPICS
from penstock.policies.discard import DiscardSettings
from penstock.policies.ladder import LadderSettings, Rung
from penstock.policies.levels import LevelSettings
from penstock.ranking import program
from penstock.ranking.fusion import RRF_K
from penstock.ranking.signals import DEFAULT_SIGNALS
from penstock.search.degradation import CACHED, RUNG_WORDS
from penstock.stores.backends.edge.generation_builder import JOURNAL_BYTES_MAX, REPLAY_SLICE_S
from penstock.stores.backends.edge.optimize_policy import (
    BUILD_RETRY_S,
    BUSY_SHARE,
    CHANGED_SHARE,
    QUIET_SHARE,
    OptimizePolicy,
)
from penstock.telemetry.catalogue import CATALOGUE

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "concepts").glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]
LADDER, DOUBT, ORDER = LadderSettings(), DiscardSettings(), Discipline()
LATE = program.LATE_INTERACTION_SHARE
#: Shares that a page tells in words.
WORDS = {0.1: "a tenth", 0.25: "a quarter", 0.3: "three tenths", 0.5: "half"}


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("ranking", f"`weight / ({RRF_K} + rank)`"),
        ("ranking", f"The {program.RESCORED_CANDIDATES} best of the fusion"),
        ("ranking", f"{1 - LATE:g} · cosine + {LATE:g} · likeness of tokens + {program.SPARSE_SHARE:g} · best"),
        ("ranking", f"(best + {program.SPARSE_HALF_SCORE:g})"),
        ("ranking", f"an identifier in the query counts {DEFAULT_SIGNALS.definition:g} times"),
        ("ranking", f"in letters of another case {DEFAULT_SIGNALS.other_case:g} times"),
        ("ranking", f"A chunk of a test counts {DEFAULT_SIGNALS.test:g} times"),
        ("ranking", f"one of documentation beside code {DEFAULT_SIGNALS.documentation:g} times"),
        ("ranking", f"Each further chunk of a file counts {DEFAULT_SIGNALS.repeat:g} times"),
        ("ranking", {0.5: "gets half of the best score more"}[DEFAULT_SIGNALS.exact]),
        ("generations", f"{REPLAY_SLICE_S * 1000:g} ms at a time"),
        ("generations", f"a journal above {JOURNAL_BYTES_MAX >> 30} GiB"),
        ("generations", {300.0: "after five minutes"}[BUILD_RETRY_S]),
        ("generations", f"at least {OptimizePolicy().points:,} points".replace(",", " ")),
        ("generations", f"when {WORDS[BUSY_SHARE]} of the collection is outside the graph"),
        ("generations", f"After {OptimizePolicy().quiet_s:g} s without an update, {WORDS[QUIET_SHARE]} outside"),
        ("generations", f"changes to {WORDS[CHANGED_SHARE]} of the points"),
        ("overload", f"Each waiting lower class keeps {WORDS[ORDER.class_floor]} of the service"),
        ("overload", f"One client may fill {WORDS[ORDER.client_share]} of a buffer"),
        ("overload", f"more than {WORDS[LADDER.hold]} of its"),
        ("overload", f"one rung in {LADDER.up_s:g} s at most, and falls by one rung in {LADDER.down_s:g} s while none"),
        ("overload", f"after {DOUBT.quiet_s_min:g} to {DOUBT.quiet_s_max:g} s"),
        ("bus", f"announces every {PRESENCE_S:g} s"),
        ("bus", f"silent for {HELLOS_MISSED * PRESENCE_S:.1f} s"),
        ("bus", f"silent for {INSTANCE_TTL_S:g} s"),
    ],
)
def test_a_figure_of_a_concept_is_that_of_the_code(page: str, told: str) -> None:
    assert told in (DOCS / "concepts" / f"{page}.md").read_text()


def test_the_topics_of_requests_are_those_of_the_code() -> None:
    (told,) = re.findall(r"^Six topics carry requests: (.*)\.$", (DOCS / "concepts/bus.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([\w.]+)`", told)) == sorted(REQUEST_TOPICS)


def test_the_rungs_of_the_ladder_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([a-z ]+) \| .* \| (?:`(\w+)` )?\|$", (DOCS / "concepts/overload.md").read_text(), re.MULTILINE
    )
    words = {**RUNG_WORDS, Rung.CACHED_ONLY: CACHED}
    assert rows[1:] == [(one.name.lower().replace("_", " "), words.get(one, "")) for one in Rung]


def test_the_incident_page_tells_when_a_topic_is_full() -> None:
    assert f"a topic is at {LevelSettings().critical:.0%} or more".replace("%", " %") in _incident()


def test_metrics_that_are_named_exist() -> None:
    known = {series for one in CATALOGUE for series in (one.name, *one.series)}
    stems = r"(?:requests|searches|http|event|store|circuit|degradation|worker|search)_\w+"
    shape = rf"\b{stems}_(?:total|seconds|seconds_max|state|level|progress|active)\b"
    named = {name for page in PAGES for name in re.findall(shape, page.read_text())}
    assert len(named) > 8
    assert named - known == set()


def test_settings_that_are_named_exist() -> None:
    known = {name for one in setting_entries() for name in one.spec.env_names} | {KEY_VARIABLE}
    named = {
        name for page in PAGES for name in re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=\w+)?`", page.read_text())
    }
    assert len(named) > 8
    assert named - known == set()


def test_reasons_of_refusals_that_are_named_are_codes_of_the_api() -> None:
    codes = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", (DOCS / "api.md").read_text(), re.MULTILINE))
    reasons = re.findall(r"^\| `(\w+)` \|", _incident(), re.MULTILINE)
    assert len(reasons) > 5
    assert set(reasons) - codes == set()


def _incident() -> str:
    return (DOCS / "how-to" / "overload-incident.md").read_text()
