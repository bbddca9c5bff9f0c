"""The life cycle of an item of the outbox, as a table (spec: han, 2.4). Pure."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Machine


class ItemState(StrEnum):
    """Where an item is on its way."""

    QUEUED = "queued"
    SENDING = "sending"
    DELIVERED = "delivered"
    BLOCKED = "blocked"
    """The other system refused it; it waits for a person, and its lane with it."""


class ItemTrigger(StrEnum):
    """What moves an item on."""

    PUT = "put"
    TAKEN = "taken"
    """By a sender; also from another one, whose time is over."""
    PUT_OFF = "put off"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    RETRIED = "retried"
    """By a person: at once, whatever it waits for."""


ITEM: Final[Machine[ItemState, ItemTrigger]] = Machine(
    "outbox item",
    MappingProxyType(
        {
            (None, ItemTrigger.PUT): ItemState.QUEUED,
            (ItemState.QUEUED, ItemTrigger.TAKEN): ItemState.SENDING,
            (ItemState.QUEUED, ItemTrigger.RETRIED): ItemState.QUEUED,
            (ItemState.SENDING, ItemTrigger.TAKEN): ItemState.SENDING,
            (ItemState.SENDING, ItemTrigger.PUT_OFF): ItemState.QUEUED,
            (ItemState.SENDING, ItemTrigger.REFUSED): ItemState.BLOCKED,
            (ItemState.BLOCKED, ItemTrigger.RETRIED): ItemState.QUEUED,
            # What was taken is taken: a sender may hear it after his time, when another has it by now,
            # has put it off, or was refused.
            (ItemState.SENDING, ItemTrigger.ACCEPTED): ItemState.DELIVERED,
            (ItemState.QUEUED, ItemTrigger.ACCEPTED): ItemState.DELIVERED,
            (ItemState.BLOCKED, ItemTrigger.ACCEPTED): ItemState.DELIVERED,
        }
    ),
)
