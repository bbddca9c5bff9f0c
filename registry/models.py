"""The registry's values: things, premises, attachments, and what must be known of a thing for every message.

Values only: what may become of them is decided in ``rules``, kept by ``store``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from security.policy import Role


class ThingKind(StrEnum):
    """What a thing is on the broker."""

    DEVICE = "device"
    GATEWAY = "gateway"


class Owner(StrEnum):
    """Whose property a thing is, whoever lives where it stands."""

    UTILITY = "utility"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class NewThing:
    """A thing to be registered."""

    name: str
    kind: ThingKind
    model: str
    premises: str
    has_certificate: bool = True
    """False for a thing without IP: its gateway vouches for it."""
    owner: Owner = Owner.CUSTOMER


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
    owner: Owner = Owner.CUSTOMER
    suspended_by: Role | None = None
    """Who suspended it: of several the one whose word counts more than a customer's."""
    taking_part: bool = False
    """It is enrolled in a program, or its customer lets it have firmware: the utility may see it."""

    @property
    def barred(self) -> bool:
        """Whether it counts for nothing now: revoked for ever, or suspended for a while."""
        return self.revoked_at_ms is not None or self.suspended_at_ms is not None

    @property
    def liftable(self) -> bool:
        """Whether a customer may let it go on: nobody has suspended it, or a customer has."""
        return self.suspended_at_ms is None or self.suspended_by is Role.CUSTOMER


class Location(NamedTuple):
    """Where premises lie, in the utility's terms; empty where it is not known."""

    zone: str = ""
    """Where prices and programs tell places apart."""
    feeder: str = ""
    service_point: str = ""
    time_zone: str = ""
    """Of the IANA database; empty: the usual one of those that we serve."""


@dataclass(frozen=True, slots=True)
class Premises:
    """A place where things are, and whose account it belongs to: a random id, no address.

    ``epoch`` rises each time it changes hands; who has it sees nothing that is older than ``since_ms``.
    """

    id: str
    account: str
    """Empty while it is nobody's."""
    epoch: int
    since_ms: int
    zone: str = ""
    feeder: str = ""
    service_point: str = ""
    time_zone: str = ""
    """These as in :class:`Location`."""
    open_session: str = ""
    """The provisioning session that works here; one that is over holds nobody up."""

    @property
    def never_owned(self) -> bool:
        """Whether nobody has had it yet; who has left has had it."""
        return not self.account and self.epoch == 1


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
    premises: Premises | None = None
    """None for a place that nobody has told us about."""


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
