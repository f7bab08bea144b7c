"""Settings file in YAML: its values, and every fault in it with its line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from penstock.cli.setting_values import SettingValue, parse_yaml
from penstock.cli.settings_schema import CONCURRENCY, SettingEntry, setting_entries

FILE_BYTES_MAX: Final = 1_000_000


@dataclass(slots=True)
class FileSettings:
    """Contents of a settings file: usable values and faults.

    Attributes:
        name: The file as the person named it.
        values: Usable values by YAML name.
        faults: One line each, with its place.
    """

    name: str
    values: dict[str, SettingValue] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add_fault(self, key: str, node: yaml.Node | None, reason: str) -> None:
        """Note a fault at a key."""
        line = f" (line {node.start_mark.line + 1})" if node is not None else ""
        self.faults.append(f"{self.name}: {key}{line}: {reason}" if key else f"{self.name}{line}: {reason}")


def read_settings_file(file: Path) -> FileSettings:
    """Read a YAML file of settings.

    The syntax tree is walked along the known names, so aliases and unknown parts are never expanded.

    Returns:
        Values and faults; it never raises for what the file holds or for its absence.
    """
    found = FileSettings(str(file))
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            found.add_fault("", None, f"is larger than {FILE_BYTES_MAX} bytes, which no settings file is")
            return found
        root = yaml.compose(file.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        found.add_fault("", None, f"cannot be read: {error.strerror or error}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        found.faults.append(f"{found.name}{at}: {error.problem or error.context}")
    except (yaml.YAMLError, RecursionError) as error:
        found.add_fault("", None, f"is not YAML: {' '.join(str(error).split()) or 'nested too deep'}")
    else:
        if root is not None and not _is_null(root):
            _mapping(root, "", found)
    return found


def _mapping(node: yaml.Node, prefix: str, found: FileSettings) -> None:
    """Walk one mapping whose dotted name is ``prefix`` (empty for the whole file)."""
    if not isinstance(node, yaml.MappingNode):
        found.add_fault(prefix, node, "must hold sections and settings (name: value)")
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        line = key.start_mark.line + 1
        dotted = f"{prefix}.{name}" if prefix else name
        if name in seen:
            found.add_fault(dotted, key, f"is written twice, first in line {seen[name]}")
            continue
        seen[name] = line
        _entry(dotted, key, value, found)


def _entry(dotted: str, key: yaml.Node, value: yaml.Node, found: FileSettings) -> None:
    one = next((one for one in setting_entries() if one.yaml_name == dotted), None)
    if one is not None:
        _leaf(one, key, value, found)
    elif dotted not in _sections():
        found.add_fault(dotted, key, f"is no known setting{_suggestion(dotted)}")
    # A section with nothing but comments in it is empty, not wrong.
    elif not _is_null(value):
        _mapping(value, dotted, found)


def _leaf(one: SettingEntry, key: yaml.Node, value: yaml.Node, found: FileSettings) -> None:
    if not isinstance(value, yaml.ScalarNode):
        found.add_fault(one.yaml_name, key, "must be one value, not a list or a mapping")
        return
    try:
        # Without a document: the loader serves as the resolver of this one scalar.
        plain = yaml.SafeLoader("").construct_object(value)
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:
        # Its own words repeat what it could make nothing of.
        said = "" if one.spec.confidential else f": {getattr(error, 'problem', None) or error}"
        found.add_fault(one.yaml_name, key, f"cannot be read{said}")
        return
    try:
        found.values[one.yaml_name] = parse_yaml(plain, one.spec)
    except (ValueError, TypeError, LookupError) as error:
        found.add_fault(one.yaml_name, key, str(error))


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _sections() -> frozenset[str]:
    parts = (one.yaml_name.split(".") for one in setting_entries())
    return frozenset({CONCURRENCY, *(".".join(names[:n]) for names in parts for n in range(1, len(names)))})


def _suggestion(dotted: str) -> str:
    """Return ``; did you mean …?`` for an unknown name, empty where nothing is like it."""
    names = sorted({one.yaml_name for one in setting_entries()} | _sections())
    parent, _, last = dotted.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == parent}
    near = (
        # The right word in the wrong place is the likelier mistake than a misspelt one.
        [name for name in names if name.rpartition(".")[2] == last]
        or [siblings[word] for word in difflib.get_close_matches(last, siblings, n=1)]
        or difflib.get_close_matches(dotted, names, n=1, cutoff=0.75)
    )
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""
