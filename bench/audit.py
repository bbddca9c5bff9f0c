"""What the audit chain costs: sealing rows from the log, and verifying what is sealed.

    python -m bench.audit

``verify`` is all an auditor's run does with the blocks of a store on disk: read, hash, compare. The least is
50,000 entries a second.
"""

import asyncio
import time
from pathlib import Path

from bench.report import emit, scratch
from infra.clock import SystemClock
from infra.documents.opening import open_store
from infra.documents.port import Entry
from security import audit
from security.audit import Via
from security.blocks import BLOCKS
from security.policy import Principal, Role
from security.sealer import Sealer
from security.trail import Trail

ENTRIES = 100_000
APPENDED = 1_000
VERIFY_PER_S_MIN = 50_000
ROUNDS = 3
BY = Principal("p-4f7a1c90b2d3e5f6", Role.OPERATOR)


def row(number: int, now_ms: int) -> Entry:
    act = audit.act(
        BY,
        Via("http", "6f1c0a52-2d0b-4f0e-9d2c-0b6f6a1d7c11"),
        "shadow.update",
        f"shadow/thermostat-{number % 5_000}/",
        at_ms=now_ms + number,
        before=number,
        after=number + 1,
    )
    return audit.entry(act, number + 1, life=0)


async def measure(directory: Path) -> None:
    clock = SystemClock()
    store = await open_store(f"sqlite:{directory}/gnomon.db", [BLOCKS], [audit.LOG])
    try:
        now_ms = clock.now_ms()
        for start in range(0, ENTRIES, APPENDED):
            await store.append([row(number, now_ms) for number in range(start, start + APPENDED)])
        sealer = Sealer(store, clock)
        began = time.perf_counter()
        sealed = await sealer.seal()
        emit("audit_seal", sealed / (time.perf_counter() - began), "entries/s", sealed)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            head = await Trail(store).verify({sealer.head.number: sealer.head})
            rate = head.entries / (time.perf_counter() - began)
            emit("audit_verify", rate, "entries/s", head.entries, least=VERIFY_PER_S_MIN)
            if rate < VERIFY_PER_S_MIN:
                raise SystemExit(
                    f"{rate:,.0f} entries/s verified; at least {VERIFY_PER_S_MIN:,} are asked for"
                )
    finally:
        await store.close()


def main() -> None:
    with scratch() as directory:
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
