"""Files of a model that comes as an exported ONNX graph, in a directory or on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.kernel.errors import Invalid, Unavailable
from penstock.models import hub
from penstock.models.architecture import POOLING_CONFIG, pooling_modes, read_json
from penstock.models.model_source import sha256
from penstock.models.prompts import PROMPTS_CONFIG

#: Where a graph may lie in a directory or repository; the first that is there counts.
GRAPHS: Final = ("model.onnx", "onnx/model.onnx")
TOKENIZER: Final = "tokenizer.json"
CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
#: Read where they are there.
OPTIONAL: Final = (CONFIG, TOKENIZER_CONFIG, POOLING_CONFIG, PROMPTS_CONFIG)

#: Tokens after which a text is cut where nothing says more or less.
TOKENS_MAX: Final = 512

#: A commit: a branch or a tag may mean other weights tomorrow, and vectors of two models never mix.
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REPOSITORY: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
#: Model types whose positions begin after the padding's, so that two are never used.
_OFFSET_POSITIONS: Final = frozenset({"roberta", "xlm-roberta", "camembert"})


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """The files of one model.

    Attributes:
        name: Its name: the directory's, or the repository's.
        graph: The ONNX graph.
        tokenizer: ``tokenizer.json``.
        tokens_max: Tokens after which a text is cut, special tokens included.
        pooling: ``mean`` or ``cls``: how token vectors become one, where the graph leaves that open.
    """

    name: str
    graph: Path
    tokenizer: Path
    tokens_max: int
    pooling: str = "mean"

    @property
    def model(self) -> str:
        """The model's name and fingerprint; reads all of its files."""
        return f"{self.name}-{self.fingerprint()}"

    def fingerprint(self) -> str:
        """Return sixteen hexadecimal digits over graph, weights beside it, tokenizer and pooling."""
        # Weights too large for one file lie beside the graph: model.onnx_data, model.onnx.data.
        beside = sorted(self.graph.parent.glob(f"{self.graph.name}?data*"))
        digests = [sha256(path) for path in (self.graph, *beside, self.tokenizer)]
        return hashlib.sha256(json.dumps([digests, self.tokens_max, self.pooling]).encode()).hexdigest()[:16]


def find_directory(directory: Path, section: str) -> OnnxFiles:
    """Find a model in a directory; ``section`` is where it is set (``models.rerank``), for errors.

    Raises:
        Invalid: A file is missing or cannot be used (``model_directory``).
    """
    graph = _graph(directory)
    missing = [] if graph is not None else [" or ".join(GRAPHS)]
    missing += [] if (directory / TOKENIZER).is_file() else [TOKENIZER]
    if graph is None or missing:
        detail = f"{section}.path: {directory} lacks {', '.join(missing)}"
        raise Invalid(detail, field=f"{section}.path", code="model_directory")
    return _files(directory.resolve().name, graph, directory)


def _graph(directory: Path) -> Path | None:
    return next((directory / name for name in GRAPHS if (directory / name).is_file()), None)


def find_on_hub(repository: str, revision: str, section: str) -> OnnxFiles:
    """Find a model on the hub, or in the hub's cache on this machine; may download it.

    Args:
        repository: ``owner/name``.
        revision: The commit, all 40 digits.
        section: Where it is set, for errors.

    Raises:
        Invalid: The repository's name or the revision is not valid.
        Unavailable: The hub does not answer or has no such files.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise Invalid(f"{section}.model: {repository!r} is no repository", field=f"{section}.model", code="model_name")
    if not _COMMIT.fullmatch(revision):
        detail = (
            f"{section}.revision: must be a commit of {repository}, all 40 digits, so that the model stays the same"
        )
        raise Invalid(detail, field=f"{section}.revision", code="model_revision")
    wanted = [*GRAPHS, "model.onnx?data*", "onnx/model.onnx?data*", TOKENIZER, *OPTIONAL]
    try:
        found = hub.download_files(repository, wanted, revision)
    except hub.HubUnavailable as away:
        raise _absent(repository, section, str(away)) from away
    graph = _graph(found)
    if graph is None or not (found / TOKENIZER).is_file():
        raise _absent(repository, section, f"it lacks {GRAPHS[0]} or {TOKENIZER}")
    return _files(repository.rpartition("/")[2], graph, found)


def _absent(repository: str, section: str, why: str) -> Unavailable:
    detail = f"{section}: no model {repository}: {why}; set {section}.path to a directory that holds it"
    return Unavailable(detail, dependency=section, code="model_missing")


def _files(name: str, graph: Path, directory: Path) -> OnnxFiles:
    return OnnxFiles(name, graph, directory / TOKENIZER, _tokens_max(directory), _pooling(directory / POOLING_CONFIG))


def _tokens_max(directory: Path) -> int:
    """Return the longest text that the model reads: its positions, or less if its tokenizer says so."""
    config = _record(directory / CONFIG)
    limits = [TOKENS_MAX]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - 2 if config.get("model_type") in _OFFSET_POSITIONS else positions)
    longest = _record(directory / TOKENIZER_CONFIG).get("model_max_length")
    if isinstance(longest, int) and longest > 0:
        limits.append(longest)
    return min(limits)


def _pooling(path: Path) -> str:
    """Return how the vectors of tokens become one.

    Raises:
        Invalid: In a way that is not supported.
    """
    modes = pooling_modes(_record(path))
    if modes <= {"mean_tokens"}:
        return "mean"
    if modes == {"cls_token"}:
        return "cls"
    raise Invalid(f"{path}: only mean and cls pooling are supported", field=str(path), code="model_architecture")


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path) if path.is_file() else {}
    return record if isinstance(record, dict) else {}
