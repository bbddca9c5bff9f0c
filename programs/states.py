"""The life cycles of programs and enrolments as tables. Pure (spec: han, 2.2 and 8.1)."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Machine


class ProgramState(StrEnum):
    """Where a program is in its life."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    CLOSED = "CLOSED"
    """Nobody takes part any more, and nobody will."""


class ProgramTrigger(StrEnum):
    """What moves a program on."""

    WRITE = "write"
    PUBLISH = "publish"
    CLOSE = "close"


_P, _W = ProgramState, ProgramTrigger

PROGRAM: Final[Machine[ProgramState, ProgramTrigger]] = Machine(
    "program",
    MappingProxyType(
        {
            (None, _W.WRITE): _P.DRAFT,
            (_P.DRAFT, _W.WRITE): _P.DRAFT,
            (_P.PUBLISHED, _W.WRITE): _P.PUBLISHED,
            (_P.DRAFT, _W.PUBLISH): _P.PUBLISHED,
            (_P.DRAFT, _W.CLOSE): _P.CLOSED,
            (_P.PUBLISHED, _W.CLOSE): _P.CLOSED,
        }
    ),
)


class EnrolmentState(StrEnum):
    """How far a device is in a program."""

    PENDING_CONSENT = "PENDING_CONSENT"
    """Asked for; the customer has not said yes. The device knows nothing of it."""
    PROVISIONING = "PROVISIONING"
    """The device is to be told, and has not answered yet."""
    ACTIVATED = "ACTIVATED"
    """It has stored what it was told."""
    READY = "READY"
    """It has looked whether it can do it: it takes part."""
    PROVISION_FAILED = "PROVISION_FAILED"
    SUSPENDED = "SUSPENDED"
    """Takes part again once nothing holds it."""
    ENDING = "ENDING"
    """The device is to be told that it is over."""
    ENDED = "ENDED"


class EnrolmentTrigger(StrEnum):
    """What moves an enrolment on."""

    ENROL = "enrol"
    ASK = "ask"
    """Enrol, once the customer has said yes."""
    CONSENT = "consent"
    LAPSE = "lapse"
    """No longer eligible, or asked for too long ago."""
    ACK_ACTIVATED = "activated"
    ACK_READY = "ready"
    FAIL = "failed"
    """The device says that it cannot, or has said nothing in time."""
    RETRY = "retry"
    LATE = "late"
    """What had failed has answered after all."""
    HOLD = "hold"
    LIFT = "lift"
    END = "end"
    OFF = "off"
    """The device has said that it is over, or will never say it."""


_E, _T = EnrolmentState, EnrolmentTrigger

ENROLMENT: Final[Machine[EnrolmentState, EnrolmentTrigger]] = Machine(
    "enrolment",
    MappingProxyType(
        {
            (None, _T.ENROL): _E.PROVISIONING,
            (None, _T.ASK): _E.PENDING_CONSENT,
            # The next period: what has ended may begin again. So may what the device has not confirmed the
            # end of; not where consent is waited for, since what it is told meanwhile is the end.
            (_E.ENDED, _T.ENROL): _E.PROVISIONING,
            (_E.ENDING, _T.ENROL): _E.PROVISIONING,
            (_E.ENDED, _T.ASK): _E.PENDING_CONSENT,
            (_E.PENDING_CONSENT, _T.CONSENT): _E.PROVISIONING,
            (_E.PENDING_CONSENT, _T.LAPSE): _E.ENDED,
            # The device was told nothing, so there is nothing to take back.
            (_E.PENDING_CONSENT, _T.END): _E.ENDED,
            (_E.PROVISIONING, _T.ACK_ACTIVATED): _E.ACTIVATED,
            (_E.ACTIVATED, _T.ACK_READY): _E.READY,
            (_E.PROVISIONING, _T.FAIL): _E.PROVISION_FAILED,
            (_E.ACTIVATED, _T.FAIL): _E.PROVISION_FAILED,
            (_E.PROVISION_FAILED, _T.RETRY): _E.PROVISIONING,
            (_E.PROVISION_FAILED, _T.LATE): _E.PROVISIONING,
            (_E.READY, _T.HOLD): _E.SUSPENDED,
            (_E.SUSPENDED, _T.LIFT): _E.READY,
            (_E.PROVISIONING, _T.END): _E.ENDING,
            (_E.ACTIVATED, _T.END): _E.ENDING,
            (_E.READY, _T.END): _E.ENDING,
            (_E.PROVISION_FAILED, _T.END): _E.ENDING,
            (_E.SUSPENDED, _T.END): _E.ENDING,
            (_E.ENDING, _T.OFF): _E.ENDED,
        }
    ),
)

LIVE: Final = frozenset(EnrolmentState) - {EnrolmentState.ENDING, EnrolmentState.ENDED}
"""While it is so, there can be no second one of the same device and program, nor one that excludes it."""
TOLD: Final = LIVE - {EnrolmentState.PENDING_CONSENT}
"""The device is to take part."""
