"""Every setting there is, read off the settings records: one table for the loader, ``config`` and the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

from penstock.cli.values import Value
from penstock.kernel.settings import KEY, TOP_LEVEL, Settings, Spec

#: The seed's key over all sections that are not in ``TOP_LEVEL``.
CONCURRENCY: Final = "concurrency"

#: Flags that set a setting, by the setting's YAML name; with the command in front where another means something else.
FLAGS: Final = {
    "--host": "server.host",
    "--port": "server.port",
    "--log-level": "server.log_level",
    "--data-dir": "store.data_dir",
    "worker --host": "worker.host",
    "worker --port": "worker.port",
}


@dataclass(frozen=True, slots=True)
class Known:
    """One setting.

    Attributes:
        section: Field of :class:`Settings`.
        name: Field of the section's record.
        spec: Environment name, unit, bounds, one line of documentation.
        default: The value when nobody sets it.
    """

    section: str
    name: str
    spec: Spec
    default: Value

    @property
    def yaml(self) -> str:
        """The dotted YAML name, e.g. ``concurrency.ml.embed_workers``."""
        return f"{yaml_section(self.section)}.{self.name}"


def yaml_section(section: str) -> str:
    """Return the dotted YAML name of a section."""
    return TOP_LEVEL.get(section, f"{CONCURRENCY}.{section}")


@cache
def known() -> tuple[Known, ...]:
    """Return every setting in the records' order."""
    defaults = Settings()
    return tuple(
        Known(section.name, field.name, field.metadata[KEY], cast("Value", field.default))
        for section in dataclasses.fields(Settings)
        for field in dataclasses.fields(getattr(defaults, section.name))
    )


def settings_from(values: Mapping[str, Value]) -> Settings:
    """Return the records with these values, by YAML name, in the place of defaults."""
    defaults = Settings()
    sections: dict[str, dict[str, Any]] = {}
    for one in known():
        if one.yaml in values:
            sections.setdefault(one.section, {})[one.name] = values[one.yaml]
    changed = {name: dataclasses.replace(getattr(defaults, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(defaults, **changed)


def names(*beginnings: str) -> frozenset[str]:
    """Return the YAML names of the settings that begin with one of these."""
    return frozenset(one.yaml for one in known() if one.yaml.startswith(beginnings))
