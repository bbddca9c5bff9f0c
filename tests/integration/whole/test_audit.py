"""The audit chain of a service that is killed while it acts and seals: every act is in it, and once."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from infra.documents.opening import open_store
from registry.store import COLLECTIONS, THINGS
from security.audit import LOG, AuditEntry, Decision
from security.blocks import BLOCKS
from security.heads import public_path, read_heads, read_public_keys
from security.trail import Trail
from tests.system.child import Gnomon
from tests.system.faults import SEAL_ALWAYS

pytestmark = pytest.mark.integration

KILLS = 5
ACTS_S = 0.4


def act_until_killed(gnomon: Gnomon, known: dict[str, int], ended: threading.Event) -> None:
    """Register things and write to them until the service is gone; ``known`` counts what was acknowledged."""
    number = 0
    while not ended.is_set():
        name = f"killed-{time.monotonic_ns()}-{number}"
        number += 1
        try:
            gnomon.register(name, has_certificate=False)
            known[f"thing/{name}"] = 1
            for version in range(1, 4):
                gnomon.desire(name, {"n": version})
                known[f"shadow/{name}/"] = version
        except (httpx.HTTPError, AssertionError):
            return


async def the_chain(var: Path) -> tuple[list[AuditEntry], set[str]]:
    """Return the verified trail, and the things there are."""
    heads = var / "audit" / "heads.jsonl"
    store = await open_store(f"sqlite:{var / 'gnomon.db'}", [*COLLECTIONS, BLOCKS], [LOG])
    try:
        trail = Trail(store)
        assert (await trail.verify(read_heads(heads, read_public_keys(public_path(heads))))).number > KILLS
        rows = [msgspec.json.decode(one.body, type=AuditEntry) async for one in trail.export()]
        names = {row.target.removeprefix("thing/") for row in rows if row.action == "thing.register"}
        return rows, set(await store.get(THINGS, names))
    finally:
        await store.close()


def test_every_act_is_in_the_chain_once_whenever_the_service_is_killed(
    own_gnomon: Callable[..., Gnomon],
):
    gnomon = own_gnomon(faults=[SEAL_ALWAYS])
    known: dict[str, int] = {}
    for _ in range(KILLS):
        ended = threading.Event()
        actor = threading.Thread(target=act_until_killed, args=(gnomon, known, ended))
        actor.start()
        time.sleep(ACTS_S)
        gnomon.kill()
        ended.set()
        actor.join()
        gnomon.start()
    gnomon.stop()
    rows, things = asyncio.run(the_chain(gnomon.var))
    acts = [row for row in rows if row.decision is Decision.ALLOWED]
    counts = Counter(row.id for row in acts)
    assert set(counts.values()) == {1}
    versions: dict[str, list[int | None]] = {}
    for row in acts:
        versions.setdefault(row.target, []).append(row.version_after)
    for target, acknowledged in known.items():
        assert set(range(1, acknowledged + 1)) <= set(versions[target]), target
    registered = {row.target.removeprefix("thing/") for row in acts if row.action == "thing.register"}
    assert registered == things, "what was registered has a row, and what has a row was registered"
    assert len(known) > KILLS
