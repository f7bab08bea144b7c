"""Settings from flags, environment, file and defaults, in this order of precedence (SPEC §9).

All faults of all sources are reported in one message, each with its origin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.cli import environment
from penstock.cli.setting_values import SettingValue, format_value, parse_text
from penstock.cli.settings_file import read_settings_file
from penstock.cli.settings_schema import FLAGS, setting_entries, settings_from
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

#: By setting and value: what must be set. Of several sets one is enough; the first is named.
REQUIRED_SETTINGS: Final[Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    ("models.dense.kind", "onnx"): (("models.dense.path",), ("models.dense.model", "models.dense.revision")),
    ("models.dense.kind", "openai"): (("models.dense.url", "models.dense.model"),),
    ("models.dense.kind", "tei"): (("models.dense.url", "models.dense.model"),),
    ("models.sparse.kind", "onnx"): (("models.sparse.path",), ("models.sparse.model", "models.sparse.revision")),
    ("models.sparse.kind", "tei"): (("models.sparse.url", "models.sparse.model"),),
    ("models.rerank.kind", "onnx"): (("models.rerank.path",), ("models.rerank.model", "models.rerank.revision")),
    ("models.rerank.kind", "tei"): (("models.rerank.url",),),
    ("models.rerank.kind", "cohere"): (("models.rerank.url", "models.rerank.model"),),
    ("store.backend", "qdrant"): (("concurrency.qdrant.url",),),
}


def missing_requirements(values: Mapping[str, SettingValue], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield a fault for each choice that lacks the settings it requires.

    Args:
        values: What is set, by YAML name.
        origins: Where it was set.
    """
    variables = {one.yaml_name: one.spec.env for one in setting_entries()}
    for (chosen, value), needs in REQUIRED_SETTINGS.items():
        if values.get(chosen) != value or any(all(values.get(name) for name in need) for need in needs):
            continue
        wanted = " or ".join(" and ".join(need) for need in needs)
        names = ", ".join(variables[name] for need in needs for name in need)
        origin = origins[chosen]
        where = origin if origin.startswith("environment") else f"{origin}: {chosen}"
        yield f"{where}: {value} needs {wanted} ({names})"


DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Effective settings.

    Attributes:
        settings: The records.
        origins: By YAML name: ``default``, the file's name, ``environment NAME``, or the flag.
        warnings: Lines for the person about variables that are not read.
    """

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _SourcedValue:
    value: SettingValue
    origin: str


@dataclass(frozen=True, slots=True)
class _LimitOrder:
    """``low`` above ``high`` makes no sense."""

    low: str
    high: str
    reason: str


_LIMIT_ORDERS: Final = (
    *(
        _LimitOrder(
            f"concurrency.ml.{pool}_workers", "concurrency.ml.max_inflight", "a pool cannot exceed the budget of all"
        )
        for pool in ("embed", "sparse", "rerank")
    ),
    _LimitOrder(
        "concurrency.search.workers", "concurrency.search.queue_size", "the queue must be able to feed its workers"
    ),
    _LimitOrder(
        "concurrency.index.workers", "concurrency.index.queue_size", "the queue must be able to feed its workers"
    ),
    _LimitOrder(
        "concurrency.search.candidates_reduced", "concurrency.search.candidates", "the ladder would ask for more"
    ),
    _LimitOrder("concurrency.http.large_request", "concurrency.http.max_body", "such a body is refused in any case"),
    _LimitOrder(
        "concurrency.index.max_file", "concurrency.http.max_body", "such a file would be refused when it is sent"
    ),
)


def load_settings(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str], read: Collection[str] | None = None
) -> LoadedSettings:
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
    given: dict[str, _SourcedValue] = {}
    if file is not None:
        found = read_settings_file(file)
        faults += found.faults
        given |= {name: _SourcedValue(value, found.name) for name, value in found.values.items()}
    names = frozenset(one.yaml_name for one in setting_entries()) if read is None else read
    variables = environment.setting_variables(environ, names)
    given |= _texts(((one.setting, f"environment {one.name}", one.text) for one in variables), faults)
    unknown = list(environment.unknown_variables(environ))
    faults += unknown if read is None else ()
    given |= _texts(((FLAGS[flag], flag, text) for flag, text in flags.items()), faults)
    faults += _contradictions(given)
    faults += missing_requirements(
        {name: one.value for name, one in given.items()}, {name: one.origin for name, one in given.items()}
    )
    if faults:
        raise Invalid(_message(faults), field="settings", code="settings_invalid")
    origins = {
        one.yaml_name: given[one.yaml_name].origin if one.yaml_name in given else DEFAULT for one in setting_entries()
    }
    notes = (*environment.kubernetes_links(environ, names), *(unknown if read is not None else ()))
    return LoadedSettings(settings_from({name: one.value for name, one in given.items()}), origins, notes)


def _texts(entries: Iterable[tuple[str, str, str]], faults: list[str]) -> dict[str, _SourcedValue]:
    """Read (YAML name, origin, text) entries; what cannot be read becomes a fault."""
    specs = {one.yaml_name: one.spec for one in setting_entries()}
    given: dict[str, _SourcedValue] = {}
    for name, origin, text in entries:
        if not text.strip():
            continue
        try:
            given[name] = _SourcedValue(parse_text(text, specs[name]), origin)
        except ValueError as error:
            faults.append(f"{origin}: {error}")
    return given


def _contradictions(given: Mapping[str, _SourcedValue]) -> Iterator[str]:
    """Yield limits that exclude each other.

    A default never contradicts: who lowers only the budget gets smaller pools, which is what was asked for. Timeouts
    may stand in any order, because they nest and the tightest wins (SPEC §7).
    """
    everything = {one.yaml_name: one for one in setting_entries()}
    for order in _LIMIT_ORDERS:
        low = given.get(order.low)
        if low is None:
            continue
        high = given.get(order.high, _SourcedValue(everything[order.high].default, DEFAULT))
        if isinstance(low.value, str) or isinstance(high.value, str) or low.value <= high.value:
            continue
        unit = everything[order.low].spec.unit
        where = low.origin if low.origin.startswith(("environment", "--")) else f"{low.origin}: {order.low}"
        most = f"{order.high} = {format_value(high.value, unit)} ({high.origin})"
        yield f"{where}: {format_value(low.value, unit)} is more than {most}; {order.reason}"


def _message(faults: list[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    lines = "\n".join(f"  {fault}" for fault in faults)
    return f"{len(faults)} settings cannot be used:\n{lines}"
