"""What every command accepts: ``--config``, ``--data-dir``; and what it gets for it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from penstock.cli.configuration import DEFAULT, load
from penstock.cli.directory import choose
from penstock.kernel.settings import Settings


@dataclass(frozen=True, slots=True)
class Setup:
    """A command's surroundings.

    Attributes:
        settings: Effective settings.
        origins: Where each came from, by YAML name.
        data_dir: The data directory, absolute.
    """

    settings: Settings
    origins: Mapping[str, str]
    data_dir: Path

    @property
    def client_log_level(self) -> str:
        """Log level of commands that are no server: only what somebody asked for, or what went wrong."""
        asked = self.origins["server.log_level"] != DEFAULT
        return self.settings.server.log_level if asked else "warning"


def set_up(config: Path | None, flags: Mapping[str, str | None]) -> Setup:
    """Read the settings and choose the data directory.

    Args:
        config: YAML file, if one was named.
        flags: Values by flag; ``None`` where it was not given.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    loaded = load(config, os.environ, given)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - unlike Path.home it does not raise without one
    data_dir = choose(loaded.settings.store.data_dir, os.environ, Path.cwd(), home)
    return Setup(loaded.settings, loaded.origins, data_dir)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command; it gets a :class:`Setup` as its first argument."""

    @click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML file with settings.")
    @click.option("--data-dir", metavar="DIR", help="Data directory (default: ./.penstock if it exists, else yours).")
    @functools.wraps(command)
    def with_setup(config: Path | None, data_dir: str | None, **rest: Any) -> Any:
        return command(set_up(config, {"--data-dir": data_dir}), **rest)

    return with_setup


def collection_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--collection``."""
    option = click.option("--collection", default="default", show_default=True, metavar="NAME", help="Collection.")
    return option(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
