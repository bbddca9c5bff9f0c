"""What a lane of the outbox holds and what becomes of its items. Pure: no store, no clock, no chance.

A lane is what must stay in order, as all that concerns one premises. Only its head is ever sent, so what
is stuck holds up what is behind it in the same lane, and nothing else. ``outbox`` keeps and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from infra.states import ITEM, ItemState, ItemTrigger

ITEMS_WAITING_MAX: Final = 256
"""Items of one lane that wait; beyond it whoever wants to put more keeps it and comes again."""
ITEM_BYTES_MAX: Final = 12_288
"""Bytes of one body: so a full lane fits into one document."""
RECENT_MAX: Final = 16
"""Delivered items a lane remembers itself: their log rows may come a little late after a crash."""
KEY_CHARS_MAX: Final = 256
PROBLEM_CHARS_MAX: Final = 200
RECEIPT_CHARS_MAX: Final = 200
OVERDUE_MS: Final = 72 * 3_600_000
"""An item that waits for longer is shown as overdue; it goes on waiting."""


class LaneFullError(Exception):
    """So much waits in this lane already that nothing is taken: keep the item and put it again later."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"{ITEMS_WAITING_MAX} items of {lane} wait already: put this one again later")
        self.lane = lane


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be told to another system once. ``key`` tells it from all others."""

    key: str
    lane: str
    kind: str
    body: bytes
    made_at_ms: int

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= KEY_CHARS_MAX or not 0 < len(self.lane) <= KEY_CHARS_MAX:
            raise ValueError(f"a key and a lane have 1 to {KEY_CHARS_MAX} characters")
        if len(self.body) > ITEM_BYTES_MAX:
            raise ValueError(f"an item has at most {ITEM_BYTES_MAX} bytes, not {len(self.body)}")


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """An item in its lane. Once it is delivered the body is gone: the other system has it now."""

    key: str
    lane: str
    seq: int
    kind: str
    body: bytes
    made_at_ms: int
    state: ItemState
    attempts: int = 0
    due_ms: int = 0
    receipt: str = ""
    delivered_at_ms: int | None = None
    problem: str = ""
    """Why the last attempt came to nothing, in our words or those of a title: never what a body says."""

    @property
    def idempotency_key(self) -> str:
        """What a receiver tells a repetition by: the same for every attempt."""
        return sha256(f"{self.kind}\n{self.lane}\n{self.seq}".encode()).hexdigest()

    def overdue(self, now_ms: int) -> bool:
        """Whether it waits for longer than anybody should have to."""
        return self.state is not ItemState.DELIVERED and now_ms - self.made_at_ms > OVERDUE_MS


@dataclass(frozen=True, slots=True)
class Lane:
    """Items in order; the first of ``waiting`` is the head. ``lease`` names the sender who has it in hand."""

    next_seq: int = 1
    waiting: tuple[OutboxItem, ...] = ()
    recent: tuple[OutboxItem, ...] = ()
    lease: str = ""

    @property
    def due_ms(self) -> int | None:
        """When somebody should look next; None while nothing can be done without a person."""
        if not self.waiting or self.waiting[0].state is ItemState.BLOCKED:
            return None
        return self.waiting[0].due_ms

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of what waits was made."""
        return min((item.made_at_ms for item in self.waiting), default=None)

    def find(self, key: str) -> OutboxItem | None:
        """Return the item of this key, as far as the lane remembers."""
        return next((item for item in (*self.waiting, *self.recent) if item.key == key), None)


def queued(lane: Lane, items: Sequence[Item], now_ms: int) -> Lane:
    """Put items at the end, each with the next number; what the lane knows already changes nothing.

    Raises:
        LaneFullError: there is no room for all of them, so none was taken.
    """
    added: dict[str, OutboxItem] = {}
    for item in items:
        if item.key not in added and lane.find(item.key) is None:
            added[item.key] = OutboxItem(
                key=item.key,
                lane=item.lane,
                seq=lane.next_seq + len(added),
                kind=item.kind,
                body=item.body,
                made_at_ms=item.made_at_ms,
                state=ITEM.after(None, ItemTrigger.PUT),
                due_ms=now_ms,
            )
    if not added:
        return lane
    if len(lane.waiting) + len(added) > ITEMS_WAITING_MAX:
        raise LaneFullError(items[0].lane)
    return replace(lane, next_seq=lane.next_seq + len(added), waiting=(*lane.waiting, *added.values()))


def claimed(lane: Lane, lease: str, now_ms: int, until_ms: int) -> Lane:
    """Take the head in hand until then, if it is due; the same lane if it is not.

    A head that somebody else took is due again when his time is over: he may have died.
    """
    due_ms = lane.due_ms
    if due_ms is None or due_ms > now_ms:
        return lane
    head = lane.waiting[0]
    state = ITEM.after(head.state, ItemTrigger.TAKEN)
    sending = replace(head, state=state, attempts=head.attempts + 1, due_ms=until_ms)
    return _with_head(replace(lane, lease=lease), sending)


def delivered(lane: Lane, seq: int, receipt: str, now_ms: int) -> Lane:
    """Take out what was delivered. That is a fact, whoever holds the lane by now."""
    head = lane.waiting[0] if lane.waiting else None
    if head is None or head.seq != seq:
        return lane
    done = replace(
        head,
        body=b"",
        state=ITEM.after(head.state, ItemTrigger.ACCEPTED),
        receipt=receipt[:RECEIPT_CHARS_MAX],
        delivered_at_ms=now_ms,
        problem="",
    )
    return replace(lane, waiting=lane.waiting[1:], recent=(*lane.recent, done)[-RECENT_MAX:], lease="")


def put_off(lane: Lane, lease: str, due_ms: int, problem: str) -> Lane:
    """Have the head tried again then; nothing if another sender has it by now."""
    return _let_go(lane, lease, ItemTrigger.PUT_OFF, due_ms, problem)


def blocked(lane: Lane, lease: str, problem: str) -> Lane:
    """Have the head wait for a person; nothing if another sender has it by now."""
    return _let_go(lane, lease, ItemTrigger.REFUSED, 0, problem)


def released(lane: Lane, key: str, now_ms: int) -> Lane:
    """Have the head tried at once, if it is this item and nobody has it in hand."""
    head = lane.waiting[0] if lane.waiting else None
    if head is None or head.key != key or not ITEM.takes(head.state, ItemTrigger.RETRIED):
        return lane
    state = ITEM.after(head.state, ItemTrigger.RETRIED)
    return _with_head(lane, replace(head, state=state, due_ms=now_ms))


def _let_go(lane: Lane, lease: str, trigger: ItemTrigger, due_ms: int, problem: str) -> Lane:
    if lane.lease != lease or not lane.waiting:
        return lane
    head = lane.waiting[0]
    state = ITEM.after(head.state, trigger)
    head = replace(head, state=state, due_ms=due_ms, problem=problem[:PROBLEM_CHARS_MAX])
    return _with_head(replace(lane, lease=""), head)


def _with_head(lane: Lane, head: OutboxItem) -> Lane:
    return replace(lane, waiting=(head, *lane.waiting[1:]))
