"""How long the embedded customer care system takes to find a customer among a million.

Somebody is on the telephone: the aim is a p99 of 100 ms, from the call of the port to the customers. Searches
come one by one and eight at a time, by each of the three ways, for customers drawn at random.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.report import emit, say, scratch
from infra.clock import SystemClock
from infra.documents.sqlite import SqliteStore
from provisioning.care import CareAccount, CareCustomer, SearchBy
from provisioning.care_embedded import COLLECTIONS, RECORDS, EmbeddedCare

CUSTOMERS = 1_000_000
PUT_AT_ONCE = 1_000
SEARCHES = 2_000
AT_ONCE = (1, 8)


def main() -> None:
    with scratch() as directory:
        uvloop.run(_measure(Path(directory)))


async def _measure(directory: Path) -> None:
    store = await SqliteStore.open(directory / "gnomon.db", COLLECTIONS, [RECORDS])
    try:
        care = EmbeddedCare(store, SystemClock())
        say(f"putting {CUSTOMERS:,} customers")
        start = time.perf_counter()
        for first in range(0, CUSTOMERS, PUT_AT_ONCE):
            await care.put([_customer(number) for number in range(first, first + PUT_AT_ONCE)])
        emit("care_put", CUSTOMERS / (time.perf_counter() - start), "customers/s", CUSTOMERS)
        for by in SearchBy:
            for at_once in AT_ONCE:
                taken = await _search(care, by, at_once)
                for name, share in (("p50", 0.5), ("p99", 0.99)):
                    value = taken[int(len(taken) * share)] * 1e3
                    emit(f"care_search_{name}", value, "ms", len(taken), by=by, at_once=at_once)
    finally:
        await store.close()


async def _search(care: EmbeddedCare, by: SearchBy, at_once: int) -> Sequence[float]:
    """Return how long each search took, in order of time."""
    say(f"searching by {by}, {at_once} at once")
    chance, taken = random.Random(1), list[float]()

    async def some() -> None:
        for _ in range(SEARCHES // at_once):
            wanted = _customer(chance.randrange(CUSTOMERS))
            value = {
                SearchBy.ACCOUNT: wanted.accounts[0].number,
                SearchBy.ADDRESS: wanted.accounts[0].address,
                SearchBy.PHONE: wanted.phone,
            }[by]
            start = time.perf_counter()
            found = await care.search(by, value, 5)
            taken.append(time.perf_counter() - start)
            assert wanted.ref in {one.ref for one in found}

    await asyncio.gather(*(some() for _ in range(at_once)))
    return sorted(taken)


def _customer(number: int) -> CareCustomer:
    address = f"{number % 400 + 1} Fictitious Street {number // 400}, 00000 Fixture Bay"
    account = CareAccount(
        f"acc-{number}", f"99-{number:07d}", "tou-res", "active", f"pr-{number:07d}", address
    )
    phone = f"+00 000 {number:09d}"  # of no country: nobody is called
    return CareCustomer(
        f"cust-{number}", f"Sample Person {number}", "en", phone, f"c{number}@example.com", (account,)
    )


if __name__ == "__main__":
    main()
