"""Records whose every change has a row in the audit trail, in the same write.

What may become of a record is the caller's rule, a function from what there is to what there shall be. It
is asked again when others were first, so it must be pure.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from infra.clock import Clock
from infra.documents.records import SAVE_ATTEMPTS_MAX, Records
from security import audit
from security.audit import INSIDE, Via
from security.policy import Principal

R = TypeVar("R")


class RecordBusyError(Exception):
    """Others kept changing the same record: the caller may try again."""

    def __init__(self, noun: str) -> None:
        super().__init__(f"this {noun} is being changed by others at the same time: try again")


class Audited(Generic[R]):
    """One collection, whose records are never deleted. ``noun`` is what the trail calls one of them."""

    def __init__(self, records: Records[R], clock: Clock, noun: str) -> None:
        self._records = records
        self._clock = clock
        self._noun = noun

    async def change(
        self,
        id: str,
        decide: Callable[[R | None], R],
        action: str,
        by: Principal,
        via: Via = INSIDE,
        *,
        reason: str = "",
    ) -> R:
        """Put what ``decide`` makes of a record in its place; nothing is written when it stays the same.

        Raises:
            RecordBusyError: others were first, each time.
        """
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(id)
            before, revision = (None, 0) if kept is None else (kept.record, kept.revision)
            after = decide(before)
            if after == before:
                return after
            row = audit.act(
                by,
                via,
                action,
                f"{self._noun}/{id}",
                at_ms=self._clock.now_ms(),
                before=revision,
                after=revision + 1,
                reason=reason,
            )
            # Never deleted, so that revisions never start again.
            if await self._records.put(id, after, revision, audit.entry(row, revision + 1, life=0)):
                return after
        raise RecordBusyError(self._noun)
