"""Code with a grammar: a unit for each definition, cuts between statements."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Final, cast

from tree_sitter import Node, Parser
from tree_sitter_language_pack import SupportedLanguage, get_parser

from penstock.indexing.chunk.grammar import (
    BODIES,
    GRAMMARS,
    LEADING,
    TRANSPARENT,
    TRANSPARENT_OUTSIDE,
    WRAPPERS,
    Grammar,
)
from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import BoundaryScore, Outline, OutlineUnit, ParseLimit, UnitKind

#: Above this share of unparsed lines the grammar has not understood the file.
ERROR_SHARE_MAX: Final = 0.2
#: A line longer than this was written by a machine: its syntax gives no line to cut at, and takes
#: long to parse.
LINE_CHARS_MAX: Final = 20_000
#: Brackets open at once. More of them is no code, and takes hundreds of bytes each to parse.
BRACKETS_OPEN_MAX: Final = 500
#: Characters of a symbol; a definition nested so deep that they do not suffice is known by what encloses it.
SYMBOL_CHARS_MAX: Final = 400
_ERROR_NODES_MAX: Final = 20_000
_WRAPPERS_DEPTH_MAX: Final = 4
#: Statements are taken apart until they cost less than this share of the budget.
_STATEMENT_SHARE: Final = 0.5
#: Statements nested deeper than this are not told apart any more.
_DEPTH_MAX: Final = 64

#: Characters of four bytes, which four others stand for without moving a column.
_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")

_OPENING: Final = b"([{"
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"()[]{}"))

_STATEMENT: Final = 2.0
_DEPTH_WEIGHT: Final = 0.35
_NESTED_LEAST: Final = -1.0
_AFTER_BLANK: Final = 0.6
_INSIDE: Final = -3.0


@cache
def _parser(name: str) -> Parser:
    return get_parser(cast("SupportedLanguage", name))


@dataclass(frozen=True, slots=True)
class _PendingNode:
    """A node to place: with the comments above it, inside the definition `symbol`."""

    node: Node
    start: int
    symbol: str
    depth: int


@dataclass(frozen=True, slots=True)
class _UnitStart:
    line: int
    symbol: str
    parent: str
    kind: UnitKind
    depth: int


def outline_syntax(text: str, language: str, costs: LineCosts, budget: int, parse_limit: ParseLimit) -> Outline | None:
    """Return the units of a source file.

    Returns:
        The outline, or `None` where there is no grammar for the language or it does not understand
        the file, or lines or brackets are longer or deeper than a person writes them.
    """
    grammar = GRAMMARS.get(language)
    if grammar is None or len(max(costs.lines, key=len)) > LINE_CHARS_MAX:
        return None
    source = (text if grammar.accepts_astral else _ASTRAL.sub("____", text)).encode("utf-8", "replace")
    if _brackets_open(source) > BRACKETS_OPEN_MAX:
        return None
    root = _parsed(grammar, source, parse_limit)
    if root.has_error and grammar.fallback:
        other = GRAMMARS[grammar.fallback]
        retried = _parsed(other, source, parse_limit)
        if _error_lines(retried) < _error_lines(root):
            root, grammar = retried, other
    if root.has_error and _error_lines(root) > ERROR_SHARE_MAX * len(costs.lines):
        return None
    marks = _SyntaxOutliner(grammar, costs, budget).unit_starts(root)
    return Outline(_units(marks, len(costs.lines)), _statement_strength(marks, costs))


def _parsed(grammar: Grammar, source: bytes, guard: ParseLimit) -> Node:
    parser = _parser(grammar.parser)
    with guard(len(source)):
        return parser.parse(source).root_node


def _brackets_open(source: bytes) -> int:
    """Return how many brackets of any kind are open at once at most, those in strings and comments included."""
    steps = (1 if one in _OPENING else -1 for one in source.translate(None, _NO_BRACKETS))
    # A closing one too many closes nothing.
    return max(accumulate(steps, lambda depth, step: max(depth + step, 0)), default=0)


def _error_lines(root: Node) -> int:
    """Return how many lines the grammar could not place, looking at no more than `_ERROR_NODES_MAX` nodes."""
    lines = 0
    stack = [root]
    for _ in range(_ERROR_NODES_MAX):
        if not stack:
            break
        node = stack.pop()
        if node.type == "ERROR":
            lines += _last_row(node) + 1 - node.start_point.row
        elif node.has_error:
            stack.extend(node.children)
    return lines


def _last_row(node: Node) -> int:
    end = node.end_point
    return end.row - 1 if end.column == 0 and end.row > node.start_point.row else end.row


@dataclass(slots=True)
class _SyntaxOutliner:
    """Walks from the root, as deep as the budget asks, and marks where units begin."""

    grammar: Grammar
    costs: LineCosts
    budget: int
    marks: list[_UnitStart] = field(default_factory=list)

    def unit_starts(self, root: Node) -> list[_UnitStart]:
        """Return the marks in the order of their lines. No recursion: sources nest as deep as they like."""
        stack = list(reversed(list(self._tasks(root.named_children, "", 0))))
        while stack:
            stack.extend(reversed(self._place(stack.pop())))
        return self.marks

    def _tasks(self, nodes: Iterable[Node], symbol: str, depth: int) -> Iterator[_PendingNode]:
        """Pair each node with the line where the comments and decorators directly above it begin."""
        lead: int | None = None
        lead_end = previous_end = -1
        for node in nodes:
            start = node.start_point.row
            if node.type in LEADING or "comment" in node.type:
                if start > previous_end or lead is not None:
                    lead = start if lead is None or start > lead_end + 1 else lead
                    lead_end = _last_row(node)
                    yield _PendingNode(node, lead, symbol, depth)
                continue
            attached = lead is not None and start <= lead_end + 1
            yield _PendingNode(node, lead if attached and lead is not None else start, symbol, depth)
            lead, previous_end = None, _last_row(node)

    def _place(self, task: _PendingNode) -> list[_PendingNode]:
        """Mark the task's node and return what of it is to be placed next."""
        node, symbol = task.node, task.symbol
        cost = self.costs.cost(task.start, _last_row(node) + 1)
        inner, name, is_container = self._definition(node)
        if inner is not None:
            qualified = f"{symbol}.{name}" if symbol and name else symbol or name
            if len(qualified) > SYMBOL_CHARS_MAX:
                qualified = symbol
            if cost <= self.budget and not (is_container and self._has_large_member(inner, cost)):
                self._mark(task, qualified, symbol, UnitKind.DEFINITION)
                return []
            self._mark(task, qualified, symbol, UnitKind.HEADER)
            return list(self._tasks(_members(inner), qualified, task.depth + 1))
        marked = self._mark(task, symbol, symbol, UnitKind.FILLER)
        looked_into = node.type in TRANSPARENT or (not symbol and node.type in TRANSPARENT_OUTSIDE)
        if task.depth >= _DEPTH_MAX or not (looked_into or cost > self.budget * _STATEMENT_SHARE):
            return []
        return list(self._tasks(node.named_children, symbol, task.depth + marked))

    def _definition(self, node: Node) -> tuple[Node | None, str, bool]:
        """Return the definition that `node` is or wraps, its name, and whether it is a container."""
        grammar = self.grammar
        for _ in range(_WRAPPERS_DEPTH_MAX):
            is_container = node.type in grammar.containers
            rule = grammar.containers.get(node.type) or grammar.leaves.get(node.type)
            if rule is not None and (name := rule(node)) is not None:
                return node, name, is_container
            if node.type not in WRAPPERS:
                break
            known = (grammar.containers.keys(), grammar.leaves.keys(), WRAPPERS)
            inner = next(
                (one for one in node.named_children if any(one.type in kinds for kinds in known)),
                None,
            )
            if inner is None:
                break
            node = inner
        return None, "", False

    def _has_large_member(self, container: Node, cost: int) -> bool:
        quarter = self.budget / 4
        if cost < 2 * quarter:
            return False
        for node in _members(container):
            inner, _, _ = self._definition(node)
            if inner is not None and self.costs.cost(node.start_point.row, _last_row(node) + 1) >= quarter:
                return True
        return False

    def _mark(self, task: _PendingNode, symbol: str, parent: str, kind: UnitKind) -> bool:
        """Mark a line unless it is marked already or begins with something else."""
        last = self.marks[-1] if self.marks else None
        if last is not None and task.start <= last.line:
            # A leading comment is placed before its definition; the definition then takes the line
            # over.
            if task.start != last.line or kind is UnitKind.FILLER or last.kind is not UnitKind.FILLER:
                return False
            self.marks.pop()
        elif task.start == task.node.start_point.row:
            # Columns count bytes, so a prefix with wide characters is cut too late, never too
            # early.
            prefix = self.costs.lines[task.start][: task.node.start_point.column]
            if prefix and not prefix.isspace():
                return False
        self.marks.append(_UnitStart(task.start, symbol, parent, kind, task.depth))
        return True


def _members(node: Node) -> Iterator[Node]:
    """Yield the children of a definition, those of its body among them."""
    for child in node.named_children:
        if child.type in BODIES:
            yield from child.named_children
        else:
            yield child


def _units(marks: list[_UnitStart], lines: int) -> list[OutlineUnit]:
    """Turn marks into units that cover all lines; code of one symbol in a row becomes one unit."""
    units: list[OutlineUnit] = []
    if not marks or marks[0].line > 0:
        units.append(OutlineUnit(0, marks[0].line if marks else lines))
    for number, mark in enumerate(marks):
        end = marks[number + 1].line if number + 1 < len(marks) else lines
        last = units[-1] if units else None
        goes_on = last is not None and mark.kind is UnitKind.FILLER and last.kind is not UnitKind.DEFINITION
        if last is not None and goes_on and mark.symbol == last.symbol:
            units[-1] = OutlineUnit(last.start, end, last.symbol, last.parent, last.kind)
        else:
            units.append(OutlineUnit(mark.line, end, mark.symbol, mark.parent, mark.kind))
    return units


def _statement_strength(marks: list[_UnitStart], ledger: LineCosts) -> BoundaryScore:
    depths = {mark.line: mark.depth for mark in marks}

    def strength(line: int) -> float:
        depth = depths.get(line)
        value = _INSIDE if depth is None else max(_STATEMENT - _DEPTH_WEIGHT * depth, _NESTED_LEAST)
        return value + (_AFTER_BLANK if ledger.blank[line - 1] else 0.0)

    return strength
