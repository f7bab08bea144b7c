"""Which pools work in a process, as the command line names them."""

from __future__ import annotations

from typing import Final

import click

from penstock.pools.house import POOLS

#: In the order of a document's or a query's way.
NAMES: Final = ("chunk", "embed", "sparse", "rerank", "search", "index")


def chosen(pools: str) -> frozenset[str]:
    """Return the pools that are meant.

    Raises:
        click.UsageError: One of them does not exist, or none is named.
    """
    names = {name.strip() for name in pools.split(",") if name.strip()}
    if names == {"all"}:
        return POOLS
    unknown = sorted(names - POOLS)
    if unknown or not names:
        raise click.UsageError(f"no pool {', '.join(unknown) or 'named'}; there are {', '.join(NAMES)}")
    return frozenset(names)
