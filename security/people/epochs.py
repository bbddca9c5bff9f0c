"""The generation of the whole system: raised once, every token and session of before is nothing."""

from dataclasses import dataclass
from typing import Final

from infra.clock import Clock
from infra.documents.port import DocumentStore
from security import audit
from security.audit import INSIDE, Via
from security.people.errors import PeopleBusyError
from security.people.keys import FRESH_S
from security.people.records import EPOCHS, SAVE_ATTEMPTS_MAX, Records
from security.policy import Principal

_SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The generation, and which decision raised it."""

    epoch: int
    decision: str = ""


class SystemEpoch:
    """What this process knows of it, never older than :data:`FRESH_S`."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, EPOCHS, EpochRecord)
        self._clock = clock
        self._known: tuple[int, float] | None = None

    async def current(self) -> int:
        """Return the generation."""
        now_s = self._clock.elapsed_s()
        if self._known is None or now_s - self._known[1] > FRESH_S:
            kept = await self._records.load(_SYSTEM)
            self._known = (1 if kept is None else kept.record.epoch, now_s)
        return self._known[0]

    async def raise_(self, by: Principal, via: Via = INSIDE, *, decision: str = "", reason: str = "") -> int:
        """End every session and access token; the same ``decision`` again is no error and raises nothing."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(_SYSTEM)
            before = EpochRecord(1) if kept is None else kept.record
            if decision and before.decision == decision:
                return before.epoch
            revision = 0 if kept is None else kept.revision
            row = audit.act(
                by,
                via,
                "revoke_all",
                "system",
                at_ms=self._clock.now_ms(),
                before=revision,
                after=revision + 1,
                reason=reason,
            )
            after = EpochRecord(before.epoch + 1, decision)
            entry = audit.entry(row, revision + 1, life=0)
            try:
                if await self._records.put(_SYSTEM, after, revision, entry):
                    return after.epoch
            finally:
                self._known = None
        raise PeopleBusyError
