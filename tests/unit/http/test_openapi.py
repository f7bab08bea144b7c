import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from penstock.http import openapi, problem, request_bodies, responses
from penstock.http.decoding import decode_json
from penstock.http.operations import ENDPOINTS
from penstock.http.problem import ProblemDetails
from penstock.indexing.document_records import Document
from penstock.kernel.errors import Invalid
from penstock.search.filters import parse_filter
from penstock.search.request import SearchBody, SearchRequest
from tests.fakes.api import Api

DOCUMENT = json.loads(openapi.openapi_document())
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    (method, path, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]
IDS = [f"{method} {path}" for method, path, _ in OPERATIONS]

#: Keywords of JSON Schema 2020-12 that our records need; anything else is a mistake.
KEYWORDS = {
    "$ref", "title", "description", "type", "properties", "required", "additionalProperties", "items", "enum", "anyOf",
    "oneOf", "default", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems",
    "uniqueItems", "minProperties", "maxProperties", "patternProperties", "pattern", "format", "examples",
    "contentMediaType", "contentSchema",
}  # fmt: skip
TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema below a node of the document."""
    if isinstance(node, dict):
        for key, inner in node.items():
            if key == "schema":
                yield from _subschemas(inner)
            elif key not in ("example", "schemas"):
                yield from schemas(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from schemas(inner)


def _subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values()]
    inner += [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    inner += [
        schema[key] for key in ("items", "additionalProperties", "contentSchema") if isinstance(schema.get(key), dict)
    ]
    for one in inner:
        yield from _subschemas(one)


EVERY = [
    *schemas(DOCUMENT["paths"]),
    *schemas(DOCUMENT["components"]),
    *(s for schema in SCHEMAS.values() for s in _subschemas(schema)),
]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        _, _, kind, name = schema["$ref"].split("/")
        schema = DOCUMENT["components"][kind][name]
    return schema


def test_the_document_says_what_it_is():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert set(DOCUMENT) == {"openapi", "info", "tags", "paths", "components"}
    assert DOCUMENT["info"]["title"] == "Penstock"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", DOCUMENT["info"]["version"])


def test_every_route_is_there_and_no_other():
    served = {
        (method.lower(), route.path.replace(":path", ""))
        for route in Api().routes._routes
        for method in route.methods - {"HEAD"}
    }
    # MCP describes itself, by `server/discover` and `tools/list`. The page's views and files are no operations.
    beside = {("post", "/mcp"), ("get", "/flow"), ("get", "/admin"), ("get", "/assets/{file}")}
    assert {(method, path) for method, path, _ in OPERATIONS} == served - beside


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_an_operation_is_complete(method, path, operation):
    assert method in {"get", "put", "post", "delete"}
    assert operation["summary"][0].isupper()
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
    assert named == re.findall(r"{(\w+)}", path)
    for parameter in operation.get("parameters", []):
        assert parameter["in"] in {"path", "query", "header"}
        assert parameter["description"]
        assert parameter["schema"]
        # The one that must be given names a document.
        assert parameter.get("required", False) is (parameter["in"] == "path" or parameter["name"] == "id")
    assert ("requestBody" in operation) <= (method != "get")


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_an_operation_tells_each_status_by_itself(method, path, operation):
    assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
    # Some vendors have no 422.
    missing = {str(status) for status in problem.TITLES} - set(operation["responses"])
    assert missing <= {"404", "409", "507"} | ({"422"} if operation["tags"] == ["compatible"] else set())
    for status, said in operation["responses"].items():
        response = resolved(said)
        assert response["description"]
        assert "X-Request-Id" in response["headers"]
        assert all(resolved(header)["schema"] for header in response["headers"].values())
        assert all(media["schema"] for media in response.get("content", {}).values())
        if int(status) >= 400 and said.keys() == {"$ref"}:
            assert ("Retry-After" in response["headers"]) is (status in ("429", "503"))
            assert ("Allow" in response["headers"]) is (status == "405")
            assert ("X-Should-Retry" in response["headers"]) is ("application/json" in response["content"])


def test_operation_ids_are_distinct_words():
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"\w+", one) for one in ids)


def test_every_reference_leads_to_a_schema_and_every_schema_is_used():
    named = {s["$ref"] for s in EVERY if "$ref" in s}
    assert named == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_schemas_use_only_known_words():
    for schema in EVERY:
        assert set(schema) <= KEYWORDS, schema
        said = schema.get("type", [])
        assert TYPES.issuperset([said] if isinstance(said, str) else said)
        assert set(schema.get("required", ())) <= set(schema.get("properties", ()))


def test_records_and_their_fields_are_described():
    for name, schema in SCHEMAS.items():
        assert schema["description"], name
        assert "Attributes:" not in schema["description"]
        assert "`" * 2 not in json.dumps(schema)
    for record in (
        SearchBody,
        Document,
        request_bodies.DocumentsBody,
        request_bodies.DeleteBody,
        ProblemDetails,
    ):
        for field, schema in SCHEMAS[record.__name__]["properties"].items():
            assert schema.get("description"), f"{record.__name__}.{field}"
    assert SCHEMAS["SearchHit"]["properties"]["path"]["description"] == "Path shown to people, may be empty."


def test_what_may_be_absent_is_not_required_and_not_null():
    hit = SCHEMAS["SearchHit"]
    assert "explain" not in hit["required"]
    assert hit["properties"]["explain"]["additionalProperties"] == {"$ref": "#/components/schemas/StageRank"}
    outcome = SCHEMAS["DocumentOutcome"]
    assert set(outcome["required"]) == {"status", "chunks"}
    assert resolved(outcome["properties"]["error"])["title"] == "ProblemDetails"


def test_an_answer_requires_all_that_is_always_written_and_tells_no_default():
    status = SCHEMAS["ServerStatus"]
    assert status["required"] == list(responses.ServerStatus.__struct_fields__)
    assert not any("default" in field for field in status["properties"].values())
    assert "damaged" in SCHEMAS["CollectionInfo"]["properties"]["state"]["enum"]


def test_a_filter_that_the_schema_takes_is_one():
    grammar = resolved(SCHEMAS["SearchBody"])["properties"]["filter"]["anyOf"][0]
    assert grammar["additionalProperties"] is False
    assert set(grammar["properties"]) == {"id", "path", "language", "path_prefix", "source"}
    (key,) = grammar["patternProperties"]
    assert re.search(key, "metadata.a\nb")
    assert not re.search(key, "metadata.")


QUERY = SCHEMAS["SearchBody"]["properties"]["query"]["anyOf"][0]


@pytest.mark.parametrize("query", ["x", "ж", "_", "\u200b", " \tx\n"])
def test_a_query_with_a_visible_character_is_one(query):
    assert re.search(QUERY["pattern"], query)
    SearchRequest("c", query=query).check()


@pytest.mark.parametrize("query", ["", " ", "\t\n", "\x1c\x85\ufeff\u2003"])
def test_a_query_without_one_is_empty(query):
    assert not re.search(QUERY["pattern"], query)
    with pytest.raises(Invalid, match="empty"):
        SearchRequest("c", query=query).check()


def test_a_problem_always_says_whether_to_try_again():
    assert {"code", "request_id", "retryable", "status", "detail"} <= set(SCHEMAS["ProblemDetails"]["required"])


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.body], ids=lambda e: f"{e.method} {e.path}")
def test_every_body_has_an_example_that_decodes(endpoint):
    content = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]["requestBody"]["content"]
    example = json.dumps(content["application/json"]["example"]).encode()
    assert isinstance(decode_json(example, endpoint.bodies[0]), endpoint.body)
    if endpoint.ndjson:
        lines = content["application/x-ndjson"]["example"].encode().splitlines()
        assert all(isinstance(decode_json(line, Document), msgspec.Struct) for line in lines)


def test_the_example_of_a_filter_is_one():
    example = DOCUMENT["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert parse_filter(example["filter"])


def test_bounds_are_told():
    search = SCHEMAS["SearchBody"]["properties"]
    limit, null = search["limit"]["anyOf"]
    assert (limit["minimum"], limit["maximum"], null, search["limit"]["default"]) == (1, 1000, {"type": "null"}, 10)
    assert search["filter"]["anyOf"][0]["maxProperties"] == 64
    listed = DOCUMENT["paths"]["/v1/collections/{name}/documents"]["get"]["parameters"]
    assert next(p for p in listed if p["name"] == "limit")["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000,
        "default": 1000,
    }
