"""The embedded customer care system: for demonstrations, tests, and a utility that has no other.

It stands for a system of somebody else's. It lies in the same store, but nothing outside this module reads
its collections, so what the rest of Gnomon keeps stays free of names and addresses.

An account is found by a document of its own, which only names the customer; what it leads to is compared
again, so that one that is out of date finds nobody.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from infra.clock import Clock
from infra.documents.port import (
    IDS_MAX,
    Collection,
    Document,
    DocumentStore,
    Entry,
    IndexValue,
    StoreUnavailableError,
    Write,
)
from infra.outbox import OutboxItem, Receipt
from provisioning.care import (
    CareCustomer,
    CareRefusedError,
    CareUnavailableError,
    SearchBy,
    account_key,
    address_key,
    phone_key,
    search_key,
)

CUSTOMERS: Final = Collection("care_customers", ("phone",))
ACCOUNTS: Final = Collection("care_accounts", ("number", "address"))
COLLECTIONS: Final = (CUSTOMERS, ACCOUNTS)
RECORDS: Final = "care_records"
"""By premises and number: what was delivered."""

ACCOUNTS_A_CUSTOMER: Final = 4
"""Accounts looked at for each customer wanted: who has more at like addresses may hide others."""
PUT_AT_ONCE: Final = 1_000
SAVE_ATTEMPTS_MAX: Final = 5
CONFLICT: Final = 409
_LAST: Final = "\U0010ffff"
"""Sorts after every letter an address can go on with."""

_encode: Final = msgspec.json.Encoder().encode
_customer: Final = msgspec.json.Decoder(CareCustomer).decode


@dataclass(frozen=True, slots=True)
class CareRecord:
    """Something that was delivered, as it came."""

    key: str
    premises: str
    seq: int
    kind: str
    body: bytes
    at_ms: int


_record: Final = msgspec.msgpack.Decoder(CareRecord).decode


class EmbeddedCare:
    """Customers and records in the document store."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # ------------------------------------------------------------------ what Gnomon asks

    async def search(self, by: SearchBy, value: str, limit: int) -> tuple[CareCustomer, ...]:
        key = search_key(by, value)
        async with _answering():
            refs = await self._refs(by, key, limit)
            found = await self._customers(refs)
        fits = _fits(by, key)
        return tuple(found[ref] for ref in refs if ref in found and fits(found[ref]))[:limit]

    async def customer(self, ref: str) -> CareCustomer | None:
        async with _answering():
            return (await self._customers([ref])).get(ref)

    async def deliver(self, item: OutboxItem) -> Receipt:
        receipt = Receipt(f"{item.lane}/{item.seq}")
        now_ms = self._clock.now_ms()
        new = CareRecord(item.key, item.lane, item.seq, item.kind, item.body, now_ms)
        async with _answering():
            kept = await self._store.read(RECORDS, item.lane, item.seq, item.seq, limit=1)
            if kept:
                old = _record(kept[0].body)
                if (old.key, old.kind, old.body) != (new.key, new.kind, new.body):
                    raise CareRefusedError(CONFLICT, "another record has this number")
                return receipt
            body = msgspec.msgpack.encode(new)
            await self._store.append([Entry(RECORDS, item.lane, item.seq, now_ms, body)])
        return receipt

    async def close(self) -> None:
        """Nothing is held open: the store is somebody else's."""

    # ------------------------------------------------------------------ what its own people do

    async def put(self, customers: Sequence[CareCustomer]) -> None:
        """Keep customers, in place of what was known of them."""
        for first in range(0, len(customers), PUT_AT_ONCE):
            some = customers[first : first + PUT_AT_ONCE]
            await self._put(CUSTOMERS.name, {one.ref: (_encode(one), _found_by_phone(one)) for one in some})
            accounts = {
                account.id: (one.ref.encode(), _found_by_place(account.number, account.address))
                for one in some
                for account in one.accounts
            }
            await self._put(ACCOUNTS.name, accounts)

    async def records(self, premises: str, *, after: int = 0, limit: int) -> tuple[CareRecord, ...]:
        """Return what was delivered about premises, from the number after ``after`` on."""
        rows = await self._store.read(RECORDS, premises, after + 1, 2**31 - 1, limit=limit)
        return tuple(_record(row.body) for row in rows)

    async def _put(self, collection: str, wanted: dict[str, tuple[bytes, dict[str, IndexValue]]]) -> None:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept: dict[str, Document] = {}
            ids = list(wanted)
            for first in range(0, len(ids), IDS_MAX):
                kept |= await self._store.get(collection, ids[first : first + IDS_MAX])
            writes = [
                Write(collection, id, kept[id].revision if id in kept else 0, body, index)
                for id, (body, index) in wanted.items()
                if id not in kept or (kept[id].body, kept[id].index) != (body, index)
            ]
            if not writes or not await self._store.commit(writes):
                return
        raise StoreUnavailableError("others wrote the same customers all the time")

    async def _refs(self, by: SearchBy, key: str, limit: int) -> list[str]:
        if by is SearchBy.PHONE:
            page = await self._store.find(CUSTOMERS.name, "phone", key, key, limit=limit)
            return [one.id for one in page.documents]
        field, high = ("number", key) if by is SearchBy.ACCOUNT else ("address", key + _LAST)
        page = await self._store.find(ACCOUNTS.name, field, key, high, limit=limit * ACCOUNTS_A_CUSTOMER)
        return list(dict.fromkeys(one.body.decode() for one in page.documents))

    async def _customers(self, refs: Sequence[str]) -> dict[str, CareCustomer]:
        documents = await self._store.get(CUSTOMERS.name, refs)
        return {ref: _customer(one.body) for ref, one in documents.items()}


def _fits(by: SearchBy, key: str) -> Callable[[CareCustomer], bool]:
    """Return whether a customer is one of those searched for."""
    match by:
        case SearchBy.ACCOUNT:
            return lambda one: any(account_key(account.number) == key for account in one.accounts)
        case SearchBy.ADDRESS:
            return lambda one: any(address_key(account.address).startswith(key) for account in one.accounts)
        case SearchBy.PHONE:
            return lambda one: phone_key(one.phone) == key


def _found_by_phone(customer: CareCustomer) -> dict[str, IndexValue]:
    key = phone_key(customer.phone)
    return {"phone": key} if key else {}


def _found_by_place(number: str, address: str) -> dict[str, IndexValue]:
    keys = {"number": account_key(number), "address": address_key(address)}
    return {field: key for field, key in keys.items() if key}


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise CareUnavailableError("the embedded customer care system waits for the store") from error
