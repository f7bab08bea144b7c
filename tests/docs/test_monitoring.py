"""``docs/monitoring.md``, the Prometheus rules and the Grafana dashboard speak of what the server exports alone."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from penstock.http.responses import AlertList
from penstock.policies.alerts import ALERT_RULES
from penstock.telemetry.catalogue import CATALOGUE, FORMER_NAMES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "monitoring.md").read_text()
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES_FILE = PROMETHEUS / "penstock.rules.yml"
GROUPS = yaml.safe_load(RULES_FILE.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule for group in GROUPS for rule in group["rules"] if "record" in rule}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "penstock.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

EXPORTED = {series: one.labels for one in CATALOGUE for series in one.series}

#: What stands in an expression beside metrics: functions and operators, all that are used.
WORDS = {"sum", "rate", "increase", "histogram_quantile", "absent", "by", "label_values"}

promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed (Debian: prometheus)")


def bare(expression: str) -> str:
    """Return an expression without label matchers, groupings, ranges and numbers."""
    expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", expression)
    return re.sub(r"(?<![\w:])[\d.]+", " ", expression)


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare(expression))) - WORDS


def labels_in(expression: str) -> set[str]:
    groupings = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression)
    return {label.strip() for grouping in groupings for label in grouping.split(",")} | set(matched)


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def rule_expressions() -> Iterator[tuple[str, str]]:
    for name, rule in (ALERTS | RECORDED).items():
        yield name, rule["expr"]


EXPRESSIONS = [*rule_expressions(), *dashboard_expressions()]


def test_every_metric_has_its_row_and_every_row_its_metric():
    rows = re.findall(r"^\| `[a-z_]+` \| (?:counter|gauge|histogram) \|.*\|$", TEXT, re.MULTILINE)
    labels = {one.name: ", ".join(f"`{label}`" for label in one.labels) for one in CATALOGUE}
    expected = [f"| `{one.name}` | {one.kind} | {labels[one.name]} | {one.help} |" for one in CATALOGUE]
    assert sorted(rows) == sorted(expected)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_an_expression_names_only_metrics_and_labels_that_exist(where, expression):
    names = metrics_in(expression)
    assert names
    assert names <= EXPORTED.keys() | RECORDED.keys(), where
    known = {label for name in names & EXPORTED.keys() for label in EXPORTED[name]}
    assert labels_in(expression) <= known | {"le", "job", "instance"}, where


def test_the_page_lists_the_former_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", TEXT, re.MULTILINE)
    assert dict(rows) == FORMER_NAMES


def test_expressions_are_understood():
    expression = 'sum by (topic, le) (rate(event_bus_wait_seconds_bucket{topic="a.b"}[5m])) / (made_up > 0.5e3)'
    assert metrics_in(expression) - {"e3"} == {"event_bus_wait_seconds_bucket", "made_up"}
    assert labels_in(expression) == {"topic", "le"}


def test_every_metric_is_on_the_dashboard():
    shown = {name for _, expression in dashboard_expressions() for name in metrics_in(expression)}
    missing = {one.name for one in CATALOGUE if shown.isdisjoint(one.series)}
    assert missing == {"goroutine_count"}, "tasks and threads are shown apart"


def test_every_alert_is_shipped_as_a_rule_of_the_same_severity():
    shipped = {rule["labels"]["rule"]: rule for rule in ALERTS.values() if "rule" in rule["labels"]}
    assert {name: rule["labels"]["severity"] for name, rule in shipped.items()} == {
        one.name: one.severity.value for one in ALERT_RULES
    }
    for one in ALERT_RULES:
        found = re.search(r"(>=?|==) ([\d.]+)$", shipped[one.name]["expr"])
        assert found is not None
        assert float(found.group(2)) == one.threshold
        assert (found.group(1) != ">") == one.inclusive


def test_every_shipped_rule_says_how_long_and_what_to_tell():
    for name, rule in ALERTS.items():
        assert rule.keys() >= {"for", "labels", "annotations"}, name
        assert rule["annotations"].keys() == {"summary", "description"}, name
        assert f"`{name}`" in TEXT


def test_every_recorded_name_is_documented():
    assert set(re.findall(r"^\| `(penstock:[\w:]+)` \|", TEXT, re.MULTILINE)) == RECORDED.keys()


def test_every_alert_is_documented_with_its_severity_and_no_other():
    rows = dict(re.findall(r"^\| `(\w+)` \| (warning|critical) \|", TEXT, re.MULTILINE))
    assert rows == {one.name: one.severity.value for one in ALERT_RULES}


def test_the_answer_shown_is_one_the_server_could_give():
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    alerts = msgspec.json.decode(block, type=AlertList).alerts
    by_name = {one.name: one for one in ALERT_RULES}
    assert [alert.active for alert in alerts] == [True, False]
    for alert in alerts:
        assert alert.severity == by_name[alert.name].severity
        assert alert.detail == by_name[alert.name].detail.format(subject=alert.subject, value=0.84)


def test_the_scrape_configuration_shown_is_yaml_and_loads_the_rules():
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert yaml.safe_load(block)["rule_files"] == [RULES_FILE.name]


def test_the_dashboard_is_one_that_grafana_can_import():
    assert DASHBOARD["schemaVersion"] >= 38
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert len({panel["title"] for panel in DASHBOARD["panels"]}) == len(ids)
    for panel in PANELS:
        assert {one["datasource"]["uid"] for one in (panel, *panel["targets"])} == {"${datasource}"}
    assert metrics_in(DASHBOARD["templating"]["list"][1]["definition"].replace(", instance", "")) == {"task_count"}


def test_no_two_panels_of_the_dashboard_overlap():
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(place, panel["title"]) == panel["title"]


@needs_promtool
@pytest.mark.parametrize(
    "command", [("check", "rules", RULES_FILE.name), ("test", "rules", "penstock.rules.test.yml")], ids=" ".join
)
def test_prometheus_takes_the_rules_and_they_do_what_they_should(command):
    assert promtool is not None
    done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path):
    assert promtool is not None
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, (_, expression) in enumerate(dashboard_expressions())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
