"""Attacks on what was written down: the audit chain changed in its store, acts without a row. (B34)"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from infra.documents.opening import open_store
from infra.documents.port import Write
from registry.rules import THINGS_PER_PREMISES_MAX
from security import chain
from security.audit import LOG
from security.blocks import BLOCKS, NUMBER_MAX
from tests import audit_mutations
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import Field, happens
from tests.system.child import ROOT, Gnomon

SPEED_ROWS: Final = 60_000
SPEED_MIN: Final = 50_000
BLOCKS_MIN: Final = 4
Bodies = list[bytes]
Tamper = Callable[[Bodies], Bodies]


@attack("B34", "the audit chain: edited, deleted, reordered, cut, forked", at_least=Size(1_000, 100))
def changed_chains(field: Field, score: Score) -> None:
    """Change chains in five ways, as somebody could who writes the store; each must be found and named."""
    each = field.size(200, 20)
    tally = audit_mutations.run(each, field.rng.randrange(2**31))
    missed = tally.tried - min(tally.found, tally.named)
    score.attempts("a change was not found, or not named", tally.tried, missed)
    score.honest("untouched chains hold", works=tally.tried == each * len(audit_mutations.KINDS))
    speed = max(_entries_per_s(field.size(SPEED_ROWS, SPEED_ROWS // 4)) for _ in range(2))
    score.must(f"{SPEED_MIN:,} entries are verified a second ({speed:,.0f})", held=speed >= SPEED_MIN)
    score.measure(found=tally.found, named=tally.named, entries_per_s=round(speed))


def _entries_per_s(rows: int) -> float:
    chance = random.Random(1)
    bodies, _ = audit_mutations.make_chain(audit_mutations.entries(chance, rows), iter(lambda: 500, 0))
    began = time.perf_counter()
    audit_mutations.verify_all(bodies, {})
    return rows / (time.perf_counter() - began)


@attack("B34/store", "the chain of a service, changed while it is stopped", at_least=6, quick=False)
def changed_store(field: Field, score: Score) -> None:
    """Change the store's own file; `gnomon audit verify` holds it against the heads that were published."""
    gnomon = field.gnomon
    for _ in range(4):
        for _ in range(3):
            gnomon.new(has_certificate=False)
        gnomon.stop()
        gnomon.start()
    gnomon.stop()
    kept = field.scratch / "stopped"
    shutil.copytree(
        gnomon.var, kept, ignore=shutil.ignore_patterns("*.sock", "mosquitto*"), dirs_exist_ok=True
    )
    gnomon.start()
    code, said = _verified(kept, kept)
    score.honest(f"the chain as it was holds: {said}", works=code == 0 and "entries in" in said)
    score.must(f"a head was published: {said}", held="published heads agree" in said)
    for what, tamper in TAMPERS.items():
        code, found = _verified(_tampered(field, kept, what, tamper), kept)
        score.attempt(f"{what}: {found}", succeeded=code == 0)
    score.measure(chain=said.splitlines()[0] if said else "")


def _tampered(field: Field, kept: Path, what: str, tamper: Tamper) -> Path:
    copy = field.scratch / what.replace(" ", "-")
    shutil.copytree(kept, copy, dirs_exist_ok=True)
    asyncio.run(_rewrite(copy / "gnomon.db", tamper))
    return copy


async def _rewrite(file: Path, tamper: Tamper) -> None:
    """Put what ``tamper`` makes of all blocks in their place."""
    store = await open_store(f"sqlite:{file}", [BLOCKS], [LOG])
    try:
        page = await store.find(BLOCKS.name, "number", 0, NUMBER_MAX, limit=1_000)
        there = {one.id: one for one in page.documents}
        before = [there[id].body for id in sorted(there)]
        assert len(before) >= BLOCKS_MIN, f"{len(before)} blocks are too few"
        after = tamper(before)
        assert after != before, "nothing was changed"
        writes = []
        for position, id in enumerate(sorted(there)):
            body = after[position] if position < len(after) else None
            index = dict(there[id].index) if body is not None else {}
            writes.append(Write(BLOCKS.name, id, there[id].revision, body, index))
        assert not await store.commit(writes)
    finally:
        await store.close()


def _verified(var: Path, heads_from: Path) -> tuple[int, str]:
    """Run `gnomon audit verify` with the heads that lie elsewhere; return its code and words."""
    program = [sys.executable, "-c", "from gnomon.cli import main; main()"]
    heads = heads_from / "audit" / "heads.jsonl"
    settings = ["--set", f"directory={var}", "--set", f"audit.heads_file={heads}"]
    done = subprocess.run(
        [*program, "audit", "verify", *settings],
        cwd=var,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def _edit(bodies: Bodies) -> Bodies:
    position = next(number for number, body in enumerate(bodies) if b"thing.register" in body)
    forged = bodies[position].replace(b"thing.register", b"thing.registed", 1)
    return [*bodies[:position], forged, *bodies[position + 1 :]]


def _delete(bodies: Bodies) -> Bodies:
    return [bodies[0], *bodies[2:]]


def _swap(bodies: Bodies) -> Bodies:
    return [bodies[0], bodies[2], bodies[1], *bodies[3:]]


def _cut(bodies: Bodies) -> Bodies:
    return bodies[:-1]


def _cut_all(bodies: Bodies) -> Bodies:
    return bodies[:0]


def _fork(bodies: Bodies) -> Bodies:
    """Say something else in the last block, linked and counted as it should be."""
    head = audit_mutations.verify_all(bodies[:-1], {})
    entries = chain.parse(len(bodies), bodies[-1]).entries
    forged, _ = chain.make(head, [row.replace(b"thing.register", b"thing.registed") for row in entries])
    return [*bodies[:-1], forged]


TAMPERS: Final[dict[str, Tamper]] = {
    "an entry edited": _edit,
    "a block deleted": _delete,
    "two blocks swapped": _swap,
    "the last block cut": _cut,
    "everything cut": _cut_all,
    "the end forked": _fork,
}


@attack("B34/commit", "an act without its row", at_least=Size(60, 8))
def acts_without_rows(field: Field, score: Score) -> None:
    """Kill the service amid acts, again and again; each act that happened has exactly one row."""
    gnomon = field.gnomon
    gnomon.hand_over("p")
    names: list[str] = []
    for round in range(field.size(4, 1)):
        names += _act_until_killed(field, gnomon, f"act-{field.rng.getrandbits(32):x}-{round}")
    registered = [name for name in names if gnomon.http.get(f"/v1/things/{name}").status_code == 200]
    rows: dict[str, int] = {}
    for row in field.audit(lambda row: row["action"] == "thing.register"):
        name = row["target"].removeprefix("thing/")
        rows[name] = rows.get(name, 0) + 1
    for name in names:
        wanted = int(name in registered)
        score.attempt(
            f"{name}: {wanted} acts, {rows.get(name, 0)} rows", succeeded=rows.get(name, 0) != wanted
        )
    score.honest("acts happened", works=bool(registered))
    score.measure(acts=len(registered), asked=len(names))


def _act_until_killed(field: Field, gnomon: Gnomon, prefix: str) -> list[str]:
    """Register things from several threads, kill everything, and start again."""
    names: list[str] = []
    over = threading.Event()

    def register(number: int) -> None:
        with httpx.Client(base_url=gnomon.api_url, auth=gnomon.auth, timeout=5) as http:
            for count in range(THINGS_PER_PREMISES_MAX):
                if over.is_set():
                    return
                name = f"{prefix}-{number}-{count}"
                names.append(name)
                try:
                    home = f"{prefix}-{number}"
                    http.post(
                        "/v1/things", json={"name": name, "kind": "device", "model": "m", "premises": home}
                    )
                except httpx.HTTPError:
                    return

    for number in range(4):
        gnomon.hand_over(f"{prefix}-{number}")
    threads = [threading.Thread(target=register, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    happens(lambda: len(names) >= 30, 10)
    time.sleep(field.rng.uniform(0, 0.05))
    gnomon.kill()
    over.set()
    for thread in threads:
        thread.join(10)
    gnomon.start()
    return list(names)
