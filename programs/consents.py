"""Consent: who said yes to which program for which device, to which text, how and when.

What stands is one document a device; every yes and every withdrawal is a row of an append-only log as well,
written with it. No name is kept: ``given_by`` is a reference of the customer care system. A withdrawal ends
the enrolment, which is not done here: the document is marked until that is seen to (:meth:`unsettled`), so
that it happens also when this process dies in between. Who may say yes is not asked here.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from infra.clock import Clock
from infra.documents.port import Collection as StoreCollection
from infra.documents.port import DocumentStore, Entry, IndexValue, Write
from programs.catalogue import ProgramCatalogue
from programs.errors import InvalidConsentError, ProgramsBusyError
from programs.models import OTA, PROGRAMS_MAX
from programs.records import NOTHING_SAID, ConsentChannel, ConsentRecord, NewConsent, Standing
from security import audit
from security.audit import INSIDE, Via
from security.policy import Action, Principal

__all__ = ["ConsentChannel", "ConsentRecord", "ConsentService", "NewConsent", "Standing"]

CONSENTS: Final = StoreCollection("consents", ("unsettled_ms",))
LOG: Final = "consents"
OTA_TEXT_VERSION: Final = "1"
STANDING_MAX: Final = PROGRAMS_MAX + 1
"""Consents of one device: one a program, and the one to firmware campaigns."""
HISTORY_MAX: Final = 1_000
SAVE_ATTEMPTS_MAX: Final = 5
UNSETTLED_MAX: Final = 100
"""Devices of one look-up."""

_WORD: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class _Document:
    consents: dict[str, ConsentRecord]
    rows: int
    unsettled_ms: int | None


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_document: Final = msgspec.json.Decoder(_Document).decode
_record: Final = msgspec.json.Decoder(ConsentRecord).decode


class ConsentService:
    """Records consents and their withdrawal."""

    def __init__(self, store: DocumentStore, clock: Clock, catalogue: ProgramCatalogue) -> None:
        self._store = store
        self._clock = clock
        self._catalogue = catalogue

    async def give(self, new: NewConsent, by: Principal, via: Via = INSIDE) -> ConsentRecord:
        """Record a yes. The one that stands, to the same text and for the same account, stays as it is."""
        _check(new)
        await self._check_text(new)
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept, revision = await self._load(new.device)
            standing = kept.consents.get(new.program)
            if standing is not None and _is_same(standing, new):
                return standing
            if standing is None and len(kept.consents) >= STANDING_MAX:
                raise InvalidConsentError("this device has consents to all there is: withdraw one")
            made = ConsentRecord(
                id=f"con-{new.device}-{kept.rows + 1}",
                recorded_by=by.name,
                at_ms=self._clock.now_ms(),
                **{name: getattr(new, name) for name in NewConsent.__slots__},
            )
            after = kept.consents | {new.program: made}
            if await self._put(after, made, kept, revision, Action.CONSENT_GIVE, by, via):
                return made
        raise ProgramsBusyError("this consent")

    async def withdraw(
        self,
        device: str,
        program: str,
        by: Principal,
        via: Via = INSIDE,
        *,
        given_until_ms: int | None = None,
    ) -> ConsentRecord | None:
        """Take a yes back; return it with its end, or None where there is nothing to take back.

        With ``given_until_ms`` a yes that is younger stays.
        """
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept, revision = await self._load(device)
            standing = kept.consents.get(program)
            if standing is None or (given_until_ms is not None and standing.at_ms > given_until_ms):
                return None
            ended = replace(standing, withdrawn_at_ms=self._clock.now_ms(), withdrawn_by=by.name)
            after = {name: one for name, one in kept.consents.items() if name != program}
            if await self._put(after, ended, kept, revision, Action.CONSENT_WITHDRAW, by, via):
                return ended
        raise ProgramsBusyError("this consent")

    async def close_all(self, device: str, by: Principal, via: Via = INSIDE) -> None:
        """Take back everything that stands for a device: whoever said yes has gone."""
        for program in sorted((await self.standing(device)).consents):
            await self.withdraw(device, program, by, via)

    async def standing(self, device: str) -> Standing:
        """Return what stands for a device."""
        return (await self.standing_of([device])).get(device, NOTHING_SAID)

    async def standing_of(self, devices: Collection[str]) -> dict[str, Standing]:
        """Return what stands for some devices; one that nobody ever said yes for is left out."""
        found: dict[str, Standing] = {}
        for id, document in (await self._store.get(CONSENTS.name, devices)).items():
            kept = _document(document.body)
            found[id] = Standing(kept.consents, document.revision, kept.unsettled_ms is not None)
        return found

    async def history(self, device: str) -> tuple[ConsentRecord, ...]:
        """Return every yes and every withdrawal of a device, the last :data:`HISTORY_MAX`, newest first."""
        rows = await self._store.read(LOG, device, 0, 2**31 - 1, limit=HISTORY_MAX, newest_first=True)
        return tuple(_record(row.body) for row in rows)

    async def unsettled(self) -> list[str]:
        """Return devices whose enrolments are to be looked at since a consent has changed, oldest first."""
        page = await self._store.find(
            CONSENTS.name, "unsettled_ms", 0, self._clock.now_ms(), limit=UNSETTLED_MAX
        )
        return [document.id for document in page.documents]

    async def settle(self, device: str, standing: Standing) -> None:
        """Note that the enrolments of a device are as these consents want them; a newer change stays open."""
        kept, revision = await self._load(device)
        if revision == standing.revision and kept.unsettled_ms is not None:
            await self._store.commit([_write(device, replace(kept, unsettled_ms=None), revision)])

    async def _load(self, device: str) -> tuple[_Document, int]:
        document = (await self._store.get(CONSENTS.name, [device])).get(device)
        if document is None:
            return _Document({}, 0, None), 0
        return _document(document.body), document.revision

    async def _put(
        self,
        consents: dict[str, ConsentRecord],
        changed: ConsentRecord,
        before: _Document,
        revision: int,
        action: Action,
        by: Principal,
        via: Via,
    ) -> bool:
        now_ms, device = self._clock.now_ms(), changed.device
        row = audit.act(
            by,
            via,
            action,
            f"consent/{device}/{changed.program}",
            at_ms=now_ms,
            before=revision,
            after=revision + 1,
        )
        entries = (
            Entry(LOG, device, before.rows + 1, now_ms, _encode(changed)),
            # Documents are never deleted, so their revisions never start again.
            audit.entry(row, revision + 1, life=0),
        )
        after = _Document(consents, before.rows + 1, now_ms)
        return not await self._store.commit([replace(_write(device, after, revision), entries=entries)])

    async def _check_text(self, new: NewConsent) -> None:
        if new.program == OTA:
            version = OTA_TEXT_VERSION
        else:
            version = (await self._catalogue.program(new.program)).consent_text_version
        if new.text_version != version:
            raise InvalidConsentError(f"text_version: the text to say yes to is version {version}")


def _check(new: NewConsent) -> None:
    words = ("device", "account", "customer", "given_by", "relation")
    bad = [name for name in words if not _WORD.fullmatch(getattr(new, name))]
    if bad:
        raise InvalidConsentError(
            f"{', '.join(bad)}: a reference of 1 to 128 of A-Z a-z 0-9 . _ : -, never a name"
        )


def _is_same(standing: ConsentRecord, new: NewConsent) -> bool:
    return (standing.account, standing.text_version) == (new.account, new.text_version)


def _write(device: str, document: _Document, before: int) -> Write:
    index: dict[str, IndexValue] = {}
    if document.unsettled_ms is not None:
        index["unsettled_ms"] = document.unsettled_ms
    return Write(CONSENTS.name, device, before, _encode(document), index)
