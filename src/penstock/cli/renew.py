"""``penstock renew``: collections of older releases become searchable by words in every script."""

from __future__ import annotations

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import Collection
from penstock.stores.data_model import STATE_DAMAGED, TEXT_FOLDED


@click.command("renew")
@click.argument("collections", nargs=-1, metavar="[COLLECTION…]")
@json_option
@with_client_settings()
async def command(setup: Setup, collections: tuple[str, ...], *, as_json: bool) -> int:
    """Make collections of older releases searchable by words in every script, with or without a running server.

    Without a name, all that `penstock status` shows as `text: 1`. Nothing is embedded again: a hundred thousand chunks
    take a minute or two. The collections are searched and written meanwhile. Run the command again if it was
    interrupted.
    """
    renewed: dict[str, int] = {}
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            for name in collections or older(await api.list_collections()):
                renewed[name] = await api.renew_collection(name)
                if not as_json:
                    stdout_console().print(f"{strip_controls(name)}: {renewed[name]:,} chunks renewed", soft_wrap=True)
    if as_json:
        print_json({"renewed": renewed})
    elif not renewed:
        stderr_console().print("Nothing to renew.")
    return 0


def older(collections: list[Collection]) -> list[str]:
    """Return the names of sound collections whose text is of an older version."""
    return [one.name for one in collections if one.text < TEXT_FOLDED and one.state != STATE_DAMAGED]
