"""Enrolments to documents and back. No decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from infra.documents.port import Collection as StoreCollection
from infra.documents.port import Document, DocumentStore, Entry, IndexValue, Write
from programs.records import Enrolment
from programs.states import EnrolmentState

ENROLMENTS: Final = StoreCollection(
    "enrolments", ("device", "account", "premises", "program", "tariff", "feeder", "due_ms")
)
CLAIMS: Final = StoreCollection("enrolling")
PER_DEVICE_MAX: Final = 256
"""Enrolments one device ever had, one a program; the catalogue has fewer programs."""

T = TypeVar("T")


def place(program: str, feeder: str) -> str:
    """Return the value by which the enrolments of a program on one feeder are found."""
    return f"{program}@{feeder}"


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A record as it lies in the store."""

    record: T
    revision: int


@dataclass(frozen=True, slots=True)
class EnrolmentPage:
    """Enrolments in a fixed order; ``next`` continues after the last, None = no more."""

    enrolments: tuple[Enrolment, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """What is being made for one device now: programs, and since when. See ``enrolments``."""

    programs: dict[str, int]


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_enrolment: Final = msgspec.json.Decoder(Enrolment).decode
_claims: Final = msgspec.json.Decoder(Claims).decode


class EnrolmentStore:
    """Enrolments by id and by whatever they are found by. What has ended is found by its device alone."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def load(self, id: str) -> Kept[Enrolment] | None:
        """Return one enrolment, to be followed by another version of it."""
        document = (await self._store.get(ENROLMENTS.name, [id])).get(id)
        return None if document is None else _kept(document)

    async def of_device(self, device: str) -> dict[str, Kept[Enrolment]]:
        """Return all enrolments a device has or had, by program."""
        page = await self._store.find(ENROLMENTS.name, "device", device, device, limit=PER_DEVICE_MAX)
        kept = [_kept(document) for document in page.documents]
        return {one.record.program: one for one in kept}

    async def page(self, field: str, value: str, limit: int, cursor: str | None = None) -> EnrolmentPage:
        """Return a page of what has not ended, or by ``program`` and ``feeder`` of what lives."""
        page = await self._store.find(ENROLMENTS.name, field, value, value, limit=limit, cursor=cursor)
        return EnrolmentPage(tuple(_enrolment(one.body) for one in page.documents), page.next)

    async def count(self, field: str, value: str, most: int) -> int:
        """Return how many a :meth:`page` would name, counted no further than ``most``."""
        return await self._store.count(ENROLMENTS.name, field, value, value, at_most=most) if most else 0

    async def due(self, until_ms: int, limit: int, cursor: str | None = None) -> EnrolmentPage:
        """Return a page of the enrolments that are to be looked at by then, the oldest first."""
        page = await self._store.find(ENROLMENTS.name, "due_ms", 0, until_ms, limit=limit, cursor=cursor)
        return EnrolmentPage(tuple(_enrolment(one.body) for one in page.documents), page.next)

    async def put(self, rows: Sequence[tuple[Enrolment, int, Sequence[Entry]]]) -> frozenset[int]:
        """Write enrolments over their revisions (0 = new); return the positions that lost their race."""
        return await self._store.commit([_write(*row) for row in rows])

    async def claims(self, device: str) -> Kept[Claims]:
        """Return what is being made for a device."""
        document = (await self._store.get(CLAIMS.name, [device])).get(device)
        return Kept(Claims({}), 0) if document is None else Kept(_claims(document.body), document.revision)

    async def claim(self, device: str, claims: Claims, before: int) -> bool:
        """Write what is being made over revision ``before``; False: somebody was first."""
        return not await self._store.commit([Write(CLAIMS.name, device, before, _encode(claims))])


def _kept(document: Document) -> Kept[Enrolment]:
    return Kept(_enrolment(document.body), document.revision)


def _write(enrolment: Enrolment, before: int, entries: Sequence[Entry]) -> Write:
    return Write(
        ENROLMENTS.name, enrolment.id, before, _encode(enrolment), _found_by(enrolment), entries=entries
    )


def _found_by(one: Enrolment) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {"device": one.device}
    if one.state is not EnrolmentState.ENDED:
        index |= {"account": one.account, "premises": one.premises}
        if one.tariff:
            index["tariff"] = one.tariff
    if one.is_live:
        index["program"] = one.program
        if one.feeder:
            index["feeder"] = place(one.program, one.feeder)
    if one.due_ms is not None:
        index["due_ms"] = one.due_ms
    return index
