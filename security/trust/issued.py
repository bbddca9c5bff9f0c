"""Every certificate that was ever issued to a thing: one record a serial, never forgotten while it lives.

A device's short names (LFDI, SFDI) come from its certificate and change with it, so a thing is found by any
pair it ever had. What became of a certificate is decided here only; how that reaches the broker is not known
here.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from infra.clock import MS_PER_S, Clock
from infra.documents.port import PAGE_MAX, Document, DocumentStore, Entry, IndexValue, Write
from infra.documents.port import Collection as Layout
from security import audit
from security.audit import INSIDE, Via
from security.policy import Principal
from security.trust.certificates import Issued
from security.trust.crl import Revoked

CERTIFICATES: Final = Layout(
    "certificates", ("thing", "lfdi", "sfdi", "revoked_until", "supersedes_at", "runs_out_at")
)
CACHE_S: Final = 5.0
"""How long a record is believed without looking (spec: security, 2)."""
CACHED_MAX: Final = 16_384
CHANGE_ATTEMPTS_MAX: Final = 5
OF_THING_MAX: Final = PAGE_MAX
_END_OF_TIME: Final = 2**62


class IssuedState(StrEnum):
    """What a certificate is worth."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    """A newer one took its place in good order: no alarm."""
    REVOKED = "revoked"


SUPERSEDED: Final = "superseded"
"""The reason that makes a revocation a matter of order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """A certificate and what became of it."""

    serial: str
    thing: str
    issuer: str
    spki: str
    lfdi: str
    sfdi: str
    not_before_ms: int
    not_after_ms: int
    at_ms: int
    chain: str
    """The certificate and its issuer's, PEM: said again when an answer was lost."""
    registration: int = 1
    """Of the thing: a later one of the same name is another thing."""
    state: IssuedState = IssuedState.ACTIVE
    revoked_at_ms: int | None = None
    reason: str = ""
    supersedes: tuple[str, ...] = ()
    """Serials that end at ``supersedes_at_ms``, because this certificate takes their place."""
    supersedes_at_ms: int | None = None
    renewal_spki: str = ""
    """The key for which its holder renews it, decided before the successor is signed."""
    renewed_at_ms: int | None = None
    renewal: str = ""
    """The successor that this renewal got (PEM, as ``chain``)."""
    settled: bool = False
    """It has run out, and what followed from that is done."""

    def is_good(self, now_ms: int) -> bool:
        """Tell whether whoever shows it is believed."""
        return self.state is IssuedState.ACTIVE and self.not_before_ms <= now_ms < self.not_after_ms


class CertificateBusyError(Exception):
    """Others kept changing the same record: the caller may try again."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(IssuedRecord).decode
Change = Callable[[IssuedRecord], IssuedRecord]


class IssuedStore:
    """Keeps the records. ``by_serial`` is for every request of a device, so it is cached."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[str, tuple[IssuedRecord | None, float]] = OrderedDict()

    async def record(
        self,
        issued: Issued,
        thing: str,
        by: Principal,
        via: Via = INSIDE,
        cause: str = "",
        *,
        reason: str = "",
        registration: int = 1,
        supersedes: tuple[str, ...] = (),
        supersedes_at_ms: int | None = None,
    ) -> IssuedRecord:
        """Keep a certificate before it is given out; one that is kept already stays as it is."""
        record = IssuedRecord(
            serial=issued.serial,
            thing=thing,
            issuer=issued.issuer,
            spki=issued.spki_sha256,
            lfdi=issued.lfdi,
            sfdi=issued.sfdi,
            not_before_ms=_ms(issued.not_before),
            not_after_ms=_ms(issued.not_after),
            at_ms=self._clock.now_ms(),
            chain=issued.chain_pem.decode(),
            registration=registration,
            supersedes=supersedes,
            supersedes_at_ms=supersedes_at_ms if supersedes else None,
        )
        entry = self._entry(by, via, "certificate.issue", record, 0, reason, cause)
        if not await self._store.commit([_write(record, 0, (entry,))]):
            self._cache.pop(record.serial, None)
            return record
        kept = await self._load(issued.serial)
        assert kept is not None, "the write lost to a record that is there"
        return kept[0]

    # Looking up

    async def by_serial(self, serial: str, *, fresh: bool = False) -> IssuedRecord | None:
        """Return a record as it was at most :data:`CACHE_S` ago; ``fresh``: as it is."""
        now_s = self._clock.elapsed_s()
        known = self._cache.get(serial)
        if known is not None and not fresh and now_s < known[1]:
            return known[0]
        found = await self._load(serial)
        record = None if found is None else found[0]
        self._cache[serial] = (record, now_s + CACHE_S)
        self._cache.move_to_end(serial)
        if len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        return record

    async def of_thing(self, name: str) -> tuple[IssuedRecord, ...]:
        """Return what was issued under a name, newest first; at most :data:`OF_THING_MAX`."""
        return tuple(sorted(await self._find("thing", name), key=_age))

    async def not_revoked(self, name: str) -> tuple[IssuedRecord, ...]:
        """Return everything issued under a name that is not revoked, however much that is."""
        found: list[IssuedRecord] = []
        cursor: str | None = None
        while True:
            page = await self._store.find(
                CERTIFICATES.name, "thing", name, name, limit=OF_THING_MAX, cursor=cursor
            )
            records = (_decode(document.body) for document in page.documents)
            found += [record for record in records if record.state is not IssuedState.REVOKED]
            cursor = page.next
            if cursor is None:
                return tuple(found)

    async def by_lfdi(self, lfdi: str) -> IssuedRecord | None:
        """Return the certificate with this long form identifier."""
        found = await self._find("lfdi", lfdi)
        return found[0] if found else None

    async def by_sfdi(self, sfdi: str) -> tuple[IssuedRecord, ...]:
        """Return those with this short form identifier: 36 bits, so there may be several."""
        return tuple(await self._find("sfdi", sfdi))

    # Taking away

    async def revoke(
        self, serials: Collection[str], reason: str, by: Principal, via: Via = INSIDE, cause: str = ""
    ) -> tuple[Revoked, ...]:
        """Take certificates' worth away and return them as a revocation list wants them.

        One that had none left stays as it is and is returned as well; an unknown serial is left out.
        """
        now_ms = self._clock.now_ms()
        state = IssuedState.SUPERSEDED if reason == SUPERSEDED else IssuedState.REVOKED

        def end(record: IssuedRecord) -> IssuedRecord:
            # What ended in good order may still turn out to be in wrong hands.
            if record.state in {state, IssuedState.REVOKED}:
                return record
            at_ms = now_ms if record.revoked_at_ms is None else record.revoked_at_ms
            return replace(record, state=state, revoked_at_ms=at_ms, reason=reason)

        ended = [
            await self.change(serial, end, by, via, "certificate.revoke", reason, cause)
            for serial in dict.fromkeys(serials)
        ]
        return tuple(_revoked(record) for record in ended if record is not None)

    async def revoked(
        self, limit: int = PAGE_MAX, cursor: str | None = None
    ) -> tuple[tuple[Revoked, ...], str | None]:
        """Return a page of what is revoked and not yet expired, and where to go on."""
        now_ms = self._clock.now_ms()
        page = await self._store.find(
            CERTIFICATES.name, "revoked_until", now_ms, _END_OF_TIME, limit=limit, cursor=cursor
        )
        return tuple(_revoked(_decode(one.body)) for one in page.documents), page.next

    async def supersede_due(self, by: Principal) -> int:
        """End the certificates whose successors are a day old; return how many successors there were.

        One that others keep changing is left for the next time.
        """
        page = await self._store.find(
            CERTIFICATES.name, "supersedes_at", 0, self._clock.now_ms(), limit=PAGE_MAX
        )
        settled = 0
        for document in page.documents:
            successor = _decode(document.body)
            with suppress(CertificateBusyError):
                await self.revoke(successor.supersedes, SUPERSEDED, by, cause=successor.thing)
                # Only then: a crash in between does it again.
                await self.change(successor.serial, _settled)
                settled += 1
        return settled

    # Running out

    async def ran_out(self) -> tuple[IssuedRecord, ...]:
        """Return a page of those that nobody took away, whose time is over, and which are not settled."""
        now_ms = self._clock.now_ms()
        page = await self._store.find(CERTIFICATES.name, "runs_out_at", 0, now_ms, limit=PAGE_MAX)
        return tuple(_decode(document.body) for document in page.documents)

    async def settle(self, serial: str) -> None:
        """Note that a certificate which has run out needs nothing more."""
        await self.change(serial, lambda record: replace(record, settled=True))

    # Changing

    async def change(
        self,
        serial: str,
        decide: Change,
        by: Principal | None = None,
        via: Via = INSIDE,
        action: str = "",
        reason: str = "",
        cause: str = "",
    ) -> IssuedRecord | None:
        """Put what ``decide`` makes of a record in its place, with an audit row if there is an action.

        Returns the record as it is then, None if there is none.
        """
        for _ in range(CHANGE_ATTEMPTS_MAX):
            found = await self._load(serial)
            if found is None:
                return None
            before, revision = found
            after = decide(before)
            if after == before:
                return after
            entries = [] if by is None else [self._entry(by, via, action, after, revision, reason, cause)]
            try:
                lost = await self._store.commit([_write(after, revision, entries)])
            finally:
                # Also after a failure: the write may have reached the disk.
                self._cache.pop(serial, None)
            if not lost:
                return after
        raise CertificateBusyError("this certificate is being changed by others at the same time: try again")

    async def _load(self, serial: str) -> tuple[IssuedRecord, int] | None:
        document: Document | None = (await self._store.get(CERTIFICATES.name, [serial])).get(serial)
        return None if document is None else (_decode(document.body), document.revision)

    async def _find(self, field: str, value: str) -> list[IssuedRecord]:
        page = await self._store.find(CERTIFICATES.name, field, value, value, limit=OF_THING_MAX)
        return [_decode(document.body) for document in page.documents]

    def _entry(
        self, by: Principal, via: Via, action: str, record: IssuedRecord, before: int, reason: str, cause: str
    ) -> Entry:
        target = f"certificate/{record.thing}/{record.serial}"
        row = audit.act(
            by,
            via,
            action,
            target,
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        return audit.entry(replace(row, cause=cause), before + 1, life=0)


def datetime_of(ms: int) -> datetime:
    """Return a time kept in milliseconds as certificates count it."""
    return datetime.fromtimestamp(ms // MS_PER_S, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * MS_PER_S)


def _settled(record: IssuedRecord) -> IssuedRecord:
    return replace(record, supersedes_at_ms=None)


def _age(record: IssuedRecord) -> tuple[int, str]:
    return -record.at_ms, record.serial


def _revoked(record: IssuedRecord) -> Revoked:
    at_ms = record.at_ms if record.revoked_at_ms is None else record.revoked_at_ms
    return Revoked(record.serial, datetime_of(at_ms), record.reason, record.issuer)


def _write(record: IssuedRecord, before: int, entries: Sequence[Entry]) -> Write:
    index: dict[str, IndexValue] = {"thing": record.thing, "lfdi": record.lfdi, "sfdi": record.sfdi}
    if record.state is not IssuedState.ACTIVE:
        index["revoked_until"] = record.not_after_ms
    elif not record.settled:
        index["runs_out_at"] = record.not_after_ms
    if record.supersedes_at_ms is not None:
        index["supersedes_at"] = record.supersedes_at_ms
    return Write(CERTIFICATES.name, record.serial, before, _encode(record), index, entries=entries)
