"""Settings from flags, environment, file and defaults, in this order of precedence (SPEC §9).

All faults of all sources are told in one message, each with where it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.cli import environment
from penstock.cli.kinds import missing
from penstock.cli.schema import FLAGS, known, settings_from
from penstock.cli.settings_file import read_file
from penstock.cli.values import Value, from_text, shown
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Effective settings.

    Attributes:
        settings: The records.
        origins: By YAML name: ``default``, the file's name, ``environment NAME``, or the flag.
        notes: Lines for the person about variables that are not read.
    """

    settings: Settings
    origins: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    value: Value
    origin: str


@dataclass(frozen=True, slots=True)
class _Order:
    """``low`` above ``high`` makes no sense."""

    low: str
    high: str
    reason: str


_ORDERS: Final = (
    *(
        _Order(
            f"concurrency.ml.{pool}_workers", "concurrency.ml.max_inflight", "a pool cannot exceed the budget of all"
        )
        for pool in ("embed", "sparse", "rerank")
    ),
    _Order("concurrency.search.workers", "concurrency.search.queue_size", "the queue must be able to feed its workers"),
    _Order("concurrency.index.workers", "concurrency.index.queue_size", "the queue must be able to feed its workers"),
    _Order("concurrency.search.candidates_reduced", "concurrency.search.candidates", "the ladder would ask for more"),
    _Order("concurrency.http.large_request", "concurrency.http.max_body", "such a body is refused in any case"),
    _Order("concurrency.index.max_file", "concurrency.http.max_body", "such a file would be refused when it is sent"),
)


def load(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str], read: Collection[str] | None = None
) -> Loaded:
    """Read all sources and return the effective settings.

    Args:
        file: YAML file, or ``None`` for none.
        environ: The environment; an empty string counts as unset, names without our prefix may be other programs'.
        flags: Values by flag (``--port``); only the given ones.
        read: YAML names of the settings whose variables are read; ``None`` for all, and then an unknown variable with
            our prefix is a fault too.

    Returns:
        Settings and the origin of each.

    Raises:
        Invalid: Anything at all cannot be used; the message names every fault (``settings_invalid``).
    """
    faults: list[str] = []
    given: dict[str, _Given] = {}
    if file is not None:
        found = read_file(file)
        faults += found.faults
        given |= {name: _Given(value, found.name) for name, value in found.values.items()}
    names = frozenset(one.yaml for one in known()) if read is None else read
    variables = environment.variables(environ, names)
    given |= _texts(((one.setting, f"environment {one.name}", one.text) for one in variables), faults)
    unknown = list(environment.unknown(environ))
    faults += unknown if read is None else ()
    given |= _texts(((FLAGS[flag], flag, text) for flag, text in flags.items()), faults)
    faults += _contradictions(given)
    faults += missing(
        {name: one.value for name, one in given.items()}, {name: one.origin for name, one in given.items()}
    )
    if faults:
        raise Invalid(_message(faults), field="settings", code="settings_invalid")
    origins = {one.yaml: given[one.yaml].origin if one.yaml in given else DEFAULT for one in known()}
    notes = (*environment.links(environ, names), *(unknown if read is not None else ()))
    return Loaded(settings_from({name: one.value for name, one in given.items()}), origins, notes)


def _texts(entries: Iterable[tuple[str, str, str]], faults: list[str]) -> dict[str, _Given]:
    """Read (YAML name, origin, text) entries; what cannot be read becomes a fault."""
    specs = {one.yaml: one.spec for one in known()}
    given: dict[str, _Given] = {}
    for name, origin, text in entries:
        if not text.strip():
            continue
        try:
            given[name] = _Given(from_text(text, specs[name]), origin)
        except ValueError as error:
            faults.append(f"{origin}: {error}")
    return given


def _contradictions(given: Mapping[str, _Given]) -> Iterator[str]:
    """Yield limits that exclude each other.

    A default never contradicts: who lowers only the budget gets smaller pools, which is what was asked for. Timeouts
    may stand in any order, because they nest and the tightest wins (SPEC §7).
    """
    everything = {one.yaml: one for one in known()}
    for order in _ORDERS:
        low = given.get(order.low)
        if low is None:
            continue
        high = given.get(order.high, _Given(everything[order.high].default, DEFAULT))
        if isinstance(low.value, str) or isinstance(high.value, str) or low.value <= high.value:
            continue
        unit = everything[order.low].spec.unit
        where = low.origin if low.origin.startswith(("environment", "--")) else f"{low.origin}: {order.low}"
        most = f"{order.high} = {shown(high.value, unit)} ({high.origin})"
        yield f"{where}: {shown(low.value, unit)} is more than {most}; {order.reason}"


def _message(faults: list[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    lines = "\n".join(f"  {fault}" for fault in faults)
    return f"{len(faults)} settings cannot be used:\n{lines}"
