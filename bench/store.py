"""What the SQLite store costs: CPU of its writing thread an update, and how long a commit takes.

An update is what the bridge makes of one: a document of 600 bytes with two indexed fields replaced, and
a log row of 200 bytes written, in commits of 256. It must not matter how many documents lie beside the
busy ones. The last line says what it costs when many documents are busy, so that little can be shared.
"""

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.report import emit, say, scratch
from infra.documents.port import Collection, DocumentStore, Entry, IndexValue, Write
from infra.documents.sqlite import SqliteStore

SECONDS = 4.0
BATCH = 256
SHADOWS = Collection("shadows", ("thing", "pending"))
BODY = random.Random(1).randbytes(600)
ROW = random.Random(2).randbytes(200)
CASES = ((1_000, 500), (100_000, 500), (20_000, 20_000))


@dataclass
class Run:
    """One measurement."""

    updates: int = 0
    writer_cpu_s: float = 0.0
    elapsed_s: float = 0.0
    commits_s: list[float] = field(default_factory=list)


def main() -> None:
    for documents, busy in CASES:
        say(f"{documents:,} documents, {busy:,} busy, {SECONDS:.0f} s")
        with scratch() as directory:
            run = uvloop.run(_measure(Path(directory), documents, busy))
        case = {"documents": documents, "busy": busy, "batch": BATCH}
        emit("store_writer_cpu", run.writer_cpu_s / run.updates * 1e6, "us/update", run.updates, **case)
        emit("store_updates", run.updates / run.elapsed_s, "updates/s", run.updates, **case)
        latest = sorted(run.commits_s)[int(len(run.commits_s) * 0.99)]
        emit("store_commit_p99", latest * 1e3, "ms", len(run.commits_s), **case)


async def _measure(directory: Path, documents: int, busy: int) -> Run:
    store = await SqliteStore.open(directory / "gnomon.db", [SHADOWS], ["history"])
    try:
        return await _update_for_a_while(store, await _fill(store, documents, busy))
    finally:
        await store.close()


async def _fill(store: DocumentStore, documents: int, busy: int) -> dict[str, int]:
    """Make the documents; return the busy ones with their revision, spread over all."""
    ids = [f"thing-{number:08d}:main" for number in range(documents)]
    for start in range(0, documents, 5_000):
        await store.commit([_write(id, 0) for id in ids[start : start + 5_000]])
    return dict.fromkeys(random.Random(3).sample(ids, busy), 1)


async def _update_for_a_while(store: DocumentStore, revisions: dict[str, int]) -> Run:
    run, chance, ids = Run(), random.Random(4), list(revisions)
    start, cpu = time.perf_counter(), _writer_cpu_s()
    while (now := time.perf_counter()) < start + SECONDS:
        writes = [_write(id, revisions[id]) for id in chance.sample(ids, min(BATCH, len(ids)))]
        before = time.perf_counter()
        lost = await store.commit(writes)
        run.commits_s.append(time.perf_counter() - before)
        assert not lost
        for write in writes:
            revisions[write.id] += 1
        run.updates += len(writes)
    run.elapsed_s, run.writer_cpu_s = now - start, _writer_cpu_s() - cpu
    return run


def _write(id: str, revision: int) -> Write:
    index: dict[str, IndexValue] = {"thing": id[:14], "pending": 1} if revision % 2 else {"thing": id[:14]}
    return Write(SHADOWS.name, id, revision, BODY, index, [Entry("history", id, revision, revision, ROW)])


def _writer_cpu_s() -> float:
    (thread,) = [one for one in threading.enumerate() if one.name == "sqlite-writer"]
    spent_ns = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]
    return int(spent_ns) / 1e9


if __name__ == "__main__":
    main()
