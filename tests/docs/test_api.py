"""``docs/api.md`` names every route, every error code with its status, and its examples work."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.http import request_bodies
from penstock.http.gate import EXEMPT_PATHS, GateInputs
from penstock.http.operations import ENDPOINTS
from penstock.http.problem import _STATUS_BY_CODE, problem_of
from penstock.indexing.document_records import Document
from penstock.kernel import errors
from penstock.kernel.access import ActiveKeys, ApiKey, KeyRing, make_key
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.records import TIMEOUT_MS_MAX
from penstock.search.request import LIMIT_MAX, SearchBody
from penstock.stores.backends.edge import engine
from tests.clock import virtual
from tests.fakes.api import Api

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "penstock"
TEXT = (ROOT / "docs" / "api.md").read_text()

#: What a request passes on its way; errors of the other rooms end a command or a start.
ON_THE_WAY = (
    "http",
    "search",
    "tasks",
    "bus",
    "pools",
    "stores/backends",
    "stores/contract.py",
    "stores/key_store.py",
    "stores/server_keys.py",
    "stores/sources.py",
    "indexing/index_pipeline.py",
    "indexing/model_inputs.py",
    "kernel",
)

SAMPLES: dict[str, PenstockError] = {
    "Rejected": Rejected("x"),
    "Expired": Expired("x"),
    "Unavailable": Unavailable("x", dependency="y"),
    "Invalid": Invalid("x"),
    "Broken": Broken("x"),
    "EnginePanicked": Broken("x"),
    "CircuitOpen": Unavailable("x", dependency="y"),
    # The client's own doing has a status of its own.
    "Rejected by client": Rejected("x", by_client=True),
    "NumberOutOfRange": Invalid("x"),
    "MethodNotAllowed": Invalid("x"),
    "CollectionDamaged": Unavailable("x", dependency="y"),
    "DirectoryGone": Unavailable("x", dependency="y"),
}


def sources() -> Iterator[ast.Module]:
    for room in ON_THE_WAY:
        where = SOURCE / room
        for path in [where] if where.is_file() else sorted(where.rglob("*.py")):
            yield ast.parse(path.read_text())


def raised() -> set[tuple[str, str]]:
    """Return every family and code that the source gives an error."""
    found = {(name, SAMPLES[name].code) for name in ("Rejected", "Expired", "Unavailable", "Invalid", "Broken")}
    for module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAMPLES:
                by_client = " by client" * any(k.arg == "by_client" for k in node.keywords)
                codes = [k.value for k in node.keywords if k.arg == "code"]
                found |= {(node.func.id + by_client, code.value) for code in codes if isinstance(code, ast.Constant)}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_refuse":
                by_client = " by client" * any(k.arg == "by_client" for k in node.keywords)
                found |= {
                    (f"Rejected{by_client}", code.value) for code in node.args[:1] if isinstance(code, ast.Constant)
                }
            if isinstance(node, ast.ClassDef) and node.name in SAMPLES and not hasattr(errors, node.name):
                found |= {(node.name, value) for value in _class_codes(node)}
    return found


def _class_codes(node: ast.ClassDef) -> Iterator[str]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and line.targets[0].id == "code":
            assert isinstance(line.value, ast.Constant)
            yield str(line.value.value)


def pairs() -> set[tuple[int, str]]:
    """Return every code with the status that it is answered with."""
    found = {(status, code) for code, status in _STATUS_BY_CODE.items()}
    for family, code in raised():
        error = SAMPLES[family]
        error.code = code
        found.add((problem_of(error, "").status, code))
    for _, code, _ in engine._ERRORS:
        found.add((problem_of(Unavailable("x", dependency="store", code=code), "").status, code))
    return found


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_every_route_is_documented(endpoint):
    assert f"`{endpoint.method} {endpoint.path}`" in TEXT


@pytest.mark.parametrize("path", sorted(EXEMPT_PATHS | {"/openapi.json", "/docs"}))
def test_every_plain_route_is_documented(path):
    assert f"`GET {path}`" in TEXT


def test_every_error_code_is_documented_with_its_status_and_no_other():
    rows = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", TEXT, re.MULTILINE)}
    assert rows == pairs()


@pytest.mark.parametrize(
    "record",
    [
        SearchBody,
        Document,
        request_bodies.DocumentsBody,
        request_bodies.DeleteBody,
        request_bodies.TextsBody,
        request_bodies.RerankBody,
        request_bodies.RestoreBody,
        request_bodies.SourceBody,
        request_bodies.KeyBody,
        request_bodies.RotateBody,
    ],
)
def test_every_field_of_a_body_is_documented(record):
    for field in record.__struct_fields__:
        assert f"`{field}`" in TEXT, f"{record.__name__}.{field}"


def test_the_bounds_are_those_of_the_code():
    for bound in (
        LIMIT_MAX,
        request_bodies.TEXTS_MAX,
        request_bodies.METADATA_DEPTH_MAX,
        TIMEOUT_MS_MAX,
    ):
        assert f"{bound:,}".replace(",", " ") in TEXT
    assert f"{request_bodies.METADATA_BYTES_MAX >> 10} KiB" in TEXT


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [command for block in blocks for command in re.split(r"^(?=curl )", block, flags=re.MULTILINE) if command]


@virtual
async def test_the_curl_examples_do_what_they_say_one_after_the_other():
    admin = make_key(ApiKey("", "admin", "", "admin"), 0)
    api, done, task, key = Api(senses=GateInputs(keys=ActiveKeys(KeyRing([admin.key])))), [], "", ""
    # Keys are not made by those who have none, once there is a first.
    await api.core.deps.keys.create(admin)
    api.tasks.start()
    for command in commands():
        method, path, headers, body = _read(command)
        headers["x-api-key"] = admin.text
        answer = await api.ask(method, path.replace("$task", task).replace("$key", key), body, headers)
        assert answer.status in (200, 202, 207), f"{command}\n{answer.body.decode()}"
        key = answer.json["key"]["id"] if (method, path) == ("POST", "/v1/keys") else key
        task = answer.json["id"] if answer.status == 202 else task
        done.append((method, path.partition("?")[0]))
    named = {"name": "notes", "id": "decoder", "model": "penstock", "task": "$task", "key": "$key"}
    table = {(e.method, e.path.format(**named)) for e in ENDPOINTS}
    assert table <= set(done), f"no example of {table - set(done)}"


def _read(command: str) -> tuple[str, str, dict[str, str], str | None]:
    """Understand the few options of curl that the page uses."""
    command = command.replace("\\\n", " ")
    method = re.search(r"-X (\w+)", command)
    body = re.search(r"(?:-d|--data-binary) \$?'(.*?)'(?:\s|$)", command, re.DOTALL)
    headers = dict(re.findall(r"-H '([\w-]+): ([^']*)'", command))
    path = re.search(r"localhost:8080(/[^\s']*)", command)
    assert path is not None, command
    sent = body.group(1).replace("\\n", "\n") if body and "$'" in command else body and body.group(1)
    # Without a type, curl says that -d is a form.
    if body:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    return method.group(1) if method else "POST" if body else "GET", path.group(1), headers, sent or None


def test_every_json_on_the_page_is_json():
    blocks = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        json.loads(block)
