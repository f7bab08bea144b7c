"""Declaration of a setting: its names, bounds and meaning, beside its default.

A field made by one of these functions knows its environment name, its bounds and one line of
documentation. ``penstock config``, the reference page and the loader
(:mod:`penstock.cli.settings_loader`) are all driven by that one declaration. YAML names follow
from the record's section and the field's name: the seed's keys, under ``concurrency:``.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Final

SPEC_KEY: Final = "penstock"

#: In front of every environment name.
ENV_PREFIX: Final = "PENSTOCK_"


class SettingUnit(enum.StrEnum):
    """Unit of a setting's value, as people write it."""

    COUNT = "count"
    DURATION = "duration"
    SIZE = "size"
    TEXT = "text"
    SECRET = "secret"  # noqa: S105 - the unit's name
    ADDRESS = "address"
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """Declaration of one setting, without its default.

    Attributes:
        env: Environment name. With ``PENSTOCK_`` in front where other programs have a variable of the bare name
            (``PENSTOCK_PORT``), without for named parts (``QDRANT_URL``).
        doc: One line for a person.
        unit: Unit in which the value is written (``30s``, ``10MB``, …).
        at_least: Smallest value allowed, in the unit's base (seconds, bytes, items).
        at_most: Largest value allowed.
        choices: The words allowed, empty for any.
    """

    env: str
    doc: str
    unit: SettingUnit = SettingUnit.COUNT
    at_least: float = 1
    at_most: float = 1_000_000
    choices: tuple[str, ...] = ()

    @property
    def confidential(self) -> bool:
        """True where the value is a secret or may hold one."""
        return self.unit in {SettingUnit.SECRET, SettingUnit.ADDRESS}

    @property
    def env_names(self) -> tuple[str, ...]:
        """Environment names that are read, the highest precedence first."""
        return (self.env,) if self.env.startswith(ENV_PREFIX) else (ENV_PREFIX + self.env, self.env)


def _setting(default: object, spec: SettingSpec) -> Any:
    """Return a dataclass field that carries ``spec``; what may hold a secret is no part of the record's ``repr``."""
    return dataclasses.field(default=default, metadata={SPEC_KEY: spec}, repr=not spec.confidential)


def count(default: int, env: str, doc: str, *, least: float = 1, most: float = 1_000_000) -> Any:
    """Return the field of a whole number."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.COUNT, least, most))


def number(default: float, env: str, doc: str, *, least: float, most: float) -> Any:
    """Return the field of a number."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.NUMBER, least, most))


def duration(default: float, env: str, doc: str, *, least: float = 0.001, most: float = 86_400) -> Any:
    """Return the field of a duration, in seconds."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.DURATION, least, most))


def size(default: int, env: str, doc: str, *, least: float = 1, most: float = 2**40) -> Any:
    """Return the field of a size, in bytes."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.SIZE, least, most))


def switch(default: bool, env: str, doc: str) -> Any:  # noqa: FBT001 - the setting's value
    """Return the field of something that is on or off."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.FLAG, 0, 1))


def text(default: str, env: str, doc: str, *choices: str) -> Any:
    """Return the field of a text; ``choices`` are the words allowed, if not all."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.TEXT, 0, 4096, choices))


def secret(env: str, doc: str) -> Any:
    """Return the field of a text that is never shown."""
    return _setting("", SettingSpec(env, doc, SettingUnit.SECRET, 0, 4096))


def address(default: str, env: str, doc: str) -> Any:
    """Return the field of an address, in which people write passwords."""
    return _setting(default, SettingSpec(env, doc, SettingUnit.ADDRESS, 0, 4096))
