"""Language of a file, detected from its name or its first line."""

import string
from itertools import dropwhile
from pathlib import PurePath
from typing import Final

PLAIN_TEXT: Final = "text"
#: A document whose chunks have the languages of its cells.
NOTEBOOK: Final = "notebook"

_EXTENSIONS: Final[dict[str, str]] = {
    "python": "py pyi pyw pyx pxd",
    "javascript": "js mjs cjs es6",
    "jsx": "jsx",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp inl tcc cu cuh ino",
    "csharp": "cs csx",
    "ruby": "rb rake gemspec ru",
    "php": "php phtml php5 php7",
    "shell": "sh bash zsh ksh ash dash bats",
    "kotlin": "kt kts",
    "swift": "swift",
    "scala": "scala sc sbt",
    "lua": "lua",
    "objc": "m mm",
    "perl": "pl pm t",
    "r": "r",
    "julia": "jl",
    "dart": "dart",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "haskell": "hs lhs",
    "ocaml": "ml mli",
    "fsharp": "fs fsi fsx",
    "clojure": "clj cljs cljc edn",
    "lisp": "lisp lsp cl",
    "elisp": "el",
    "scheme": "scm ss rkt",
    "groovy": "groovy gradle gvy",
    "powershell": "ps1 psm1 psd1",
    "batch": "bat cmd",
    "fish": "fish",
    "nim": "nim",
    "zig": "zig",
    "d": "d",
    "pascal": "pas pp",
    "fortran": "f f77 f90 f95 f03 f08 for",
    "assembly": "s asm",
    "verilog": "v sv svh",
    "vhdl": "vhd vhdl",
    "solidity": "sol",
    "vim": "vim",
    "tcl": "tcl",
    "awk": "awk",
    "sql": "sql ddl",
    "graphql": "graphql gql",
    "protobuf": "proto",
    "thrift": "thrift",
    "terraform": "tf tfvars hcl",
    "nix": "nix",
    "cmake": "cmake",
    "make": "mk mak",
    "starlark": "bzl star",
    "html": "html htm xhtml jinja j2 ejs erb hbs",
    "vue": "vue",
    "svelte": "svelte",
    "css": "css",
    "scss": "scss sass less",
    "xml": "xml xsd xsl xslt svg plist csproj props targets rng",
    "json": "json jsonc json5 jsonl ndjson geojson webmanifest",
    NOTEBOOK: "ipynb",
    "yaml": "yaml yml",
    "toml": "toml",
    "ini": "ini cfg conf properties editorconfig env desktop service",
    "csv": "csv tsv",
    "diff": "diff patch",
    "markdown": "md markdown mdown mkd mdx qmd rmd",
    "rst": "rst rest",
    "asciidoc": "adoc asciidoc",
    "org": "org",
    "latex": "tex sty cls bib ltx",
    "texinfo": "texi texinfo",
    "man": "1 3 5 7 8 man",
    PLAIN_TEXT: "txt text log",
}
_BY_EXTENSION: Final = {ext: language for language, exts in _EXTENSIONS.items() for ext in exts.split()}

_NAMES: Final[dict[str, str]] = {
    "dockerfile": "Dockerfile Containerfile",
    "make": "Makefile makefile GNUmakefile Kbuild",
    "cmake": "CMakeLists.txt",
    "ruby": "Rakefile Gemfile Vagrantfile Guardfile Podfile Brewfile",
    "groovy": "Jenkinsfile",
    "starlark": "BUILD WORKSPACE Tiltfile",
    "shell": ".bashrc .bash_profile .profile .zshrc .envrc PKGBUILD",
    "ini": ".editorconfig .gitconfig .npmrc .flake8 .pylintrc .coveragerc .env",
    "python": "SConstruct SConscript wscript",
    "json": ".babelrc .eslintrc .prettierrc",
    "gomod": "go.mod go.work",
    "ignore": ".gitignore .dockerignore .ignore .npmignore .hgignore .gitattributes",
    "markdown": "README CHANGELOG CONTRIBUTING",
    PLAIN_TEXT: "LICENSE COPYING AUTHORS NEWS TODO",
}
_BY_NAME: Final = {name: language for language, names in _NAMES.items() for name in names.split()}

_INTERPRETERS: Final[dict[str, str]] = {
    "python": "python pypy uv",
    "shell": "sh bash zsh ksh dash ash",
    "javascript": "node nodejs bun",
    "typescript": "deno ts-node tsx",
    "ruby": "ruby jruby",
    "perl": "perl",
    "php": "php",
    "lua": "lua luajit",
    "awk": "awk gawk mawk",
    "tcl": "tclsh wish",
    "fish": "fish",
    "r": "Rscript",
    "make": "make",
    "groovy": "groovy",
}
_BY_INTERPRETER: Final = {program: language for language, names in _INTERPRETERS.items() for program in names.split()}

#: Names that people give languages, where they are no extension of theirs.
_ALIASES: Final = {
    "golang": "go",
    "c#": "csharp",
    "f#": "fsharp",
    "objective-c": "objc",
    "python3": "python",
    "jupyter": NOTEBOOK,
    "ir": "r",
    "plaintext": PLAIN_TEXT,
    "plain text": PLAIN_TEXT,
}

_SHEBANG: Final = "#!"
#: Letters of an interpreter's name; a version may follow (`python3.11`).
_LETTERS: Final = string.ascii_letters + "-"


def canonical_language(language: str) -> str:
    """Return the name under which a language is kept: `Python`, `py` and `python` are one.

    Args:
        language: Its name in any case, one of its extensions or another name of it; a name that is not known is kept
            in lower case.
    """
    name = language.strip().lower()
    if name in _EXTENSIONS:
        return name
    return _ALIASES.get(name) or _BY_EXTENSION.get(name, name)


def language_of(path: PurePath | str, first_line: str = "") -> str:
    """Return the language of a file.

    The whole name decides first, then the extension, then the interpreter named by a `#!` line.

    Args:
        path: The file's path; only its last part is looked at.
        first_line: The file's first line, where it is known.

    Returns:
        A lower-case name such as `python`, `tsx`, `csharp` or `shell`; `text` where nothing is
        known.
    """
    name = PurePath(path).name
    if (language := _BY_NAME.get(name)) is not None:
        return language
    stem, dot, extension = name.rpartition(".")
    if dot and stem and (language := _BY_EXTENSION.get(extension.lower())) is not None:
        return language
    if name.startswith(("Dockerfile.", "Makefile.")):
        return _BY_NAME[name.partition(".")[0]]
    return _BY_INTERPRETER.get(_interpreter(first_line), PLAIN_TEXT)


def _interpreter(line: str) -> str:
    """Return the program that a `#!` line names, its version left out; empty where it names none."""
    if not line.startswith(_SHEBANG):
        return ""
    words = line.removeprefix(_SHEBANG).split()
    if words and _basename(words[0]) == "env":
        words = list(dropwhile(lambda word: word.startswith("-") or "=" in word, words[1:]))
    name = _basename(words[0]) if words else ""
    return name[: len(name) - len(name.lstrip(_LETTERS))]


def _basename(path: str) -> str:
    return path.rpartition("/")[2]
