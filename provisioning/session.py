"""The document of a provisioning session: all that belongs to one call for one premises. Values only.

One document, written by compare-and-set: what is wanted is written here first, with the transition that
wants it, and carried out after. What may follow what is in ``states``, what is done about it in ``advance``.
Names, rooms and notes are the customer's words; ``without_words`` takes them away.
(spec: han, 2.3, 5)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from infra.machines import Transition, remember
from provisioning.states import (
    DEVICE_IN_SESSION,
    REMEDY,
    SESSION,
    WINDOW,
    DeviceState,
    RemedyState,
    RemedyTrigger,
    SeenTrigger,
    SessionState,
    SessionTrigger,
    WindowState,
    WindowTrigger,
)

DEVICES_MAX: Final = 32
"""Devices of one session; what is seen beyond is counted only."""
GRANTS_MAX: Final = 16
"""Grants of one window."""
PROGRAMS_PER_DEVICE_MAX: Final = 4
NOTE_CHARS_MAX: Final = 256
NAME_CHARS_MAX: Final = 64
KEYS_MAX: Final = 64
"""Idempotency keys that a session knows again: its last acts."""
SYSTEM: Final = "provisioning"
"""Who acts when no person does."""

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
IDLE_MS: Final = 2 * HOUR_MS
IDLE_LONG_MS: Final = 14 * DAY_MS
IDLE_REMEDY_MS: Final = 60 * DAY_MS
_IDLE: Final[Mapping[SessionState, int]] = {
    SessionState.NOT_RECOGNIZED: IDLE_LONG_MS,
    SessionState.PARTIAL: IDLE_LONG_MS,
    SessionState.AWAITING_REMEDY: IDLE_REMEDY_MS,
}
NEVER_IDLE: Final = frozenset({SessionState.RECORDED}) | SESSION.final
"""States that end by an act, or not at all."""


class Cause(StrEnum):
    """Why nothing was recognised."""

    NO_HAN_ROUTE = "NO_HAN_ROUTE"
    HAN_NOT_READY = "HAN_NOT_READY"
    NOTHING_SEEN = "NOTHING_SEEN"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    WRONG_TECHNOLOGY = "WRONG_TECHNOLOGY"


class Mode(StrEnum):
    """Whom an open window lets into the HAN."""

    GRANTS = "grants"
    OPEN = "open"


class Priority(StrEnum):
    """How long a window is open."""

    NORMAL = "normal"
    LOW = "low"


class Proof(StrEnum):
    """What a device proves itself by."""

    INSTALL_CODE = "install_code"
    PIN = "pin"
    CERTIFICATE = "certificate"


class GrantState(StrEnum):
    """What became of a grant."""

    WAITING = "waiting"
    """To be given once the window is open and its key known."""
    ANSWERED = "answered"
    """The gateway has said whether the proof was good."""
    ENDED = "ended"
    """The window closed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A join window of one gateway."""

    gateway: str
    state: WindowState
    mode: Mode
    priority: Priority
    not_before_ms: int
    """From when on it may be asked for."""
    seconds: int
    """How long it is open."""
    seq: int = 0
    """Given when it is asked for."""
    until_ms: int = 0
    alarmed: bool = False
    """It was said that the gateway has not closed it."""
    settled: bool = False
    """It is over, and nobody asks for it any more."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can join by it any more."""
        return self.state in (WindowState.CLOSED, WindowState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the customer says they bought."""

    maker: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for one device to join in this window."""

    id: str
    eui64: str
    proof: Proof
    state: GrantState = GrantState.WAITING
    sealed_key: str = ""
    """Its link key, sealed for us (base64); gone once the grant is answered or ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one program is on one device, as last seen."""

    state: str
    rev: int
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDevice:
    """A device as this session sees it."""

    eui64: str
    """The key within the session: an EUI-64 in capitals, or the name of a thing with a WAN of its own."""
    state: DeviceState
    maker: str = ""
    model: str = ""
    """As the device says."""
    hw: int = 0
    fw: str = ""
    caps: tuple[str, ...] = ()
    rssi: int | None = None
    seen_at_ms: int = 0
    model_id: str = ""
    """Of the catalogue; "" while it is not recognised."""
    model_name: str = ""
    validated: bool = True
    thing: str = ""
    """Its name on the broker."""
    gateways: tuple[str, ...] = ()
    """Those that see it; none where it reaches us by itself and is its own route."""
    code: str = ""
    """Why it failed, or why it is not recognised."""
    name: str = ""
    location: str = ""
    lfdi: str = ""
    programs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The programs chosen for it, with their parameters."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    retried: Mapping[str, int] = field(default_factory=dict)
    """By program: the newest revision that failed and is to be tried again."""
    changed_at_ms: int = 0

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or self.model_name or self.model or self.eui64


@dataclass(frozen=True, slots=True)
class Consent:
    """Who said yes for one device and one program, to which text, and how."""

    device: str
    program: str
    given_by: str
    relation: str
    channel: str
    text_version: str
    recorded_by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class ToldRemedy:
    """A remedy as the customer was told of it: at the price of that day."""

    id: str
    kind: str
    price_minor: int
    currency: str
    lead_days: int
    state: RemedyState


@dataclass(frozen=True, slots=True)
class Notice:
    """That the customer was told, and what they said."""

    told_by: str
    answer: str
    chosen: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """Something for the customer care system. ``body`` leaves once the outbox has it."""

    key: str
    kind: str
    made_at_ms: int
    body: str = ""
    """JSON."""


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An Idempotency-Key and what was asked under it."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A provisioning session."""

    id: str
    premises: str
    account: str
    state: SessionState
    opened_by: str
    opened_at_ms: int
    case: str = ""
    verification: str = ""
    work_order: str = ""
    cause: Cause | None = None
    window: Window | None = None
    expected: tuple[Expected, ...] = ()
    grants: tuple[Grant, ...] = ()
    devices: Mapping[str, SessionDevice] = field(default_factory=dict)
    others: int = 0
    """What was seen and has no part in this: only how much it is."""
    consents: Mapping[str, Consent] = field(default_factory=dict)
    remedies: tuple[ToldRemedy, ...] = ()
    notices: tuple[Notice, ...] = ()
    routes_before: tuple[str, ...] = ()
    """The gateways there were when a remedy was accepted: another one is the remedy."""
    provision_until_ms: int = 0
    records: tuple[Record, ...] = ()
    confirmation: str = ""
    note: str = ""
    released: bool = False
    """The premises are free again, and everything of it is tidied up."""
    transitions: tuple[Transition, ...] = ()
    keys: tuple[UsedKey, ...] = ()
    expires_at_ms: int = 0
    due_ms: int = 0
    """When somebody has to look again; 0: only when something happens."""
    revision: int = 0
    """Rises with each act and each change of state: what an ``If-Match`` compares."""

    @property
    def is_over(self) -> bool:
        """Whether nobody can do anything in it any more."""
        return self.state in SESSION.final

    @property
    def is_visible(self) -> bool:
        """Whether anybody may know of it: one that was never opened nobody does."""
        return self.state is not SessionState.OPENING

    @property
    def never_opened(self) -> bool:
        """Whether others had the premises before it was open."""
        return self.is_over and SessionState(self.transitions[0].after) in SESSION.final


def pair(device: str, program: str) -> str:
    """Return the key of a device and a program; a slash is in neither alphabet."""
    return f"{device}/{program}"


# ---------------------------------------------------------------------------- steps


def move(
    session: Session, trigger: SessionTrigger, now_ms: int, *, actor: str = SYSTEM, reason: str = ""
) -> Session:
    """Return the session after a step of its life, with what is kept of it and the new idle limit.

    Raises:
        IllegalTransitionError: nothing changed.
    """
    after = SESSION.after(session.state, trigger)
    step = Transition(now_ms, actor, reason, session.state, trigger, after)
    idle_ms = _IDLE.get(after, IDLE_MS)
    return replace(
        session,
        state=after,
        transitions=remember(session.transitions, step),
        revision=session.revision + 1,
        expires_at_ms=0 if after in NEVER_IDLE else now_ms + idle_ms,
    )


def touch(session: Session, now_ms: int) -> Session:
    """Return the session after an act that changed something else than its state."""
    return replace(
        session,
        revision=session.revision + 1,
        expires_at_ms=0 if session.state in NEVER_IDLE else now_ms + _IDLE.get(session.state, IDLE_MS),
    )


def see(eui64: str, now_ms: int) -> SessionDevice:
    """Return a device that was just seen."""
    return SessionDevice(
        eui64=eui64, state=DEVICE_IN_SESSION.after(None, SeenTrigger.SEE), changed_at_ms=now_ms
    )


def step(device: SessionDevice, trigger: SeenTrigger, now_ms: int, code: str = "") -> SessionDevice:
    """Return the device one step further; ``code`` says why, where it is no good news."""
    after = DEVICE_IN_SESSION.after(device.state, trigger)
    return replace(device, state=after, code=code, changed_at_ms=now_ms)


def steps(device: SessionDevice, now_ms: int, *triggers: SeenTrigger) -> SessionDevice:
    """Return the device several steps further."""
    for trigger in triggers:
        device = step(device, trigger, now_ms)
    return device


def turn(window: Window, trigger: WindowTrigger, **changed: Any) -> Window:  # noqa: ANN401 - fields of a window
    """Return the window one step further."""
    return replace(window, state=WINDOW.after(window.state, trigger), **changed)


def treat(remedy: ToldRemedy, trigger: RemedyTrigger) -> ToldRemedy:
    """Return the remedy one step further."""
    return replace(remedy, state=REMEDY.after(remedy.state, trigger))


def with_device(session: Session, device: SessionDevice) -> Session:
    """Return the session with a device in place of the one it had, or beside the others."""
    return replace(session, devices={**session.devices, device.eui64: device})


def chosen(session: Session) -> Iterator[SessionDevice]:
    """Yield the devices that take part, in a fixed order."""
    for _, device in sorted(session.devices.items()):
        if device.state is DeviceState.SELECTED or device.state in TAKING_PART:
            yield device


TAKING_PART: Final = frozenset(
    {
        DeviceState.ATTACHING,
        DeviceState.SENT,
        DeviceState.ACTIVATED,
        DeviceState.READY,
        DeviceState.LATE,
        DeviceState.FAILED,
    }
)
"""States from step 12 on."""


def without_words(session: Session) -> Session:
    """Return the session without the customer's words: names, rooms, notes, what is not copied yet."""
    devices = {eui64: replace(device, name="", location="") for eui64, device in session.devices.items()}
    consents = {key: replace(one, given_by="") for key, one in session.consents.items()}
    return replace(without_notes(session), devices=devices, consents=consents)


def without_notes(session: Session) -> Session:
    """Return the session without what people wrote down in it."""
    transitions = tuple(
        one if one.actor == SYSTEM else replace(one, reason="") for one in session.transitions
    )
    return replace(session, note="", transitions=transitions)


def only(session: Session, devices: Mapping[str, SessionDevice]) -> Session:
    """Return the session as one in which only these devices ever were; what was expected is gone too."""
    consents = {key: one for key, one in session.consents.items() if one.device in devices}
    return replace(session, devices=devices, consents=consents, grants=(), expected=())
