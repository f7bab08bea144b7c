"""Table of every setting, read off the settings records, for the loader, ``config`` and the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

from penstock.cli.setting_values import SettingValue
from penstock.kernel.setting_spec import SPEC_KEY, SettingSpec
from penstock.kernel.settings import TOP_LEVEL_SECTIONS, Settings

#: The seed's key over all sections that are not in ``TOP_LEVEL_SECTIONS``.
CONCURRENCY: Final = "concurrency"

#: Flags that set a setting, by the setting's YAML name; with the command in front where another means something else.
FLAGS: Final = {
    "--host": "server.host",
    "--insecure": "server.insecure",
    "--port": "server.port",
    "--log-level": "server.log_level",
    "--data-dir": "store.data_dir",
    "worker --host": "worker.host",
    "worker --port": "worker.port",
}


@dataclass(frozen=True, slots=True)
class SettingEntry:
    """Entry of a setting in the table."""

    section: str
    name: str
    spec: SettingSpec
    default: SettingValue

    @property
    def yaml_name(self) -> str:
        """The dotted YAML name, e.g. ``concurrency.ml.embed_workers``."""
        return f"{yaml_section(self.section)}.{self.name}"


def yaml_section(section: str) -> str:
    """Return the dotted YAML name of a section."""
    return TOP_LEVEL_SECTIONS.get(section, f"{CONCURRENCY}.{section}")


@cache
def setting_entries() -> tuple[SettingEntry, ...]:
    """Return every setting in the records' order."""
    defaults = Settings()
    return tuple(
        SettingEntry(section.name, field.name, field.metadata[SPEC_KEY], cast("SettingValue", field.default))
        for section in dataclasses.fields(Settings)
        for field in dataclasses.fields(getattr(defaults, section.name))
    )


def settings_from(values: Mapping[str, SettingValue]) -> Settings:
    """Return the records with these values, by YAML name, in the place of defaults."""
    defaults = Settings()
    sections: dict[str, dict[str, Any]] = {}
    for one in setting_entries():
        if one.yaml_name in values:
            sections.setdefault(one.section, {})[one.name] = values[one.yaml_name]
    changed = {name: dataclasses.replace(getattr(defaults, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(defaults, **changed)


def setting_names(*beginnings: str) -> frozenset[str]:
    """Return the YAML names of the settings that begin with one of these."""
    return frozenset(one.yaml_name for one in setting_entries() if one.yaml_name.startswith(beginnings))
