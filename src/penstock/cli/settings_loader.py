"""Settings from flags, environment, file and defaults, in this order of precedence (SPEC §9).

All faults of all sources are reported in one message, each with its origin. In the environment every setting has a
``PENSTOCK_`` name. A setting of a named part (``QDRANT_URL``) may be set without the prefix too. Where both are set,
the prefixed one counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from penstock.cli.setting_values import SettingValue, format_value, parse_text
from penstock.cli.settings_file import read_settings_file
from penstock.cli.settings_schema import FLAGS, setting_entries, settings_from
from penstock.kernel.errors import Invalid
from penstock.kernel.setting_spec import ENV_PREFIX, SettingSpec
from penstock.kernel.settings import Settings

DEFAULT: Final = "default"

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


class _SourcedValue(NamedTuple):
    value: SettingValue
    origin: str

    def place(self, name: str) -> str:
        """Return where to mend it: the origin, with the setting's name where that does not tell it."""
        return self.origin if self.origin.startswith(("environment", "--")) else f"{self.origin}: {name}"


_BUDGET: Final = "a pool cannot exceed the budget of all"
_FEED: Final = "the queue must be able to feed its workers"
#: Settings under ``concurrency``: the first above the second makes no sense, and why.
_LIMIT_ORDERS: Final = (
    ("ml.embed_workers", "ml.max_inflight", _BUDGET),
    ("ml.sparse_workers", "ml.max_inflight", _BUDGET),
    ("ml.rerank_workers", "ml.max_inflight", _BUDGET),
    ("search.workers", "search.queue_size", _FEED),
    ("index.workers", "index.queue_size", _FEED),
    ("search.candidates_reduced", "search.candidates", "the ladder would ask for more"),
    ("http.large_request", "http.max_body", "such a body is refused in any case"),
    ("index.max_file", "http.max_body", "such a file would be refused when it is sent"),
)

#: Variables that are ours and set nothing: the command's name in the greeting, and the systemd units' arguments.
_NO_SETTINGS: Final = frozenset({"PENSTOCK_COMMAND", "PENSTOCK_OPTIONS"})

#: Kubernetes sets such variables in every container for a Service named ``penstock`` or ``penstock-…``.
_LINK_NAME: Final = re.compile(
    r"\APENSTOCK(?=[A-Z0-9_]*+\Z)(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)|PORT_[0-9]++_(TCP|UDP|SCTP))(_[A-Z0-9_]+)?\Z"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://[^/\s]+:[0-9]{1,5}")


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
    given |= _texts(_variables(environ, names), faults)
    unknown = list(unknown_variables(environ))
    faults += unknown if read is None else ()
    given |= _texts(((FLAGS[flag], flag, text) for flag, text in flags.items()), faults)
    faults += [*_contradictions(given), *_missing_requirements(given)]
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        message = faults[0] if len(faults) == 1 else f"{len(faults)} settings cannot be used:{lines}"
        raise Invalid(message, field="settings", code="settings_invalid")
    origins = dict.fromkeys((one.yaml_name for one in setting_entries()), DEFAULT)
    origins |= {name: one.origin for name, one in given.items()}
    notes = (*_kubernetes_links(environ, names), *(unknown if read is not None else ()))
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
    entries = {one.yaml_name: one for one in setting_entries()}
    for lower, higher, reason in _LIMIT_ORDERS:
        name, limit = f"concurrency.{lower}", f"concurrency.{higher}"
        high = given.get(limit, _SourcedValue(entries[limit].default, DEFAULT))
        low = given.get(name, high)
        if isinstance(low.value, str) or isinstance(high.value, str) or low.value <= high.value:
            continue
        unit = entries[name].spec.unit
        most = f"{limit} = {format_value(high.value, unit)} ({high.origin})"
        yield f"{low.place(name)}: {format_value(low.value, unit)} is more than {most}; {reason}"


def _missing_requirements(given: Mapping[str, _SourcedValue]) -> Iterator[str]:
    """Yield a fault for each choice that lacks the settings it requires."""
    variables = {one.yaml_name: one.spec.env for one in setting_entries()}
    for (chosen, value), needs in REQUIRED_SETTINGS.items():
        choice = given.get(chosen)
        if choice is None or choice.value != value:
            continue
        if any(all(name in given and given[name].value for name in need) for need in needs):
            continue
        wanted = " or ".join(" and ".join(need) for need in needs)
        names = ", ".join(variables[name] for need in needs for name in need)
        yield f"{choice.place(chosen)}: {value} needs {wanted} ({names})"


def _variables(environ: Mapping[str, str], read: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield YAML name, origin and text of each setting whose variable is set."""
    for one in setting_entries():
        if one.yaml_name in read and (name := _set(one.spec, environ)):
            yield one.yaml_name, f"environment {name}", environ[name]


def _set(spec: SettingSpec, environ: Mapping[str, str]) -> str:
    """Return the first of a setting's names that is set, empty for none."""
    return next((name for name in spec.env_names if environ.get(name, "").strip() and not _is_link(name, environ)), "")


def _is_link(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes has set a variable, for a Service that is named like it."""
    return name.endswith("_PORT") and _LINK.fullmatch(environ[name].strip()) is not None


def _kubernetes_links(environ: Mapping[str, str], read: Collection[str]) -> Iterator[str]:
    """Yield a line for each setting whose variable is Kubernetes' link to a Service, and is not read."""
    for one in setting_entries():
        for name in one.spec.env_names:
            if one.yaml_name in read and name in environ and _is_link(name, environ):
                yield f"{name}={environ[name].strip()!r} is Kubernetes' link to a Service, not a port: it is not read"


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each variable that has our prefix and sets nothing."""
    names = [name for one in setting_entries() for name in one.spec.env_names]
    ours = _NO_SETTINGS.union(names)
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name in ours or not environ[name].strip():
            continue
        if _LINK_NAME.fullmatch(name) or _is_link(name, environ):
            continue
        near = difflib.get_close_matches(name, [one for one in names if one.startswith(ENV_PREFIX)], n=1, cutoff=0.75)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield f"environment {name}: is no known setting{hint}"
