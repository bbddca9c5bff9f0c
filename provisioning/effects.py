"""What a session wants done elsewhere, as values. Each is idempotent: "see to it that …".

An effect is what is wanted and not yet observed, so it is wanted again until it is observed, by whatever
process looks next.
"""

from dataclasses import dataclass

from provisioning.session import Consent, Grant, Record, SessionDevice
from shadow.document import Tree


@dataclass(frozen=True, slots=True)
class TakePremises:
    """See to it that the premises are this session's, or learn whose they are."""


@dataclass(frozen=True, slots=True)
class ReleasePremises:
    """See to it that the premises are not this session's."""


@dataclass(frozen=True, slots=True)
class PatchHan:
    """Write into a gateway's ``han`` shadow."""

    gateway: str
    patch: Tree


@dataclass(frozen=True, slots=True)
class GiveGrant:
    """Seal a link key to the key of this window and write the grant."""

    gateway: str
    grant: Grant
    seal_key: str
    until_s: int


@dataclass(frozen=True, slots=True)
class KeepKey:
    """Keep the link key of a device whose proof was good: a meter exchange needs it."""

    eui64: str
    sealed_key: str


@dataclass(frozen=True, slots=True)
class TellSeen:
    """Let the registry know that a device was seen in an open session."""

    device: SessionDevice


@dataclass(frozen=True, slots=True)
class TellProved:
    """Let the registry know that a device's proof was accepted."""

    thing: str


@dataclass(frozen=True, slots=True)
class TellLeftOut:
    """Let the registry know that a device does not take part."""

    thing: str


@dataclass(frozen=True, slots=True)
class AttachDevice:
    """Let a gateway speak for a device."""

    device: SessionDevice
    gateway: str


@dataclass(frozen=True, slots=True)
class DetachDevice:
    """Let a gateway no longer speak for a device."""

    thing: str
    gateway: str


@dataclass(frozen=True, slots=True)
class RegisterDevice:
    """Bind a device to the account."""

    device: SessionDevice


@dataclass(frozen=True, slots=True)
class GiveConsent:
    """Put a consent on record."""

    thing: str
    consent: Consent


@dataclass(frozen=True, slots=True)
class Enrol:
    """Let a device take part in a program."""

    device: SessionDevice
    program: str


@dataclass(frozen=True, slots=True)
class RetryEnrolment:
    """Try an enrolment again that has failed."""

    id: str


@dataclass(frozen=True, slots=True)
class EndEnrolment:
    """End an enrolment that did not become ready."""

    id: str


@dataclass(frozen=True, slots=True)
class CopyRecords:
    """Hand records to the outbox."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tell whoever runs this: a gateway has not closed its window."""

    gateway: str


Effect = (
    TakePremises
    | ReleasePremises
    | PatchHan
    | GiveGrant
    | KeepKey
    | TellSeen
    | TellProved
    | TellLeftOut
    | AttachDevice
    | DetachDevice
    | RegisterDevice
    | GiveConsent
    | Enrol
    | RetryEnrolment
    | EndEnrolment
    | CopyRecords
    | Alarm
)
