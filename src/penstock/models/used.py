"""Record of a model in use, for the status report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the status shows it.

    Attributes:
        part: ``dense``, ``sparse`` or ``rerank``.
        kind: As the settings have it: ``builtin``, ``bm25``, ``onnx``, ``openai``, ``tei`` or ``cohere``.
        name: The model's name; vectors of two names never mix.
        url: Its endpoint, empty for one in this process.
        note: A feature missing with it, or a failure at the start; else empty.
    """

    part: str
    kind: str
    name: str
    url: str = ""
    note: str = ""
