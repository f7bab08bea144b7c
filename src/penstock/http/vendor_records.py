"""Records of the routes that clients of other vendors use: what these send, and what they read."""

from __future__ import annotations

from typing import Literal

import msgspec


class OpenAiModel(msgspec.Struct, frozen=True):
    """A model, as OpenAI describes one.

    Attributes:
        id: The name by which requests ask for it.
        created: 0: it is not known.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "penstock"


class OpenAiModelList(msgspec.Struct, frozen=True):
    """The models by themselves."""

    data: list[OpenAiModel]
    object: Literal["list"] = "list"
