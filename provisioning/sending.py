"""Steps 12 to 14: attach, register, enrol, wait for both answers, and what is written down of it. Pure.

For each device, in this order: attached, said to be so by its gateway, registered, enrolled, told. Each step
is wanted until it is observed, so none is skipped on a retry, and none is done twice. (spec: han, 5.4)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from programs.states import LIVE, EnrolmentState
from provisioning import han, records
from provisioning.effects import AttachDevice, Enrol, GiveConsent, RegisterDevice, RetryEnrolment, TellProved
from provisioning.look import Look
from provisioning.observed import Enrolled, Known
from provisioning.session import MINUTE_MS, TAKING_PART, Progress, SessionDevice, pair
from provisioning.states import UNDER_WAY, DeviceState, SeenTrigger, SessionState, SessionTrigger
from registry.states import Lifecycle

PROVISION_MS: Final = 10 * MINUTE_MS
"""After which a session no longer waits for what has not answered."""
ENDED: Final = "ENDED"
"""The enrolment was ended while the session waited for it."""
NEVER_RETRIED: Final = -1
_ORDER: Final = (DeviceState.SENT, DeviceState.ACTIVATED, DeviceState.READY)
_REACHED: Final = {
    EnrolmentState.PENDING_CONSENT: DeviceState.SENT,
    EnrolmentState.PROVISIONING: DeviceState.SENT,
    EnrolmentState.ACTIVATED: DeviceState.ACTIVATED,
    EnrolmentState.READY: DeviceState.READY,
    EnrolmentState.SUSPENDED: DeviceState.READY,
}
_STEPS: Final = {
    DeviceState.SENT: SeenTrigger.SENT,
    DeviceState.ACTIVATED: SeenTrigger.ACTIVATE,
    DeviceState.READY: SeenTrigger.BE_READY,
}


@dataclass(frozen=True, slots=True)
class _Failure:
    """An enrolment that failed, and why."""

    code: str


def advance(look: Look) -> None:
    """Do what step 12 wants, and see how far it is."""
    if look.session.state in (SessionState.PROVISIONING, SessionState.PARTIAL):
        for device in _taking_part(look):
            _drive(look, device)
        _conclude(look)
    elif look.session.state is SessionState.ACKED:
        # The records came into the document with the step to ACKED: they are durable by now.
        look.move(SessionTrigger.RECORDS_DURABLE)


def _taking_part(look: Look) -> Iterator[SessionDevice]:
    return (one for _, one in sorted(look.session.devices.items()) if one.state in TAKING_PART)


def _drive(look: Look, device: SessionDevice) -> None:
    if device.state is DeviceState.READY:
        return
    refused = look.observed.refused.get(device.eui64)
    known = look.observed.devices.get(device.eui64)
    if refused is not None:
        if device.state is not DeviceState.FAILED:
            look.step(device, SeenTrigger.FAIL, refused)
    elif known is None or known.lifecycle is not Lifecycle.REGISTERED:
        if device.state is not DeviceState.FAILED:
            _bring_in(look, device, known)
    else:
        _enrol(look, device, known)


def _bring_in(look: Look, device: SessionDevice, known: Known | None) -> None:
    """Attach a device and register it, one after the other."""
    if known is not None and known.lifecycle is Lifecycle.DISCOVERED:
        look.want(TellProved(device.thing))
    missing = [gateway for gateway in device.gateways if known is None or gateway not in known.attached]
    unsaid = [gateway for gateway in device.gateways if not _is_asked_for(look, device, gateway)]
    look.want(*(AttachDevice(device, gateway) for gateway in sorted({*missing, *unsaid})))
    attached = not device.gateways or any(_is_attached(look, device, one) for one in device.gateways)
    if attached and known is not None and known.lifecycle is Lifecycle.AUTHENTICATED:
        look.want(RegisterDevice(device))


def _is_asked_for(look: Look, device: SessionDevice, gateway: str) -> bool:
    route = look.observed.route(gateway)
    wanted = None if route is None else route.han.wanted.get(device.thing)
    return wanted is not None and wanted.state == han.ON


def _is_attached(look: Look, device: SessionDevice, gateway: str) -> bool:
    """Tell whether a gateway says that it speaks for the device, as it was asked to."""
    route = look.observed.route(gateway)
    if route is None or not _is_asked_for(look, device, gateway):
        return False
    said = route.han.attached.get(device.thing)
    return said is not None and said.state == han.ON and said.eui64 in ("", device.eui64)


def _enrol(look: Look, device: SessionDevice, known: Known) -> None:
    """Make the enrolments of a registered device, and follow them."""
    found = {
        program: one
        for program in sorted(device.programs)
        if (one := look.observed.enrolments.get(pair(known.thing, program))) is not None
        # One that had ended before is no part of this session.
        and (one.state in LIVE or program in device.progress)
    }
    progress = {program: Progress(one.state, one.rev, one.code) for program, one in found.items()}
    if progress != device.progress:
        device = replace(device, progress=progress)
        look.put(device)
    for program in sorted(device.programs.keys() - found.keys()):
        _make(look, device, known, program)
    results = [_result(look, device, program, one) for program, one in found.items()]
    failures = [one.code for one in results if isinstance(one, _Failure)]
    if failures:
        _fail(look, device, failures[0])
    elif None not in results and len(found) == len(device.programs):
        reached = [one for one in results if isinstance(one, DeviceState)]
        _reach(look, device, min(reached, key=_ORDER.index, default=DeviceState.READY))


def _result(
    look: Look, device: SessionDevice, program: str, found: Enrolled
) -> DeviceState | _Failure | None:
    """Return how far an enrolment brings its device; None while it has to be tried again first."""
    if found.state in (EnrolmentState.ENDING, EnrolmentState.ENDED):
        return _Failure(ENDED)
    if found.state != EnrolmentState.PROVISION_FAILED:
        return _REACHED[EnrolmentState(found.state)]
    if found.rev <= device.retried.get(program, NEVER_RETRIED):
        look.want(RetryEnrolment(found.id))
        return None
    return _Failure(found.code or EnrolmentState.PROVISION_FAILED)


def _make(look: Look, device: SessionDevice, known: Known, program: str) -> None:
    """Want an enrolment, after its consent is on record: none ever stands without."""
    consent = look.session.consents.get(pair(device.eui64, program))
    if consent is not None and pair(known.thing, program) not in look.observed.consents:
        look.want(GiveConsent(known.thing, consent))
    else:
        look.want(Enrol(device, program))


def _fail(look: Look, device: SessionDevice, code: str) -> None:
    if device.state is not DeviceState.FAILED:
        look.step(device, SeenTrigger.FAIL, code)
    elif device.code != code:
        look.put(replace(device, code=code))


def _reach(look: Look, device: SessionDevice, goal: DeviceState) -> None:
    """Take a device as far as its enrolments are, one step after the other."""
    if device.state is DeviceState.LATE:
        if goal is not DeviceState.SENT:
            look.step(device, _STEPS[goal])
        return
    if device.state is DeviceState.FAILED:
        device = look.step(device, SeenTrigger.SENT)
    begin = _ORDER.index(device.state) + 1 if device.state in _ORDER else 0
    for state in _ORDER[begin : _ORDER.index(goal) + 1]:
        device = look.step(device, _STEPS[state])


def _conclude(look: Look) -> None:
    """See whether all is done, or as far as it goes for now."""
    waits = look.session.state is SessionState.PROVISIONING
    if waits and look.by(look.session.provision_until_ms):
        for device in _taking_part(look):
            if device.state in UNDER_WAY:
                look.step(device, SeenTrigger.LIMIT)
    states = {device.state for device in _taking_part(look)}
    if states <= {DeviceState.READY}:
        look.change(records=(*look.session.records, *records.of_ready(look.session, look.now_ms)))
        look.move(SessionTrigger.ALL_READY)
    elif waits and not states & set(UNDER_WAY):
        look.move(SessionTrigger.SOME_NOT_READY, _who_is_not(look))


def _who_is_not(look: Look) -> str:
    late = sum(device.state is DeviceState.LATE for device in _taking_part(look))
    failed = sum(device.state is DeviceState.FAILED for device in _taking_part(look))
    return f"{late} late, {failed} failed"
