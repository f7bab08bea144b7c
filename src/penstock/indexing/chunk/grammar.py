"""Grammar table: the syntax nodes that are definitions in each language, read by `syntax.py`."""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

from dataclasses import dataclass, field
from typing import Final

from penstock.indexing.chunk import definition_names
from penstock.indexing.chunk.definition_names import NameRule

_NAME: Final = definition_names.from_field("name")

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


_JS_CONTAINERS: Final[dict[str, NameRule]] = {"class_declaration": _NAME}
_JS_LEAVES: Final[dict[str, NameRule]] = {
    "function_declaration": _NAME,
    "generator_function_declaration": _NAME,
    "method_definition": _NAME,
    "variable_declarator": definition_names.from_assignment("name", "value"),
    "assignment_expression": definition_names.from_assignment("left", "right"),
    "pair": definition_names.from_assignment("key", "value"),
    "field_definition": definition_names.from_assignment("property", "value"),
}
_TS_CONTAINERS: Final[dict[str, NameRule]] = {
    **_JS_CONTAINERS,
    "abstract_class_declaration": _NAME,
    "internal_module": _NAME,
    "module": _NAME,
}
_TS_LEAVES: Final[dict[str, NameRule]] = {
    **_JS_LEAVES,
    "public_field_definition": definition_names.from_assignment("name", "value"),
    "interface_declaration": _NAME,
    "type_alias_declaration": _NAME,
    "enum_declaration": _NAME,
    "function_signature": _NAME,
}
_C_LEAVES: Final[dict[str, NameRule]] = {
    "function_definition": definition_names.c_function_name,
    "struct_specifier": definition_names.from_field_with_body("name"),
    "union_specifier": definition_names.from_field_with_body("name"),
    "enum_specifier": definition_names.from_field_with_body("name"),
    "type_definition": definition_names.c_typedef_name,
    "preproc_function_def": _NAME,
}
_CPP_CONTAINERS: Final[dict[str, NameRule]] = {
    "namespace_definition": _NAME,
    "class_specifier": definition_names.from_field_with_body("name"),
    "struct_specifier": definition_names.from_field_with_body("name"),
}
_CPP_LEAVES: Final = {kind: rule for kind, rule in _C_LEAVES.items() if kind not in _CPP_CONTAINERS}


def _named(*types: str) -> dict[str, NameRule]:
    return dict.fromkeys(types, _NAME)


GRAMMARS: Final[dict[str, Grammar]] = {
    "python": Grammar("python", _named("class_definition"), _named("function_definition")),
    "javascript": Grammar("javascript", _JS_CONTAINERS, _JS_LEAVES),
    "jsx": Grammar("javascript", _JS_CONTAINERS, _JS_LEAVES),
    "typescript": Grammar("typescript", _TS_CONTAINERS, _TS_LEAVES),
    "tsx": Grammar("tsx", _TS_CONTAINERS, _TS_LEAVES),
    "go": Grammar(
        "go",
        leaves={
            "function_declaration": _NAME,
            "method_declaration": definition_names.go_method_name,
            "type_declaration": definition_names.go_type_name,
        },
    ),
    "rust": Grammar(
        "rust",
        {"impl_item": definition_names.from_field("type"), **_named("mod_item", "trait_item")},
        _named(
            "function_item",
            "function_signature_item",
            "struct_item",
            "enum_item",
            "union_item",
            "macro_definition",
        ),
    ),
    "java": Grammar(
        "java",
        _named("class_declaration", "interface_declaration", "enum_declaration", "record_declaration"),
        _named("method_declaration", "constructor_declaration", "annotation_type_declaration"),
    ),
    "c": Grammar("c", {}, _C_LEAVES, fallback="cpp"),
    "cpp": Grammar("cpp", _CPP_CONTAINERS, _CPP_LEAVES),
    "csharp": Grammar(
        "csharp",
        _named(
            "namespace_declaration",
            "class_declaration",
            "struct_declaration",
            "interface_declaration",
            "record_declaration",
        ),
        _named(
            "method_declaration",
            "constructor_declaration",
            "property_declaration",
            "enum_declaration",
            "delegate_declaration",
            "local_function_statement",
        ),
    ),
    "ruby": Grammar("ruby", _named("module", "class"), _named("method", "singleton_method")),
    "php": Grammar(
        "php",
        _named("class_declaration", "interface_declaration", "trait_declaration", "enum_declaration"),
        _named("function_definition", "method_declaration"),
    ),
    "shell": Grammar("bash", {}, _named("function_definition"), accepts_astral=False),
    "kotlin": Grammar(
        "kotlin",
        {
            "class_declaration": definition_names.from_child("type_identifier"),
            "object_declaration": definition_names.from_child("type_identifier"),
            "companion_object": definition_names.fixed_name("Companion"),
        },
        {"function_declaration": definition_names.from_child("simple_identifier")},
    ),
    "swift": Grammar(
        "swift",
        _named("class_declaration", "protocol_declaration"),
        {"function_declaration": _NAME, "init_declaration": definition_names.fixed_name("init")},
    ),
    "scala": Grammar(
        "scala",
        _named("object_definition", "class_definition", "trait_definition", "enum_definition"),
        _named("function_definition", "function_declaration"),
    ),
    "lua": Grammar(
        "lua", {}, {"function_declaration": _NAME, "assignment_statement": definition_names.lua_assignment_name}
    ),
}
