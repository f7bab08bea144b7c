"""Without optional dependencies a one-machine server works; a setting that needs one says what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
from dataclasses import replace
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"aiokafka", "redis", "qdrant_client", "huggingface_hub", "mcp", "mcp_types"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

from penstock.app.external_backends import build_broker, build_shared, build_store_service
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

settings = Settings()
"""


def said(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_every_command_and_the_server_of_one_machine_do_without_the_extras(tmp_path: Path) -> None:
    code = f"""
import pkgutil, importlib, penstock.cli, penstock.core, penstock.http
for package in (penstock.cli, penstock.core, penstock.http):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{{package.__name__}}.{{module.name}}")
from penstock.app import app
store = build_store_service(settings, Path({str(tmp_path)!r}), None)
print(type(store).__name__, build_broker(settings), build_shared(settings))
"""
    assert said(code) == "EdgeProcessGroup None None"


@pytest.mark.parametrize(
    ("make", "setting", "extra"),
    [
        ("build_broker(replace(settings, bus=replace(settings.bus, backend='kafka')))", "bus.backend", "kafka"),
        ("build_broker(replace(settings, bus=replace(settings.bus, backend='redis')))", "bus.backend", "redis"),
        ("build_store_service(settings, Path('.'), None, 'qdrant')", "store.backend", "qdrant"),
        ("build_shared(replace(settings, redis=replace(settings.redis, cache=True)))", "redis.url", "redis"),
    ],
)
def test_a_setting_that_needs_an_absent_extra_says_what_to_install(make: str, setting: str, extra: str) -> None:
    code = f"""
try:
    {make}
except Invalid as error:
    print(error.field, error.detail)
"""
    told = said(code)
    assert told.startswith(f"{setting} ")
    assert told.endswith(f"pip install 'penstock[{extra}]'")
