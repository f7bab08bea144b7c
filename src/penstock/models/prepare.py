"""Preparation of the built-in model, once: from weights to a checked ONNX graph in the cache directory.

The cache directory has one writer at a time, and whole directories or none.

``<cache>/<name>-<fingerprint>/`` holds ``model.onnx``, ``tokenizer.json`` and ``manifest.json``. It
is written under a temporary name and renamed, so it is complete or absent. Leftovers of a crash
are removed by the next preparation. A warm start hashes the 23 MB graph (about 20 ms) but not the 91
MB of weights: the manifest keeps their stamps.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.kernel.errors import Unavailable
from penstock.models.architecture import MEAN, SafetensorsFile, read_bert_config
from penstock.models.model_source import sha256
from penstock.models.projection import token_dim_for
from penstock.models.quantise import Precision, best_precision
from penstock.models.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.models.architecture import BertConfig
    from penstock.models.model_source import ModelSource

    ProgressCallback = Callable[[str, int, int], None]

MANIFEST = "manifest.json"
TEMPORARY = ".preparing-"
"""Prefix of directories being written."""

LOCK_WAIT_S_MAX = 120.0
"""How long a process waits for another that prepares; a preparation takes seconds."""

_LOCK_POLL_S = 0.05
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def lock_directory(directory: Path, wait_s_max: float = LOCK_WAIT_S_MAX) -> Iterator[None]:
    """Hold the directory's lock; the kernel frees it when the process dies.

    Bounds: waits ``wait_s_max`` seconds (monotonic clock) at most.

    Raises:
        Unavailable: Another process held the lock all that time.
    """
    give_up = time.monotonic() + wait_s_max
    with (directory / ".lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise Unavailable(
                        f"another process has been preparing a model in {directory} for {wait_s_max:.0f} s",
                        dependency="embed model",
                        code="model_locked",
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield


def remove_unfinished(directory: Path) -> None:
    """Delete leftovers of interrupted preparations; call with the lock held."""
    for path in directory.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def publish(temporary: Path, final: Path) -> None:
    """Make a finished directory durable and visible under its final name, replacing a damaged one.

    Raises:
        OSError: It cannot be written.
    """
    for path in [*temporary.iterdir(), temporary]:
        _sync(path)
    if final.exists():
        # A rename cannot replace a full directory; aside first: a crash leaves it
        # absent, never mixed.
        aside = temporary.with_name(temporary.name + ".old")
        final.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    temporary.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def translate_os_errors(directory: Path) -> Iterator[None]:
    """Turn the operating system's errors into ``Unavailable`` that names the directory."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        wrong = "is full" if full else f"cannot be used ({error})"
        cure = "free some space" if full else "make it readable and writable"
        raise Unavailable(
            f"the model directory {directory} {wrong}; {cure}, or set another data directory",
            dependency="embed model",
            code="disk_full" if full else "model_directory",
        ) from error


FORMAT_VERSION = 4
"""Version of the prepared directory and graph; raising it prepares every model again."""

VECTORS_VERSION = 1
"""Version of the dense vectors that a prepared graph makes; raising it shuts out every collection made before."""

_GRAPH = "model.onnx"
_TOKENIZER = "tokenizer.json"
_UNUSUAL = re.compile(r"[^A-Za-z0-9._]+")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Description of a model that this process or other instances run.

    Attributes:
        name: Name of the model.
        fingerprint: Sixteen hexadecimal digits over weights, tokenizer, config, precision and
            ``VECTORS_VERSION``, and pooling where it is not the mean: vectors of two fingerprints must
            not be mixed.
        dim: Components of a dense vector.
        token_dim: Components of a token vector.
        tokens_max: Tokens after which a text is cut, special tokens included.
        tokenizer_path: ``tokenizer.json``.
    """

    name: str
    fingerprint: str
    dim: int
    token_dim: int
    tokens_max: int
    tokenizer_path: Path

    @property
    def model(self) -> str:
        """The model's name and fingerprint."""
        return f"{self.name}-{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class PreparedModel(ModelDescription):
    """A model ready to load: an ONNX graph, and the number format of its products."""

    path: Path
    precision: Precision


def describe_model(source: ModelSource, precision: Precision) -> ModelDescription:
    """Return the description that a model has once prepared, without preparing it.

    Args:
        source: Where its files are; weights that are pinned are not looked at.
        precision: Number format of the graph that others run.

    Raises:
        Invalid: The files are not those pinned, or not a BERT-shaped encoder.
        Unavailable: They cannot be read.
    """
    with translate_os_errors(source.config.parent):
        shape = read_bert_config(source.config)
        fingerprint = _fingerprint(source.checksums(), precision, shape.pooling)
        token_dim = token_dim_for(shape.hidden)
        return ModelDescription(source.name, fingerprint, shape.hidden, token_dim, shape.tokens_max, source.tokenizer)


def prepare_model(
    source: ModelSource,
    cache_dir: Path,
    progress: ProgressCallback | None = None,
    precision: Precision | None = None,
) -> PreparedModel:
    """Return the prepared model, building it on the first call.

    Args:
        source: Where the weights are.
        cache_dir: Directory that holds prepared models; made if absent.
        progress: Called with a stage (``checking``, ``building``, ``writing``), the amount done and
            the whole.
        precision: Number format; the best for this processor if ``None``.

    Raises:
        Invalid: The files are not those pinned, or not a BERT-shaped encoder.
        Unavailable: The cache directory cannot be written or is full, or another process prepares
            for too long.
    """
    wanted = precision or best_precision()
    report = progress or (lambda _stage, _done, _total: None)
    with translate_os_errors(cache_dir):
        warm = _warm(source, cache_dir, wanted)
        if warm is not None:
            return warm
        cache_dir.mkdir(parents=True, exist_ok=True)
        with lock_directory(cache_dir):
            # Another process may have prepared it while this one waited.
            return _warm(source, cache_dir, wanted) or _build(source, cache_dir, report, wanted)


def _warm(source: ModelSource, cache_dir: Path, precision: Precision) -> PreparedModel | None:
    """Return an intact prepared model made from these very files, without hashing the weights."""
    stamps = source.stamps()
    for path in sorted(cache_dir.glob(f"{_slug(source.name)}-*/{MANIFEST}")):
        manifest = _read_manifest(path)
        if manifest is None or manifest["precision"] != precision or manifest["source"]["stamps"] != stamps:
            continue
        if _intact(path.parent, manifest):
            return _prepared(path.parent, manifest)
    return None


def _build(source: ModelSource, cache_dir: Path, report: ProgressCallback, precision: Precision) -> PreparedModel:
    remove_unfinished(cache_dir)
    shape = read_bert_config(source.config)
    stamps = source.stamps()
    digests = source.checksums(lambda done, total: report("checking", done, total))
    fingerprint = _fingerprint(digests, precision, shape.pooling)
    final = cache_dir / f"{_slug(source.name)}-{fingerprint}"
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": source.name,
        "fingerprint": fingerprint,
        "precision": precision,
        "dim": shape.hidden,
        "late": token_dim_for(shape.hidden),
        "tokens_max": shape.tokens_max,
        "source": {"origin": source.origin, "sha256": digests, "stamps": stamps},
    }
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=cache_dir))
    try:
        old = _read_manifest(final / MANIFEST)
        if old is not None and _intact(final, old):
            # The same weights at another place or time: only the stamps are new.
            shutil.copytree(final, temporary, dirs_exist_ok=True)
        else:
            _write(source, shape, precision, temporary, report)
        manifest["files"] = {
            name: {"size": (temporary / name).stat().st_size, "sha256": sha256(temporary / name)}
            for name in (_GRAPH, _TOKENIZER)
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        report("writing", 0, 1)
        publish(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    report("writing", 1, 1)
    return _prepared(final, manifest)


def _write(
    source: ModelSource, shape: BertConfig, precision: Precision, directory: Path, report: ProgressCallback
) -> None:
    # Imported here: onnx is needed on a cold start only.
    from penstock.models.graph import write_graph  # noqa: PLC0415 - see above
    from penstock.models.projection import add_projection  # noqa: PLC0415 - see above

    def layer_done(layer: int) -> None:
        report("building", layer, shape.layers)

    with SafetensorsFile(source.weights) as weights:
        write_graph(weights, shape, precision, directory / _GRAPH, layer_done)
    shutil.copyfile(source.tokenizer, directory / _TOKENIZER)
    add_projection(directory / _GRAPH, TextTokenizer(directory / _TOKENIZER, shape.tokens_max))


def _fingerprint(digests: dict[str, str], precision: Precision, pooling: str) -> str:
    other = [] if pooling == MEAN else [pooling]
    text = json.dumps([VECTORS_VERSION, precision, sorted(digests.items()), *other])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _slug(name: str) -> str:
    return _UNUSUAL.sub("-", name).strip(".-") or "model"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT_VERSION and manifest["source"]["stamps"] and manifest["files"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if known == {_GRAPH, _TOKENIZER} else None


def _intact(directory: Path, manifest: dict[str, Any]) -> bool:
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != expected["size"] or sha256(path) != expected["sha256"]:
            return False
    return True


def _prepared(directory: Path, manifest: dict[str, Any]) -> PreparedModel:
    return PreparedModel(
        path=directory / _GRAPH,
        tokenizer_path=directory / _TOKENIZER,
        name=manifest["name"],
        dim=manifest["dim"],
        token_dim=manifest["late"],
        tokens_max=manifest["tokens_max"],
        precision=Precision(manifest["precision"]),
        fingerprint=manifest["fingerprint"],
    )
