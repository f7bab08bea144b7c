"""What every command accepts: ``--config``, ``--data-dir``; and what it gets for it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from penstock.cli.configuration import DEFAULT, load
from penstock.cli.directory import choose
from penstock.cli.schema import CONCURRENCY, known, names
from penstock.cli.values import is_unicode, shown
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings
from penstock.stores.lock import holder

#: Settings of what listens: no command but ``serve`` and ``worker`` reads their variables.
LISTENING: Final = names("server.host", "server.port", "worker.")
#: Settings that a command needs before it knows whether a server does the work.
FINDING: Final = names("store.data_dir", "server.log_level")


@dataclass(frozen=True, slots=True)
class Setup:
    """A command's surroundings.

    Attributes:
        settings: Effective settings.
        origins: Where each came from, by YAML name.
        data_dir: The data directory, absolute.
        notes: Lines for the person about variables that are not read.
    """

    settings: Settings
    origins: Mapping[str, str]
    data_dir: Path
    notes: tuple[str, ...] = ()

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name where the setting was set that an error inside the block is about."""
        try:
            yield
        except Invalid as error:
            where, value = self._origin(error.field)
            if not where or where.removeprefix("environment ") in error.detail:
                raise
            raise Invalid(f"{error.detail} ({where}{value})", field=error.field, code=error.code) from error

    def _origin(self, field: str) -> tuple[str, str]:
        """Return where a setting was set, empty for one that was not, and what it is, empty for what may be secret."""
        for one in known():
            called = (one.yaml, one.yaml.removeprefix(f"{CONCURRENCY}."), *one.spec.names)
            if field in called or one.yaml == f"{field}.url":
                origin = self.origins[one.yaml]
                if origin == DEFAULT:
                    break
                where = origin if origin.startswith(("environment", "--")) else f"{origin}: {one.yaml}"
                value = getattr(getattr(self.settings, one.section), one.name)
                return where, "" if one.spec.confidential else f": {shown(value, one.spec.unit)}"
        return "", ""

    @property
    def client_log_level(self) -> str:
        """Log level of commands that are no server: only what somebody asked for, or what went wrong."""
        asked = self.origins["server.log_level"] != DEFAULT
        return self.settings.server.log_level if asked else "warning"


def set_up(config: Path | None, flags: Mapping[str, str | None], read: Collection[str] | None = None) -> Setup:
    """Read the settings and choose the data directory.

    Args:
        config: YAML file, if one was named.
        flags: Values by flag; ``None`` where it was not given.
        read: YAML names of the settings whose environment variables are read; ``None`` for all.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    loaded = load(config, os.environ, given, read)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - unlike Path.home it does not raise without one
    data_dir = choose(loaded.settings.store.data_dir, os.environ, Path.cwd(), home)
    if not is_unicode(str(data_dir)):
        # Libraries that read and write there, and everything that tells of it, take text.
        detail = f"the data directory {str(os.fsencode(data_dir))[1:]} is not UTF-8; choose another with --data-dir"
        raise Invalid(detail, field="store.data_dir", code="data_dir_name")
    return Setup(loaded.settings, loaded.origins, data_dir, loaded.notes)


def complete(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command that needs every setting; it gets a :class:`Setup` as its first argument."""
    return _with_options(command, set_up)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command that listens nowhere."""
    return _with_options(command, lambda config, flags: set_up(config, flags, names("") - LISTENING))


def client(*reads: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the common options to a command that works through a server where one runs.

    A server has its own settings. A variable that only the server uses can then not be wrong here.

    Args:
        reads: Beginnings of the YAML names of settings that the command itself uses.
    """

    def read(config: Path | None, flags: Mapping[str, str | None]) -> Setup:
        setup = set_up(config, flags, FINDING | (names(*reads) if reads else frozenset()))
        held = holder(setup.data_dir)
        return setup if held is not None and held.url else set_up(config, flags, names("") - LISTENING)

    return lambda command: _with_options(command, read)


def _with_options(
    command: Callable[..., Any], read: Callable[[Path | None, Mapping[str, str | None]], Setup]
) -> Callable[..., Any]:
    @click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
    @click.option("--data-dir", metavar="DIR", help="Data directory (default: ./.penstock if it exists, else yours).")
    @functools.wraps(command)
    def with_setup(config: Path | None, data_dir: str | None, **rest: Any) -> Any:
        setup = read(config, {"--data-dir": data_dir})
        settle(setup)
        with setup.blamed():
            return command(setup, **rest)

    return with_setup


def settle(setup: Setup) -> None:
    """Tell on standard error which variables are not read, and take those with secrets out of the environment.

    Processes that are started from now on get none of them, whoever starts them.
    """
    for one in known():
        if one.spec.confidential:
            for name in one.spec.names:
                os.environ.pop(name, None)
    for note in setup.notes:
        click.echo(f"warning: {note}", err=True)


def collection_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--collection``."""
    option = click.option("--collection", default="default", show_default=True, metavar="NAME", help="Collection.")
    return option(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
