"""Tables: drawn on terminals, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table.

    Attributes:
        header: Names of the columns.
        rows: Cells, one list a row.
        numbers: Columns aligned to the right, by place from 0.
        foldable: Columns that a narrow terminal may fold; the others keep their width.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    foldable: frozenset[int] = frozenset()


def print_table(console: Console, table: TableRows) -> None:
    """Print a table, drawn on a terminal and as plain lines elsewhere."""
    if not console.is_terminal:
        console.print("\n".join(plain_lines(table)))
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(table.header):
        justify = "right" if place in table.numbers else "left"
        fold = place in table.foldable
        drawn.add_column(name, justify=justify, no_wrap=not fold, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn, soft_wrap=False)


def plain_lines(table: TableRows) -> list[str]:
    """Return aligned lines, two spaces between columns."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.header))]
    return [
        "  ".join(
            cell.rjust(width) if place in table.numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
