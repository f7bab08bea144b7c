"""Jupyter notebooks: the sources of their cells, each line with the line of the file that it stands in.

Outputs, pictures and the state of widgets are left out. Formats 3 and 4 are read. A notebook is kept as a short one of
its cells alone, in which each source begins in the line that it has in the file, so that lines are those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.indexing.language import PLAIN_TEXT, canonical_language
from penstock.kernel.errors import DECODE_ERRORS

SUFFIX: Final = ".ipynb"
#: Language of cells where the notebook names none.
_USUAL: Final = "python"
_VERSION: Final = "0123456789.- "

_NOTHING: Final = msgspec.Raw(b'""')


class _RawCell(msgspec.Struct):
    """A cell. Format 3 has the source of code as `input`, and a language for each cell."""

    cell_type: str = ""
    source: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    language: str = ""


class _Worksheet(msgspec.Struct):
    cells: list[msgspec.Raw] = []


class _RawNotebook(msgspec.Struct):
    cells: list[msgspec.Raw] | None = None
    worksheets: list[_Worksheet] | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(frozen=True, slots=True)
class NotebookCell:
    """A cell of a notebook.

    Attributes:
        language: The kernel's for code, `markdown` for text, `text` for what is neither.
        source: Its source as JSON, a string or an array of strings, as it stands in the file.
        line: Line of the file in which the source begins, from 0.
    """

    language: str
    source: bytes
    line: int

    def lines(self) -> tuple[list[str], list[int]]:
        """Return the source's lines, and for each the line of the file in which it begins, from 0."""
        raw: list[msgspec.Raw] = [msgspec.Raw(self.source)]
        if self.source.startswith(b"["):
            raw = msgspec.json.decode(self.source, type=list[msgspec.Raw])
        lines, numbers = [""], [self.line]
        place, number = 0, self.line
        for one in raw:
            begin = self.source.index(bytes(one), place)
            number += self.source.count(b"\n", place, begin)
            place = begin + len(bytes(one))
            first, *others = msgspec.json.decode(one, type=str).split("\n")
            if not lines[-1]:
                numbers[-1] = number
            lines[-1] += first
            lines += others
            numbers += [number] * len(others)
        return lines, numbers


def read_cells(text: str) -> list[NotebookCell] | None:
    """Return a notebook's cells in order, `None` where the text is no notebook."""
    data = text.encode("utf-8", "replace")
    try:
        notebook = msgspec.json.decode(data, type=_RawNotebook)
        if notebook.cells is None and notebook.worksheets is None:
            return None
        cells = list(_located(data, notebook))
        for cell in cells:
            cell.lines()
    except (*DECODE_ERRORS, ValueError):
        return None
    return cells


def _located(data: bytes, notebook: _RawNotebook) -> Iterator[NotebookCell]:
    kernel = _kernel_language(notebook.metadata)
    place = line = counted = 0
    raw_cells = [*(notebook.cells or ()), *(raw for sheet in notebook.worksheets or () for raw in sheet.cells)]
    for raw in map(bytes, raw_cells):
        cell = msgspec.json.decode(raw, type=_RawCell)
        key, source = (b"source", bytes(cell.source)) if cell.source != _NOTHING else (b"input", bytes(cell.input))
        # Cells lie one behind the other, so each is found at once.
        begin = data.index(raw, place)
        place = begin + len(raw)
        within = begin + _value_place(raw, key, source)
        line += data.count(b"\n", counted, within)
        counted = within
        if cell.cell_type == "code":
            yield NotebookCell(canonical_language(cell.language) if cell.language else kernel, source, line)
        else:
            yield NotebookCell(PLAIN_TEXT if cell.cell_type == "raw" else "markdown", source, line)


def _value_place(cell: bytes, key: bytes, value: bytes) -> int:
    """Return where in a cell the value of a key begins; an output may hold the same bytes."""
    for found in _KEY.finditer(cell):
        if found[1] == key and cell.startswith(value, found.end()):
            return found.end()
    return 0


_KEY: Final = re.compile(rb'"(source|input)"\s*+:\s*+')


def _kernel_language(metadata: msgspec.Raw) -> str:
    """Return the language that a notebook's metadata names, by any of the ways that tools do."""
    try:
        known: Any = msgspec.json.decode(metadata)
        spec, info = known.get("kernelspec") or {}, known.get("language_info") or {}
        name = info.get("name") or spec.get("language") or spec.get("name") or _USUAL
        return canonical_language(name.rstrip(_VERSION)) or _USUAL
    except (*DECODE_ERRORS, AttributeError):
        return _USUAL


def condense(text: str) -> str | None:
    """Return a notebook of the cells alone, with each source in the line that it has; `None` where it is none."""
    cells = read_cells(text)
    if cells is None:
        return None
    kernel = next((cell.language for cell in cells if cell.language not in {"markdown", PLAIN_TEXT}), _USUAL)
    head = {"kernelspec": {"language": kernel}}
    pieces = [b'{"nbformat":4,"metadata":', msgspec.json.encode(head), b',"cells":[']
    line = 0
    for number, cell in enumerate(cells):
        kind = {"markdown": b"markdown", PLAIN_TEXT: b"raw"}.get(cell.language, b"code")
        pieces += (b"," * (number > 0), b'{"cell_type":"', kind, b'","source":')
        pieces += (b"\n" * (cell.line - line), cell.source, b"}")
        line = cell.line + cell.source.count(b"\n")
    return b"".join([*pieces, b"]}"]).decode()
