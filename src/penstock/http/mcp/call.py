"""A call of a tool: who asks, within which time, and what the tools work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from penstock.core.core import Core
from penstock.http.mcp.freshness import FreshnessCache
from penstock.http.operations import Operations
from penstock.http.request_context import build_context, read_context_headers, request_state
from penstock.kernel.access import AccessDenied, Principal
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid, PenstockError
from penstock.search.request import DEFAULT_COLLECTION
from penstock.stores.commands import DescribeCollection, ListCollections
from penstock.stores.data_model import CollectionInfo

#: Names of collections that an error lists.
_NAMES_TOLD_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        core: The core that does the work.
        operations: Operations of the API, which some tools share.
        freshness: How fresh the collections are.
        request: The HTTP request, as the gate let it through.
        report: Tells the client of progress: what is done, of how much, in words. Does nothing where it did not ask.
    """

    core: Core
    operations: Operations
    freshness: FreshnessCache
    request: Request
    report: Callable[[float, float, str], Awaitable[None]]

    def context(self, criticality: Criticality, limit_s: float, operation: str) -> Context:
        """Return the context of the call's work, and note its deadline in the request's state.

        Raises:
            Expired: The deadline has passed already.
            Invalid: A header of the request is malformed.
        """
        read_context_headers(self.request, criticality)
        clock = self.core.deps.clock
        ctx = build_context(self.request, clock).within(limit_s, operation, clock.now())
        request_state(self.request.scope).deadline_s = ctx.deadline.at_s
        return ctx

    def note_denied(self, error: PenstockError, act: str) -> None:
        """Write to the audit log that a key may not do something, if that is the error."""
        if isinstance(error, AccessDenied):
            state = request_state(self.request.scope)
            facts = {"act": f"MCP {act}", "code": error.code, "request_id": state.request_id}
            self.core.deps.audit.refused(state.arrived_s, **state.who, **facts)

    @property
    def principal(self) -> Principal:
        """The one on whose behalf the call is made."""
        return request_state(self.request.scope).principal

    async def visible_collections(self, ctx: Context) -> Sequence[CollectionInfo]:
        """Return the collections that the caller may see, by name."""
        listed = await self.core.store.run(ListCollections(), ctx)
        return sorted((one for one in listed if self.principal.may_see(one.name)), key=lambda one: one.name)

    async def choose_collection(self, named: str | None, ctx: Context) -> str:
        """Return the collection that is meant: the named one, else `default`, else the only one there is.

        Raises:
            AccessDenied: The caller may not use it (``collection_not_allowed``).
            Invalid: One has to be named (``collection_not_found``).
        """
        if named is not None:
            self.principal.require_collections([named])
            return named
        if self.principal.may_see(DEFAULT_COLLECTION):
            try:
                await self.core.store.run(DescribeCollection(DEFAULT_COLLECTION), ctx)
            except Invalid as error:
                if error.code != "collection_not_found":
                    raise
            else:
                return DEFAULT_COLLECTION
        names = [one.name for one in await self.visible_collections(ctx)]
        if len(names) == 1:
            return names[0]
        told = ", ".join(names[:_NAMES_TOLD_MAX])
        detail = f"name a collection: {told}" if names else "nothing is indexed yet; `penstock index PATH` does that"
        raise Invalid(detail, field="collection", code="collection_not_found")
