"""Files by which a stranger judges a project: the formats, targets, settings and tests that they name exist."""

from __future__ import annotations

import configparser
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.cli.settings_schema import setting_entries
from tools import covered_by

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
YAML = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").glob("*.md")]
PAGES += [*(ROOT / ".github").rglob("*.md"), *YAML, ROOT / ".devcontainer" / "devcontainer.json"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^ ]+)", text, re.MULTILINE))


def workflow() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_a_file_of_yaml_is_a_mapping(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_the_editor_s_settings_are_those_of_the_formatter() -> None:
    editor = configparser.ConfigParser()
    editor.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert editor["*.py"].getint("max_line_length") == ruff["line-length"]
    assert editor["Makefile"]["indent_style"] == "tab"


def test_targets_of_make_that_are_named_exist() -> None:
    named: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        if page.suffix == ".md":
            text = "\n".join(re.findall(r"^```.*?^```$|`[^`\n]+`", text, re.MULTILINE | re.DOTALL))
        named |= set(re.findall(r"(?:^|[`\"]|run: )make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert len(named) > 8
    assert named - TARGETS == set()


def test_make_help_prints_every_target_that_says_what_it_is_for() -> None:
    command = ["make", "--no-print-directory", "help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert set(re.findall(r"^ +make ([a-z-]+) ", printed, re.MULTILINE)) == TARGETS


def test_make_test_fast_runs_suites_that_exist_and_no_slow_test() -> None:
    (suites,) = re.findall(r"^FAST := (.*)$", MAKEFILE, re.MULTILINE)
    assert all((ROOT / "tests" / suite).is_dir() for suite in suites.split())
    assert "-m 'not slow' $(FAST:%=tests/%)" in MAKEFILE


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    releases = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    wrong = [
        one for one in releases[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d(?: \[YANKED\])?", one)
    ]
    assert wrong == []
    for release in re.split(r"^## .*$", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", release, re.MULTILINE)
        assert len(set(kinds)) == len(kinds)
        assert set(kinds) <= set(KINDS)
        assert all(
            re.search(r"^- ", part, re.MULTILINE) for part in re.split(r"^### .*$", release, flags=re.MULTILINE)[1:]
        )


def test_the_formats_have_the_numbers_that_the_page_tells() -> None:
    text = (ROOT / "VERSIONING.md").read_text()
    told = [
        (name, int(number)) for number, name in re.findall(r"^\| [^|]+ \| (\d+) \| `([\w.]+)` \|$", text, re.MULTILINE)
    ]
    told += [(name, int(number)) for name, number in re.findall(r"^\| `([\w.]+)` = (\d+) \|", text, re.MULTILINE)]
    assert len(told) == 7
    for name, number in told:
        module, _, constant = name.rpartition(".")
        value = getattr(importlib.import_module(module), constant)
        if isinstance(value, bytes):
            value = int(value.split()[-1])
        assert value == number, name


def test_the_page_about_security_names_settings_that_exist() -> None:
    known = {name for one in setting_entries() for name in one.spec.env_names}
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 5
    assert named - known == set()


def test_ci_runs_the_fast_tests_on_every_python_that_the_metadata_names() -> None:
    jobs = workflow()["jobs"]
    told = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.fullmatch(r".*Python :: 3\.\d+", one)]
    assert jobs["fast"]["strategy"]["matrix"]["python"] == told
    assert PROJECT["requires-python"] == f">={told[0]}"
    assert any(step.get("run") == ".ci/run" for step in jobs["brokers"]["steps"])


def test_hooks_before_a_commit_fetch_nothing_and_use_the_pinned_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [one["repo"] for one in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert program.removeprefix(".venv/bin/") in pins("dev")


def test_the_container_for_development_has_what_ci_installs() -> None:
    recipe = (ROOT / ".devcontainer" / "Dockerfile").read_text()
    wanted = set(re.findall(r"apt-get install -y -qq ([^;\n|]+)", (ROOT / ".ci" / "run").read_text()))
    packages = {package.rstrip(" };") for line in wanted for package in line.split()} | {"redis-server", "prometheus"}
    assert len(packages) > 5
    assert {package for package in packages if not re.search(rf"[ \n]{re.escape(package)}[ \n]", recipe)} == set()
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["build"]["dockerfile"] == "Dockerfile"
    assert container["postCreateCommand"].removeprefix("make ") == ".venv/.dev"
    assert "$(VENV)/.dev:" in MAKEFILE


def test_every_direct_dependency_has_the_locked_minor_version_as_its_least() -> None:
    locked = pins("runtime")
    extras = PROJECT["optional-dependencies"]
    optional = [one for extra in ("hub", "kafka", "qdrant", "redis") for one in extras[extra]]
    wanted = [re.fullmatch(r"([a-z0-9-]+)(>=|==)([\d.]+)", one) for one in PROJECT["dependencies"] + optional]
    assert None not in wanted
    for name, relation, version in (one.groups() for one in wanted if one is not None):
        assert locked[name] == version if relation == "==" else locked[name].startswith(f"{version}."), name


def test_the_form_for_a_bug_asks_for_what_is_needed_to_see_it() -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    required = str([field for field in asked if field.get("validations", {}).get("required")])
    assert all(command in required for command in ("penstock status --json", "penstock config", "penstock --version"))


def test_every_room_has_its_row_among_the_tests() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    table = text.partition("## Which suite covers which room")[2]
    rows = dict(re.findall(r"^\| (`[^|]+) \| (.*) \|$", table, re.MULTILINE))
    rooms = {path.parent.name for path in (ROOT / "src" / "penstock").glob("*/__init__.py")}
    assert {name for names in rows for name in re.findall(r"`(\w+)`", names)} == rooms
    named = {name for row in rows.values() for name in re.findall(r"`((?:\w+/)[\w/.]*)`", row)}
    assert {name for name in named if not (ROOT / "tests" / name).exists()} == set()


def test_every_module_without_a_unit_test_of_its_name_names_tests_that_reach_it() -> None:
    rows = dict(re.findall(r"^\| `([\w/.]+)` \| (.*) \|$", covered_by.PAGE.read_text(), re.MULTILINE))
    wanted = {one.relative_to(covered_by.PACKAGE).as_posix(): one for one in covered_by.uncovered()}
    cure = "run: python tools/covered_by.py --write"
    assert set(rows) == set(wanted), cure
    for name, module in wanted.items():
        named = {covered_by.TESTS / one for one in re.findall(r"`([\w/.]+)`", rows[name])}
        assert named, f"no test reaches {name}"
        assert named <= covered_by.reaching(module), f"{name}: {cure}"
