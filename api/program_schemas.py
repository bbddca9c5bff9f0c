"""What travels about programs, enrolments and consents.

A program's shape is the catalogue's own, member for member: what can be asked of one is said there.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.reading import rfc3339
from api.schemas import Json, Name, Time
from programs.eligibility import Code, Reason, blocking
from programs.models import (
    CATEGORIES,
    COUNT_MAX,
    DAYS_MAX,
    LIST_MAX,
    NAME_CHARS_MAX,
    PRIMACIES,
    SECONDS_MAX,
    SECONDS_OF_A_DAY,
    TEXT_CHARS_MAX,
    Leaving,
    OverrideMode,
    Permission,
    Program,
    ProgramType,
    Shape,
    ShapeKind,
    Tariff,
)
from programs.records import ConsentChannel, ConsentRecord, Enrolment
from programs.states import EnrolmentState, ProgramState
from security.policy import Scope

ProgramId = Annotated[str, Meta(pattern="^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$", examples=["cpp-27"])]
OptionalId = Annotated[str, Meta(pattern="^(?:[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?)?$")]
ShapeId = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,30}/[1-9][0-9]{0,3}$", examples=["tou/1"])]
Term = Annotated[str, Meta(pattern="^[A-Za-z0-9._:-]{1,64}$")]
Reference = Annotated[str, Meta(pattern="^[A-Za-z0-9._:-]{1,128}$")]
Terms = Annotated[list[Term], Meta(max_length=LIST_MAX)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Seconds = Annotated[int, Meta(ge=0, le=SECONDS_MAX)]


class OverrideBody(Struct, forbid_unknown_fields=True):
    """How far a customer may go back behind an event."""

    mode: OverrideMode = OverrideMode.LIMITED
    per_season: Count | None = None
    seconds: Annotated[
        Count | None, Meta(description="An override of up to this long still counts as taking part")
    ] = None
    emergency: Permission = Permission.ALLOW


class CapacityBody(Struct, forbid_unknown_fields=True):
    """How many devices may take part; null: as many as want to."""

    devices: Count | None = None
    per_feeder: Count | None = None


class EventsMaxBody(Struct, forbid_unknown_fields=True):
    """How often a device may be asked; null: as often as it comes."""

    day: Count | None = None
    season: Count | None = None


class WindowBody(Struct, forbid_unknown_fields=True):
    """When events may begin, at the place."""

    days: Annotated[str, Meta(description="Of the week, from Monday", examples=["1-5"])] = "1-7"
    from_s: Annotated[int, Meta(ge=0, le=SECONDS_OF_A_DAY)] = 0
    to_s: Annotated[int, Meta(ge=0, le=SECONDS_OF_A_DAY)] = SECONDS_OF_A_DAY


class ProgramBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A program, but for its id, state and version."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    type: ProgramType
    description: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""
    requires: Annotated[
        list[Terms], Meta(max_length=LIST_MAX, description="Of each set a device must have one capability")
    ] = []
    categories: Annotated[
        list[Annotated[int, Meta(ge=0, le=CATEGORIES[-1])]],
        Meta(max_length=len(CATEGORIES), description="Bits of IEEE 2030.5: one of these, or any if empty"),
    ] = []
    exclusive_with: Annotated[list[ProgramId], Meta(max_length=LIST_MAX)] = []
    tariff_ref: Annotated[OptionalId, Meta(description="The tariff that devices get")] = ""
    account_tariffs: Annotated[Terms, Meta(description="An account must have one of these")] = []
    params_shape: Annotated[str, Meta(description="Shape of an enrolment's parameters", max_length=64)] = ""
    window: WindowBody | None = None
    capacity: CapacityBody = msgspec.field(default_factory=CapacityBody)
    zones: Terms = []
    fw_min: Annotated[str, Meta(max_length=32)] = ""
    validated_only: bool = False
    lockout_days: Annotated[int, Meta(ge=0, le=DAYS_MAX)] = 0
    notice_min_s: Seconds = 0
    max_event_s: Seconds | None = None
    max_events: EventsMaxBody = msgspec.field(default_factory=EventsMaxBody)
    min_rest_s: Seconds = 0
    primacy: Annotated[int, Meta(ge=0, le=PRIMACIES[-1], description="The lower one wins")] = 100
    mandatory: bool = False
    override: OverrideBody = msgspec.field(default_factory=OverrideBody)
    unenrol_during_event: Leaving = Leaving.FINISH
    consent_text_version: Term = "1"

    def program(self, id: str) -> Program:
        """Return it as the catalogue keeps it."""
        return msgspec.convert(msgspec.to_builtins(self) | {"id": id}, Program)


class ProgramDocument(ProgramBody, forbid_unknown_fields=True, kw_only=True):
    """A program."""

    id: ProgramId
    state: ProgramState
    version: int

    @classmethod
    def of(cls, program: Program) -> "ProgramDocument":
        return msgspec.convert(msgspec.to_builtins(program), cls)


class ProgramList(Struct, omit_defaults=True):
    """A page of programs, by id."""

    items: list[ProgramDocument]
    next: str | None = None


class MyProgramDocument(Struct):
    """A program on offer, and which of one's devices take part in it."""

    id: ProgramId
    name: str
    type: ProgramType
    description: str
    consent_text_version: Annotated[str, Meta(description="Of the text to say yes to")]
    devices: list[Name]

    @classmethod
    def of(cls, program: Program, devices: list[str]) -> "MyProgramDocument":
        return cls(
            program.id,
            program.name,
            program.type,
            program.description,
            program.consent_text_version,
            devices,
        )


class MyProgramList(Struct, omit_defaults=True):
    """A page of programs on offer, by id."""

    items: list[MyProgramDocument]
    next: str | None = None


class ShapeBody(Struct, forbid_unknown_fields=True):
    """A shape, but for its id."""

    kind: ShapeKind
    schema: Annotated[Json, Meta(description="JSON Schema (2020-12) of an object")]


class ShapeDocument(Struct):
    """How the body of a tariff, of a message or of an enrolment's parameters looks. It never changes."""

    id: ShapeId
    kind: ShapeKind
    schema: Json

    @classmethod
    def of(cls, shape: Shape) -> "ShapeDocument":
        return cls(shape.id, shape.kind, dict(shape.schema))


class ShapeList(Struct, omit_defaults=True):
    """A page of shapes, by id."""

    items: list[ShapeDocument]
    next: str | None = None


class TariffBody(Struct, forbid_unknown_fields=True):
    """A tariff, but for its id and rev."""

    shape: ShapeId
    body: Annotated[Json, Meta(description="As the shape has it")]


class TariffDocument(Struct):
    """What energy costs."""

    id: ProgramId
    shape: ShapeId
    rev: int
    body: Json

    @classmethod
    def of(cls, tariff: Tariff) -> "TariffDocument":
        return cls(tariff.id, tariff.shape, tariff.rev, dict(tariff.body))


class TariffList(Struct, omit_defaults=True):
    """A page of tariffs, by id."""

    items: list[TariffDocument]
    next: str | None = None


class ReasonDocument(Struct, omit_defaults=True):
    """Why a device does not fit; a warning keeps nobody out."""

    code: Code
    detail: str = ""
    warning: bool = False


class OptionDocument(Struct):
    """One program, and whether a device could take part in it."""

    program: ProgramId
    name: str
    eligible: Annotated[bool, Meta(description="Nothing but a yes is missing, if anything")]
    reasons: list[ReasonDocument]
    consent_text_version: Annotated[str, Meta(description="Of the text to say yes to")]

    @classmethod
    def of(cls, program: Program, found: Sequence[Reason]) -> "OptionDocument":
        return cls(
            program.id,
            program.name,
            not blocking(found, (Code.NO_CONSENT,)),
            [ReasonDocument(one.code, one.detail, one.warning) for one in found],
            program.consent_text_version,
        )


class OptionList(Struct):
    """Every program on offer, with all the reasons that keep a device out."""

    items: list[OptionDocument]


class SaidYes(Struct, forbid_unknown_fields=True):
    """A yes that somebody gave; references of the customer care system, never names."""

    given_by: Reference
    relation: Annotated[Reference, Meta(description="How they stand to the account", examples=["holder"])]
    channel: ConsentChannel
    text_version: Term


class NewEnrolmentBody(Struct, forbid_unknown_fields=True):
    """Which device shall take part in what."""

    device: Name
    program: ProgramId
    params: Annotated[Json, Meta(description="As the program's shape has them")] = {}
    consent: Annotated[
        SaidYes | None, Meta(description="Without one, and where none stands, the enrolment waits for it")
    ] = None


class MyEnrolmentBody(Struct, forbid_unknown_fields=True):
    """Which of one's devices shall take part in what; naming the text says yes to it."""

    device: Name
    program: ProgramId
    text_version: Annotated[Term, Meta(description="Of the text that you have read")]
    params: Json = {}


class EnrolmentDocument(Struct, omit_defaults=True):
    """One device taking part in one program."""

    id: str
    device: Name
    program: ProgramId
    premises: str
    state: EnrolmentState
    state_since: Time
    since: Annotated[Time, Meta(description="When this period began")]
    period: int
    rev: Annotated[int, Meta(description="Of what the device was told")]
    until: Annotated[Time | None, Meta(description="When it ends")] = None
    params: Json = {}
    tariff: str = ""
    paused: bool = False
    failure: Annotated[str, Meta(description="Why it failed")] = ""
    activated_at: Time | None = None
    ready_at: Time | None = None
    account: str = ""

    @classmethod
    def of(cls, one: Enrolment, scope: Scope | None) -> "EnrolmentDocument":
        """Return an enrolment as it is shown to who may see it by ``scope``."""
        return cls(
            id=one.id,
            device=one.device,
            program=one.program,
            premises=one.premises,
            state=one.state,
            state_since=rfc3339(one.state_ms),
            since=rfc3339(one.since_ms),
            period=one.period,
            rev=one.rev,
            until=_time(one.until_ms),
            params=dict(one.params),
            tariff=one.tariff,
            paused=one.paused,
            failure=one.failure,
            activated_at=_time(one.activated_at_ms),
            ready_at=_time(one.ready_at_ms),
            account=one.account if scope in {Scope.ACCOUNT, Scope.CASE} else "",
        )


class EnrolmentList(Struct, omit_defaults=True):
    """A page of enrolments."""

    items: list[EnrolmentDocument]
    next: str | None = None


class ConsentBody(Struct, forbid_unknown_fields=True):
    """To what one says yes; ``ota`` stands for new firmware."""

    device: Name
    program: ProgramId
    text_version: Term


class ConsentDocument(Struct, omit_defaults=True):
    """A yes: who gave it, to which text, how and when; and its end."""

    id: str
    device: Name
    program: ProgramId
    given_by: str
    relation: str
    channel: ConsentChannel
    text_version: str
    at: Time
    withdrawn_at: Time | None = None

    @classmethod
    def of(cls, record: ConsentRecord) -> "ConsentDocument":
        return cls(
            record.id,
            record.device,
            record.program,
            record.given_by,
            record.relation,
            record.channel,
            record.text_version,
            rfc3339(record.at_ms),
            _time(record.withdrawn_at_ms),
        )


class ConsentList(Struct):
    """What was said for a device, newest first, withdrawals too."""

    items: list[ConsentDocument]


def page_of(items: Iterable[Any], limit: int, cursor: str | None) -> tuple[list[Any], str | None]:
    """Return a page of what has an id and comes in its order, and where to go on."""
    left = [one for one in items if cursor is None or one.id > cursor]
    return left[:limit], left[limit - 1].id if len(left) > limit else None


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
