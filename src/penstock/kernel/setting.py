"""How a setting is declared: its names, its bounds and its meaning, beside its default.

A field made by :func:`setting` knows its environment name, its bounds and one line of
documentation; ``penstock config``, the reference page and the loader
(:mod:`penstock.cli.configuration`) are all driven by that one declaration. YAML names follow
from the record's section and the field's name: the seed's keys, under ``concurrency:``.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Final

KEY: Final = "penstock"

#: In front of every environment name.
PREFIX: Final = "PENSTOCK_"


class Unit(enum.StrEnum):
    """How a value is written by people."""

    COUNT = "count"
    DURATION = "duration"
    SIZE = "size"
    TEXT = "text"
    SECRET = "secret"  # noqa: S105 - the unit's name
    ADDRESS = "address"
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known about one setting besides its default.

    Attributes:
        env: Environment name. With ``PENSTOCK_`` in front where other programs have a variable of the bare name
            (``PENSTOCK_PORT``), without for named parts (``QDRANT_URL``).
        doc: One line for a person.
        unit: How the value is written (``30s``, ``10MB``, …).
        at_least: Smallest value allowed, in the unit's base (seconds, bytes, items).
        at_most: Largest value allowed.
        choices: The words allowed, empty for any.
    """

    env: str
    doc: str
    unit: Unit = Unit.COUNT
    at_least: float = 1
    at_most: float = 1_000_000
    choices: tuple[str, ...] = ()

    @property
    def confidential(self) -> bool:
        """Whether its value is a secret or may hold one."""
        return self.unit in {Unit.SECRET, Unit.ADDRESS}

    @property
    def names(self) -> tuple[str, ...]:
        """Environment names that are read, the one that counts first."""
        return (self.env,) if self.env.startswith(PREFIX) else (PREFIX + self.env, self.env)


def setting(default: object, spec: Spec) -> Any:
    """Return a dataclass field that carries ``spec``; what may hold a secret is no part of the record's ``repr``."""
    return dataclasses.field(default=default, metadata={KEY: spec}, repr=not spec.confidential)


def count(env: str, doc: str, most: float = 1_000_000) -> Spec:
    """Return what is known of a number of at least 1."""
    return Spec(env, doc, Unit.COUNT, 1, most)


def entries(env: str, doc: str) -> Spec:
    """Return what is known of a number of entries, 0 for none."""
    return Spec(env, doc, Unit.COUNT, 0, 100_000_000)


def duration(env: str, doc: str) -> Spec:
    """Return what is known of a duration, in seconds."""
    return Spec(env, doc, Unit.DURATION, 0.001, 86_400)


def size(env: str, doc: str) -> Spec:
    """Return what is known of a size, in bytes."""
    return Spec(env, doc, Unit.SIZE, 1, 2**40)


def switch(env: str, doc: str) -> Spec:
    """Return what is known of something that is on or off."""
    return Spec(env, doc, Unit.FLAG, 0, 1)


def text(env: str, doc: str, *choices: str) -> Spec:
    """Return what is known of a text; ``choices`` are the words allowed, if not all."""
    return Spec(env, doc, Unit.TEXT, 0, 4096, choices)


def secret(env: str, doc: str) -> Spec:
    """Return what is known of a text that nobody is shown."""
    return Spec(env, doc, Unit.SECRET, 0, 4096)


def address(env: str, doc: str) -> Spec:
    """Return what is known of an address, in which people write passwords."""
    return Spec(env, doc, Unit.ADDRESS, 0, 4096)
