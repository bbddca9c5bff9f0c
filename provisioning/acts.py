"""What people do in a session: the document before in, the document after out, or a refusal. Pure.

Who may call is not asked here. Every refusal leaves the session as it was. (spec: han, 5.2 and 5.3)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from infra.machines import IllegalTransitionError
from programs.records import ConsentChannel
from programs.states import EnrolmentState
from provisioning import records
from provisioning.errors import (
    AuthNotOkError,
    ConsentMissingError,
    InvalidRequestError,
    NothingToRetryError,
    NotRecordedError,
    RemedyNotOfferedError,
    WindowClosedError,
    WindowOpenError,
)
from provisioning.remedies import Fitting
from provisioning.sending import PROVISION_MS
from provisioning.session import (
    DEVICES_MAX,
    GRANTS_MAX,
    HOUR_MS,
    NAME_CHARS_MAX,
    NOTE_CHARS_MAX,
    PROGRAMS_PER_DEVICE_MAX,
    Consent,
    Expected,
    Grant,
    GrantState,
    Mode,
    Notice,
    Priority,
    Proof,
    Session,
    SessionDevice,
    ToldRemedy,
    Window,
    move,
    pair,
    step,
    touch,
    treat,
    turn,
    with_device,
)
from provisioning.states import (
    BEFORE_SENDING,
    SESSION,
    WINDOW,
    DeviceState,
    RemedyState,
    RemedyTrigger,
    SeenTrigger,
    SessionState,
    SessionTrigger,
    WindowTrigger,
)
from provisioning.verifications import WORD

WINDOW_S: Final[Mapping[Priority, int]] = {Priority.NORMAL: 600, Priority.LOW: 3_600}
SCHEDULE_MS_MAX: Final = 30 * 24 * HOUR_MS
"""How far ahead a window may be put."""
EXPECTED_MAX: Final = 16
CHOSEN: Final = frozenset({DeviceState.AUTH_OK, DeviceState.SELECTED, DeviceState.LEFT_OUT})
"""States of a device about which the customer can say whether it takes part."""
CHANNELS: Final = frozenset(ConsentChannel)
RETRIED: Final = frozenset({DeviceState.FAILED, DeviceState.LATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whether a device takes part, and what the customer calls it."""

    device: str
    take_part: bool
    name: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A program for a device."""

    device: str
    program: str
    params: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------- step 7


def discover(
    session: Session,
    *,
    gateway: str,
    priority: Priority,
    mode: Mode,
    not_before_ms: int,
    expected: Sequence[Expected],
    grants: Sequence[Grant],
    now_ms: int,
    actor: str,
) -> Session:
    """Begin discovery; without a gateway there is no window, and that is what will be found."""
    if session.state is SessionState.DISCOVERING:
        raise WindowOpenError
    if len(expected) > EXPECTED_MAX or len(grants) > GRANTS_MAX:
        raise InvalidRequestError(f"at most {EXPECTED_MAX} expected devices and {GRANTS_MAX} grants")
    if len({one.eui64 for one in grants}) < len(grants):
        raise InvalidRequestError("one grant of a device: of two in one window neither would stay")
    if not_before_ms > now_ms + SCHEDULE_MS_MAX:
        raise InvalidRequestError("a window is scheduled 30 days ahead at most")
    after = move(session, SessionTrigger.DISCOVERY_STARTED, now_ms, actor=actor)
    window = None
    if gateway:
        start_ms = max(not_before_ms, now_ms)
        seconds = WINDOW_S[priority]
        window = Window(
            gateway=gateway,
            state=WINDOW.after(None, WindowTrigger.SCHEDULE),
            mode=mode,
            priority=priority,
            not_before_ms=start_ms,
            seconds=seconds,
        )
        # It is not idle while it waits for its window.
        after = replace(after, expires_at_ms=after.expires_at_ms + start_ms - now_ms + seconds * 1_000)
    again = {one.eui64 for one in grants}
    kept = [one for one in session.grants if one.eui64 not in again and _lasts(one)]
    return replace(
        after,
        window=window,
        cause=None,
        others=0,
        expected=tuple(expected),
        grants=(*kept[-GRANTS_MAX:], *grants),
    )


def grant(session: Session, new: Grant, now_ms: int) -> Session:
    """Add a grant while a window is open, or is to open; it takes the place of one for the same device."""
    window = session.window
    if session.state is not SessionState.DISCOVERING or window is None or window.is_over:
        raise WindowClosedError
    others = tuple(one for one in session.grants if one.eui64 != new.eui64)
    if len(others) >= 2 * GRANTS_MAX:
        raise InvalidRequestError(f"at most {GRANTS_MAX} grants of one window")
    return replace(touch(session, now_ms), grants=(*others, new))


def stop_discovery(session: Session, now_ms: int) -> Session:
    """End the window now; stopped already, it stays as it is."""
    window = session.window
    if session.state is not SessionState.DISCOVERING:
        raise WindowClosedError
    if window is None or not WINDOW.takes(window.state, WindowTrigger.CLOSE):
        return session
    ended_ms = min(window.until_ms, now_ms)
    return replace(touch(session, now_ms), window=turn(window, WindowTrigger.CLOSE, until_ms=ended_ms))


def _lasts(one: Grant) -> bool:
    """Tell whether a grant means something beyond its window: it is answered, or the device proves itself."""
    return one.state is GrantState.ANSWERED or one.proof is not Proof.INSTALL_CODE


# ---------------------------------------------------------------------------- steps 8 to 11


def select(session: Session, choices: Sequence[Choice], now_ms: int, actor: str) -> Session:
    """Note what the customer says about devices; what is not named stays as it is."""
    SESSION.after(session.state, SessionTrigger.SELECTION)
    if not choices or len(choices) > DEVICES_MAX:
        raise InvalidRequestError(f"1 to {DEVICES_MAX} devices")
    wrong: dict[str, str] = {}
    devices = dict(session.devices)
    for choice in choices:
        key = _key(session, choice.device)
        device = devices.get(key)
        if device is None or device.state not in CHOSEN:
            if device is None or choice.take_part:
                wrong[choice.device] = "UNKNOWN" if device is None else device.state
            continue
        devices[key] = _chosen(device, choice, now_ms)
    if wrong:
        raise AuthNotOkError(wrong)
    return replace(move(session, SessionTrigger.SELECTION, now_ms, actor=actor), devices=devices)


def consent(session: Session, consents: Sequence[Consent], now_ms: int) -> Session:
    """Record what the customer says yes to: one record a pair, the last one counts; no state changes."""
    if session.state not in BEFORE_SENDING and session.state is not SessionState.PARTIAL:
        raise IllegalTransitionError(SESSION.name, session.state, SessionTrigger.PROVISION)
    unknown = sorted({one.device for one in consents if _key(session, one.device) not in session.devices})
    if unknown:
        raise InvalidRequestError(f"no device of this session: {', '.join(unknown)}")
    if not all(WORD.fullmatch(one.given_by) and WORD.fullmatch(one.relation) for one in consents):
        raise InvalidRequestError("given_by, relation: a reference, never a name")
    if not all(one.channel in CHANNELS for one in consents):
        raise InvalidRequestError(f"channel: one of {', '.join(sorted(CHANNELS))}")
    new = {
        pair(_key(session, one.device), one.program): replace(one, device=_key(session, one.device))
        for one in consents
    }
    after = {**session.consents, **new}
    if not new or len(after) > DEVICES_MAX * PROGRAMS_PER_DEVICE_MAX:
        raise InvalidRequestError(f"1 to {DEVICES_MAX * PROGRAMS_PER_DEVICE_MAX} consents of one session")
    return replace(touch(session, now_ms), consents=after)


def assign(session: Session, assignments: Sequence[Assignment], now_ms: int, actor: str) -> Session:
    """Keep the programs chosen; that each fits its device was found out before."""
    SESSION.after(session.state, SessionTrigger.PROGRAMS_ACCEPTED)
    wanted = programs_of(session, assignments)
    devices = {key: replace(device, programs=wanted.get(key, {})) for key, device in session.devices.items()}
    return replace(move(session, SessionTrigger.PROGRAMS_ACCEPTED, now_ms, actor=actor), devices=devices)


def programs_of(
    session: Session, assignments: Sequence[Assignment]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the programs of each device, or refuse what no session can have."""
    wanted: dict[str, dict[str, Mapping[str, Any]]] = {}
    not_chosen: dict[str, str] = {}
    for one in assignments:
        key = _key(session, one.device)
        device = session.devices.get(key)
        if device is None or device.state is not DeviceState.SELECTED:
            not_chosen[one.device] = "UNKNOWN" if device is None else device.state
        wanted.setdefault(key, {})[one.program] = one.params
    if not_chosen:
        raise AuthNotOkError(not_chosen)
    if any(len(programs) > PROGRAMS_PER_DEVICE_MAX for programs in wanted.values()):
        raise InvalidRequestError(f"at most {PROGRAMS_PER_DEVICE_MAX} programs of one device")
    return wanted


# ---------------------------------------------------------------------------- steps 12 to 15


def provision(session: Session, standing: Collection[str], now_ms: int, actor: str) -> Session:
    """Send what was chosen. ``standing`` are pairs for which consent is on record elsewhere."""
    SESSION.after(session.state, SessionTrigger.PROVISION)
    if session.state is SessionState.PARTIAL:
        return retry(session, (), now_ms, actor)
    selected = [one for one in session.devices.values() if one.state is DeviceState.SELECTED]
    missing = [
        (device.eui64, program)
        for device in sorted(selected, key=lambda one: one.eui64)
        for program in sorted(device.programs)
        if pair(device.eui64, program) not in session.consents and pair(device.thing, program) not in standing
    ]
    if missing:
        raise ConsentMissingError(missing)
    if not selected:
        raise InvalidRequestError("no device was chosen to take part")
    return _send(session, [(one, {}) for one in selected], now_ms, actor)


def retry(session: Session, devices: Collection[str], now_ms: int, actor: str) -> Session:
    """Try again what failed or is late, of the devices named, or all; what is ready is left alone."""
    SESSION.after(session.state, SessionTrigger.PROVISION)
    keys = {_key(session, one) for one in devices} or set(session.devices)
    again = [session.devices[key] for key in sorted(keys & session.devices.keys())
             if session.devices[key].state in RETRIED]  # fmt: skip
    if not again or session.state is not SessionState.PARTIAL:
        raise NothingToRetryError
    failed = [(device, _failed_revs(device)) for device in again]
    return _send(session, failed, now_ms, actor)


def _failed_revs(device: SessionDevice) -> dict[str, int]:
    return {
        program: one.rev
        for program, one in device.progress.items()
        if one.state == EnrolmentState.PROVISION_FAILED
    }


def accept_partial(session: Session, now_ms: int, actor: str) -> Session:
    """Let what is ready be all there is, for now."""
    after = move(session, SessionTrigger.PART_ACCEPTED, now_ms, actor=actor)
    return replace(after, records=(*session.records, *records.of_part(session, now_ms)))


def confirm(
    session: Session, method: str, note: str, names: Mapping[str, str], now_ms: int, actor: str
) -> Session:
    """Note that the customer was told. ``names`` are those of programs, for the notice they get."""
    if len(method) > NAME_CHARS_MAX or len(note) > NOTE_CHARS_MAX:
        raise InvalidRequestError(f"a note has at most {NOTE_CHARS_MAX} characters")
    if session.state is not SessionState.RECORDED:
        raise NotRecordedError
    after = move(session, SessionTrigger.CONFIRM, now_ms, actor=actor, reason=method)
    notice = records.of_confirmation(session, names, now_ms)
    return replace(after, confirmation=method, note=note, records=(*session.records, *notice))


def abort(session: Session, reason: str, now_ms: int, actor: str) -> Session:
    """End the session; what is ready stays, and is recorded."""
    after = move(session, SessionTrigger.ABORT, now_ms, actor=actor, reason=reason[:NOTE_CHARS_MAX])
    return replace(after, records=(*session.records, *records.of_ready(session, now_ms)))


# ---------------------------------------------------------------------------- scenario 3.3


def tell(
    session: Session,
    offered: Sequence[Fitting],
    told: Collection[str],
    answer: str,
    chosen: str,
    routes: Sequence[str],
    now_ms: int,
    actor: str,
) -> Session:
    """Keep what the customer was told, at the prices of today, and what they said."""
    if session.state is not SessionState.NOT_RECOGNIZED:
        raise IllegalTransitionError(SESSION.name, session.state, SessionTrigger.REMEDY_ACCEPTED)
    fits = {one.remedy.id: one.remedy for one in offered}
    if not told or not set(told) <= fits.keys() or (answer == "accepted" and chosen not in told):
        raise RemedyNotOfferedError
    remedies = tuple(
        ToldRemedy(one.id, one.kind, one.price_minor, one.currency, one.lead_days, RemedyState.TOLD)
        for one in (fits[id] for id in sorted(told))
    )
    notice = Notice(actor, answer, chosen, now_ms)
    after = replace(session, remedies=remedies, notices=(*session.notices, notice)[-GRANTS_MAX:])
    match answer:
        case "accepted":
            return _accept(after, chosen, routes, now_ms, actor)
        case "declined":
            declined = tuple(treat(one, RemedyTrigger.DECLINE) for one in remedies)
            moved = move(after, SessionTrigger.REMEDY_DECLINED, now_ms, actor=actor)
            return replace(moved, remedies=declined)
        case "undecided":
            return touch(after, now_ms)
        case _:
            raise InvalidRequestError("an answer is accepted, declined or undecided")


def remedy_done(session: Session, remedy: str, evidence: str, now_ms: int, actor: str) -> Session:
    """Go on after a remedy that nobody has noticed by itself."""
    SESSION.after(session.state, SessionTrigger.REMEDY_DONE)
    if not any(one.id == remedy and one.state is RemedyState.ORDERED for one in session.remedies):
        raise RemedyNotOfferedError
    remedies = tuple(treat(one, RemedyTrigger.DONE) if one.id == remedy else one for one in session.remedies)
    reason = evidence[:NOTE_CHARS_MAX]
    after = move(session, SessionTrigger.REMEDY_DONE, now_ms, actor=actor, reason=reason)
    return replace(after, remedies=remedies, cause=None)


def _accept(session: Session, chosen: str, routes: Sequence[str], now_ms: int, actor: str) -> Session:
    ordered = next(one for one in session.remedies if one.id == chosen)
    ordered = treat(treat(ordered, RemedyTrigger.ACCEPT), RemedyTrigger.ORDER)
    after = move(session, SessionTrigger.REMEDY_ACCEPTED, now_ms, actor=actor, reason=chosen)
    return replace(
        after,
        remedies=tuple(ordered if one.id == chosen else one for one in session.remedies),
        routes_before=tuple(routes),
        records=(*session.records, *records.of_remedy(session, ordered, now_ms)),
    )


# ---------------------------------------------------------------------------- parts


def _send(
    session: Session, devices: Sequence[tuple[SessionDevice, Mapping[str, int]]], now_ms: int, actor: str
) -> Session:
    after = move(session, SessionTrigger.PROVISION, now_ms, actor=actor)
    for device, failed in devices:
        sent = step(device, SeenTrigger.SEND, now_ms)
        after = with_device(after, replace(sent, retried={**device.retried, **failed}))
    return replace(after, provision_until_ms=now_ms + PROVISION_MS)


def _chosen(device: SessionDevice, choice: Choice, now_ms: int) -> SessionDevice:
    if max(len(choice.name), len(choice.location)) > NAME_CHARS_MAX:
        raise InvalidRequestError(f"a name or a room has at most {NAME_CHARS_MAX} characters")
    if not (choice.name + choice.location).isprintable():
        raise InvalidRequestError("a name or a room is made of characters that can be printed")
    trigger = SeenTrigger.CHOOSE if choice.take_part else SeenTrigger.LEAVE_OUT
    after = step(device, trigger, now_ms)
    programs = device.programs if choice.take_part else {}
    return replace(
        after,
        name=choice.name or device.name,
        location=choice.location or device.location,
        programs=programs,
    )


def _key(session: Session, device: str) -> str:
    """Return the key of a device that was named by its EUI-64, its LFDI, or as a thing."""
    if device in session.devices:
        return device
    text = device.replace(":", "").replace("-", "").upper()
    if text in session.devices:
        return text
    named = (one.eui64 for one in session.devices.values() if device in (one.lfdi, one.thing) and device)
    return next(named, device)
