"""``penstock search``: search a collection, and show of each hit the lines that answer best."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click
import msgspec

from penstock.cli.editor import find_editor, open_in_editor
from penstock.cli.hit_files import Roots, find_file, has_own_lines, is_as_indexed, present_line, read_lines, staleness
from penstock.cli.options import Setup, complete_collection_lists, complete_sources, json_option, with_client_settings
from penstock.cli.search_results import (
    FoundHit,
    Layout,
    best_line,
    lines_wanted,
    own_lines,
    print_answer,
    query_words,
    shown_path,
)
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, stderr_console, strip_controls
from penstock.client import AsyncClient, DocumentChunk, Hit, SearchOptions, SearchResponse, calls
from penstock.kernel.errors import Invalid, PenstockError
from penstock.stores.sources import SEPARATOR

NOTHING_FOUND = 1

#: More lines than that around a hit's are read in an editor.
CONTEXT_LINES_MAX: Final = 50
_CONTEXT: Final = click.IntRange(0, CONTEXT_LINES_MAX)
_OPEN: Final = "--open"
_FACETS: Final = ("language", "source", "folder", "collection", "metadata.")


class SearchCommand(click.Command):
    """The command: only a number right behind ``--open`` is its value, since anything else there is the query."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, with_open_number(args))


def with_open_number(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the first hit's number where ``--open`` has none."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    following = [*arguments[1:end], ""]
    told = [
        f"{_OPEN}=1" if one == _OPEN and not after.isdecimal() else one
        for one, after in zip(arguments[:end], following, strict=False)
    ]
    return [*told, *arguments[end:]]


@click.command("search", cls=SearchCommand)
@click.argument("query", nargs=-1)
@click.option(
    "--collection",
    default="default",
    show_default=True,
    metavar="NAME[,NAME…]",
    help="Collection, or several at once.",
    shell_complete=complete_collection_lists,
)
@click.option("--limit", default=10, show_default=True, metavar="N", help="Hits at most.")
@click.option("--path-prefix", metavar="PREFIX", help="Only paths that begin so, as they were shown when indexed.")
@click.option(
    "--source",
    multiple=True,
    metavar="NAME",
    help="Only this source; may be repeated.",
    shell_complete=complete_sources,
)
@click.option("--language", multiple=True, metavar="NAME", help="Only this language; may be repeated.")
@click.option(
    "--group", flag_value="document", help="The best chunk of each document alone; tells where its others are."
)
@click.option("--like", metavar="ID", help="In the place of a query: what is like the document of this id.")
@click.option(
    "--facet",
    "facets",
    multiple=True,
    metavar="NAME",
    help="Count language, source, folder, metadata.KEY.",
    shell_complete=lambda _ctx, _param, incomplete: [one for one in _FACETS if one.startswith(incomplete)],
)
@click.option("--offset", default=0, metavar="N", help="Leave out the first N hits.")
@click.option(_OPEN, "opened", type=click.IntRange(1), metavar="[N]", help="Open the first or Nth hit in your editor.")
@click.option("-C", "--context", type=_CONTEXT, metavar="N", help="N lines of the file around each line, 50 at most.")
@click.option("-A", "--after-context", type=_CONTEXT, metavar="N", help="N lines after each line.")
@click.option("-B", "--before-context", type=_CONTEXT, metavar="N", help="N lines before each line.")
@click.option("--heading/--no-heading", default=None, help="Hits of a file together below its path; so on terminals.")
@click.option("--no-rerank", is_flag=True, help="Leave the order as fused.")
@json_option
@with_client_settings()
async def command(setup: Setup, query: tuple[str, ...], collection: str, *, as_json: bool, **wishes: Any) -> int:
    """Search a collection.

    Prints path:start-end, symbol and score of each hit, and the lines that match. On a terminal the hits of a file
    stand together below its path, each with its number. --path-prefix is compared with the path relative to the root
    of the project that was indexed, e.g. src/penstock/http.

    --open runs what VISUAL or else EDITOR names, at the line that matches best. -C shows lines as they were indexed.

    Exit code 1 if nothing was found, 2 on an error, that of the editor included.
    """
    text, like = " ".join(query), wishes.pop("like")
    if bool(like) == bool(text.strip()):
        raise click.UsageError("say what to look for: either a query, or --like ID")
    wishes["like"] = {"id": like} if like else None
    opened, layout = wishes.pop("opened"), take_layout(wishes, on_terminal=sys.stdout.isatty())
    if as_json and (opened or layout.has_context):
        raise click.UsageError(f"--json is for programs; leave out {_OPEN if opened else '--context'}")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    editor = find_editor(os.environ, on_terminal=terminal) if opened else None
    names = collection.split(",")
    call = calls.search(
        text or None, names if len(names) > 1 else collection, **search_options(**wishes, explain=as_json)
    )
    if not setup.data_dir.exists():
        message = f"nothing is indexed yet: there is no data directory at {setup.data_dir}"
        raise Invalid(message, code="collection_not_found")
    found: list[FoundHit] = []
    async with connect(setup) as api:
        told = await api.send(call.untyped())
        answer = msgspec.convert(told, SearchResponse)
        if not as_json:
            roots = await roots_by_collection(api, answer.hits, collection)
            for number, hit in enumerate(answer.hits, 1):
                around = await lines_around(api, hit, collection, lines_wanted(hit, query_words(text), layout))
                found.append(FoundHit(hit, number, roots.get(hit.collection, {}), around))
    if as_json:
        print_json(told)
        return 0 if answer.hits else NOTHING_FOUND
    if layout.has_context:
        warn_of_stale(found)
    print_answer(answer, text, found, layout)
    if editor is not None and found:
        sys.stdout.flush()
        open_in_editor(editor, *place_to_open(found, opened, query_words(text)))
    return 0 if answer.hits else NOTHING_FOUND


def take_layout(wishes: dict[str, Any], *, on_terminal: bool) -> Layout:
    """Take the options of the layout out of the command's, and return it."""
    heading, around = wishes.pop("heading"), wishes.pop("context")
    before, after = wishes.pop("before_context"), wishes.pop("after_context")
    return Layout(
        heading=on_terminal if heading is None else heading,
        before=(around or 0) if before is None else before,
        after=(around or 0) if after is None else after,
    )


async def roots_by_collection(api: AsyncClient, hits: Sequence[Hit], searched: str) -> dict[str, Roots]:
    """Return the directory on this host of each source, by the collection that hits name.

    Args:
        api: The API.
        hits: The hits. Those of a single collection do not name it.
        searched: What was searched.
    """
    host, roots = socket.gethostname(), dict[str, Roots]()
    for name in {hit.collection for hit in hits if SEPARATOR in hit.id}:
        roots[name] = {one.name: one.root_on(host) for one in await api.list_sources(name or searched)}
    return roots


async def lines_around(api: AsyncClient, hit: Hit, searched: str, wanted: tuple[int, int]) -> Mapping[int, str]:
    """Return lines of a hit's document by number, from the index: there they are as they were when it was found.

    Its file may have changed since, may be on another host, or there may be none.

    Args:
        api: The API.
        hit: The hit.
        searched: The collection that was searched, where the hit names none.
        wanted: How many lines before and after the hit's own.

    Bounds:
        One request of ``2 * CONTEXT_LINES_MAX + 3`` chunks.
    """
    before, after = wanted
    if not before and not after:
        return {}
    # Each chunk has a line at least. Only parts of an over-long line share one, and leave fewer around them.
    first = max(0, hit.chunk - (before + 1 if before else 0))
    limit = hit.chunk - first + 1 + (after + 1 if after else 0)
    try:
        document = await api.get_document(hit.id, hit.collection or searched, chunk=first, limit=limit)
    except PenstockError as error:
        _warn(f"no lines around {hit.path or hit.id}: {error.detail}")
        return {}
    if not any(
        (one.chunk, one.start_line, one.text) == (hit.chunk, hit.start_line, hit.text) for one in document.chunks
    ):
        _warn(f"no lines around {hit.path or hit.id}: it was indexed again just now; search again")
        return {}
    return document_lines(document.chunks, blank_between=has_own_lines(hit))


def document_lines(chunks: Sequence[DocumentChunk], *, blank_between: bool) -> dict[int, str]:
    """Return the lines of a document's consecutive chunks by number.

    Args:
        chunks: In their order.
        blank_between: Whether lines between two chunks are blank, as in all files but notebooks.
    """
    lines: dict[int, str] = {}
    for one in chunks:
        if lines and blank_between:
            lines |= dict.fromkeys(range(max(lines) + 1, one.start_line), "")
        for number, line in enumerate(one.text.split("\n"), max(1, one.start_line)):
            lines.setdefault(number, line)
    return lines


def warn_of_stale(found: Sequence[FoundHit]) -> None:
    """Say on standard error which of the files are no longer as the lines shown."""
    cwd = Path.cwd()
    told = {
        f"{shown_path(one.hit, cwd, one.roots)} {became} since it was indexed; its lines are shown as they were"
        for one in found
        if (became := staleness(one.hit, one.roots))
    }
    for line in sorted(told):
        _warn(line)


def place_to_open(found: Sequence[FoundHit], number: int, words: Sequence[str]) -> tuple[Path, int]:
    """Return the file of a hit and the line to open it at: the one that matches best, where it is now.

    Raises:
        Invalid: There is no such hit (``hit_not_found``), or no file of it here.
    """
    if number > len(found):
        raise Invalid(f"there is no hit {number}; {_OPEN} takes 1 to {len(found)}", field=_OPEN, code="hit_not_found")
    one = found[number - 1]
    file, line = find_file(one.hit, one.roots), best_line(one.hit, words)
    lines, text = read_lines(file), own_lines(one.hit).get(line, "")
    if lines is None or not has_own_lines(one.hit) or is_as_indexed(one.hit, text, lines[line - 1 : line]):
        return file, line
    now = present_line(lines, line, text)
    moved = f"line {line} is now line {now}" if now else f"line {line} may be elsewhere"
    _warn(f"{shown_path(one.hit, Path.cwd(), one.roots)} has changed since it was indexed: {moved}")
    return file, now or min(line, len(lines))


def _warn(text: str) -> None:
    stderr_console().print(strip_controls(text), style="yellow", soft_wrap=True)


def search_options(
    *,
    limit: int,
    path_prefix: str | None,
    source: tuple[str, ...],
    language: tuple[str, ...],
    no_rerank: bool,
    **others: Any,
) -> SearchOptions:
    """Return the options of the search, without those that have their default."""
    filter: dict[str, Any] = {}
    if path_prefix:
        filter["path_prefix"] = path_prefix.removeprefix("./")
    if source:
        filter["source"] = list(source)
    if language:
        filter["language"] = [one.lower() for one in language]
    options: dict[str, Any] = {"limit": limit, "filter": filter, **others}
    if no_rerank:
        options["rerank"] = False
    return cast("SearchOptions", {name: said for name, said in options.items() if said or name in ("limit", "rerank")})
