"""Consoles and tables: colours appear only on terminals, and text from an indexed file cannot control the terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from rich import box
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.table import Table


def print_json(value: Any) -> None:
    """Print one JSON object, indented, in UTF-8 whatever the locale."""
    stream = sys.stdout.buffer
    text = json.dumps(value, ensure_ascii=False, indent=2)
    stream.write(text.encode(errors="backslashreplace") + b"\n")
    stream.flush()


# Escape sequences in a file's text or name would otherwise reach the terminal.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def stdout_console() -> Console:
    """Return the console of standard output, where results go."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def stderr_console() -> Console:
    """Return the console of standard error, where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


#: Terminals that show links (OSC 8), by what they put into ``TERM`` and ``TERM_PROGRAM``.
_LINKING_TERMS: Final = frozenset(("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm", "contour", "rio"))
_LINKING_PROGRAMS: Final = frozenset(("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "Tabby", "rio", "zed"))
#: Variables that only terminals set that show links.
_LINKING_VARIABLES: Final = ("WT_SESSION", "KONSOLE_VERSION", "DOMTERM", "KITTY_WINDOW_ID")
#: First version of GNOME's terminal library whose links work.
_LINKING_VTE: Final = 5000
#: Multiplexers, whose terminal may be any other by now.
_MULTIPLEXERS: Final = ("screen", "tmux")


def shows_links(console: Console, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a console is a terminal that is known to show links; others might print their bytes.

    ``FORCE_HYPERLINK`` decides where it is set, ``0`` for none.
    """
    term = environ.get("TERM", "")
    if not console.is_terminal or term == "dumb":
        return False
    if forced := environ.get("FORCE_HYPERLINK"):
        return forced != "0"
    if term.startswith(_MULTIPLEXERS):
        return False
    vte = environ.get("VTE_VERSION", "")
    return (
        term in _LINKING_TERMS
        or environ.get("TERM_PROGRAM") in _LINKING_PROGRAMS
        or any(environ.get(name) for name in _LINKING_VARIABLES)
        or (vte.isdecimal() and int(vte) >= _LINKING_VTE)
    )


def strip_controls(text: str) -> str:
    """Return the text on one line, control and direction characters replaced, tabs widened."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.rstrip("\r\n").replace("\t", "    "))


#: Columns for a table that nobody's terminal bounds.
UNBOUNDED: Final = 100_000


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    foldable: Collection[str] = (),
) -> None:
    """Print a table, drawn on a terminal and as plain aligned lines elsewhere.

    Args:
        console: Where to.
        header: Names of the columns.
        rows: Cells, one sequence a row.
        numbers: Columns aligned to the right.
        foldable: Columns that a narrow terminal may fold; the others keep their width.
    """
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    for name in header:
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        table.add_column(name, justify=justify, no_wrap=name not in foldable, overflow="fold")
    for row in rows:
        table.add_row(*map(strip_controls, row))
    if console.is_terminal:
        console.print(table, soft_wrap=False)
        return
    for line in console.render_lines(table, console.options.update(width=UNBOUNDED), pad=False):
        console.print("".join(segment.text for segment in line).rstrip(), soft_wrap=True)


@contextmanager
def logs_above(console: Console) -> Iterator[None]:
    """Write log lines above the console's live display while the body runs, so that they do not tear it."""
    moved: list[tuple[logging.StreamHandler[Any], Any]] = []
    for handler in logging.getLogger().handlers:
        if console.is_terminal and type(handler) is logging.StreamHandler:
            moved.append((handler, handler.stream))
            handler.setStream(FileProxy(console, handler.stream))
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
