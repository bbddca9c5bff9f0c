"""Records to documents and back. No decisions: which record may follow which is in ``rules``."""

from collections import defaultdict
from collections.abc import Collection as SizedIterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from infra.documents.port import Collection, Document, DocumentStore, Entry, IndexValue, Write
from registry.models import Premises, Thing, ThingKind
from registry.rules import AttachmentRecord, ThingRecord, enrolled

THINGS: Final = "things"
PREMISES: Final = "premises"
ATTACHMENTS: Final = "attachments"
COLLECTIONS: Final = (
    Collection(THINGS, ("premises", "kind", "model", "enrolled_premises", "enrolled_kind")),
    Collection(PREMISES, ("account",)),
    Collection(ATTACHMENTS, ("gateway", "thing")),
)

ENROLLED: Final = "enrolled_"
"""Stands before the fields by which only enrolled things are found."""
GATEWAYS_PER_THING_MAX: Final = 8
_LEFTOVERS_MAX: Final = 1
"""Rows a thing that a race or a crash left behind, beyond those that count. More would be cut off, which
takes a right away and never gives one."""
_KINDS: Final = sorted(kind.value for kind in ThingKind)

R = TypeVar("R")
_encode: Final = msgspec.json.Encoder().encode
_thing: Final = msgspec.json.Decoder(ThingRecord).decode
_premises: Final = msgspec.json.Decoder(Premises).decode
_attachment: Final = msgspec.json.Decoder(AttachmentRecord).decode


@dataclass(frozen=True, slots=True)
class Kept(Generic[R]):
    """A record as it lies in the store; revision 0 with no record: never written."""

    record: R | None
    revision: int


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Records that lie in the store, and where to go on."""

    kept: tuple[Kept[R], ...]
    next: str | None


class RegistryStore:
    """Things by name, attachments by pair."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    @property
    def exclusive(self) -> bool:
        """True when nobody else writes here."""
        return self._store.exclusive

    async def things(self, names: SizedIterable[str]) -> dict[str, ThingRecord]:
        """Return the records that exist, removed ones too."""
        documents = await self._store.get(THINGS, names)
        return {name: _thing(document.body) for name, document in documents.items()}

    async def thing(self, name: str) -> Kept[ThingRecord]:
        """Return one record, to be followed by another."""
        document = (await self._store.get(THINGS, [name])).get(name)
        return Kept(None, 0) if document is None else _kept_thing(document)

    async def things_by(
        self,
        premises: str | None,
        kind: ThingKind | None,
        limit: int,
        cursor: str | None,
        *,
        only_enrolled: bool = False,
    ) -> Page[ThingRecord]:
        """Return a page of live things by one of the two, or all of them; ``premises`` goes first."""
        prefix = ENROLLED if only_enrolled else ""
        if premises is not None:
            field, low, high = "premises", premises, premises
        elif kind is not None:
            field, low, high = "kind", kind.value, kind.value
        else:
            field, low, high = "kind", _KINDS[0], _KINDS[-1]
        page = await self._store.find(THINGS, prefix + field, low, high, limit=limit, cursor=cursor)
        return Page(tuple(_kept_thing(one) for one in page.documents), page.next)

    async def things_of_model(self, model: str, limit: int, cursor: str | None) -> Page[ThingRecord]:
        """Return a page of the live things of a model."""
        page = await self._store.find(THINGS, "model", model, model, limit=limit, cursor=cursor)
        return Page(tuple(_kept_thing(one) for one in page.documents), page.next)

    async def put_thing(self, record: ThingRecord, before: int, entry: Entry) -> bool:
        """Write a record over revision ``before`` with its audit entry; False: somebody was first."""
        thing = record.thing
        # What was removed is found by its name only.
        index = {} if record.removed else _found_by(thing)
        write = Write(THINGS, thing.name, before, _encode(record), index, entries=(entry,))
        return not await self._store.commit([write])

    async def premises(self, ids: SizedIterable[str]) -> dict[str, Premises]:
        """Return the premises that are known."""
        documents = await self._store.get(PREMISES, ids)
        return {id: _premises(document.body) for id, document in documents.items()}

    async def kept_premises(self, id: str) -> Kept[Premises]:
        """Return premises, to be followed by another record."""
        document = (await self._store.get(PREMISES, [id])).get(id)
        return Kept(None, 0) if document is None else Kept(_premises(document.body), document.revision)

    async def premises_of(self, account: str, limit: int) -> list[Premises]:
        """Return the premises of an account, by id."""
        page = await self._store.find(PREMISES, "account", account, account, limit=limit)
        return [_premises(one.body) for one in page.documents]

    async def put_premises(self, premises: Premises, before: int, entry: Entry | None) -> bool:
        """Write premises over revision ``before`` with its audit entry; False: somebody was first."""
        index = {"account": premises.account} if premises.account else {}
        entries = () if entry is None else (entry,)
        write = Write(PREMISES, premises.id, before, _encode(premises), index, entries=entries)
        return not await self._store.commit([write])

    async def attachment(self, gateway: str, thing: str) -> Kept[AttachmentRecord]:
        """Return the record of one pair."""
        id = _pair(gateway, thing)
        document = (await self._store.get(ATTACHMENTS, [id])).get(id)
        return Kept(None, 0) if document is None else _kept_attachment(document)

    async def attachments_of(self, things: SizedIterable[str]) -> dict[str, list[AttachmentRecord]]:
        """Return the rows that say *attached*, by thing."""
        limit = len(things) * (GATEWAYS_PER_THING_MAX + _LEFTOVERS_MAX)
        rows = defaultdict[str, list[AttachmentRecord]](list)
        for document in await self._store.find_in(ATTACHMENTS, "thing", things, limit=limit):
            record = _attachment(document.body)
            rows[record.attachment.thing].append(record)
        return rows

    async def attachments_by(
        self, field: str, name: str, limit: int, cursor: str | None = None
    ) -> Page[AttachmentRecord]:
        """Return a page of rows that say *attached*, where ``field`` is ``gateway`` or ``thing``."""
        page = await self._store.find(ATTACHMENTS, field, name, name, limit=limit, cursor=cursor)
        return Page(tuple(_kept_attachment(one) for one in page.documents), page.next)

    async def put_attachments(self, rows: Sequence[tuple[AttachmentRecord, int, Entry]]) -> frozenset[int]:
        """Write records over their revisions, each with its audit entry; return the positions that lost."""
        return await self._store.commit([_attachment_write(*row) for row in rows])


def _found_by(thing: Thing) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {"premises": thing.premises, "kind": thing.kind.value}
    if enrolled(thing):
        # In the index, so that who sees only these is never handed a page of others to pick from.
        index |= {ENROLLED + field: value for field, value in index.items()}
    return index | {"model": thing.model}


def _attachment_write(record: AttachmentRecord, before: int, entry: Entry) -> Write:
    pair = record.attachment
    # What has ended is found by its pair only.
    index = {"gateway": pair.gateway, "thing": pair.thing} if record.attached else {}
    return Write(
        ATTACHMENTS, _pair(pair.gateway, pair.thing), before, _encode(record), index, entries=(entry,)
    )


def _pair(gateway: str, thing: str) -> str:
    # No name holds a slash, so a pair is told apart from every other.
    return f"{gateway}/{thing}"


def _kept_thing(document: Document) -> Kept[ThingRecord]:
    return Kept(_thing(document.body), document.revision)


def _kept_attachment(document: Document) -> Kept[AttachmentRecord]:
    return Kept(_attachment(document.body), document.revision)
