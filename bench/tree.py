"""Trees of real files to index, and the program that indexes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import ROOT
from bench.corpus import LIBRARY
from penstock.indexing.chunk import chunk_text
from penstock.indexing.chunk_worker import SPECIAL_TOKENS
from penstock.indexing.document_records import Document
from penstock.indexing.model_inputs import dense_text, header_tokens
from penstock.indexing.sources.local_files import IndexRoot, encode_document, find_files
from penstock.kernel.settings import Settings
from penstock.models.tokenizer import TextTokenizer

PACKAGES: Final = ("asyncio", "email", "http", "json", "logging", "unittest", "urllib")
#: Lines after which a generated file ends, before the next definition; some ten chunks.
PART_LINES: Final = 80
#: Files of code to one of documentation.
CODE_FILES: Final = 3
_DEFINITION: Final = re.compile(r"@|class |def |async def ")
_DOCUMENTED: Final = re.compile(r'^ *(?:class|def|async def) (\w+)[^\n]*:\n +r?"""([^"]+)"""', re.MULTILINE)


def plant(root: Path, files_max: int) -> int:
    """Copy the first files of the packages below a directory; return how many.

    Args:
        root: Where to; what is there is replaced.
        files_max: Files at most.
    """
    shutil.rmtree(root, ignore_errors=True)
    sources = [path for name in PACKAGES for path in sorted((LIBRARY / name).rglob("*.py"))][:files_max]
    for path in sources:
        target = root / path.relative_to(LIBRARY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return len(sources)


def generate(root: Path, files: int) -> int:
    """Write a tree of code and documentation of ordinary size, parts of Python's standard library; return its files.

    The same Python gives the same tree.

    Args:
        root: Where to; what is there is replaced.
        files: Files at most.
    """
    shutil.rmtree(root, ignore_errors=True)
    written = 0
    for name, text in islice(_parts(), files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        written += (root / name).write_text(text) > 0
    return written


def _parts() -> Iterator[tuple[Path, str]]:
    """Yield paths and texts: of each source its parts, and after some of them what they document."""
    pages, count = "", 0
    for path in sorted(LIBRARY.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        place = path.relative_to(LIBRARY).with_suffix("")
        for number, text in enumerate(_cut(path.read_text(errors="replace").splitlines())):
            yield place.with_name(f"{place.name}_{number}.py"), text
            count += 1
            pages += "".join(f"## {name}\n\n{doc}\n\n" for name, doc in documented(text))
            if count % CODE_FILES == 0 and pages:
                yield place.with_name(f"{place.name}_{number}.md"), f"# {place.name}\n\n{pages}"
                pages = ""


def _cut(lines: list[str]) -> Iterator[str]:
    """Yield the parts of a source, each ending before a definition at its outermost level."""
    first = 0
    for number, line in enumerate(lines):
        if number - first >= PART_LINES and _DEFINITION.match(line) and not lines[number - 1].startswith("@"):
            yield "\n".join(lines[first:number]) + "\n"
            first = number
    if first < len(lines):
        yield "\n".join(lines[first:]) + "\n"


def documented(source: str) -> list[tuple[str, str]]:
    """Return names and docstrings of the definitions in a Python source whose head is one line."""
    return _DOCUMENTED.findall(source)


def copy_tracked(root: Path, target: Path) -> None:
    """Copy the files of a tree that git tracks, and all of them where there is no git; the target is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode:
        shutil.copytree(root, target)
        return
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)


def start(data_dir: Path, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """Start a command of ``penstock`` on a data directory; the streams are those of ``Popen``."""
    command = [sys.executable, "-m", "penstock", *arguments, "--data-dir", str(data_dir)]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(data_dir)}
    return subprocess.Popen(command, text=True, env=environment, **streams)


def index(root: Path, data_dir: Path, collection: str = "default") -> dict[str, Any]:
    """Run ``penstock index`` on a tree; return the object that it prints.

    Raises:
        RuntimeError: Some files failed, or all.
    """
    arguments = ["index", str(root), "--collection", collection, "--json"]
    with start(data_dir, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"penstock index ended with {process.returncode}: {errors[-500:]}")
    told: dict[str, Any] = json.loads(printed)
    return told


def dense_texts(root: Path, tokenizer: TextTokenizer) -> list[str]:
    """Return what the model is given of a tree, chunk by chunk, as the server makes it."""
    settings, budget, found = Settings(), tokenizer.tokens_max - SPECIAL_TOKENS, []
    for one in find_files([IndexRoot(root, root, root.name)], settings.index.max_file):
        raw = encode_document(one, settings.index.max_file, settings.http.max_body)
        document = msgspec.json.decode(raw, type=Document)
        limit = budget - header_tokens(document.path)
        cut = chunk_text(document.text, document.language, tokens_max=limit, count=tokenizer.count)
        found += [dense_text(part.text, document.path, part.symbol) for part in cut]
    return found
