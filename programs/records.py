"""Enrolments and consents as values. Pure; what may become of them is in ``advance`` and ``consents``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Transition
from programs.models import Body
from programs.states import LIVE, EnrolmentState


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a device has had to answer: time goes on only while it can be reached."""

    counted_ms: int = 0
    seen_ms: int = 0
    """When it was looked at last; 0: not yet."""
    online: bool = False
    """Whether it could be reached then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One device taking part in one program. Of a pair there is one, with one period after the other."""

    id: str
    device: str
    program: str
    account: str
    premises: str
    state: EnrolmentState
    state_ms: int
    """Since when it is in this state."""
    since_ms: int
    """When this period began."""
    period: int = 1
    rev: int = 1
    """Of what the device was told; rises with each try, and through the periods."""
    feeder: str = ""
    until_ms: int | None = None
    """When it is to end."""
    until_by: str = ""
    until_reason: str = ""
    params: Body = field(default_factory=dict)
    tariff: str = ""
    consent: str = ""
    """The id of the consent it was made by."""
    paused: bool = False
    """By the customer."""
    failure: str = ""
    """Why it failed: what the device answered, or that it did not; empty otherwise."""
    activated_at_ms: int | None = None
    ready_at_ms: int | None = None
    left_ms: int | None = None
    """When the customer left."""
    over_ms: int | None = None
    """When it came to an end, which the device may not have confirmed yet."""
    limit: Limit = Limit()
    transitions: tuple[Transition, ...] = ()
    due_ms: int | None = None
    """When it is looked at again, whatever happens before."""

    @property
    def is_live(self) -> bool:
        """Whether it takes part, is about to, or waits for consent."""
        return self.state in LIVE


def enrolment_id(device: str, program: str) -> str:
    """Return the id of the one enrolment of this pair."""
    return f"enr-{device}-{program}"


class ConsentChannel(StrEnum):
    """How a customer said it."""

    PHONE = "phone"
    APP = "app"
    PAPER = "paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConsent:
    """A yes, as it was given."""

    device: str
    program: str
    account: str
    customer: str
    """The customer care system's reference."""
    given_by: str
    """A reference to who said yes, of the same system; never a name."""
    relation: str
    """How they stand to the account: ``holder``, ``partner`` …"""
    channel: ConsentChannel
    text_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecord:
    """A yes as it is kept; after its withdrawal with when that was and by whom."""

    id: str
    device: str
    program: str
    account: str
    customer: str
    given_by: str
    relation: str
    channel: ConsentChannel
    text_version: str
    recorded_by: str
    at_ms: int
    withdrawn_at_ms: int | None = None
    withdrawn_by: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands for one device now, by program, and the revision it was read at."""

    consents: Mapping[str, ConsentRecord] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 0
    unsettled: bool = False
    """Its enrolments have not been looked at since it changed."""


NOTHING_SAID: Final = Standing()
