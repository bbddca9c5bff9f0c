"""Work orders: they open premises to the installer they are assigned to, while they are open."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import Records
from provisioning.asking import Ask
from provisioning.errors import (
    IdempotencyMismatchError,
    InvalidRequestError,
    WorkOrderMissingError,
    WorkOrderNotFoundError,
)
from provisioning.verifications import WORD
from registry.service import RegistryService
from security.audited import Audited
from security.policy import Action, Principal, Role

WORK_ORDERS: Final = Collection("work_orders", ("assignee", "premises"))
OPEN_MAX: Final = 1_000
"""Open work orders of one installer that count."""


class WorkOrderState(StrEnum):
    """Whether there is still something to do."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """Somebody of ours has something to do at premises."""

    id: str
    premises: str
    assignee: str
    state: WorkOrderState
    made_by: str
    at_ms: int
    closed_at_ms: int | None = None
    digest: str = ""


class WorkOrders:
    """Keeps work orders."""

    def __init__(self, store: DocumentStore, clock: Clock, registry: RegistryService) -> None:
        self._records = Records(store, WORK_ORDERS.name, WorkOrder, _found_by)
        self._audited = Audited(self._records, clock, "work_order")
        self._clock = clock
        self._registry = registry

    async def open(self, premises: str, assignee: str, ask: Ask) -> WorkOrder:
        """Open premises that are known to an installer."""
        await self._registry.premises(premises)
        if not WORD.fullmatch(assignee):
            raise InvalidRequestError("assignee: the login of an installer")
        made = WorkOrder(
            id=ask.id("wo-"),
            premises=premises,
            assignee=assignee,
            state=WorkOrderState.OPEN,
            made_by=ask.by.name,
            at_ms=self._clock.now_ms(),
            digest=ask.digest,
        )
        kept = await self._audited.change(
            made.id, lambda before: before or made, Action.WORK_ORDER_WRITE, ask.by, ask.via
        )
        if kept.digest != ask.digest:
            raise IdempotencyMismatchError
        return kept

    async def close(self, id: str, ask: Ask) -> WorkOrder:
        """Close a work order; one that is closed stays so."""
        now_ms = self._clock.now_ms()

        def closed(before: WorkOrder | None) -> WorkOrder:
            if before is None:
                raise WorkOrderNotFoundError(id)
            if before.state is WorkOrderState.CLOSED:
                return before
            return replace(before, state=WorkOrderState.CLOSED, closed_at_ms=now_ms)

        return await self._audited.change(id, closed, Action.WORK_ORDER_WRITE, ask.by, ask.via)

    async def work_order(self, id: str) -> WorkOrder:
        """Return a work order."""
        kept = await self._records.load(id)
        if kept is None:
            raise WorkOrderNotFoundError(id)
        return kept.record

    async def require(self, id: str, premises: str, by: Principal) -> WorkOrder:
        """Return an open work order of this installer for these premises, or refuse."""
        kept = await self._records.load(id) if id else None
        if (
            kept is None
            or kept.record.state is not WorkOrderState.OPEN
            or (kept.record.premises, kept.record.assignee) != (premises, by.name)
        ):
            raise WorkOrderMissingError
        return kept.record

    async def reach_of(self, principal: Principal) -> frozenset[str]:
        """Return the premises that are open to an installer now."""
        if principal.role is not Role.INSTALLER:
            return frozenset()
        page = await self._records.page("assignee", principal.name, principal.name, OPEN_MAX)
        return frozenset(one.premises for one in page.records)


def _found_by(one: WorkOrder) -> dict[str, IndexValue]:
    # A closed one opens nothing, and is found by its premises alone.
    index: dict[str, IndexValue] = {"premises": one.premises}
    if one.state is WorkOrderState.OPEN:
        index["assignee"] = one.assignee
    return index
