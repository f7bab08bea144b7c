"""``penstock index``: bring a collection up to date with files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from penstock.cli.index_progress import progress_display
from penstock.cli.main import INTERRUPTED
from penstock.cli.options import Setup, collection_option, json_option, with_client_settings
from penstock.cli.session import client_of, connect
from penstock.cli.terminal import print_json, stderr_console, strip_controls
from penstock.indexing.sources.index_run import IndexOptions, IndexRun
from penstock.indexing.sources.index_sources import KnownSources, resolve_sources
from penstock.indexing.sources.index_stats import IndexStats, kept_line
from penstock.indexing.sources.local_files import find_files, resolve_path
from penstock.kernel.errors import PenstockError
from penstock.kernel.settings import Settings
from penstock.stores.lock import LockHolder

COLLECTION: Final = "default"
#: Stands in the data directory while the first index is unfinished, so that the next start goes on with it.
PENDING: Final = "first-index.pending"


async def first_index(server: LockHolder, settings: Settings, data_dir: Path, path: Path, console: Console) -> None:
    """Index ``path`` into ``default`` unless the data directory holds a collection.

    Cancellation:
        What is indexed stays; the next start goes on.
    """
    pending = data_dir / PENDING
    async with client_of(server) as api:
        if await api.list_collections() and not pending.exists():
            return
        pending.touch()
        stats = IndexStats()
        with progress_display(console) as shown:
            await IndexRun(api, settings, IndexOptions((path,), COLLECTION), stats, shown).run()
        console.print("\n".join(summary_lines(stats, COLLECTION)), soft_wrap=True)
        pending.unlink(missing_ok=True)


#: Failures listed on a terminal. ``--json`` has them all.
FAILURES_SHOWN_MAX = 20


@click.command("index")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@collection_option
@click.option("--source", default="", metavar="NAME", help="Name of the source (default: its repository's or root's).")
@click.option("--dry-run", is_flag=True, help="List what would be indexed, and why the rest would not.")
@click.option("--force", is_flag=True, help="Index even / or the home directory.")
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Index what matches, as in .gitignore, even if it is left out."
)
@click.option("--prune", is_flag=True, help="Remove vanished files' documents even if they are most of a directory's.")
@click.option("--worktree", is_flag=True, help="One more clone of a repository: the source REPOSITORY@DIRECTORY.")
@json_option
@with_client_settings("concurrency.index.", "concurrency.http.")
def command(  # noqa: PLR0913 - one for each option
    setup: Setup,
    paths: tuple[Path, ...],
    collection: str,
    source: str,
    *,
    dry_run: bool,
    force: bool,
    include: tuple[str, ...],
    prune: bool,
    worktree: bool,
    as_json: bool,
) -> int:
    """Index files and directories.

    A tree becomes a source, named after its repository or else its directory: `penstock sources` lists them. A tree
    that has moved is the same source, and so is one on another machine. A path inside a source brings that part up to
    date, and a directory around sources all of them.

    Leaves out what git ignores and does not track, vendored trees, lock files, minified and generated files, data,
    secrets, binary files and files over 1 MB. A line such as !vendor/ in .penstockignore includes what is left out; so
    do --include and a path's name, and both are kept for the next run. Files that have not changed since the last run
    are not indexed again, changed ones are replaced, vanished ones removed. Works through the server if one runs on the
    data directory. Ctrl-C is safe: the next run goes on.

    A file that another source has at the same path is not embedded again, so a second work tree costs its differences.
    Linked work trees are sources of their own; say --worktree for a second clone.

    Nothing is removed of a directory that is empty or has lost more than half of its documents, and at least five: its
    disk may not be mounted. Say --prune if the files are really gone.

    Exit code 1 if some files failed or nothing was removed of such a directory, 2 on an error.
    """
    order = IndexOptions(paths, collection, force, prune, source, include, worktree=worktree)
    if dry_run:
        _list(setup, order, as_json=as_json)
        return 0
    stats, console = IndexStats(), stderr_console()
    interrupted = False
    try:
        asyncio.run(_index(setup, order, stats, console, quiet=as_json))
    except KeyboardInterrupt:
        interrupted = True
    except PenstockError:
        if stats.files_done and not as_json:
            console.print("\n".join(summary_lines(stats, collection)), soft_wrap=True)
        raise
    print_report(stats, collection, console, as_json=as_json)
    if interrupted:
        console.print(
            "Interrupted. What was indexed stays; the same command goes on where this one stopped, and vectors that"
            " are missing are made by the server.",
            soft_wrap=True,
        )
        return INTERRUPTED
    return 1 if stats.failed or stats.kept_directories else 0


async def _index(setup: Setup, order: IndexOptions, stats: IndexStats, console: Console, *, quiet: bool) -> None:
    # Refused before a model is prepared for it.
    for path in order.paths:
        resolve_path(path, force=order.force)
    async with connect(setup) as api:
        with progress_display(console, quiet=quiet) as shown:
            await IndexRun(api, setup.settings, order, stats, shown).run()


def print_report(stats: IndexStats, collection: str, console: Console, *, as_json: bool) -> None:
    """Print what a run has done: the object or the summary to standard output, failures to standard error."""
    for failure in stats.errors[:FAILURES_SHOWN_MAX]:
        console.print(f"failed: {strip_controls(failure.path)}: {strip_controls(failure.detail)}", soft_wrap=True)
    if stats.failed > FAILURES_SHOWN_MAX:
        console.print(f"… and {stats.failed - FAILURES_SHOWN_MAX} more; --json lists them")
    for note in stats.notes:
        console.print(f"note: {strip_controls(note)}", soft_wrap=True)
    for loss in stats.kept_directories:
        console.print(strip_controls(kept_line(loss, collection)), soft_wrap=True)
    if as_json:
        print_json(stats.as_json(collection))
    else:
        click.echo("\n".join(summary_lines(stats, collection)))


def summary_lines(stats: IndexStats, collection: str) -> list[str]:
    """Return the summary of a run for a person."""
    counts = (
        ("indexed", stats.indexed),
        ("unchanged", stats.unchanged),
        ("removed", stats.removed),
        ("failed", stats.failed),
    )
    lines = [f"{collection}: {', '.join(f'{count} {name}' for name, count in counts if count or name == 'indexed')}"]
    if stats.shared:
        names = ", ".join(f"{count} with {source}" for source, count in stats.shared.most_common())
        lines.append(f"shared {stats.shared.total()}: {strip_controls(names)}")
    if stats.skipped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in stats.skipped.most_common())
        lines.append(f"skipped {stats.skipped.total()}: {reasons}")
    if stats.encodings:
        names = ", ".join(f"{encoding} {count}" for encoding, count in stats.encodings.most_common())
        lines.append(f"not UTF-8 {stats.encodings.total()}: read as {names}")
    rate = f", {stats.chunks / stats.took_s:.0f} chunks/s" if stats.chunks and stats.took_s > 0 else ""
    words = f": found by words after {stats.searchable_s:.1f} s, by meaning after" if stats.chunks else " in"
    lines.append(f"{stats.chunks} chunks{words} {stats.took_s:.1f} s{rate}")
    return lines


def _list(setup: Setup, order: IndexOptions, *, as_json: bool) -> None:
    roots = resolve_sources(order.paths, KnownSources(), name=order.source, worktree=order.worktree, force=order.force)
    skipped: list[dict[str, str]] = []
    files = size = skips = 0

    def skip(path: Path, reason: str) -> None:
        nonlocal skips
        skips += 1
        if as_json:
            skipped.append({"path": _text(path), "reason": reason})
        else:
            click.echo(f"skip   {strip_controls(str(path))}  ({reason})")

    targets = find_files(roots, setup.settings.index.max_file, skip, order.include)
    if as_json:
        would_index = [{"path": one.file, "bytes": one.size} for one in targets]
        print_json({"collection": order.collection, "would_index": would_index, "skipped": skipped})
        return
    for one in targets:
        click.echo(f"index  {strip_controls(one.file)}")
        files, size = files + 1, size + one.size
    click.echo(f"{files} files to index, {size / 1e6:.1f} MB; {skips} skipped", err=True)


def _text(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()
