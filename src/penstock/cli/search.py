"""``penstock search``: search a collection, and show of each hit the lines that answer best."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click
import msgspec
from rich.text import Text

from penstock.cli.options import Setup, complete_collections, complete_sources, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import FacetCounts, Hit, SearchOptions, SearchResponse, Source, calls
from penstock.kernel.errors import Invalid
from penstock.stores.sources import SEPARATOR

NOTHING_FOUND = 1

LINES_MAX: Final = 6
PLAIN_WIDTH: Final = 200
_GUTTER: Final = 9
#: Other chunks of a document whose lines are told.
OTHERS_SHOWN_MAX: Final = 5
WORD_STYLE: Final = "bold yellow"
WORDS_MAX: Final = 32
#: A longer word is not pointed out, since it was not typed to be found in a line.
WORD_CHARS_MAX: Final = 64

_WORD: Final = re.compile(r"\w+")
_COMMON: Final = """
    a an and are as at be by can do does for from has have how i if in into is it its me my of on or that the their
    then there this through to was we what when where which who why will with you your
    """
_STOP_WORDS: Final = frozenset(_COMMON.split())


@click.command("search")
@click.argument("query", nargs=-1)
@click.option(
    "--collection",
    default="default",
    show_default=True,
    metavar="NAME[,NAME…]",
    help="Collection, or several at once.",
    shell_complete=complete_collections,
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
@click.option("--facet", "facets", multiple=True, metavar="NAME", help="Count language, source, folder, metadata.KEY.")
@click.option("--offset", default=0, metavar="N", help="Leave out the first N hits.")
@click.option("--no-rerank", is_flag=True, help="Leave the order as fused.")
@json_option
@with_client_settings()
async def command(setup: Setup, query: tuple[str, ...], collection: str, *, as_json: bool, **wishes: Any) -> int:
    """Search a collection.

    Prints path:start-end, symbol and score of each hit, and the lines that match. --path-prefix is compared with the
    path relative to the root of the project that was indexed, e.g. src/penstock/http.

    Exit code 1 if nothing was found, 2 on an error.
    """
    text, like = " ".join(query), wishes.pop("like")
    if bool(like) == bool(text.strip()):
        raise click.UsageError("say what to look for: either a query, or --like ID")
    wishes["like"] = {"id": like} if like else None
    names = collection.split(",")
    call = calls.search(
        text or None, names if len(names) > 1 else collection, **search_options(**wishes, explain=as_json)
    )
    if not setup.data_dir.exists():
        message = f"nothing is indexed yet: there is no data directory at {setup.data_dir}"
        raise Invalid(message, code="collection_not_found")
    sources: list[Source] = []
    async with connect(setup) as api:
        told = await api.send(call.untyped())
        answer = msgspec.convert(told, SearchResponse)
        if not as_json:
            for name in {hit.collection or collection for hit in answer.hits if SEPARATOR in hit.id}:
                sources += await api.list_sources(name)
    if as_json:
        print_json(told)
    else:
        print_answer(answer, text, source_roots(sources))
    return 0 if answer.hits else NOTHING_FOUND


def source_roots(sources: Sequence[Source]) -> dict[str, str]:
    """Return the directory of each source on this host; empty where two collections have two of one name."""
    roots: dict[str, str] = {}
    for one in sources:
        root = one.root_on(socket.gethostname())
        roots[one.name] = root if roots.get(one.name, root) == root else ""
    return roots


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


def print_answer(answer: SearchResponse, text: str, roots: Mapping[str, str]) -> None:
    """Print an answer: hits and facets to standard output, what is missing to standard error."""
    console, aside = stdout_console(), stderr_console()
    if answer.degraded:
        aside.print(f"degraded: {strip_controls(', '.join(answer.degraded))}", style="yellow", soft_wrap=True)
    if answer.coverage < 1:
        aside.print(f"{answer.coverage:.0%} of the chunks are found by meaning so far, all by words", style="dim")
    for one in answer.left_out:
        aside.print(strip_controls(f"not searched: {one.collection}: {one.detail}"), style="yellow", soft_wrap=True)
    if not answer.hits:
        aside.print("Nothing was found.")
    words, cwd = query_words(text), Path.cwd()
    for number, hit in enumerate(answer.hits):
        if number:
            console.print()
        for line in hit_lines(hit, words, shown_path(hit, cwd, roots), console.width if console.is_terminal else None):
            console.print(line)
    for facet in answer.facets:
        console.print(facet_line(facet), style="cyan", soft_wrap=True)
    if answer.hits and aside.is_terminal and console.is_terminal:
        aside.print(f"\n{len(answer.hits)} hits in {answer.took_ms:.0f} ms", style="bright_black")


def hit_lines(hit: Hit, words: Sequence[str], path: str, width: int | None) -> Iterator[Text]:
    """Yield a hit line by line, below its path; the styles matter only where the console has colour."""
    yield _headline(hit, path)
    room = max(20, (width or PLAIN_WIDTH) - _GUTTER)
    found = best_lines("\n".join(map(strip_controls, hit.text.split("\n"))), max(1, hit.start_line), words, LINES_MAX)
    indent = min((_indent(text.plain) for _, text in found), default=0)
    for number, text in found:
        shown = text[indent:]
        shown.rstrip()
        yield Text.assemble(
            (f"{number:>6}", "bright_black"), "   ", shown if len(shown) <= room else crop_line(shown, room)
        )
    if hit.others_total:
        yield Text(" " * _GUTTER + _other_chunks(hit), "bright_black")


def _other_chunks(hit: Hit) -> str:
    """Return where the other chunks of a grouped hit are, the best ones in the order of the file."""
    best = sorted((one.start_line, one.end_line) for one in hit.others[:OTHERS_SHOWN_MAX])
    more = hit.others_total - len(best)
    return "also " + ", ".join(f"{first}-{last}" for first, last in best) + (f" and {more} more" if more else "")


def shown_path(hit: Hit, cwd: Path, roots: Mapping[str, str]) -> str:
    """Return a path that opens from the current directory where the hit is a file here, else what tells it best.

    Args:
        hit: The hit.
        cwd: The current directory.
        roots: The directory of each source on this host; empty for a source that only other hosts feed.
    """
    source, _, path = hit.id.partition(SEPARATOR)
    if source in roots and path == hit.path:
        if not roots[source]:
            return hit.id
        file = Path(roots[source]) / path
    elif hit.id.startswith("/") and hit.id.endswith(f"/{hit.path}"):
        # An earlier release indexed it. An id may look like a path without being one; only files are opened.
        file = Path(hit.id)
    else:
        return hit.path or hit.id
    return str(file.relative_to(cwd) if file.is_relative_to(cwd) else file)


def facet_line(facet: FacetCounts) -> str:
    """Return a facet as a line of its values and counts."""
    values = ", ".join(f"{one.value} {one.count}" for one in facet.values) or "none"
    more = f" and {facet.more} more" if facet.more else ""
    return strip_controls(f"{facet.field} of {facet.counted}: {values}{more}")


def _headline(hit: Hit, shown: str) -> Text:
    return Text.assemble(
        (f"{strip_controls(hit.collection)}  " if hit.collection else "", "bright_black"),
        (strip_controls(shown), "bold cyan"),
        (f":{hit.start_line}-{hit.end_line}" if hit.start_line else "", "cyan"),
        (f"  {strip_controls(hit.symbol)}" if hit.symbol else "", "green"),
        (f"  {hit.score:.4f}", "bright_black"),
    )


def query_words(query: str) -> list[str]:
    """Return the words of a query that are worth pointing out, in lower case, without common ones.

    Bounds:
        ``WORDS_MAX`` words of ``WORD_CHARS_MAX`` characters.
    """
    words = list(dict.fromkeys(word for word in _WORD.findall(query.lower()) if len(word) <= WORD_CHARS_MAX))
    telling = [word for word in words if word not in _STOP_WORDS and (len(word) > 1 or word.isdigit())]
    return (telling or words)[:WORDS_MAX]


def best_lines(text: str, first_line: int, words: Sequence[str], lines_max: int) -> list[tuple[int, Text]]:
    """Return the lines that hold the most query words, in the order of the file.

    Args:
        text: The chunk.
        first_line: Number of its first line in the file.
        words: From :func:`query_words`.
        lines_max: How many lines at most.

    Returns:
        Numbers of the lines and the lines, the words in them pointed out; the first lines that are not empty where no
        word is found.
    """
    pattern = _pattern(words)
    lines = [(number, Text(line)) for number, line in enumerate(text.split("\n"), start=first_line)]
    if pattern is not None:
        for _, line in lines:
            line.highlight_regex(pattern, WORD_STYLE)
    matching = [one for one in lines if one[1].spans]
    if not matching:
        return [one for one in lines if one[1].plain.strip()][: max(1, lines_max // 2)]
    return sorted(sorted(matching, key=lambda one: (-_distinct(one[1]), one[0]))[:lines_max], key=lambda one: one[0])


def crop_line(line: Text, width: int) -> Text:
    """Return the line without its indentation and not wider than ``width``, its first word in sight."""
    start, end = _indent(line.plain), len(line.plain.rstrip())
    if line.spans and line.spans[0].end - start > width - 1:
        start = max(start, line.spans[0].start - width // 3)
    lead = "…" if line.plain[:start].strip() else ""
    tail = "…" if start + width < end else ""
    return Text.assemble(lead, line[start + len(lead) : min(end, start + width) - len(tail)], tail)


def _pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    # Short words only where they stand alone; longer ones inside others too (`parse` in `HTMLParser`).
    alternatives = [
        re.escape(word) if len(word) > 3 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
        for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


def _distinct(line: Text) -> int:
    return len({line.plain[start:end].lower() for start, end, _ in line.spans})


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
