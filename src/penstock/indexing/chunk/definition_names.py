"""Name rules: read a definition's name from its syntax node, one function for each way of writing it."""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

import re
from collections.abc import Callable
from typing import Final

from tree_sitter import Node

#: Returns the name, "" for a definition without one, `None` where the node defines nothing after
#: all.
NameRule = Callable[[Node], str | None]

_GENERICS: Final = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\s+")
_SCOPES: Final = re.compile(r"::|->|:")
_DECLARATOR_DEPTH_MAX: Final = 12
#: What is looked at of a name, and what is kept: every chunk of a definition carries it.
_WRITTEN_BYTES_MAX: Final = 1000
NAME_CHARS_MAX: Final = 160
_FUNCTIONS: Final = frozenset(
    """
    arrow_function function_expression function generator_function class class_expression
    function_definition
    """.split()
)


def name_text(node: Node | None) -> str:
    """Return a name without generics and white space, with dots between its scopes."""
    if node is None or node.text is None:
        return ""
    text = node.text[:_WRITTEN_BYTES_MAX].decode("utf-8", "replace").strip("'\"")
    return (_SCOPES.sub(".", _GENERICS.sub("", text)) or text)[:NAME_CHARS_MAX]


def _first(node: Node | None) -> Node | None:
    """Return the first named child; a grammar that recovers from nonsense leaves out what its rules promise."""
    return node.named_children[0] if node is not None and node.named_child_count else None


def from_field(name: str) -> NameRule:
    """Read the name from a field of the node."""
    return lambda node: name_text(node.child_by_field_name(name))


def from_field_with_body(name: str) -> NameRule:
    """Read the name of a node that has a body; without one it only mentions the type."""

    def rule(node: Node) -> str | None:
        return None if node.child_by_field_name("body") is None else name_text(node.child_by_field_name(name))

    return rule


def from_child(*types: str) -> NameRule:
    """Read the name from the first child of one of `types`, for grammars that name no fields."""

    def rule(node: Node) -> str | None:
        return next((name_text(one) for one in node.named_children if one.type in types), "")

    return rule


def fixed_name(name: str) -> NameRule:
    """Give a fixed name, to constructors that are written with a keyword."""
    return lambda _: name


def c_function_name(node: Node) -> str | None:
    """Read a C or C++ function's name through its pointers, references and parameters."""
    inner = node.child_by_field_name("declarator")
    for _ in range(_DECLARATOR_DEPTH_MAX):
        if inner is None:
            return None
        deeper = inner.child_by_field_name("declarator")
        if deeper is None and inner.type in {"reference_declarator", "parenthesized_declarator"}:
            deeper = _first(inner)
        if deeper is None:
            return name_text(inner)
        inner = deeper
    return ""


def c_typedef_name(node: Node) -> str | None:
    """Read the name of a C `typedef` that spells out a struct, union or enum."""
    defined = node.child_by_field_name("type")
    if defined is None or defined.child_by_field_name("body") is None:
        return None
    return name_text(node.child_by_field_name("declarator"))


def go_method_name(node: Node) -> str | None:
    """Read a Go method's name with the type that it belongs to."""
    name = name_text(node.child_by_field_name("name"))
    parameter = _first(node.child_by_field_name("receiver"))
    owner = name_text(parameter.child_by_field_name("type")).lstrip("*") if parameter is not None else ""
    return f"{owner}.{name}" if owner else name


def go_type_name(node: Node) -> str | None:
    """Read the name of the first type in a Go `type` declaration."""
    spec = _first(node)
    return name_text(spec.child_by_field_name("name")) if spec is not None else None


def from_assignment(target: str, value: str) -> NameRule:
    """Read the name that a function or class is assigned to; other values define nothing."""

    def rule(node: Node) -> str | None:
        given = node.child_by_field_name(value)
        if given is None or given.type not in _FUNCTIONS:
            return None
        name = name_text(node.child_by_field_name(target))
        return name.removeprefix("module.exports.").removeprefix("exports.").replace(".prototype.", ".")

    return rule


def lua_assignment_name(node: Node) -> str | None:
    """Read the name that a Lua function is assigned to."""
    if node.named_child_count < 2:
        return None
    targets, values = node.named_children[:2]
    value = _first(values)
    return name_text(targets) if value is not None and value.type == "function_definition" else None
