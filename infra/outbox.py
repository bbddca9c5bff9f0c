"""What other systems are told: kept durably, sent once and in order, for as long as it takes.

Whoever causes an item keeps it in a document of its own first, together with the act, and then puts it
here; putting it twice does nothing. Each lane is one document, so its order needs no other lock than
compare-and-set. Any number of processes may send: a lane is taken for a few seconds, and taken over when
its sender died. A receiver that hears an item twice knows it by its idempotency key.

Nothing is dropped: what the other system does not take now is tried again without end, and what it refuses
waits for a person. What was delivered leaves its receipt in the log, under the item's key, without the body.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
import structlog

from infra import lanes
from infra.clock import MS_PER_S, Clock
from infra.documents.port import (
    Collection,
    DocumentStore,
    Entry,
    IndexValue,
    StoreBrokenError,
    StoreError,
    StoreUnavailableError,
    Write,
)
from infra.lanes import Item, Lane, LaneFullError, OutboxItem
from infra.states import ItemState
from infra.telemetry import Metrics

__all__ = ["Item", "ItemState", "LaneFullError", "OutboxItem"]

LANES: Final = Collection("outbox_lanes", ("due_ms", "oldest_ms", "blocked"))
LOG: Final = "outbox"
"""By item key: row 0 says in which lane it is, row 1 how it was delivered."""
_PLACE, _RECEIPT = 0, 1

LANES_AT_ONCE: Final = 16
"""Lanes that are being sent at the same time by one process."""
ITEMS_A_TURN: Final = 32
"""Items of one lane before others get their turn."""
LEASE_MS: Final = 15_000
DELIVERY_S_MAX: Final = 10.0
"""One attempt; well below the lease, so that a slow sender is not taken for a dead one."""
RETRY_S_MIN: Final = 2.0
RETRY_S_MAX: Final = 900.0
RETRY_DOUBLINGS_MAX: Final = 9
RETRY_AFTER_S_MAX: Final = 86_400.0
"""What a receiver may ask for: longer than a day it would hardly mean."""
POLL_S: Final = 1.0
"""How soon we see what another process put, and what becomes due."""
LOOK_S: Final = 10.0
LOOK_LANES_MAX: Final = 1_000
"""Lanes that are counted for the gauges; more are shown as this many."""
LATE_MS: Final = 3_600_000
"""An oldest item of this age is an alarm."""
SAVE_ATTEMPTS_MAX: Final = 20
FOREVER_MS: Final = 2**62
_OVERTAKEN: Final = "others wrote all the time"

_log = structlog.get_logger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_lane: Final = msgspec.msgpack.Decoder(Lane).decode
_item: Final = msgspec.msgpack.Decoder(OutboxItem).decode


class DeliveryError(Exception):
    """An attempt to deliver came to nothing."""


class DeliveryUnavailableError(DeliveryError):
    """The other system is down, slow or busy: try again, ``retry_after_s`` later if it asked for that."""

    def __init__(self, problem: str, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class DeliveryRefusedError(DeliveryError):
    """The other system will not have it, now or later: a person has to look."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}".strip())
        self.status = status
        self.text = text


class UnknownItemError(Exception):
    """No item has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no item {key}")
        self.key = key


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the other system says about an item it took; may be empty."""

    reference: str = ""


@dataclass(frozen=True, slots=True)
class WaitingPage:
    """Items that wait, the lane with the oldest first; ``next`` continues after the last, None = no more."""

    items: tuple[OutboxItem, ...]
    next: str | None


Deliver = Callable[[OutboxItem], Awaitable[Receipt]]
"""Hands an item to the other system, or raises a :class:`DeliveryError`."""
Rule = Callable[[Lane], Lane]


class Outbox:
    """Keeps and sends. ``chance`` spreads the retries."""

    def __init__(self, store: DocumentStore, clock: Clock, chance: Random, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._chance = chance
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._looked_s: float | None = None
        self._late = False
        self.delivered = 0
        """Items that this process delivered."""
        self.failures = 0
        """Attempts that came to nothing."""
        self.oldest_s = 0.0
        self.lanes_waiting = self.lanes_blocked = 0
        metrics.counter("outbox_delivered", "Items taken by other systems", lambda: self.delivered)
        metrics.counter("outbox_failures", "Attempts that came to nothing", lambda: self.failures)
        metrics.gauge("outbox_oldest_seconds", "Age of the oldest item that waits", lambda: self.oldest_s)
        metrics.gauge("outbox_lanes_waiting", "Lanes with something unsent", lambda: self.lanes_waiting)
        metrics.gauge("outbox_lanes_blocked", "Lanes that wait for a person", lambda: self.lanes_blocked)

    async def put(self, items: Sequence[Item]) -> None:
        """Keep items to be sent, each at the end of its lane; durable when this returns.

        A key that was put before does nothing, however long ago that was.

        Raises:
            LaneFullError: a lane has no room. Others of these may have been taken: put all of them again.
        """
        by_lane = defaultdict[str, list[Item]](list)
        for item in items:
            by_lane[item.lane].append(item)
        for lane, of_lane in by_lane.items():
            await self._put(lane, of_lane)
        self._wake.set()

    async def items(self, lane: str) -> tuple[OutboxItem, ...]:
        """Return what waits in a lane, after the last that were delivered, in order."""
        kept, _ = await self._read(lane)
        return (*kept.recent, *kept.waiting)

    async def item(self, key: str) -> OutboxItem | None:
        """Return one item, delivered ones too; None for a key that was never put."""
        rows = await self._rows(key)
        if _RECEIPT in rows:
            return _item(rows[_RECEIPT])
        if _PLACE not in rows:
            return None
        lane, _ = await self._read(rows[_PLACE].decode())
        found = lane.find(key)
        if found is not None:
            return found
        # It was delivered between the two looks.
        rows = await self._rows(key)
        return _item(rows[_RECEIPT]) if _RECEIPT in rows else None

    async def waiting(self, limit: int, cursor: str | None = None) -> WaitingPage:
        """Return what waits anywhere, for a person; ``limit`` counts lanes."""
        page = await self._store.find(LANES.name, "oldest_ms", 0, FOREVER_MS, limit=limit, cursor=cursor)
        found = [item for document in page.documents for item in _lane(document.body).waiting]
        return WaitingPage(tuple(found), page.next)

    async def retry(self, key: str, row: Callable[[int], Entry] | None = None) -> OutboxItem:
        """Have an item tried at once that is blocked, or waits for its next attempt; else it stays as it is.

        ``row`` makes the audit row of the act, from the revision that it makes of the lane's document.

        Raises:
            UnknownItemError: no item has this key.
        """
        found = await self.item(key)
        if found is None:
            raise UnknownItemError(key)
        now_ms = self._clock.now_ms()
        after = await self._change(found.lane, lambda lane: lanes.released(lane, key, now_ms), row)
        self._wake.set()
        return (after and after.find(key)) or found

    async def run(self, deliver: Deliver) -> None:
        """Send whatever is due, until cancelled; a slow lane holds up no other."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._look()
                    await self._start_due(group, deliver)
                except StoreBrokenError:
                    raise
                except StoreError as error:
                    _log.warning("outbox_waits_for_the_store", reason=str(error))
                await self._pause()

    async def deliver_due(self, deliver: Deliver) -> None:
        """Send what is due now, and return: for whoever turns the clock by hand."""
        await self._look()
        while True:
            async with asyncio.TaskGroup() as group:
                if not await self._start_due(group, deliver):
                    return

    # ------------------------------------------------------------------ putting

    async def _put(self, lane: str, items: Sequence[Item]) -> None:
        for _ in range(SAVE_ATTEMPTS_MAX):
            # The lane first: what is delivered after we looked makes our write lose.
            before, revision = await self._read(lane)
            fresh = [item for item in items if not await self._rows(item.key)]
            now_ms = self._clock.now_ms()
            after = lanes.queued(before, fresh, now_ms)
            if after is before:
                return
            places = [
                Entry(LOG, item.key, _PLACE, now_ms, lane.encode())
                for item in after.waiting[len(before.waiting) :]
            ]
            if await self._save(lane, revision, after, places):
                return
        raise StoreUnavailableError(_OVERTAKEN)

    async def _rows(self, key: str) -> dict[int, bytes]:
        rows = await self._store.read(LOG, key, _PLACE, _RECEIPT, limit=2)
        return {row.number: row.body for row in rows}

    # ------------------------------------------------------------------ sending

    async def _start_due(self, group: asyncio.TaskGroup, deliver: Deliver) -> int:
        free = LANES_AT_ONCE - len(self._busy)
        if free <= 0:
            return 0
        limit = free + len(self._busy)
        page = await self._store.find(LANES.name, "due_ms", 0, self._clock.now_ms(), limit=limit)
        _heed_cancellation()
        due = [one.id for one in page.documents if one.id not in self._busy][:free]
        for lane in due:
            self._busy.add(lane)
            group.create_task(self._serve(lane, deliver), name=f"outbox {lane}")
        return len(due)

    async def _serve(self, lane: str, deliver: Deliver) -> None:
        try:
            for _ in range(ITEMS_A_TURN):
                _heed_cancellation()
                if not await self._send_head(lane, deliver):
                    break
        except StoreBrokenError:
            raise
        except StoreError as error:
            _log.warning("outbox_waits_for_the_store", reason=str(error))
        finally:
            self._busy.discard(lane)
            self._wake.set()

    async def _send_head(self, lane: str, deliver: Deliver) -> bool:
        """Try the head of a lane once, if it is due; return whether it was delivered."""
        lease = f"{self._chance.getrandbits(64):016x}"
        now_ms = self._clock.now_ms()
        taken = await self._change(lane, lambda kept: lanes.claimed(kept, lease, now_ms, now_ms + LEASE_MS))
        if taken is None:
            return False
        head = taken.waiting[0]
        outcome = await self._attempt(head, deliver)
        now_ms = self._clock.now_ms()
        match outcome:
            case Receipt(reference):
                await self._change(lane, lambda kept: lanes.delivered(kept, head.seq, reference, now_ms))
                self.delivered += 1
                return True
            case DeliveryRefusedError():
                await self._change(lane, lambda kept: lanes.blocked(kept, lease, str(outcome)))
            case DeliveryUnavailableError():
                due_ms = now_ms + round(self._wait_s(head.attempts, outcome.retry_after_s) * MS_PER_S)
                await self._change(lane, lambda kept: lanes.put_off(kept, lease, due_ms, str(outcome)))
        self.failures += 1
        return False

    async def _attempt(
        self, head: OutboxItem, deliver: Deliver
    ) -> Receipt | DeliveryRefusedError | DeliveryUnavailableError:
        facts = {"lane": head.lane, "seq": head.seq, "kind": head.kind}
        try:
            async with asyncio.timeout(DELIVERY_S_MAX):
                return await deliver(head)
        except DeliveryRefusedError as error:
            _log.error("outbox_item_blocked", status=error.status, **facts)
            return error
        except DeliveryUnavailableError as error:
            return error
        except TimeoutError:
            return DeliveryUnavailableError(f"no answer within {DELIVERY_S_MAX:.0f} s")
        except StoreBrokenError:
            raise
        except Exception:  # noqa: BLE001 - a bug in an adapter must not stop what has nothing to do with it
            _log.exception("outbox_delivery_failed", **facts)
            return DeliveryUnavailableError("a bug of ours: the log tells more")

    def _wait_s(self, attempts: int, asked_s: float | None) -> float:
        """Return how long to wait: full jitter, so that many lanes do not return at once.

        What the receiver asked for comes before that, since it asked all of them.
        """
        ceiling_s = min(RETRY_S_MAX, RETRY_S_MIN * 2 ** min(attempts - 1, RETRY_DOUBLINGS_MAX))
        return min(max(asked_s or 0.0, 0.0), RETRY_AFTER_S_MAX) + self._chance.uniform(0, ceiling_s)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    # ------------------------------------------------------------------ watching

    async def _look(self) -> None:
        """See how late we are, now and then, and say so."""
        elapsed_s = self._clock.elapsed_s()
        if self._looked_s is not None and elapsed_s - self._looked_s < LOOK_S:
            return
        page = await self._store.find(LANES.name, "oldest_ms", 0, FOREVER_MS, limit=LOOK_LANES_MAX)
        held = await self._store.find(LANES.name, "blocked", 1, 1, limit=LOOK_LANES_MAX)
        self._looked_s = elapsed_s
        self.lanes_waiting, self.lanes_blocked = len(page.documents), len(held.documents)
        now_ms = self._clock.now_ms()
        age_ms = max((now_ms - int(one.index["oldest_ms"]) for one in page.documents[:1]), default=0)
        self.oldest_s = max(0, age_ms) / MS_PER_S
        self._tell_late(age_ms)

    def _tell_late(self, age_ms: int) -> None:
        late = age_ms > LATE_MS
        if late and not self._late:
            _log.error("outbox_late", oldest_s=round(self.oldest_s), lanes=self.lanes_waiting)
        elif self._late and not late:
            _log.info("outbox_caught_up", lanes=self.lanes_waiting)
        self._late = late

    # ------------------------------------------------------------------ keeping

    async def _change(self, lane: str, rule: Rule, row: Callable[[int], Entry] | None = None) -> Lane | None:
        """Write what a rule makes of a lane; None where it leaves all as it is."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            before, revision = await self._read(lane)
            after = rule(before)
            if after is before:
                return None
            entries = _receipts(before, after)
            if row is not None:
                entries.append(row(revision + 1))
            if await self._save(lane, revision, after, entries):
                return after
        raise StoreUnavailableError(_OVERTAKEN)

    async def _read(self, lane: str) -> tuple[Lane, int]:
        document = (await self._store.get(LANES.name, [lane])).get(lane)
        return (Lane(), 0) if document is None else (_lane(document.body), document.revision)

    async def _save(self, id: str, revision: int, lane: Lane, entries: Sequence[Entry]) -> bool:
        write = Write(LANES.name, id, revision, _encode(lane), _found_by(lane), entries)
        return not await self._store.commit([write])


def _found_by(lane: Lane) -> dict[str, IndexValue]:
    index: dict[str, IndexValue] = {}
    if lane.due_ms is not None:
        index["due_ms"] = lane.due_ms
    if lane.oldest_ms is not None:
        index["oldest_ms"] = lane.oldest_ms
        if lane.due_ms is None:
            index["blocked"] = 1
    return index


def _receipts(before: Lane, after: Lane) -> list[Entry]:
    """Return the rows of what was delivered between the two."""
    known = {item.seq for item in before.recent}
    return [
        Entry(LOG, item.key, _RECEIPT, item.delivered_at_ms or 0, _encode(item))
        for item in after.recent
        if item.seq not in known
    ]


def _heed_cancellation() -> None:
    """End here if we were told to and a driver has lost it.

    On Python 3.11 ``asyncio.wait_for``, which MongoDB's driver uses, returns an answer that comes at the
    moment of the cancellation instead of passing that on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
