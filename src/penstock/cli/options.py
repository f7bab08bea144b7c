"""Common options of the commands, ``--config`` and ``--data-dir``, and the :class:`Setup` read from them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.data_directory import choose_data_dir, home_directory
from penstock.cli.setting_values import format_value, is_unicode
from penstock.cli.settings_loader import DEFAULT, load_settings
from penstock.cli.settings_schema import CONCURRENCY, setting_entries, setting_names
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.settings import Settings
from penstock.pools.permits import POOL_NAMES
from penstock.stores.lock import find_lock_holder
from penstock.telemetry.logs import configure

if TYPE_CHECKING:
    from penstock.client import Client

#: Seconds that a server has to list names for a shell: somebody waits with a finger on the key.
NAMES_TIMEOUT_S: Final = 1.0

#: In the order in which a document or a query passes them.
POOLS_IN_ORDER: Final = ("chunk", "embed", "sparse", "rerank", "search", "index")


def parse_pools(pools: str) -> frozenset[str]:
    """Return the pools that a value of ``--pool`` names.

    Raises:
        click.UsageError: One of them does not exist, or none is named.
    """
    names = {name.strip() for name in pools.split(",") if name.strip()}
    if names == {"all"}:
        return POOL_NAMES
    unknown = sorted(names - POOL_NAMES)
    if unknown or not names:
        raise click.UsageError(f"no pool {', '.join(unknown) or 'named'}; there are {', '.join(POOLS_IN_ORDER)}")
    return frozenset(names)


#: Settings of listening sockets. No command but ``serve`` and ``worker`` reads their variables.
LISTEN_SETTINGS: Final = setting_names("server.host", "server.port", "worker.")
#: Settings that a command needs before it knows whether a server does the work.
SERVER_LOOKUP_SETTINGS: Final = setting_names(
    "store.data_dir", "server.log_level", "server.log_format", "server.api_key"
)


@dataclass(frozen=True, slots=True)
class Setup:
    """A command's surroundings.

    Attributes:
        settings: Effective settings.
        origins: Where each came from, by YAML name.
        data_dir: The data directory, absolute.
        warnings: Lines for the person about variables that are not read.
    """

    settings: Settings
    origins: Mapping[str, str]
    data_dir: Path
    warnings: tuple[str, ...] = ()

    @contextmanager
    def explain_origin(self) -> Iterator[None]:
        """Add to an error inside the block where the setting was set that it is about."""
        try:
            yield
        except Invalid as error:
            where, value = self._origin(error.field)
            if not where or where.removeprefix("environment ") in error.detail:
                raise
            raise Invalid(f"{error.detail} ({where}{value})", field=error.field, code=error.code) from error

    def _origin(self, field: str) -> tuple[str, str]:
        """Return where a setting was set, empty for one that was not, and what it is, empty for what may be secret."""
        for one in setting_entries():
            called = (one.yaml_name, one.yaml_name.removeprefix(f"{CONCURRENCY}."), *one.spec.env_names)
            if field in called or one.yaml_name == f"{field}.url":
                origin = self.origins[one.yaml_name]
                if origin == DEFAULT:
                    break
                where = origin if origin.startswith(("environment", "--")) else f"{origin}: {one.yaml_name}"
                value = getattr(getattr(self.settings, one.section), one.name)
                return where, "" if one.spec.confidential else f": {format_value(value, one.spec.unit)}"
        return "", ""

    @property
    def client_log_level(self) -> str:
        """Log level of commands that are no server: the one that was set, else ``warning``."""
        asked = self.origins["server.log_level"] != DEFAULT
        return self.settings.server.log_level if asked else "warning"


def load_setup(config: Path | None, flags: Mapping[str, str | None], read: Collection[str] | None = None) -> Setup:
    """Read the settings and choose the data directory.

    Args:
        config: YAML file, if one was named.
        flags: Values by flag; ``None`` where it was not given.
        read: YAML names of the settings whose environment variables are read; ``None`` for all.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    loaded = load_settings(config, os.environ, given, read)
    data_dir = choose_data_dir(loaded.settings.store.data_dir, os.environ, Path.cwd(), home_directory())
    if not is_unicode(str(data_dir)):
        # Libraries that read and write there, and every message about it, take text.
        detail = f"the data directory {str(os.fsencode(data_dir))[1:]} is not UTF-8; choose another with --data-dir"
        raise Invalid(detail, field="store.data_dir", code="data_dir_name")
    return Setup(loaded.settings, loaded.origins, data_dir, loaded.warnings)


def with_all_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command that needs every setting.

    It gets a :class:`Setup` as its first argument, logs as a client does, and may be asynchronous.
    """
    return _with_options(command, load_setup)


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command that listens nowhere."""
    return _with_options(command, lambda config, flags: load_setup(config, flags, setting_names("") - LISTEN_SETTINGS))


def with_client_settings(*reads: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the common options to a command that works through a server where one runs.

    A server has its own settings. A variable that only the server uses can then not be wrong here.

    Args:
        reads: Beginnings of the YAML names of settings that the command itself uses.
    """

    def read(config: Path | None, flags: Mapping[str, str | None]) -> Setup:
        setup = load_setup(config, flags, SERVER_LOOKUP_SETTINGS | (setting_names(*reads) if reads else frozenset()))
        held = find_lock_holder(setup.data_dir)
        return (
            setup if held is not None and held.url else load_setup(config, flags, setting_names("") - LISTEN_SETTINGS)
        )

    return lambda command: _with_options(command, read)


def _with_options(
    command: Callable[..., Any], read: Callable[[Path | None, Mapping[str, str | None]], Setup]
) -> Callable[..., Any]:
    @click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
    @click.option("--data-dir", metavar="DIR", help="Data directory (default: ./.penstock if it exists, else yours).")
    @functools.wraps(command)
    def with_setup(config: Path | None, data_dir: str | None, **rest: Any) -> Any:
        setup = read(config, {"--data-dir": data_dir})
        warn_and_drop_secrets(setup)
        configure(setup.client_log_level)
        with setup.explain_origin():
            outcome = command(setup, **rest)
            return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    return with_setup


def warn_and_drop_secrets(setup: Setup) -> None:
    """Print on standard error which variables are not read, and remove those with secrets from the environment.

    Processes started from now on get none of them, even those that libraries start.
    """
    for one in setting_entries():
        if one.spec.confidential:
            for name in one.spec.env_names:
                os.environ.pop(name, None)
    for note in setup.warnings:
        click.echo(f"warning: {note}", err=True)


def complete_collections(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the collections of a running server whose names begin so."""
    return _completed(ctx, incomplete, lambda client: [one.name for one in client.list_collections()])


def complete_collection_lists(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return lists of collections whose last name begins so, as ``one,two``; no collection stands in a list twice."""
    before, comma, last = incomplete.rpartition(",")
    listed = before.split(",")
    return [f"{before}{comma}{one}" for one in complete_collections(ctx, param, last) if one not in listed]


def complete_sources(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the sources of a collection, or of all collections, whose names begin so."""
    collection = ctx.params.get("collection")
    return _completed(ctx, incomplete, lambda client: [one.name for one in client.list_sources(collection)])


def _completed(ctx: click.Context, incomplete: str, listed: Callable[[Client], list[str]]) -> list[str]:
    """Return the names that a running server lists and that begin so; none where no server answers in time."""
    # Imported here, since options are made at each start, and a shell asks seldom.
    import httpx  # noqa: PLC0415

    from penstock.client import CallOptions, Client  # noqa: PLC0415
    from penstock.client.pinning import pinned_context  # noqa: PLC0415

    try:
        setup = load_setup(ctx.params.get("config"), {"--data-dir": ctx.params.get("data_dir")}, SERVER_LOOKUP_SETTINGS)
        held = find_lock_holder(setup.data_dir)
        if held is None or not held.url:
            return []
        options = CallOptions(timeout_s=NAMES_TIMEOUT_S, attempts_max=1, api_key=held.key)
        transport = httpx.HTTPTransport(verify=pinned_context(held.certificate)) if held.certificate else None
        with Client(held.url, options, transport=transport) as client:
            return sorted({name for name in listed(client) if name.startswith(incomplete)})
    except (PenstockError, OSError):
        # An error would stand in the middle of the line that is being typed.
        return []


def collection_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--collection``."""
    return click.option(
        "--collection",
        default="default",
        show_default=True,
        metavar="NAME",
        help="Collection.",
        shell_complete=complete_collections,
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
