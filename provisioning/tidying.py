"""The end of a session: what it leaves behind is tidied up, and its premises are free. Pure.

Nothing is rolled back behind the customer's back: what is ready stays. Only what never took part goes.
"""

from dataclasses import replace
from typing import Final

from programs.states import LIVE, EnrolmentState
from provisioning import records
from provisioning.effects import (
    CopyRecords,
    DetachDevice,
    EndEnrolment,
    ReleasePremises,
    TakePremises,
    TellLeftOut,
)
from provisioning.look import Look
from provisioning.observed import Known
from provisioning.session import (
    DAY_MS,
    TAKING_PART,
    SessionDevice,
    only,
    pair,
    turn,
    without_notes,
)
from provisioning.states import WINDOW, SessionState, SessionTrigger, WindowTrigger
from registry.states import Lifecycle

CLOSED: Final = frozenset({SessionState.ABORTED, SessionState.EXPIRED})
DONE: Final = frozenset({SessionState.RECORDED, SessionState.CONFIRMED}) | CLOSED
"""States in which nothing is done to a device any more."""
_NO_RELATION: Final = frozenset({Lifecycle.DISCOVERED, Lifecycle.AUTHENTICATED})
_NO_PART: Final = _NO_RELATION | {None, Lifecycle.COMMISSIONED}
PURGE_MS: Final = DAY_MS
"""How long after its end a session still holds equipment that has no part in anything."""
NOTES_MS: Final = 90 * DAY_MS
"""How long after its end what people wrote down is kept."""
_READY: Final = frozenset({EnrolmentState.READY, EnrolmentState.SUSPENDED})


def open_up(look: Look) -> None:
    """Take the premises; whoever finds them taken was never open."""
    if look.session.state is not SessionState.OPENING:
        return
    if look.observed.holder == look.session.id:
        look.move(SessionTrigger.PREMISES_TAKEN)
    elif look.observed.holder:
        look.move(SessionTrigger.ABORT, "other session")
    else:
        look.want(TakePremises())


def expire(look: Look) -> None:
    """End a session that nobody has touched for too long."""
    expires_ms = look.session.expires_at_ms
    if expires_ms and look.by(expires_ms):
        look.change(records=(*look.session.records, *records.of_ready(look.session, look.now_ms)))
        look.move(SessionTrigger.IDLE)


def tidy(look: Look) -> None:
    """Take away what the session leaves behind, then let the premises go."""
    session = look.session
    if session.state not in DONE or session.released:
        return
    window = session.window
    if window is not None and WINDOW.takes(window.state, WindowTrigger.CLOSE):
        ended = min(window.until_ms, look.now_ms)
        look.change(window=turn(window, WindowTrigger.CLOSE, until_ms=ended))
    if any(grant.sealed_key for grant in session.grants):
        look.change(grants=tuple(replace(grant, sealed_key="") for grant in session.grants))
    before = len(look.effects)
    for eui64, device in sorted(session.devices.items()):
        known = look.observed.devices.get(eui64)
        if known is not None:
            _leave(look, device, known)
    if look.observed.holder == session.id:
        look.want(ReleasePremises())
    if len(look.effects) == before:
        look.change(released=True)


def purge(look: Look) -> None:
    """Forget, a day after the end, what else was in the home; after 90 days, what people wrote down."""
    session = look.session
    if not session.released:
        return
    ended_ms = session.transitions[-1].at_ms
    if look.by(ended_ms + PURGE_MS):
        look.session = only(look.session, {key: one for key, one in session.devices.items()
                                           if _has_a_part(look, one)})  # fmt: skip
    if look.by(ended_ms + NOTES_MS):
        look.session = without_notes(look.session)


def _has_a_part(look: Look, device: SessionDevice) -> bool:
    """Tell whether a device was sent what was chosen, and is not just one that was looked at."""
    known = look.observed.devices.get(device.eui64)
    return device.state in TAKING_PART and known is not None and known.lifecycle not in _NO_PART


def copy_records(look: Look) -> None:
    """Hand over what the outbox does not have, in any state: it is durable here until it is durable there."""
    look.session = records.copied(look.session, look.observed.copied)
    waiting = records.uncopied(look.session)
    if waiting:
        look.want(CopyRecords(waiting))


def _leave(look: Look, device: SessionDevice, known: Known) -> None:
    """Take back what was begun with a device that came to nothing."""
    here = known.premises in ("", look.session.premises)
    if here and known.lifecycle in _NO_RELATION:
        look.want(*(DetachDevice(known.thing, gateway) for gateway in sorted(known.attached)))
        look.want(TellLeftOut(known.thing))
    if look.session.state not in CLOSED:
        return
    for program in sorted(device.progress):
        found = look.observed.enrolments.get(pair(known.thing, program))
        if found is None or found.state not in LIVE:
            continue
        if found.state not in _READY and found.state != EnrolmentState.ENDING:
            look.want(EndEnrolment(found.id))
