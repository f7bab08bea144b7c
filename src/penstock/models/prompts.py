"""Prompts: what a dense model wants in front of queries and documents, by its files or by its name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.kernel.messages import TextKind
from penstock.models.architecture import read_json
from penstock.models.tokenizer import TextTokenizer

#: Of sentence-transformers; models made before its version 2.4 lack the prompts in it.
PROMPTS_CONFIG: Final = "config_sentence_transformers.json"
_QUERY_NAMES: Final = ("query", "search_query")
_DOCUMENT_NAMES: Final = ("document", "passage", "search_document")

_PASSAGES: Final = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class Prompts:
    """The words in front of a model's texts; empty for none."""

    query: str = ""
    document: str = ""

    def applied(self, texts: Sequence[str], kind: TextKind) -> Sequence[str]:
        """Return texts with the prompt of their kind in front."""
        prompt = self.query if kind is TextKind.QUERY else self.document
        return [prompt + text for text in texts] if prompt else texts

    def named(self, model: str) -> str:
        """Return the name of the vectors that a model makes; another document prompt gives other vectors."""
        digest = hashlib.sha256(self.document.encode()).hexdigest()[:8]
        return f"{model}-{digest}" if self.document else model

    def leave_room(self, tokenizer: TextTokenizer) -> TextTokenizer:
        """Return a tokenizer that cuts where the model does if a prompt is in front."""
        longest = max(tokenizer.count([self.query, self.document]))
        return TextTokenizer(tokenizer.path, tokenizer.tokens_max - longest) if longest else tokenizer


NO_PROMPTS: Final = Prompts()

_E5: Final = re.compile(r"(multilingual-)?e5-(small|base|large)(-v2)?")
_BGE: Final = re.compile(r"bge-(small|base|large)-en(-v1\.5)?")
_ARCTIC: Final = re.compile(r"snowflake-arctic-embed-(xs|s|m|l|m-long|m-v1\.5)|mxbai-embed-large-v1")
_NOMIC: Final = re.compile(r"nomic-embed-text-v1(\.5)?")
_CODE_RANK: Final = re.compile(r"coderankembed")
#: Prompts by name, where the model's files do not tell. From the models' cards.
_KNOWN: Final = {
    _E5: Prompts("query: ", "passage: "),
    _BGE: Prompts(_PASSAGES),
    _ARCTIC: Prompts(_PASSAGES),
    _NOMIC: Prompts("search_query: ", "search_document: "),
    _CODE_RANK: Prompts("Represent this query for searching relevant code: "),
}


def find_prompts(directory: Path, name: str) -> Prompts:
    """Return a model's prompts: those in its files, else those known by its name, else none.

    Args:
        directory: Its files; ``config_sentence_transformers.json`` may have ``prompts``.
        name: Its name without the owner; letters of either case.
    """
    path = directory / PROMPTS_CONFIG
    record = read_json(path) if path.is_file() else {}
    told = record.get("prompts") if isinstance(record, dict) else None
    if isinstance(told, dict) and any(told.values()):
        return Prompts(_first(told, _QUERY_NAMES), _first(told, _DOCUMENT_NAMES))
    return next((prompts for known, prompts in _KNOWN.items() if known.fullmatch(name.lower())), NO_PROMPTS)


def _first(told: dict[str, object], names: Sequence[str]) -> str:
    return next((text for name in names if isinstance(text := told.get(name), str) and text), "")
