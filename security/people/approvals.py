"""Acts that need a second person: asked for by one, done when another has approved.

Table-driven: an act is a word, the action it needs, and what does it (``ACTS`` of :class:`Approvals`). What
does it must be repeatable: after a crash it is done again. Nobody approves what they asked for, nor what is
about themselves; to refuse is stopping, which takes one.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security import audit
from security.audit import INSIDE, Via
from security.people.errors import (
    ApprovalClosedError,
    ApprovalNotFoundError,
    ConflictError,
    NotFoundError,
    NotTheirsToApproveError,
    OwnApprovalError,
    PeopleBusyError,
    PeopleError,
)
from security.people.records import APPROVALS, Kept, RecordPage, Records
from security.policy import Action, Principal, may

LIFE_S: Final = 7 * 86_400
KEPT_S: Final = 30 * 86_400
"""Decided ones stay to be read for so long; the audit keeps them for ever."""
ID_BITS: Final = 80
TIME_MAX_MS: Final = 2**53


class Decision(StrEnum):
    """What became of it."""

    WAITING = "waiting"
    APPROVED = "approved"
    """Decided, and being done."""
    DONE = "done"
    FAILED = "failed"
    """Approved, but what it was about had changed meanwhile."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Held:
    """An act that waits; ``facts`` hold no secret and no personal data."""

    id: str
    act: str
    action: Action
    target: str
    facts: Mapping[str, str]
    by: Principal
    at_ms: int
    until_ms: int
    decision: Decision = Decision.WAITING
    decided_by: str = ""
    decided_ms: int = 0


Run = Callable[[Held, Via, str], Awaitable[None]]
"""Does, or undoes, a held act; the text is the reason for the audit. Must be repeatable."""


@dataclass(frozen=True, slots=True)
class Act:
    """A row of the table."""

    action: Action
    run: Run
    undo: Run | None = None


def check_decider(held: Held, by: Principal, now_ms: int) -> None:
    """Refuse who may not approve this, and what does not wait any more."""
    if held.decision is not Decision.WAITING or now_ms >= held.until_ms:
        raise ApprovalClosedError
    if not may(by, held.action):
        raise NotTheirsToApproveError
    if by.name == held.by.name or by.name == held.target.rpartition("/")[2]:
        raise OwnApprovalError


class Approvals:
    """Holds acts, and has them done."""

    def __init__(self, store: DocumentStore, clock: Clock, ids: Ids, acts: Mapping[str, Act]) -> None:
        self._records = Records(store, APPROVALS, Held, _index)
        self._clock = clock
        self._ids = ids
        self._acts = acts

    async def ask(
        self, act: str, target: str, facts: Mapping[str, str], by: Principal, via: Via = INSIDE
    ) -> Held:
        """Hold an act until somebody else approves it."""
        now_ms = self._clock.now_ms()
        held = Held(
            id=f"a-{self._ids.token(ID_BITS)}",
            act=act,
            action=self._acts[act].action,
            target=target,
            facts=facts,
            by=replace(by, reach=frozenset()),
            at_ms=now_ms,
            until_ms=now_ms + LIFE_S * MS_PER_S,
        )
        entry = self._entry(by, via, "approval.ask", held, 0, f"{act} {target}")
        if not await self._records.put(held.id, held, 0, entry):
            raise PeopleBusyError
        return held

    async def held(self, id: str) -> Held:
        """Return what is held under an id."""
        return (await self._kept(id)).record

    async def waiting(self, limit: int, cursor: str | None) -> RecordPage[Held]:
        """Return a page of what waits, oldest first."""
        return await self._records.page("waiting_ms", 0, TIME_MAX_MS, limit, cursor)

    async def approve(self, id: str, by: Principal, via: Via) -> Held:
        """Decide for an act, and have it done in the name of who asked for it."""
        kept = await self._kept(id)
        check_decider(kept.record, by, self._clock.now_ms())
        held = await self._decide(kept, Decision.APPROVED, by, via)
        return await self._finish(Kept(held, kept.revision + 1), via)

    async def refuse(self, id: str, by: Principal, via: Via) -> Held:
        """Decide against an act; who asked for it may withdraw it this way."""
        kept = await self._kept(id)
        if kept.record.decision is not Decision.WAITING:
            raise ApprovalClosedError
        if not may(by, kept.record.action):
            raise NotTheirsToApproveError
        held = await self._decide(kept, Decision.REFUSED, by, via)
        act = self._acts.get(held.act)
        if act is not None and act.undo is not None:
            await act.undo(held, via, f"refused by {by.name} ({held.id})")
        return held

    async def finish(self, limit: int) -> int:
        """Do what was approved by a process that died before it was done; return how much."""
        page = await self._records.page("waiting_ms", -TIME_MAX_MS, -1, limit)
        for id in page.ids:
            kept = await self._records.load(id)
            if kept is not None and kept.record.decision is Decision.APPROVED:
                # One that cannot be done must not keep the others from it.
                with suppress(PeopleError):
                    await self._finish(kept, INSIDE)
        return len(page.ids)

    async def sweep(self, limit: int) -> int:
        """Delete what was decided long since, or by nobody."""
        return await self._records.sweep("until_ms", self._clock.now_ms() - KEPT_S * MS_PER_S, limit)

    async def _kept(self, id: str) -> Kept[Held]:
        kept = await self._records.load(id)
        if kept is None:
            raise ApprovalNotFoundError
        return kept

    async def _decide(self, kept: Kept[Held], decision: Decision, by: Principal, via: Via) -> Held:
        held = replace(kept.record, decision=decision, decided_by=by.name, decided_ms=self._clock.now_ms())
        action = "approval.approve" if decision is Decision.APPROVED else "approval.refuse"
        entry = self._entry(by, via, action, held, kept.revision, f"{held.act} {held.target}")
        if not await self._records.put(held.id, held, kept.revision, entry):
            raise ApprovalClosedError
        return held

    async def _finish(self, kept: Kept[Held], via: Via) -> Held:
        held = kept.record
        act = self._acts.get(held.act)
        if act is None:
            raise ApprovalClosedError
        try:
            await act.run(held, via, f"approved by {held.decided_by} ({held.id})")
        except (ConflictError, NotFoundError):
            await self._records.put(held.id, replace(held, decision=Decision.FAILED), kept.revision)
            raise
        done = replace(held, decision=Decision.DONE)
        # Lost: somebody else has found it approved and done it too, which is why it has to be repeatable.
        await self._records.put(held.id, done, kept.revision)
        return done

    def _entry(self, by: Principal, via: Via, action: str, held: Held, before: int, reason: str) -> Entry:
        row = audit.act(
            by,
            via,
            action,
            f"approval/{held.id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        return audit.entry(row, before + 1, life=0)


def _index(held: Held) -> Mapping[str, int]:
    """Return how it is found: waiting by its time, approved but not done below zero, decided by its end."""
    ends = {"until_ms": held.until_ms}
    if held.decision is Decision.WAITING:
        return ends | {"waiting_ms": held.at_ms}
    if held.decision is Decision.APPROVED:
        return ends | {"waiting_ms": -held.at_ms}
    return ends
