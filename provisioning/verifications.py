"""Verifications: that a representative has made sure who is calling, and how it ended; never the answers.

A live one opens its customer's accounts to the representative who recorded it. The case is an opaque word.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import Records
from provisioning.asking import Ask
from provisioning.errors import (
    IdempotencyMismatchError,
    InvalidRequestError,
    VerificationExpiredError,
    VerificationMissingError,
    VerificationNotFoundError,
)
from security.audited import Audited
from security.policy import Action, Principal, Role

VERIFICATIONS: Final = Collection("verifications", ("opens", "ends_ms"))
LIFE_MS: Final = 30 * 60_000
KEPT_MS: Final = 30 * 86_400_000
"""How long an ended one is told apart from one that never was."""
LIVE_MAX: Final = 1_000
"""Of one representative at a time: far more than anybody can record before the first of them ends."""
SWEEP_MAX: Final = 1_000
FOREVER_MS: Final = 10**15 - 1
ACCOUNTS_MAX: Final = 32
WORD: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Outcome(StrEnum):
    """How a verification ended."""

    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVerification:
    """What a representative records."""

    customer: str
    """The customer care system's reference."""
    accounts: tuple[str, ...]
    method: str
    outcome: Outcome
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A verification as it is kept."""

    id: str
    customer: str
    accounts: tuple[str, ...]
    method: str
    outcome: Outcome
    case: str
    recorded_by: str
    at_ms: int
    expires_at_ms: int
    digest: str = ""

    def is_live(self, now_ms: int) -> bool:
        """Tell whether it opens anything now."""
        return self.outcome is Outcome.PASSED and now_ms < self.expires_at_ms


class Verifications:
    """Records verifications and tells which live."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, VERIFICATIONS.name, Verification, _found_by)
        self._audited = Audited(self._records, clock, "verification")
        self._clock = clock

    async def record(self, new: NewVerification, ask: Ask) -> Verification:
        """Record how a verification ended."""
        check_case(new.case)
        if not WORD.fullmatch(new.method) or not WORD.fullmatch(new.customer):
            raise InvalidRequestError("customer, method: 1 to 64 of A-Z a-z 0-9 . _ : -")
        if len(new.accounts) > ACCOUNTS_MAX:
            raise InvalidRequestError(f"at most {ACCOUNTS_MAX} accounts of one customer")
        now_ms = self._clock.now_ms()
        made = Verification(
            id=ask.id("vf-"),
            customer=new.customer,
            accounts=new.accounts,
            method=new.method,
            outcome=new.outcome,
            case=new.case,
            recorded_by=ask.by.name,
            at_ms=now_ms,
            expires_at_ms=now_ms + LIFE_MS,
            digest=ask.digest,
        )
        kept = await self._audited.change(
            made.id,
            lambda before: before or made,
            Action.VERIFICATION_CREATE,
            ask.by,
            ask.via,
            reason=new.case,
        )
        if kept.digest != ask.digest:
            raise IdempotencyMismatchError
        return kept

    async def verification(self, id: str) -> Verification:
        """Return a verification."""
        kept = await self._records.load(id)
        if kept is None:
            raise VerificationNotFoundError(id)
        return kept.record

    async def require(self, id: str, account: str, by: Principal) -> Verification:
        """Return a live verification of this representative for this account, or say what is missing.

        Raises:
            VerificationMissingError: there is none, or not for them, or it was not passed.
            VerificationExpiredError: it is over.
        """
        kept = await self._records.load(id) if id else None
        if kept is None or kept.record.recorded_by != by.name or account not in kept.record.accounts:
            raise VerificationMissingError
        if kept.record.outcome is not Outcome.PASSED:
            raise VerificationMissingError
        if not kept.record.is_live(self._clock.now_ms()):
            raise VerificationExpiredError
        return kept.record

    async def reach_of(self, principal: Principal) -> frozenset[str]:
        """Return the accounts that are open to a representative now."""
        if principal.role is not Role.REP:
            return frozenset()
        now_ms, name = self._clock.now_ms(), principal.name
        page = await self._records.page("opens", _opens(name, now_ms + 1), _opens(name, FOREVER_MS), LIVE_MAX)
        return frozenset(account for one in page.records if one.is_live(now_ms) for account in one.accounts)

    async def sweep(self) -> int:
        """Delete what ended long ago; return how many."""
        return await self._records.sweep("ends_ms", self._clock.now_ms() - KEPT_MS, SWEEP_MAX)


def check_case(case: str) -> None:
    """Raise :class:`InvalidRequestError` unless this can be a case's id."""
    if not WORD.fullmatch(case):
        raise InvalidRequestError("case: 1 to 64 of A-Z a-z 0-9 . _ : -")


def _found_by(one: Verification) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {"ends_ms": one.expires_at_ms}
    if one.outcome is Outcome.PASSED:
        index["opens"] = _opens(one.recorded_by, one.expires_at_ms)
    return index


def _opens(name: str, until_ms: int) -> str:
    """Return what sorts by who recorded it, then by when it ends: those that live stand together."""
    return f"{name} {until_ms:015d}"
