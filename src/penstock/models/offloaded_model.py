"""Description of a model that other instances run; nothing of it is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class OffloadedModel:
    """A model of other instances, in place of a runner, which is never called here.

    Attributes:
        model: Its name and fingerprint, which must be the same on those instances.
        dim: Components of a dense vector; 0 for a model that makes none.
        token_dim: Components of a token vector; 0 for a model that gives none.
        batch_tokens: Padded tokens of one message that suit it; 0 where nothing is known.
    """

    model: str
    dim: int = 0
    token_dim: int = 0
    batch_tokens: int = 0


class LazyTokenizer:
    """A ``TokenCounter`` that is loaded when it first counts, so not in a process that only passes texts on.

    Args:
        path: ``tokenizer.json``.
        tokens_max: Tokens after which a text is cut, special tokens included.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        self._path = path
        self.tokens_max = tokens_max

    def __repr__(self) -> str:
        return f"<LazyTokenizer {self._path.name} {self.tokens_max}>"

    def __reduce__(self) -> tuple[type[LazyTokenizer], tuple[Path, int]]:
        return (LazyTokenizer, (self._path, self.tokens_max))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of every text, without special tokens."""
        return self._loaded.count(texts)

    def truncated(self, text: str, /) -> bool:
        """Return whether the model reads less than the whole text."""
        return self._loaded.truncated(text)

    @cached_property
    def _loaded(self) -> TextTokenizer:
        # Imported here for the same reason.
        from penstock.models.tokenizer import TextTokenizer  # noqa: PLC0415 - see above

        return TextTokenizer(self._path, self.tokens_max)
