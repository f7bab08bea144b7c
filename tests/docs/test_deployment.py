"""What ``deploy/`` and ``docs/deployment.md`` set is what the program knows: its settings, its commands, its flags."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from penstock.app.role import Role
from penstock.cli.main import penstock
from penstock.cli.options import parse_pools
from penstock.cli.settings_loader import load_settings
from penstock.cli.settings_schema import setting_entries
from penstock.kernel.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deployment.md").read_text()
HOSTS = sorted((DEPLOY / "three-hosts").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "penstock"}
VARIABLES = {name for one in setting_entries() for name in one.spec.env_names}
#: Names in an environment that are no settings: what the unit adds to its command.
OPTIONS = "PENSTOCK_OPTIONS"


def variables(text: str) -> dict[str, str]:
    """Return what a file of variables sets, what is commented out included."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))


def settings_of(file: Path | None, *environments: str) -> Settings:
    environ = {name: value for text in environments for name, value in variables(text).items()}
    assert set(environ) <= VARIABLES | {OPTIONS}
    return load_settings(file, environ, {}).settings


def check_command(arguments: list[str]) -> None:
    """Fail unless the command line takes these arguments."""
    command = penstock
    with click.Context(penstock) as context:
        while isinstance(command, click.Group):
            name, *arguments = arguments
            found = command.get_command(context, name)
            assert found is not None, f"there is no command {name}"
            command = found
        command.make_context(command.name, list(arguments), parent=context, resilient_parsing=True)
        flags = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    unknown = [one for one in arguments if one.startswith("-") and one.partition("=")[0] not in flags]
    assert unknown == [], f"penstock {command.name} does not take {unknown}"


SECRETS = (DEPLOY / "three-hosts" / "secrets.env").read_text()


@pytest.mark.parametrize("file", HOSTS, ids=lambda one: one.stem)
def test_each_host_s_settings_are_known_and_fit_its_role(file: Path):
    settings = settings_of(file, SECRETS)
    api = file.stem == "api"
    Role(serves_api=api, pools=frozenset() if api else parse_pools("all")).check(settings)
    assert settings.redis.url == variables(SECRETS)["REDIS_URL"]
    assert settings.qdrant.url == "http://api.internal:6333"


def test_all_hosts_meet_under_one_prefix():
    assert {settings_of(file).bus.prefix for file in HOSTS} == {"penstock"}


def test_the_variables_for_kafka_are_settings_and_win_over_the_file():
    settings = settings_of(HOSTS[0], (DEPLOY / "three-hosts" / "kafka.env").read_text())
    assert (settings.bus.backend, settings.kafka.tls, settings.kafka.sasl) == ("kafka", True, "SCRAM-SHA-512")


def test_redis_lets_the_example_s_user_in_and_forgets_nothing():
    text = (DEPLOY / "three-hosts" / "redis.conf").read_text()
    assert "maxmemory-policy noeviction" in text
    user, password = re.match(r"redis://(.*):(.*)@", settings_of(None, SECRETS).redis.url).groups()  # type: ignore[union-attr]
    assert f"user {user} on >{password} ~penstock:*" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda one: one.name)
def test_a_unit_runs_a_command_that_there_is_and_gives_the_drain_its_time(unit: Path):
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *arguments = shlex.split(line.replace("%I", "all").replace(f"${OPTIONS}", "--role api"))
    assert program.endswith("/penstock")
    check_command(arguments)
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert int(stop_s) >= Settings().http.drain_timeout + 10
    assert "KillMode=mixed" in text, "else the store is told to end while requests run"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda one: one.name)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path):
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/penstock/.venv/bin/penstock", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def substituted(value: Any) -> Any:
    """Return a value of the compose file with its variables filled in."""
    return re.sub(r"\$\{(\w+):\?\}", "secret", value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_has_settings_and_a_command_that_there_are(name: str):
    service = OURS[name]
    environ = {key: substituted(value) for key, value in service["environment"].items()}
    assert set(environ) <= VARIABLES
    settings = load_settings(None, environ, {}).settings
    check_command(service["command"])
    api = service["command"][0] == "serve"
    Role(serves_api=api, pools=frozenset() if api else parse_pools("all")).check(settings)
    assert int(service["stop_grace_period"].removesuffix("s")) >= settings.http.drain_timeout + 10


def test_the_compose_file_s_names_all_lead_somewhere():
    for service in SERVICES.values():
        assert set(service.get("depends_on", [])) <= set(SERVICES)
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(COMPOSE["volumes"])
    build = OURS["api"]["build"]
    context = (DEPLOY / "compose" / build["context"]).resolve()
    assert context == ROOT
    recipe = (context / build["dockerfile"]).read_text()
    copied = [part for line in re.findall(r"^COPY (?!--from=)(.*) \S+$", recipe, re.MULTILINE) for part in line.split()]
    assert all((ROOT / part).exists() for part in copied)
    wanted = set(re.findall(r"\$\{(\w+):\?\}", (DEPLOY / "compose" / "compose.yaml").read_text()))
    assert set(variables((DEPLOY / "compose" / "env.example").read_text())) == wanted


def lines_of_page() -> Iterator[str]:
    """Yield each line of shell on the page, continued ones as one."""
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        yield from (line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())


def test_the_page_s_commands_and_flags_exist():
    found = [line for line in lines_of_page() if re.search(r"(?:^|[ /])penstock (?!-)", line.split("#")[0])]
    commands = [re.split(r"(?:^|[ /])penstock (?=[a-z])", line.split("#")[0].split("|")[0])[-1] for line in found]
    checked = [one for one in commands if one.split()[0] in penstock.list_commands(click.Context(penstock))]
    assert len(checked) >= 5
    for one in checked:
        check_command(shlex.split(one))


def test_the_page_s_settings_exist():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    names = {one.yaml_name for one in setting_entries()}
    for block in blocks:
        assert set(_leaves(yaml.safe_load(block), "")) <= names
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", PAGE))
    assert named <= VARIABLES | {OPTIONS}, named - VARIABLES
    assert len(named) > 10


def _leaves(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield prefix
        return
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else key)


def test_every_file_of_the_examples_is_on_the_page():
    files = [
        one for one in DEPLOY.rglob("*") if one.is_file() and one.parent.name in {"systemd", "compose", "three-hosts"}
    ]
    for file in files:
        assert file.name in PAGE, f"{file.name} is not on the page"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "serve --data-dir"),
        (["HOST=::1", "PORT=81"], "serve --host '::1' --port '81' --data-dir"),
        (["HOST=::", "INSECURE=1"], "serve --host '::' --insecure --data-dir"),
    ],
)
def test_make_serve_passes_flags_that_were_given_and_nothing_of_the_environment(arguments, wanted):
    command = ["make", "--no-print-directory", "-n", "serve", *arguments]
    environ = {"PATH": os.environ["PATH"], "HOST": "x86_64-conda-linux-gnu", "PORT": "tcp://10.0.0.1:80"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert wanted in " ".join(done.stdout.replace("\\\n", " ").split())
