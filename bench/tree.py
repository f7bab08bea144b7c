"""A tree of real files to index: some packages of Python's standard library, copied to where nothing else is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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


def index(root: Path, data_dir: Path, collection: str = "default") -> dict[str, Any]:
    """Run ``penstock index`` on a tree; return the object that it prints.

    Raises:
        RuntimeError: Some files failed, or all.
    """
    command = [sys.executable, "-m", "penstock", "index", str(root), "--collection", collection, "--json"]
    command += ["--data-dir", str(data_dir)]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(data_dir)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"penstock index ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout)
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
