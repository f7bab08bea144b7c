"""The API is as it describes itself: schemathesis sends what ``/openapi.json`` allows and what it forbids."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.http import openapi
from tests.e2e.conftest import environment, penstock_json

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "schema" / "schemathesis.toml"

#: Requests generated for each operation and phase; ``make schema`` takes more.
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "15")

PHASES = ("examples", "coverage", "fuzzing", "stateful")
#: Every operation but that which tells them.
OPERATIONS = {
    f"{method.upper()} {path}"
    for path, item in json.loads(openapi.openapi_document())["paths"].items()
    for method in item
    if path != "/openapi.json"
}

#: The usual number takes a minute on two idle cores, two where six times as much is going on.
RUN_S = 400 if EXAMPLES == "15" else 3600


@pytest.mark.timeout(RUN_S + 60)
def test_the_api_is_as_it_describes_itself(serve, data_dir, tmp_path):
    (tmp_path / "penstock.yaml").write_text("concurrency:\n  http:\n    rate_limit: 0\n")
    # A server without keys would be closed by the first that is made.
    admin = str(penstock_json("keys", "create", "admin", "--scope", "admin", "--data-dir", data_dir)["secret"])
    server = serve("--config", str(tmp_path / "penstock.yaml"))
    with server.client() as client:
        client.headers["authorization"] = f"Bearer {admin}"
        made = [client.post("/v1/keys", json={"name": f"k{n}"}).json()["key"]["id"] for n in range(2)]
        assert client.put("/v1/collections/default").status_code == 200
        documents = [{"id": "a", "path": "src/a.py", "text": "def decode(): ...", "metadata": {"year": 2024}}]
        assert client.post("/v1/collections/default/documents", json={"documents": documents}).status_code == 200
        task = client.post("/v1/collections/default/documents?wait=false", json={"documents": documents}).json()["id"]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", CONFIG, "run"),
            *(
                "--checks",
                "all",
                "--max-examples",
                EXAMPLES,
                "--report-json-path",
                report,
                "--header",
                f"Authorization: Bearer {admin}",
                f"{server.url}/openapi.json",
            ),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "TASK": task, "KEYS": " ".join(made)},
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
    _all_was_tried(json.loads(report.read_text()))


def _all_was_tried(report):
    """A run that tried less than everything, or saw little but refusals, has shown nothing."""
    assert report["complete"]
    assert set(report["valid_rates"]) == OPERATIONS
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(PHASES, "success")
    for operation, phases in report["valid_rates"].items():
        accepted = sum(phase["accepted"] for phase in phases.values())
        assert accepted, f"nothing was ever answered by {operation}"
