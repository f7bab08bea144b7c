"""JSON Schema of the records that the API reads and writes, with the text of their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Final, get_args

import msgspec
from msgspec import UnsetType
from msgspec.inspect import StructType, type_info

from penstock.http import request_bodies

REF: Final = "#/components/schemas/{name}"

Schema = dict[str, Any]

#: One line of a docstring's ``Attributes``; a longer description goes on, further indented.
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*)$")


def component_schemas(request_records: Iterable[type], response_records: Iterable[type]) -> dict[str, Schema]:
    """Return the schema of every record, and of those inside them, by name.

    Args:
        request_records: Records of requests. A field that has a default may be left out.
        response_records: Records of answers. Every field is there, unless its type says that it may be absent.
    """
    requests, responses = list(dict.fromkeys(request_records)), list(dict.fromkeys(response_records))
    _, schemas = msgspec.json.schema_components([*requests, *responses], ref_template=REF)
    answered, records = _nested_records(responses), _nested_records([*requests, *responses])
    rules = {name: _answer_rules(schemas[name], record) for name, record in answered.items()}
    return {
        name: _with_integers(
            schema_with_descriptions(
                schema | request_bodies.SCHEMA_RULES.get(name, {}) | rules.get(name, {}), records.get(name)
            )
        )
        for name, schema in schemas.items()
    }


def schema_ref(kind: type | UnionType) -> Schema:
    """Return the schema that stands for a record, for one of several, or for a list."""
    if isinstance(kind, UnionType):
        return {"anyOf": [schema_ref(one) for one in get_args(kind)]}
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REF)
    return schema


def schema_with_descriptions(schema: Schema, record: type | None) -> Schema:
    """Return a schema with the docstrings' text of each attribute, its bases' too, moved to its property."""
    text = inspect.cleandoc(schema.get("description", "")).replace("``", "`")
    told: dict[str, str] = {}
    for kind in reversed(record.__mro__ if record is not None else ()):
        told |= _attributes(inspect.cleandoc(kind.__doc__ or "").replace("``", "`").partition("Attributes:\n")[2])
    # A property that is a $ref may have a description beside it: JSON Schema 2020-12 allows that.
    properties = {
        name: {**property, "description": told[name]} if name in told else property
        for name, property in schema.get("properties", {}).items()
    }
    described = {**schema, "description": text.partition("Attributes:\n")[0].strip()}
    return {**described, "properties": properties} if properties else described


def _attributes(text: str) -> dict[str, str]:
    """Return each attribute's description, its lines joined."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        begins = _ATTRIBUTE.match(line)
        if begins is not None:
            name, found[begins[1]] = begins[1], begins[2]
        elif found:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _answer_rules(schema: Schema, record: type[msgspec.Struct]) -> Schema:
    """Return what differs in an answer: what is always written is required, and no default says what is assumed."""
    always = [field.encode_name for field in msgspec.structs.fields(record) if not _may_be_absent(field, record)]
    properties = {
        name: {key: value for key, value in property.items() if key != "default"}
        for name, property in schema["properties"].items()
    }
    return {"properties": properties, "required": always}


def _may_be_absent(field: msgspec.structs.FieldInfo, record: type[msgspec.Struct]) -> bool:
    return UnsetType in getattr(field.type, "__args__", ()) or (
        record.__struct_config__.omit_defaults and not field.required
    )


def _with_integers(node: Any) -> Any:
    """Return a schema in which multiples of one are called integers."""
    if isinstance(node, list):
        return [_with_integers(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("multipleOf") == 1:
        node = {key: value for key, value in node.items() if key != "multipleOf"} | {"type": "integer"}
    return {key: _with_integers(value) for key, value in node.items()}


def _nested_records(kinds: Iterable[type]) -> dict[str, type[msgspec.Struct]]:
    """Return the records of these kinds and those inside them, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting: list[Any] = [type_info(kind) for kind in kinds]
    while waiting:
        info = waiting.pop()
        if isinstance(info, StructType):
            if info.cls.__name__ in found:
                continue
            found[info.cls.__name__] = info.cls
            waiting += [field.type for field in info.fields]
        else:
            # A list, a mapping, a union or an annotated type: look at what is inside.
            waiting += [getattr(info, name) for name in ("item_type", "value_type", "type") if hasattr(info, name)]
            waiting += getattr(info, "types", ())
    return found
