"""What provisioning sessions look like from outside: one struct a shape, and who is shown what.

Field staff learn nothing of the customer: no account, case, consent or answer, and no price. An operator
sees how far a session is, and none of the customer's words. Equipment that has no part in anything is the
customer's own business: whoever works in the session sees what it could be while it is open, all others of
ours how much it is. (spec: security, 10)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.reading import rfc3339
from api.schemas import Json, Name, Time
from infra.machines import Transition
from infra.outbox import ItemState, OutboxItem
from provisioning.acts import Assignment, Choice
from provisioning.remedies import Fitting, RemedyKind
from provisioning.service import NewGrant, NewSession
from provisioning.session import (
    DEVICES_MAX,
    GRANTS_MAX,
    NAME_CHARS_MAX,
    NOTE_CHARS_MAX,
    PROGRAMS_PER_DEVICE_MAX,
    TAKING_PART,
    Cause,
    Consent,
    Expected,
    Grant,
    GrantState,
    Mode,
    Notice,
    Priority,
    Progress,
    Proof,
    Record,
    Session,
    SessionDevice,
    ToldRemedy,
    Window,
)
from provisioning.states import DeviceState, RemedyState, SessionState, SessionTrigger, WindowState
from security.policy import Role
from security.secret import Secret

Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]
Words = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
"""What a customer calls something."""
Note = Annotated[str, Meta(max_length=NOTE_CHARS_MAX)]
DeviceKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="EUI-64, LFDI, or the name of a thing; punctuation of an EUI-64 does not matter.",
        examples=["00124B0001A2B3C4"],
    ),
]
PAIRS_MAX = DEVICES_MAX * PROGRAMS_PER_DEVICE_MAX
EXPECTED_MAX = 16


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a session its reader is shown."""

    personal: bool
    """Account, case, consents, what the customer was told and said."""
    words: bool
    """What the customer calls devices and rooms: whoever works in the session needs it to tell them apart."""
    own: bool
    """All of their equipment, at any time: it is theirs."""

    def devices(self, session: Session) -> Mapping[str, SessionDevice]:
        """Return the devices of a session that are shown; of all others, how many there are."""
        if self.own or (self.words and not session.is_over):
            return session.devices
        return {key: one for key, one in session.devices.items() if one.state in TAKING_PART}

    def grants(self, session: Session) -> list[Grant]:
        """Return the grants that are shown: such as name no other device."""
        shown = self.devices(session)
        return [one for one in session.grants if shown is session.devices or one.eui64 in shown]

    def others(self, session: Session) -> int:
        """Return how much else there was."""
        return session.others + len(session.devices) - len(self.devices(session))


def sight_of(role: Role) -> Sight:
    """Return what somebody who may read a session sees of it; whoever is not named sees least."""
    return Sight(
        personal=role in {Role.CUSTOMER, Role.REP},
        words=role in {Role.CUSTOMER, Role.REP, Role.INSTALLER},
        own=role is Role.CUSTOMER,
    )


# ---------------------------------------------------------------------------- bodies


class NewSessionBody(Struct, forbid_unknown_fields=True):
    """For whom a session is opened, and by what right: a representative's verification, or a work order."""

    premises: Name
    account: Annotated[
        str,
        Meta(pattern="^[a-zA-Z0-9:_-]{0,128}$", description="Left out by installers: not theirs to know."),
    ] = ""
    verification: Annotated[str, Meta(max_length=64)] = ""
    work_order: Annotated[str, Meta(max_length=64)] = ""
    case: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{0,64}$")] = ""
    take_over: Annotated[bool, Meta(description="End the session that is open there, and begin anew.")] = (
        False
    )

    def value(self) -> NewSession:
        return NewSession(
            premises=self.premises,
            account=self.account,
            verification=self.verification,
            work_order=self.work_order,
            case=self.case,
            take_over=self.take_over,
        )


class GrantBody(Struct, forbid_unknown_fields=True):
    """A proof as it stands on a device, for this one device to join."""

    proof: Proof
    eui64: Annotated[str, Meta(max_length=32, examples=["00124B0001A2B3C4"])] = ""
    sfdi: Annotated[str, Meta(max_length=15, description="With a PIN, in the place of `eui64`.")] = ""
    value: Annotated[
        str,
        Meta(max_length=64, description="The install code with its CRC, or the PIN; none of a certificate."),
    ] = ""

    def value_of(self) -> NewGrant:
        device = self.sfdi if self.proof is Proof.PIN else self.eui64
        return NewGrant(device=device, proof=self.proof, value=Secret(self.value))


class ExpectedBody(Struct, forbid_unknown_fields=True):
    """Something the customer says they bought."""

    maker: Words
    model: Words

    def value(self) -> Expected:
        return Expected(self.maker, self.model)


class DiscoveryBody(Struct, forbid_unknown_fields=True):
    """How to look for equipment."""

    priority: Annotated[
        Priority, Meta(description="`normal`: the window is open for 10 minutes; `low`: for an hour.")
    ] = Priority.NORMAL
    gateway: Annotated[
        str, Meta(pattern="^[a-zA-Z0-9:_-]{0,128}$", description="Default: the best one of the premises.")
    ] = ""
    not_before: Annotated[
        Annotated[datetime, Meta(tz=True)] | None, Meta(description="Open the window then, not now.")
    ] = None
    expected: Annotated[list[ExpectedBody], Meta(max_length=EXPECTED_MAX)] = []
    grants: Annotated[list[GrantBody], Meta(max_length=GRANTS_MAX)] = []


class ChoiceBody(Struct, forbid_unknown_fields=True):
    """Whether a device takes part, and what the customer calls it."""

    device: DeviceKey
    take_part: bool
    name: Words = ""
    location: Annotated[Words, Meta(description="The room")] = ""

    def value(self) -> Choice:
        return Choice(device=self.device, take_part=self.take_part, name=self.name, location=self.location)


class SelectionBody(Struct, forbid_unknown_fields=True):
    """What the customer says about devices; what is not named stays as it is."""

    devices: Annotated[list[ChoiceBody], Meta(min_length=1, max_length=DEVICES_MAX)]


class ConsentedBody(Struct, forbid_unknown_fields=True):
    """A device and a program, and the text that was said yes to."""

    device: DeviceKey
    program: Name
    text_version: Annotated[str, Meta(min_length=1, max_length=64)]


class SessionConsentBody(Struct, forbid_unknown_fields=True, rename={"pairs": "for"}):
    """Who said yes to what, and how."""

    given_by: Annotated[
        Word, Meta(description="As the customer care system calls them: never a name", examples=["cust-0007"])
    ]
    relation: Annotated[Word, Meta(description="To the account", examples=["holder"])]
    channel: Literal["phone", "app", "paper"]
    pairs: Annotated[list[ConsentedBody], Meta(min_length=1, max_length=PAIRS_MAX)]

    def values(self) -> list[Consent]:
        """Return the consents; when, and who recorded them, is not the caller's to say."""
        return [
            Consent(
                device=one.device,
                program=one.program,
                given_by=self.given_by,
                relation=self.relation,
                channel=self.channel,
                text_version=one.text_version,
                recorded_by="",
                at_ms=0,
            )
            for one in self.pairs
        ]


class AssignmentBody(Struct, forbid_unknown_fields=True):
    """A program for a device."""

    device: DeviceKey
    program: Name
    params: Annotated[Json, Meta(max_length=16)] = {}

    def value(self) -> Assignment:
        return Assignment(device=self.device, program=self.program, params=self.params)


class ProgramsBody(Struct, forbid_unknown_fields=True):
    """All programs of all devices: what is not named any more is chosen no more."""

    assignments: Annotated[list[AssignmentBody], Meta(max_length=PAIRS_MAX)]


class RetryBody(Struct, forbid_unknown_fields=True):
    """Which devices to try again; none named: all that failed or are late."""

    devices: Annotated[list[DeviceKey], Meta(max_length=DEVICES_MAX)] = []


class ConfirmBody(Struct, forbid_unknown_fields=True):
    """How the customer was told."""

    method: Annotated[Word, Meta(examples=["phone"])]
    note: Note = ""


class AbortBody(Struct, forbid_unknown_fields=True):
    """Why a session ends."""

    reason: Annotated[str, Meta(min_length=1, max_length=NOTE_CHARS_MAX)]


class VerificationOfSessionBody(Struct, forbid_unknown_fields=True):
    """The verification under which a session goes on."""

    verification: Annotated[str, Meta(min_length=1, max_length=64)]


class RemedyNoticeBody(Struct, forbid_unknown_fields=True):
    """Which remedies the customer was told of, and what they said."""

    remedies: Annotated[list[Name], Meta(min_length=1, max_length=32)]
    answer: Literal["accepted", "declined", "undecided"]
    chosen: Annotated[str, Meta(pattern="^[a-zA-Z0-9:_-]{0,128}$", description="Which one, if accepted")] = ""


class RemedyDoneBody(Struct, forbid_unknown_fields=True):
    """That a remedy is in place, which nobody noticed by itself."""

    remedy: Name
    evidence: Annotated[str, Meta(min_length=1, max_length=NOTE_CHARS_MAX)]


# ---------------------------------------------------------------------------- documents


class WindowDocument(Struct, omit_defaults=True):
    """A join window."""

    gateway: str
    state: WindowState
    mode: Mode
    priority: Priority
    not_before: Time
    until: Time | None = None

    @classmethod
    def of(cls, window: Window) -> "WindowDocument":
        return cls(
            window.gateway,
            window.state,
            window.mode,
            window.priority,
            rfc3339(window.not_before_ms),
            rfc3339(window.until_ms) if window.until_ms else None,
        )


class GrantDocument(Struct):
    """Leave for one device to join: never the code."""

    device: str
    proof: Proof
    state: GrantState

    @classmethod
    def of(cls, grant: Grant) -> "GrantDocument":
        return cls(grant.eui64, grant.proof, grant.state)


class StepDocument(Struct, omit_defaults=True):
    """A step of a session's life."""

    at: Time
    to: str
    trigger: SessionTrigger
    before: Annotated[str, Meta(description="The state it came from; none: it began.")] = ""

    @classmethod
    def of(cls, one: Transition) -> "StepDocument":
        return cls(rfc3339(one.at_ms), one.after, SessionTrigger(one.trigger), one.before or "")


class SessionConsentDocument(Struct):
    """Who said yes for one device and one program, to which text, how and when."""

    device: str
    program: str
    given_by: str
    relation: str
    channel: str
    text_version: str
    at: Time

    @classmethod
    def of(cls, one: Consent) -> "SessionConsentDocument":
        return cls(
            one.device,
            one.program,
            one.given_by,
            one.relation,
            one.channel,
            one.text_version,
            rfc3339(one.at_ms),
        )


class ToldRemedyDocument(Struct, omit_defaults=True):
    """A remedy as the customer was told of it, at the price of that day."""

    id: str
    kind: RemedyKind
    state: RemedyState
    lead_days: int
    price_minor: int | None = None
    currency: str = ""

    @classmethod
    def of(cls, one: ToldRemedy, sight: Sight) -> "ToldRemedyDocument":
        shown = cls(one.id, RemedyKind(one.kind), one.state, one.lead_days)
        if sight.personal:
            shown.price_minor, shown.currency = one.price_minor, one.currency
        return shown


class RemedyNoticeDocument(Struct, omit_defaults=True):
    """That the customer was told, and what they said."""

    answer: str
    at: Time
    chosen: str = ""

    @classmethod
    def of(cls, one: Notice) -> "RemedyNoticeDocument":
        return cls(one.answer, rfc3339(one.at_ms), one.chosen)


class SessionDocument(Struct, omit_defaults=True):
    """A provisioning session, as far as its reader may see it."""

    id: str
    state: SessionState
    premises: str
    opened_at: Time
    others: Annotated[int, Meta(description="Equipment that was seen and has no part in this: a count only.")]
    devices: Annotated[int, Meta(description="How many `…/devices` lists")]
    steps: list[StepDocument]
    expires_at: Annotated[Time | None, Meta(description="If nothing is done in it until then")] = None
    cause: Annotated[Cause | None, Meta(description="Why nothing was recognised")] = None
    window: WindowDocument | None = None
    grants: list[GrantDocument] = []
    remedies: list[ToldRemedyDocument] = []
    account: str = ""
    case: str = ""
    consents: list[SessionConsentDocument] = []
    notices: list[RemedyNoticeDocument] = []
    confirmation: str = ""
    note: str = ""

    @classmethod
    def of(cls, session: Session, sight: Sight) -> "SessionDocument":
        shown = cls(
            id=session.id,
            state=session.state,
            premises=session.premises,
            opened_at=rfc3339(session.opened_at_ms),
            others=sight.others(session),
            devices=len(sight.devices(session)),
            steps=[StepDocument.of(one) for one in session.transitions],
            expires_at=rfc3339(session.expires_at_ms) if session.expires_at_ms else None,
            cause=session.cause,
            window=None if session.window is None else WindowDocument.of(session.window),
            grants=[GrantDocument.of(one) for one in sight.grants(session)],
            remedies=[ToldRemedyDocument.of(one, sight) for one in session.remedies],
        )
        if sight.personal:
            shown.account, shown.case = session.account, session.case
            shown.consents = [
                SessionConsentDocument.of(one)
                for _, one in sorted(session.consents.items())
                if one.device in sight.devices(session)
            ]
            shown.notices = [RemedyNoticeDocument.of(one) for one in session.notices]
            shown.confirmation, shown.note = session.confirmation, session.note
        return shown


class ProgramOfDeviceDocument(Struct, omit_defaults=True):
    """A program that was chosen for a device, and how far it is."""

    program: str
    params: Json = {}
    state: str = ""
    rev: int = 0
    code: Annotated[str, Meta(description="Why it failed, as the device says")] = ""

    @classmethod
    def of(
        cls, program: str, params: Mapping[str, Any], progress: Progress | None
    ) -> "ProgramOfDeviceDocument":
        if progress is None:
            return cls(program, dict(params))
        return cls(program, dict(params), progress.state, progress.rev, progress.code)


class SessionDeviceDocument(Struct, omit_defaults=True):
    """A device as a session sees it."""

    id: Annotated[str, Meta(description="Its EUI-64; of a device with a WAN of its own, its name.")]
    state: DeviceState
    changed_at: Time
    maker: str = ""
    model: str = ""
    hw: int = 0
    fw: str = ""
    model_id: Annotated[str, Meta(description="In the catalogue; none: it is in there not at all.")] = ""
    model_name: str = ""
    validated: Annotated[bool, Meta(description="False: nobody has tested this model with us.")] = True
    capabilities: Annotated[tuple[str, ...], Meta(description="What it can do for a program")] = ()
    rssi_dbm: int | None = None
    thing: Annotated[str, Meta(description="Its name, once it has one")] = ""
    gateways: Annotated[tuple[str, ...], Meta(description="Those that see it")] = ()
    reason: Annotated[str, Meta(description="Why it is no further")] = ""
    name: str = ""
    location: str = ""
    programs: list[ProgramOfDeviceDocument] = []

    @classmethod
    def of(cls, device: SessionDevice, sight: Sight) -> "SessionDeviceDocument":
        return cls(
            id=device.eui64,
            state=device.state,
            changed_at=rfc3339(device.changed_at_ms),
            maker=device.maker,
            model=device.model,
            hw=device.hw,
            fw=device.fw,
            model_id=device.model_id,
            model_name=device.model_name,
            validated=device.validated,
            capabilities=device.caps,
            rssi_dbm=device.rssi,
            thing=device.thing,
            gateways=device.gateways,
            reason=device.code,
            name=device.name if sight.words else "",
            location=device.location if sight.words else "",
            programs=[
                ProgramOfDeviceDocument.of(program, params, device.progress.get(program))
                for program, params in sorted(device.programs.items())
            ],
        )


class SessionDeviceList(Struct):
    """All devices that the session lists; what else was seen is a number."""

    items: list[SessionDeviceDocument]
    others: int


class SessionOptionDocument(Struct):
    """Whether a device fits a program, or everything that speaks against it."""

    device: str
    program: str
    eligible: bool
    reasons: list[str]

    @classmethod
    def all_of(cls, options: Mapping[str, Mapping[str, Sequence[str]]]) -> "list[SessionOptionDocument]":
        return [
            cls(device, program, not reasons, list(reasons))
            for device, programs in options.items()
            for program, reasons in sorted(programs.items())
        ]


class SessionOptionList(Struct):
    """Each device with each program."""

    items: list[SessionOptionDocument]


class RemedyDocument(Struct, omit_defaults=True):
    """Something that would help."""

    id: str
    kind: RemedyKind
    available: bool
    lead_days: int
    why: str
    price_minor: Annotated[int | None, Meta(description="In the smallest unit of the currency")] = None
    currency: str = ""

    @classmethod
    def of(cls, fitting: Fitting, sight: Sight) -> "RemedyDocument":
        one = fitting.remedy
        shown = cls(one.id, one.kind, one.available, one.lead_days, fitting.why)
        if sight.personal:
            shown.price_minor, shown.currency = one.price_minor, one.currency
        return shown


class RemedyList(Struct):
    """Remedies that fit, what can be had first."""

    items: list[RemedyDocument]


class RecordState(StrEnum):
    """Where something for the customer care system is on its way: at first with us, then as in the outbox."""

    KEPT = "kept"
    """Durable with us, and not copied to the outbox yet."""
    QUEUED = ItemState.QUEUED
    SENDING = ItemState.SENDING
    DELIVERED = ItemState.DELIVERED
    BLOCKED = ItemState.BLOCKED


class RecordDocument(Struct, omit_defaults=True):
    """Something that the customer care system is told, without what it says."""

    key: str
    kind: str
    made_at: Time
    state: RecordState
    attempts: int = 0
    next_at: Time | None = None
    delivered_at: Time | None = None
    receipt: str = ""
    problem: str = ""

    @classmethod
    def of(cls, record: Record, item: OutboxItem | None) -> "RecordDocument":
        if item is None:
            return cls(shown_key(record.key), record.kind, rfc3339(record.made_at_ms), RecordState.KEPT)
        return cls.of_item(item)

    @classmethod
    def of_item(cls, item: OutboxItem) -> "RecordDocument":
        delivered_ms = item.delivered_at_ms
        waits = delivered_ms is None and item.due_ms > 0
        return cls(
            shown_key(item.key),
            item.kind,
            rfc3339(item.made_at_ms),
            RecordState(item.state),
            item.attempts,
            rfc3339(item.due_ms) if waits else None,
            None if delivered_ms is None else rfc3339(delivered_ms),
            item.receipt,
            item.problem,
        )


class RecordList(Struct, omit_defaults=True):
    """Records in the order in which they are told."""

    items: list[RecordDocument]
    next: str | None = None


def shown_key(key: str) -> str:
    """Return an item's key as it stands in a path: no name of ours holds a tilde."""
    return key.replace("/", "~")


def item_key(shown: str) -> str:
    """Return the key that was shown so."""
    return shown.replace("~", "/")
