"""``penstock search``: search a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from penstock.cli.options import Setup, collection_option, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.snippets import hit_lines, query_words
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import SearchOptions, SearchResponse, calls
from penstock.kernel.errors import Invalid

NOTHING_FOUND = 1


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@collection_option
@click.option("--limit", default=10, show_default=True, metavar="N", help="Hits at most.")
@click.option("--path-prefix", metavar="PREFIX", help="Only paths that begin so, as they were shown when indexed.")
@click.option("--language", multiple=True, metavar="NAME", help="Only this language; may be repeated.")
@click.option("--no-rerank", is_flag=True, help="Leave the order as fused.")
@json_option
@with_client_settings()
async def command(setup: Setup, query: tuple[str, ...], collection: str, *, as_json: bool, **wishes: Any) -> int:
    """Search a collection.

    Prints path:start-end, symbol and score of each hit, and the lines that match. --path-prefix is compared with the
    path relative to the root of the project that was indexed, e.g. src/penstock/http.

    Exit code 1 if nothing was found, 2 on an error.
    """
    text = " ".join(query)
    call = calls.search(text, collection, **search_options(**wishes, explain=as_json))
    if not setup.data_dir.exists():
        message = f"nothing is indexed yet: there is no data directory at {setup.data_dir}"
        raise Invalid(message, code="collection_not_found")
    async with connect(setup) as api:
        told = await api.send(call.untyped())
    answer = msgspec.convert(told, SearchResponse)
    if as_json:
        print_json(told)
    else:
        _print(answer, text)
    return 0 if answer.hits else NOTHING_FOUND


def search_options(
    *, limit: int, path_prefix: str | None, language: tuple[str, ...], no_rerank: bool, explain: bool
) -> SearchOptions:
    """Return the options of the search, without those that have their default."""
    wanted: dict[str, Any] = {}
    if path_prefix:
        wanted["path_prefix"] = path_prefix.removeprefix("./")
    if language:
        wanted["language"] = [one.lower() for one in language]
    options: SearchOptions = {"limit": limit}
    if wanted:
        options["filter"] = wanted
    if no_rerank:
        options["rerank"] = False
    if explain:
        options["explain"] = True
    return options


def _print(answer: SearchResponse, text: str) -> None:
    console, aside = stdout_console(), stderr_console()
    if answer.degraded:
        aside.print(f"degraded: {strip_controls(', '.join(answer.degraded))}", style="yellow", soft_wrap=True)
    if not answer.hits:
        aside.print("Nothing was found.")
    words, cwd = query_words(text), Path.cwd()
    for number, hit in enumerate(answer.hits):
        if number:
            console.print()
        for line in hit_lines(hit, words, cwd, console.width if console.is_terminal else None):
            console.print(line)
    if answer.hits and aside.is_terminal and console.is_terminal:
        aside.print(f"\n{len(answer.hits)} hits in {answer.took_ms:.0f} ms", style="bright_black")
