"""Operations for the clients of other vendors: their requests, answers and errors over our models."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from penstock.core.core import Core
from penstock.http.endpoints import ApiEndpoint
from penstock.http.error_formats import OPENAI
from penstock.http.vendor_records import OpenAiModel, OpenAiModelList
from penstock.kernel.access import Scope
from penstock.kernel.errors import Invalid, truncated
from penstock.kernel.messages import TextKind

#: Name that stands for whichever model the server has.
ANY_MODEL: Final = "penstock"

#: The role of texts in a search, as the end of a model's name.
_KINDS_BY_SUFFIX: Final = {f":{kind.value}": kind for kind in TextKind}


class VendorOperations:
    """The operations, one method for each endpoint."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @ApiEndpoint("GET", "/v1/models", scope=Scope.SEARCH, error_format=OPENAI)
    async def list_models(self, _request: Request) -> OpenAiModelList:
        """List the models that embed and rerank texts."""
        names = dict.fromkeys((self._dense_model, self._rerank_model, ANY_MODEL))
        return OpenAiModelList([OpenAiModel(name) for name in names])

    @ApiEndpoint("GET", "/v1/models/{model}", scope=Scope.SEARCH, error_format=OPENAI, error_statuses=(404,))
    async def get_model(self, request: Request) -> OpenAiModel:
        """Describe a model, whose name may end with the role of texts as for embeddings."""
        name = request.path_params["model"]
        if name != self._rerank_model:
            self._text_kind(name)
        return OpenAiModel(name)

    @property
    def _dense_model(self) -> str:
        return self._core.layout.model

    @property
    def _rerank_model(self) -> str:
        """Name of the reranker; the dense model's, where that one reranks."""
        rerank = next((info for info in self._core.deps.models.infos if info.part == "rerank"), None)
        return self._dense_model if rerank is None or rerank.kind == "builtin" else rerank.name

    def _text_kind(self, model: str) -> TextKind:
        """Return the role of texts that a dense model's name asks for.

        Raises:
            Invalid: There is no such model (``model_not_found``).
        """
        name, colon, role = model.rpartition(":")
        kind = _KINDS_BY_SUFFIX.get(colon + role)
        _check_model(model if kind is None else name, self._dense_model)
        return kind or TextKind.DOCUMENT


def _check_model(name: str, known: str) -> None:
    """Refuse the name of another model.

    Raises:
        Invalid: It is neither the model in use nor ``penstock`` (``model_not_found``).
    """
    if name not in (known, ANY_MODEL):
        detail = f"there is no model {truncated(name)!r}; this server has {known}, which {ANY_MODEL} stands for"
        raise Invalid(detail, field="model", code="model_not_found")
