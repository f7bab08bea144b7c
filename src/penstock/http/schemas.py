"""JSON Schemas of the API's records: msgspec's own, with descriptions and rules that msgspec cannot know."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

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
    told = _nested_records(responses)
    return {
        name: _with_integers(
            with_descriptions(
                _response_schema(schema, told[name])
                if name in told
                else schema | request_bodies.SCHEMA_RULES.get(name, {})
            )
        )
        for name, schema in schemas.items()
    }


def schema_ref(record: type) -> Schema:
    """Return the schema that stands for a record."""
    return {"$ref": REF.format(name=record.__name__)}


def with_descriptions(schema: Schema) -> Schema:
    """Return a schema with the docstring's text of each attribute moved to its property."""
    text = inspect.cleandoc(schema.get("description", "")).replace("``", "`")
    head, _, attributes = text.partition("Attributes:\n")
    if not attributes:
        return {**schema, "description": text}
    # A property that is a $ref may have a description beside it: JSON Schema 2020-12 allows that.
    told = dict(_attributes(attributes))
    properties = {
        name: {**property, "description": told[name]} if name in told else property
        for name, property in schema.get("properties", {}).items()
    }
    return {**schema, "description": head.strip(), "properties": properties}


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    """Yield each attribute's name and description, its lines joined."""
    name, words = "", [""]
    for line in text.splitlines():
        begins = _ATTRIBUTE.match(line)
        if begins is None:
            words.append(line.strip())
            continue
        if name:
            yield name, " ".join(words).strip()
        name, words = begins.group(1), [begins.group(2)]
    yield name, " ".join(words).strip()


def _response_schema(schema: Schema, record: type[msgspec.Struct]) -> Schema:
    """Return the schema of an answer: what is always written is required, and no default says what is assumed."""
    always = [field.encode_name for field in msgspec.structs.fields(record) if not _may_be_absent(field, record)]
    properties = {name: _without_default(property) for name, property in schema["properties"].items()}
    return {**schema, "properties": properties, "required": always}


def _may_be_absent(field: msgspec.structs.FieldInfo, record: type[msgspec.Struct]) -> bool:
    return UnsetType in getattr(field.type, "__args__", ()) or (
        record.__struct_config__.omit_defaults and not field.required
    )


def _without_default(property: Mapping[str, Any]) -> Schema:
    return {key: value for key, value in property.items() if key != "default"}


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
