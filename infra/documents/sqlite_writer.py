"""The one thread that writes to SQLite: it takes all that waits and makes one durable commit of it.

```
commit() ─┐            ┌ decide   compare-and-set, in the order of arrival
commit() ─┼─ queue ──▶ │ write    one transaction: a journal record, a piece of folding, fsync
append() ─┘            │ publish  into the newest overlay, so that reads see it
                       ├ answer
                       └ tidy up  checkpoint, turn over the overlays, if it is time
```
Nothing waits for a group to fill: the next one forms while this one is written. A caller that gives up
waiting changes nothing: its write stands or falls as a whole.
"""

import asyncio
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from infra.documents import layers, sqlite_journal
from infra.documents.overlay import Overlay, revision_of
from infra.documents.port import Entry, StoreBrokenError, StoreError, StoreUnavailableError, Write
from infra.documents.sqlite_files import PAGE_BYTES, translate
from infra.documents.sqlite_fold import Fold
from infra.documents.sqlite_tables import Tables

QUEUE_BYTES_MAX: Final = 64 * 2**20
"""What may wait for the writer; above it a commit is refused at once."""
GROUP_BYTES_MAX: Final = 4 * 2**20
"""What one transaction takes, but for a single larger commit."""
OVERLAY_BYTES_MAX: Final = 16 * 2**20
"""Journal records of one overlay. Two overlays are in memory at most; both are read at the next start."""
FOLD_LEAD: Final = 1.1
"""Folding is this much faster than the newest overlay fills, so it is done in time."""
CHECKPOINT_PAGES: Final = 1_000
"""After about this many pages in the write-ahead log they are brought into the database file."""
WAL_PAGES_MAX: Final = 16_000
"""At this size (125 MiB) the writer waits for readers, so that the write-ahead log can start anew."""
PAGES_A_COMMIT: Final = 4
PAGES_A_ROW: Final = 2
CLOSE_TIMEOUT_S: Final = 30.0

Lost = frozenset[int]
Answer = Lost | StoreError


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    writes: Sequence[Write]
    entries: Sequence[Entry]
    bytes: int
    answer: asyncio.Future[Lost]
    loop: asyncio.AbstractEventLoop


@dataclass(slots=True)
class _Decision:
    """What becomes of a group."""

    lost: list[Lost] = field(default_factory=list)
    won: list[Write] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def changes_something(self) -> bool:
        return bool(self.won or self.entries)


class Writer:
    """Owns the writing connection, the overlays and the thread."""

    def __init__(self, connection: sqlite3.Connection, tables: Tables) -> None:
        self.layers: layers.Layers
        """Newest first. Replaced as a whole, so a reader's hold on it stays consistent."""
        self.lock = threading.Lock()
        """Held while the newest overlay changes: whoever iterates over it takes it too."""
        self._connection = connection
        self._tables = tables
        recovered = sqlite_journal.recover(connection)
        self._seq = recovered.last_seq
        self._fold: Fold | None = None
        self._newest_bytes = 0
        if recovered.last_seq:
            self._fold = Fold(recovered.overlay, recovered.last_seq, tables)
        self.layers = (Overlay(), recovered.overlay) if self._fold else (Overlay(),)
        self._wal_pages = 0
        self._queue: list[_Request] = []
        self._queue_bytes = 0
        self._queue_changed = threading.Condition()
        self._closing = False
        self._broken: StoreBrokenError | None = None
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, writes: Sequence[Write], entries: Sequence[Entry], size: int) -> asyncio.Future[Lost]:
        """Queue a commit; the future has the positions of the lost writes once all is durable."""
        loop = asyncio.get_running_loop()
        request = _Request(writes, entries, size, loop.create_future(), loop)
        with self._queue_changed:
            self.check_serving()
            if self._queue_bytes + size > QUEUE_BYTES_MAX:
                raise StoreUnavailableError(
                    f"{self._queue_bytes} bytes wait for the disk (QUEUE_BYTES_MAX): try again later"
                )
            self._queue.append(request)
            self._queue_bytes += size
            self._queue_changed.notify()
        return request.answer

    def check_serving(self) -> None:
        """Refuse when the store is broken or closed."""
        if self._broken is not None:
            raise StoreBrokenError(*self._broken.args)
        if self._closing:
            raise StoreUnavailableError("the store is closed")

    def stop(self) -> None:
        """Take nothing new; what waits is still written."""
        with self._queue_changed:
            self._closing = True
            self._queue_changed.notify()

    def close(self) -> None:
        """Wait for the last commit, bring the write-ahead log in, let go. Blocks."""
        self.stop()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            raise StoreUnavailableError(f"the disk did not answer within {CLOSE_TIMEOUT_S} s; left open")
        self._connection.close()

    def _run(self) -> None:
        while group := self._take():
            answers = self._serve(group)
            _send(group, answers)
            del group, answers  # or they stay in memory until the next commit
            self._tidy_up()

    def _take(self) -> list[_Request]:
        """Wait for requests; return as many as one transaction takes, none to end the thread."""
        with self._queue_changed:
            self._queue_changed.wait_for(lambda: self._queue or self._closing)
            size = 0
            count = 0
            for request in self._queue:
                if count and size + request.bytes > GROUP_BYTES_MAX:
                    break
                size += request.bytes
                count += 1
            group = self._queue[:count]
            del self._queue[:count]
            self._queue_bytes -= size
        return group

    def _serve(self, group: Sequence[_Request]) -> Sequence[Answer]:
        if self._broken is not None:
            return [self._broken] * len(group)
        try:
            decision = self._decide(group)
            if decision.changes_something:
                self._write(decision)
        except sqlite3.Error as error:
            return [self._failure(error)] * len(group)
        except Exception as error:  # noqa: BLE001 - our bug; whoever waits must hear of it, and nobody go on
            return [self._break(StoreBrokenError(f"the writer failed: {error!r}; restart"))] * len(group)
        return decision.lost

    def _decide(self, group: Sequence[_Request]) -> _Decision:
        """Compare and set, each write on what the one before it left."""
        decision = _Decision()
        revisions = self._revisions(write for request in group for write in request.writes)
        for request in group:
            lost = []
            for position, write in enumerate(request.writes):
                known = revisions[write.collection]
                if known[write.id] == write.expected:
                    known[write.id] = revision_of(write)
                    decision.won.append(write)
                else:
                    lost.append(position)
            decision.lost.append(frozenset(lost))
            decision.entries += request.entries
        return decision

    def _revisions(self, writes: Iterable[Write]) -> Mapping[str, dict[str, int]]:
        """Return the revision of each document by collection and id, 0 where there is none."""
        revisions: defaultdict[str, dict[str, int]] = defaultdict(dict)
        beneath: defaultdict[str, list[str]] = defaultdict(list)
        for write in writes:
            known = layers.newest(self.layers, write.collection, write.id)
            if known is None:
                beneath[write.collection].append(write.id)
            revisions[write.collection][write.id] = 0 if known is None else revision_of(known)
        for collection, ids in beneath.items():
            table = self._tables.documents[collection]
            revisions[collection].update(table.revisions(self._connection, ids))
        return revisions

    def _write(self, decision: _Decision) -> None:
        record = sqlite_journal.record_of(decision.won, decision.entries)
        filled = (self._newest_bytes + len(record)) / OVERLAY_BYTES_MAX * FOLD_LEAD
        fold, goal, rows = self._fold, 0, 0
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            sqlite_journal.insert(self._connection, self._seq + 1, record)
            if fold is not None:
                goal = fold.goal(filled)
                rows = fold.write(self._connection, goal)
                if goal == len(fold.pieces):
                    sqlite_journal.drop(self._connection, fold.last_seq)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        # From here on it is durable.
        self._seq += 1
        self._newest_bytes += len(record)
        self._wal_pages += len(record) // PAGE_BYTES + PAGES_A_COMMIT + rows * PAGES_A_ROW
        self._publish(decision)
        if fold is not None:
            fold.done = goal

    def _publish(self, decision: _Decision) -> None:
        with self.lock:
            newest = self.layers[0]
            for write in decision.won:
                newest.put(write)
            for entry in decision.entries:
                newest.add(entry)

    def _turn_over(self) -> None:
        """Let go of what is folded; begin a new overlay when the newest is full."""
        if self._fold is not None and self._fold.done == len(self._fold.pieces):
            self._fold = None
            self.layers = self.layers[:1]
        if self._newest_bytes >= OVERLAY_BYTES_MAX and self._fold is None:
            full = self.layers[0]
            self._fold = Fold(full, self._seq, self._tables)
            self.layers = (Overlay(), full)
            self._newest_bytes = 0

    def _tidy_up(self) -> None:
        """Do what nobody has to wait for. Whatever fails here is heard by who comes next."""
        if self._broken is not None:
            return
        try:
            self._turn_over()
            if self._wal_pages >= CHECKPOINT_PAGES:
                self._checkpoint()
        except sqlite3.Error as error:
            self._failure(error)
        except Exception as error:  # noqa: BLE001 - our bug; a thread that ended would leave everybody waiting
            self._break(StoreBrokenError(f"the writer failed: {error!r}; restart"))

    def _checkpoint(self) -> None:
        mode = "PASSIVE" if self._wal_pages < WAL_PAGES_MAX else "RESTART"
        _, pages, done = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        # A reader may hold on to the log: then it grows on, and we come back after the next commit.
        self._wal_pages = 0 if done >= pages else max(pages, CHECKPOINT_PAGES)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._break(StoreBrokenError(f"could not roll back: {error}; restart"))

    def _failure(self, error: sqlite3.Error) -> StoreError:
        failure = translate(error)
        return self._break(failure) if isinstance(failure, StoreBrokenError) else failure

    def _break(self, failure: StoreBrokenError) -> StoreBrokenError:
        """Refuse everything from now on: what a second try says could not be trusted."""
        self._broken = failure
        return failure


def _send(group: Sequence[_Request], answers: Sequence[Answer]) -> None:
    """Hand the answers to the loops of those who wait: one call a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for request, answer in zip(group, answers, strict=True):
        by_loop.setdefault(request.loop, []).append(partial(_settle, request.answer, answer))
    for loop, calls in by_loop.items():
        try:
            loop.call_soon_threadsafe(_call_all, calls)
        except RuntimeError:  # that loop is closed: nobody waits there any more
            continue


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _settle(future: asyncio.Future[Lost], answer: Answer) -> None:
    if future.done():  # the caller stopped waiting
        return
    if isinstance(answer, StoreError):
        future.set_exception(type(answer)(*answer.args))
    else:
        future.set_result(answer)
