"""Claims to documents and back, with the audit row of each act in the same write. No decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, Entry, IndexValue, Write
from security import audit
from security.audit import Via
from security.policy import Principal
from security.trust.claims import Claim, State

CLAIMS: Final = Collection("claims", ("premises", "open", "thing", "ends"))


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something to a claim, how it came in, and on whose behalf."""

    by: Principal
    via: Via
    action: str
    cause: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A claim as it lies in the store."""

    claim: Claim
    revision: int


@dataclass(frozen=True, slots=True)
class ClaimPage:
    """Claims in a fixed order; ``next`` continues after the last, None = no more."""

    claims: tuple[Claim, ...]
    next: str | None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Claim).decode


class ClaimStore:
    """Claims by id, by premises and by thing."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def load(self, id: str) -> Kept | None:
        """Return one claim, to be followed by another version of it."""
        document = (await self._store.get(CLAIMS.name, [id])).get(id)
        return None if document is None else Kept(_decode(document.body), document.revision)

    async def put(self, claims: Sequence[tuple[Claim, int, Act | None]]) -> frozenset[int]:
        """Write claims over their revisions (0 = new); return the positions that lost their race."""
        return await self._store.commit([self._write(*row) for row in claims])

    async def by(self, field: str, value: str, limit: int, cursor: str | None = None) -> ClaimPage:
        """Return a page of claims by ``premises``, ``open`` (the same, those not used) or ``thing``."""
        page = await self._store.find(CLAIMS.name, field, value, value, limit=limit, cursor=cursor)
        return ClaimPage(tuple(_decode(one.body) for one in page.documents), page.next)

    async def drop_ended(self, before_ms: int, limit: int) -> int:
        """Delete claims that ended before this; return how many."""
        page = await self._store.find(CLAIMS.name, "ends", 0, before_ms, limit=limit)
        gone = [Write(CLAIMS.name, one.id, one.revision, None) for one in page.documents]
        lost = await self._store.commit(gone) if gone else frozenset[int]()
        return len(gone) - len(lost)

    def _write(self, claim: Claim, before: int, act: Act | None) -> Write:
        index: dict[str, IndexValue] = {"thing": claim.thing}
        if claim.premises:
            index["premises"] = claim.premises
        if claim.premises and claim.state is State.ISSUED:
            index["open"] = claim.premises
        if claim.expires_at_ms is not None:
            index["ends"] = claim.expires_at_ms
        entries = () if act is None else (self._entry(claim, before, act),)
        return Write(CLAIMS.name, claim.id, before, _encode(claim), index, entries=entries)

    def _entry(self, claim: Claim, before: int, act: Act) -> Entry:
        row = audit.act(
            act.by,
            act.via,
            act.action,
            f"claim/{claim.id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=act.reason or claim.thing,
        )
        return audit.entry(replace(row, cause=act.cause), before + 1, life=0)
