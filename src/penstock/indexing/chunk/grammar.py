"""Grammar table: the syntax nodes that are definitions in each language, and the rules that read their names."""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
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


_NAME: Final = from_field("name")

#: Nodes around a definition that start it (decorators, `export`) or hold it (`const f = …`).
WRAPPERS: Final = frozenset(
    """
    decorated_definition export_statement template_declaration ambient_declaration
    expression_statement lexical_declaration variable_declaration local_declaration
    """.split()
)
#: Nodes that hold a definition's members; the members are looked at as if they were its own.
BODIES: Final = frozenset(
    """
    block class_body enum_class_body enum_body interface_body protocol_body declaration_list
    field_declaration_list template_body body_statement object_type statement_block
    enum_member_declaration_list compound_statement function_body
    """.split()
)
#: Nodes that may be full of definitions without being one: looked into even where they are small.
TRANSPARENT: Final = frozenset(
    """
    preproc_ifdef preproc_if preproc_else preproc_elif linkage_specification declaration_list
    singleton_class body_statement
    """.split()
)
#: The same outside of any definition only; inside a function they are mere statements.
TRANSPARENT_OUTSIDE: Final = frozenset({"if_statement", "try_statement", "with_statement", "block", "else_clause"})
#: Nodes that belong to the definition that follows them directly; so does every comment.
LEADING: Final = frozenset({"decorator", "attribute_item", "annotation", "attribute_list", "modifiers"})


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language's grammar and what it calls definitions.

    Attributes:
        parser: Name of the grammar in the language pack.
        containers: Definitions with members worth units of their own (classes), with how to read
            their name.
        leaves: Other definitions (functions).
        fallback: Grammar to parse with where this one leaves errors.
        accepts_astral: Whether its parser can be given characters beyond U+FFFF. tree-sitter-bash reads past its tables
            at some of them and takes the process with it (tree-sitter-bash issue 337).
    """

    parser: str
    containers: dict[str, NameRule] = field(default_factory=dict)
    leaves: dict[str, NameRule] = field(default_factory=dict)
    fallback: str = ""
    accepts_astral: bool = True


def _named(types: str) -> dict[str, NameRule]:
    return dict.fromkeys(types.split(), _NAME)


_JS_CONTAINERS: Final = _named("class_declaration")
_JS_LEAVES: Final[dict[str, NameRule]] = {
    **_named("function_declaration generator_function_declaration method_definition"),
    "variable_declarator": from_assignment("name", "value"),
    "assignment_expression": from_assignment("left", "right"),
    "pair": from_assignment("key", "value"),
    "field_definition": from_assignment("property", "value"),
}
_TS_CONTAINERS: Final = _named("class_declaration abstract_class_declaration internal_module module")
_TS_LEAVES: Final[dict[str, NameRule]] = {
    **_JS_LEAVES,
    "public_field_definition": from_assignment("name", "value"),
    **_named("interface_declaration type_alias_declaration enum_declaration function_signature"),
}
_C_LEAVES: Final[dict[str, NameRule]] = {
    "function_definition": c_function_name,
    "struct_specifier": from_field_with_body("name"),
    "union_specifier": from_field_with_body("name"),
    "enum_specifier": from_field_with_body("name"),
    "type_definition": c_typedef_name,
    "preproc_function_def": _NAME,
}
_CPP_CONTAINERS: Final[dict[str, NameRule]] = {
    "namespace_definition": _NAME,
    "class_specifier": from_field_with_body("name"),
    "struct_specifier": from_field_with_body("name"),
}
_CPP_LEAVES: Final = {kind: rule for kind, rule in _C_LEAVES.items() if kind not in _CPP_CONTAINERS}


GRAMMARS: Final[dict[str, Grammar]] = {
    "python": Grammar("python", _named("class_definition"), _named("function_definition")),
    "javascript": Grammar("javascript", _JS_CONTAINERS, _JS_LEAVES),
    "jsx": Grammar("javascript", _JS_CONTAINERS, _JS_LEAVES),
    "typescript": Grammar("typescript", _TS_CONTAINERS, _TS_LEAVES),
    "tsx": Grammar("tsx", _TS_CONTAINERS, _TS_LEAVES),
    "go": Grammar(
        "go",
        {},
        {"function_declaration": _NAME, "method_declaration": go_method_name, "type_declaration": go_type_name},
    ),
    "rust": Grammar(
        "rust",
        {"impl_item": from_field("type"), **_named("mod_item trait_item")},
        _named("function_item function_signature_item struct_item enum_item union_item macro_definition"),
    ),
    "java": Grammar(
        "java",
        _named("class_declaration interface_declaration enum_declaration record_declaration"),
        _named("method_declaration constructor_declaration annotation_type_declaration"),
    ),
    "c": Grammar("c", {}, _C_LEAVES, fallback="cpp"),
    "cpp": Grammar("cpp", _CPP_CONTAINERS, _CPP_LEAVES),
    "csharp": Grammar(
        "csharp",
        _named("namespace_declaration class_declaration struct_declaration interface_declaration record_declaration"),
        _named(
            "method_declaration constructor_declaration property_declaration enum_declaration"
            " delegate_declaration local_function_statement"
        ),
    ),
    "ruby": Grammar("ruby", _named("module class"), _named("method singleton_method")),
    "php": Grammar(
        "php",
        _named("class_declaration interface_declaration trait_declaration enum_declaration"),
        _named("function_definition method_declaration"),
    ),
    "shell": Grammar("bash", {}, _named("function_definition"), accepts_astral=False),
    "kotlin": Grammar(
        "kotlin",
        {
            "class_declaration": from_child("type_identifier"),
            "object_declaration": from_child("type_identifier"),
            "companion_object": fixed_name("Companion"),
        },
        {"function_declaration": from_child("simple_identifier")},
    ),
    "swift": Grammar(
        "swift",
        _named("class_declaration protocol_declaration"),
        {"function_declaration": _NAME, "init_declaration": fixed_name("init")},
    ),
    "scala": Grammar(
        "scala",
        _named("object_definition class_definition trait_definition enum_definition"),
        _named("function_definition function_declaration"),
    ),
    "lua": Grammar("lua", {}, {"function_declaration": _NAME, "assignment_statement": lua_assignment_name}),
}
