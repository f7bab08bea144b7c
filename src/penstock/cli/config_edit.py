"""Edits of other programs' configuration files: one entry put in or taken out, all else left as it is. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from penstock.kernel.errors import Invalid

Json = dict[str, Any]

_INDENT: Final = re.compile(r"^([ \t]+)\S", re.MULTILINE)
#: What JSON with comments has and JSON does not.
_COMMENT: Final = re.compile(r"^[ \t]*+(?://|/\*)|,[ \t\r\n]*+[}\]]", re.MULTILINE)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def edit_json(text: str, container: str, name: str, entry: Json | None, beside: Mapping[str, Any] | None = None) -> str:
    """Return a JSON file with an entry put in, or taken out.

    Args:
        text: The file; empty for a new one.
        container: The object that holds entries by their names.
        name: Name of the entry.
        entry: The entry; ``None`` to take it out.
        beside: Members of the file's object to put in beside; a list is extended by what is not in it.

    Raises:
        Invalid: The file is no JSON object, or has comments, which would be lost (``config_unusable``).
    """
    whole = _parsed_json(text)
    before = deepcopy(whole)
    entries = whole.get(container, {})
    if not isinstance(entries, dict):
        raise _unusable(f"`{container}` is no object")
    if entry is None:
        entries.pop(name, None)
        if container in whole and not entries:
            del whole[container]
    else:
        whole[container] = {**entries, name: entry}
        _merge(whole, beside or {})
    if whole == before:
        return text
    if not whole:
        return ""
    indent = found[1] if (found := _INDENT.search(text)) else 2
    return json.dumps(whole, indent=indent, ensure_ascii=False) + "\n"


def _merge(whole: Json, beside: Mapping[str, Any]) -> None:
    for key, value in beside.items():
        there = whole.get(key, [])
        if not isinstance(there, list):
            raise _unusable(f"`{key}` is no list")
        whole[key] = [*there, *(one for one in value if one not in there)]


def _parsed_json(text: str) -> Json:
    if not text.strip():
        return {}
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _COMMENT.search(text):
            raise _unusable("it has comments or trailing commas, which would be lost") from None
        raise _unusable(f"it is not JSON ({error})") from None
    if not isinstance(whole, dict):
        raise _unusable("it holds no object")
    return whole


def edit_toml(text: str, container: str, name: str, entry: Json | None) -> str:
    """Return a TOML file with a table put in, or taken out; the lines of all other tables stay as they are.

    Args:
        text: The file; empty for a new one.
        container: The table that holds tables by their names.
        name: Name of the table.
        entry: The table, of strings, booleans and lists of strings; ``None`` to take it out.

    Raises:
        Invalid: The file is not TOML, or has the table in another form (``config_unusable``).
    """
    before = _parsed_toml(text)
    if before.get(container, {}).get(name) == entry:
        return text
    kept = _without_table(text, f"{container}.{name}")
    block = "" if entry is None else _toml_table(f"{container}.{name}", entry)
    # With a blank line between, and none at the beginning.
    after = "\n\n".join(part for part in (kept.rstrip("\n"), block.rstrip("\n")) if part) + "\n"
    wanted = deepcopy(before)
    if entry is None:
        wanted[container].pop(name)
        if not wanted[container]:
            del wanted[container]
    else:
        wanted.setdefault(container, {})[name] = entry
    try:
        got = tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        got = {}
    if not got.get(container, True):
        del got[container]
    if got != wanted:
        raise _unusable(f"it has `{container}.{name}` in a form that cannot be replaced safely")
    return after if after.strip() else ""


def _parsed_toml(text: str) -> Json:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _unusable(f"it is not TOML ({error})") from None


def _without_table(text: str, table: str) -> str:
    """Return the lines that do not belong to a table or to tables in it.

    Comments behind its last value are taken for those of the table that follows.
    """
    kept, ours, comments = list[str](), False, list[str]()
    for line in text.splitlines(keepends=True):
        head, ends, _ = line.strip().partition("]")
        if head.startswith("[") and ends:
            path = ".".join(part.strip(" \t\"'") for part in head.lstrip("[").split("."))
            ours = path == table or path.startswith(f"{table}.")
        if not ours:
            kept += [*comments, line]
            comments = []
        elif not line.strip() or line.lstrip().startswith("#"):
            comments.append(line)
        else:
            comments = []
    return "".join([*kept, *comments])


def _toml_table(table: str, entry: Json) -> str:
    lines = [f"[{table}]"]
    for key, value in entry.items():
        if not _BARE_KEY.fullmatch(key):
            raise ValueError(f"{key!r} needs quotes")
        # Strings, booleans and lists of strings are written as in JSON, but for what TOML has no escape for.
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False).replace(chr(0x7F), chr(92) + 'u007F')}")
    return "\n".join(lines) + "\n"


def _unusable(reason: str) -> Invalid:
    return Invalid(reason, code="config_unusable")
