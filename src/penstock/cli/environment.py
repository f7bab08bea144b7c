"""Settings from environment variables: which names count, which belong to others, which are mistyped.

Every setting has a ``PENSTOCK_`` name. A setting of a named part (``QDRANT_URL``) may be set without the prefix too.
Where both are set, the prefixed one counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from penstock.cli.settings_schema import setting_entries
from penstock.kernel.setting_spec import ENV_PREFIX, SettingSpec

#: Variables that are ours and set nothing: the command's name in the greeting, and the systemd units' arguments.
_NO_SETTINGS: Final = frozenset({"PENSTOCK_COMMAND", "PENSTOCK_OPTIONS"})

#: Kubernetes sets such variables in every container for a Service named ``penstock`` or ``penstock-…``.
_LINK_NAME: Final = re.compile(
    r"\APENSTOCK(?=[A-Z0-9_]*+\Z)(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)|PORT_[0-9]++_(TCP|UDP|SCTP))(_[A-Z0-9_]+)?\Z"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://[^/\s]+:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """The variable that sets a setting."""

    setting: str
    name: str
    text: str


def setting_variables(environ: Mapping[str, str], read: Collection[str]) -> Iterator[EnvironmentVariable]:
    """Yield the variable of each setting that has one.

    Args:
        environ: The environment. An empty string counts as unset.
        read: YAML names of the settings to look for.
    """
    for one in setting_entries():
        if one.yaml_name in read and (name := _set(one.spec, environ)):
            yield EnvironmentVariable(one.yaml_name, name, environ[name])


def _set(spec: SettingSpec, environ: Mapping[str, str]) -> str:
    """Return the first of a setting's names that is set, empty for none."""
    return next((name for name in spec.env_names if environ.get(name, "").strip() and not _is_link(name, environ)), "")


def _is_link(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes has set a variable, for a Service that is named like it."""
    return name.endswith("_PORT") and _LINK.fullmatch(environ[name].strip()) is not None


def kubernetes_links(environ: Mapping[str, str], read: Collection[str]) -> Iterator[str]:
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
