"""The registry's values: things, attachments, and what must be known of a thing for every message.

Values only: what may become of them is decided in ``rules``, kept by ``store``.
"""

from dataclasses import dataclass
from enum import StrEnum


class ThingKind(StrEnum):
    """What a thing is on the broker."""

    DEVICE = "device"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class NewThing:
    """A thing to be registered."""

    name: str
    kind: ThingKind
    model: str
    premises: str
    has_certificate: bool = True
    """False for a thing without IP: its gateway vouches for it."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A registered thing. Its premises never change in one registration."""

    name: str
    kind: ThingKind
    model: str
    premises: str
    has_certificate: bool
    registered_at_ms: int
    revoked_at_ms: int | None = None
    registration: int = 1
    """Rises each time the name is registered again: tells this thing from earlier ones of the same name."""
    suspended_at_ms: int | None = None
    """Since when nothing is taken from it or told to it, until somebody lets it go on."""

    @property
    def barred(self) -> bool:
        """Whether it counts for nothing now: revoked for ever, or suspended for a while."""
        return self.revoked_at_ms is not None or self.suspended_at_ms is not None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A gateway may speak for a thing. ``epoch`` rises at every attach, for ever."""

    gateway: str
    thing: str
    epoch: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a message is judged by: the thing, revoked or not, and the gateways that may speak for it now."""

    thing: Thing
    gateways: frozenset[str]


@dataclass(frozen=True, slots=True)
class ThingPage:
    """Things in a fixed order; ``next`` continues after the last, None = no more.

    A page may hold fewer than asked for, even none, and still have a ``next``: a second filter is applied
    after the first has found the page.
    """

    things: tuple[Thing, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class AttachmentPage:
    """Attachments by thing name; ``next`` as in :class:`ThingPage`."""

    attachments: tuple[Attachment, ...]
    next: str | None
